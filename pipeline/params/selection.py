"""`selection`: by what models are chosen on the validation split."""

from typing import ClassVar, Literal

from pydantic import Field

from pipeline.params.block import Block

# What can choose, once it is known whether the attributes of the validation split are.
Criterion = Literal["groups", "soft_errors", "error_groups", "eiil", "worst_class"]
CriterionName = Literal["auto", Criterion]


class SelectionParams(Block):
    """The criterion of every choice: epochs, heads, and settings; of α and β if `sweep.pick` says so."""

    block: ClassVar[str] = "selection"

    criterion: CriterionName = Field(
        description="whose worst accuracy on validation chooses; groups: the known groups; soft_errors: "
        "classes, in which images that ERM gets wrong weigh more; error_groups: classes × ERM right or "
        "wrong; eiil: classes × environments by EIIL; worst_class: classes; auto: groups if all are known, "
        "else soft_errors"
    )
