"""`study`: which runs of everything, from ERM on, are made to compare the methods over."""

from collections.abc import Iterable, Mapping
from copy import deepcopy
from typing import Annotated, Any, ClassVar

from pydantic import AfterValidator, Field, StringConstraints

from pipeline.params.block import Block, Seed

RUNS = ("study.seeds", "study.variants")  # which runs there are
SEEDS = ("train.seed", "saliency.seed", "features.seed")  # what the seed of a run takes the place of
# What a run has of its own, whatever params.yaml says: no run keeps pictures.
OF_RUN = (*SEEDS, "saliency.previews")
MOST_THREADS = 1024
VariantName = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9][A-Za-z0-9_-]{0,39}$")]


def _distinct(seeds: list[int]) -> list[int]:
    if len(set(seeds)) < len(seeds):
        raise ValueError("should have each seed once")
    return seeds


class StudyParams(Block):
    """The runs: each seed with each variant."""

    block: ClassVar[str] = "study"

    seeds: Annotated[list[Seed], Field(min_length=1, max_length=1000), AfterValidator(_distinct)] = Field(
        description="a run for each; it takes the place of " + ", ".join(SEEDS)
    )
    variants: Annotated[dict[VariantName, dict[str, Any]], Field(min_length=1)] = Field(
        description="the variants by name: the parameters in which each differs from the rest of this file, "
        "such as {saliency.top_k: 0.2}; {} for none"
    )
    threads: Annotated[int, Field(ge=1, le=MOST_THREADS)] = Field(
        description="CPU threads of each run; more runs side by side are faster than more threads"
    )


def of_every_run(blocks: Iterable[Block]) -> dict[str, dict[str, Any]]:
    """The JSON-able values of blocks that all runs of a variant share.

    So not those of a machine, those of a run alone (OF_RUN), and which runs there are (RUNS).
    """
    found: dict[str, dict[str, Any]] = {}
    for block in blocks:
        values = block.model_dump(mode="json", exclude=block.of_machine).items()
        own = {key: value for key, value in values if f"{block.block}.{key}" not in (*OF_RUN, *RUNS)}
        found.setdefault(block.block, {}).update(own)
    return found


def with_changes(blocks: Iterable[Block], changes: Mapping[str, Any]) -> list[Block]:
    """Blocks with the changes of a variant, by dotted keys. Those of other keys are left out."""
    found = []
    for block in blocks:
        values = {block.block: block.model_dump()}
        for dotted, value in changes.items():
            *names, last = dotted.split(".")
            if names and names[0] == block.block and [*names[1:], last][0] in type(block).model_fields:
                put(values, dotted, value)
        found.append(type(block).model_validate(values[block.block]))
    return found


def put(values: dict[str, Any], dotted: str, value: object) -> None:
    """Set a value by its dotted key.

    Raises:
        KeyError: names a block that is not there.
    """
    *blocks, key = dotted.split(".")
    for name in blocks:
        if not isinstance(values.get(name), dict):
            raise KeyError(name)
        values = values[name]
    values[key] = deepcopy(value)
