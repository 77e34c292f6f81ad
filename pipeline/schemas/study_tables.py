"""What is in metrics.json of a run of the study, and in study.json."""

from typing import Annotated, Any, Literal

from pydantic import Field, model_validator

from pipeline.params.block import Positive
from pipeline.params.selection import Criterion
from pipeline.schemas.scores import (
    ABSENT,
    Checked,
    Count,
    Coverage,
    Labels,
    LeftOut,
    Number,
    Row,
    Share,
    Text,
    Weight,
    require_alike,
)


class RunDiagnosis(Checked):
    """What the diagnosis says of a run, in a word each; `stopped_early` is of its ERM."""

    verdict: Literal["holds", "doubtful", "fails", "unknown"]
    dependence: Literal["depends", "unclear", "unknown"]
    stopped_early: bool


class Chosen(Checked):
    """`results.choice.Choice.values`: None is ERM as it is."""

    alpha: Weight | None
    beta: Weight | None
    l2: Weight | None = None
    chosen_by: Literal["params", "sweep", "sweep_l2"]


class MacSetting(Chosen):
    """What MaC was in a run."""

    criterion: Criterion


class Run(Checked):
    """metrics.json of a run of the study."""

    variant: Text
    changes: dict[Text, Any]
    seed: Annotated[int, Field(ge=0, lt=2**63)]
    kind: Literal["group", "class"]
    groups: Annotated[dict[Text, Count], Field(min_length=1)]
    methods: Annotated[dict[Text, Row], Field(min_length=2)]
    left_out: dict[Text, LeftOut]
    criterion: Criterion
    coverage: list[Coverage]
    diagnosis: RunDiagnosis

    @model_validator(mode="after")
    def _complete(self) -> "Run":
        if not {"erm", "mac"} <= self.methods.keys():
            raise ValueError("methods: lacks ERM or MaC")
        Chosen.model_validate(self.methods["mac"].chosen)
        require_alike([row.test for row in self.methods.values()])
        return self


class OverRuns(Checked):
    """A number in several runs; `std` is None for one run."""

    mean: Number
    std: Weight | None
    lowest: Number
    highest: Number


class WorstOverRuns(OverRuns):
    """The worst accuracy of a method."""

    low: Share
    high: Share
    runs: Annotated[list[Share], Field(min_length=1)]


class OverStudy(Checked):
    """A method over the runs of a variant."""

    title: Text
    labels: Labels
    sign: Text
    heads: list[Positive]
    raw_mean: OverRuns
    worst_group: WorstOverRuns = ABSENT
    worst_class: WorstOverRuns = ABSENT


Chance = Annotated[float, Field(ge=0, le=1)]


class PairOverRuns(OverRuns):
    """Two methods, compared over the runs. None: it cannot be said of these runs."""

    of: Text
    than: Text
    mean_accuracy: Number
    low: Number
    high: Number
    t_low: Number | None
    t_high: Number | None
    t_p: Chance | None
    t_p_holm: Chance | None
    wilcoxon_p: Chance | None
    wilcoxon_p_holm: Chance | None
    d_z: Number | None
    g_z: Number | None
    runs_needed: Positive | None


class MeanCoverage(Checked):
    """How much the masks cover."""

    mask_fg: Share
    mask_bg: Share


class LeftOutOfSome(Checked):
    """A method that not all runs have."""

    title: Text
    runs: Count
    reasons: list[Text]


class Variant(Checked):
    """A variant of the study."""

    changes: dict[Text, Any]
    seeds: Annotated[list[Count], Field(min_length=1)]
    worst: Literal["worst_group", "worst_class"]
    images: Count
    methods: Annotated[dict[Text, OverStudy], Field(min_length=2)]
    differences: Annotated[list[PairOverRuns], Field(min_length=1)]
    settings: Annotated[list[MacSetting], Field(min_length=1)]
    not_in_all: dict[Text, LeftOutOfSome]
    verdict: Text
    diagnoses: list[RunDiagnosis]
    coverage: MeanCoverage | None

    @model_validator(mode="after")
    def _agrees(self) -> "Variant":
        for method in self.methods.values():
            found = method.worst_group if self.worst == "worst_group" else method.worst_class
            if found is None or len(found.runs) != len(self.seeds):
                raise ValueError(f"methods: lacks {self.worst} of every run")
        if any(not {row.of, row.than} <= self.methods.keys() for row in self.differences):
            raise ValueError("differences: of what is not in methods")
        return self


class Study(Checked):
    """study.json."""

    variants: Annotated[dict[Text, Variant], Field(min_length=1)]
