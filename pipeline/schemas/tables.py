"""What is in each metrics.json and in the CSV files beside it, and in what artefacts state of themselves.

The values are checked and used as they are: a file may come from anyone, and what is not as declared here is
refused before it is shown.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from functools import cache
from typing import Annotated, Any, Generic, Literal, TypeVar

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    TypeAdapter,
    ValidationError,
    model_validator,
)

from pipeline.params.baselines import MethodName
from pipeline.params.block import Positive
from pipeline.params.cores import CoreParams
from pipeline.params.maps import MapParams
from pipeline.params.originals import OriginalsParams
from pipeline.params.selection import Criterion
from pipeline.params.train import TrainParams
from pipeline.setting import Interpolation, Range, ToStored

_ABSENT: Any = None  # of a key that may be absent, and is not None where it is there

Text = Annotated[str, Field(max_length=10_000)]
Count = Annotated[int, Field(ge=0, le=2**53)]
Number = Annotated[float, Field(ge=-1e12, le=1e12)]
Points = Annotated[float, Field(ge=-1, le=1)]
Weight = Annotated[float, Field(ge=0, le=1e12)]
Labels = Literal["none", "validation, to choose", "validation, to train", "training, to train"]


def _share(value: float) -> float:
    if not -1e-6 <= value <= 1 + 1e-6:
        raise ValueError("should be in [0, 1]")
    return value


def _share_or_nan(value: float) -> float:
    return value if math.isnan(value) else _share(value)


Share = Annotated[float, AfterValidator(_share)]
ShareOrNaN = Annotated[float, AfterValidator(_share_or_nan)]


class _Checked(BaseModel):
    """Values with these keys, and perhaps more."""

    model_config = ConfigDict(strict=True)


class Spread(_Checked):
    """A metric over several heads."""

    mean: ShareOrNaN
    std: ShareOrNaN


class Interval(_Checked):
    """The ends of an interval."""

    low: Share
    high: Share


Value = TypeVar("Value")
Mean = TypeVar("Mean")


class _Scores(_Checked, Generic[Value, Mean]):
    """The metrics of heads on a split, either by groups or by classes. What is None is absent."""

    raw_mean: Mean
    robust_coverage: Value
    balanced_accuracy: Value
    ece: Value
    adjusted_mean: Mean = _ABSENT
    auroc: Value = _ABSENT
    worst_group: Value = _ABSENT
    worst_class: Value = _ABSENT
    groups: Annotated[dict[str, Value], Field(min_length=1)] = _ABSENT
    classes: Annotated[dict[str, Value], Field(min_length=1)] = _ABSENT
    worst_group_interval: Interval = _ABSENT
    worst_class_interval: Interval = _ABSENT

    @model_validator(mode="after")
    def _complete(self) -> Any:
        of = "group" if self._has("worst_group") else "class"
        many = "groups" if of == "group" else "classes"
        for key in (f"worst_{of}", many, f"worst_{of}_interval"):
            if not self._has(key):
                raise ValueError(f"{key} is missing")
        return self

    def _has(self, key: str) -> bool:
        return key in self.model_fields_set


class Scores(_Scores[Spread, Spread]):
    """The metrics of several heads (`results.scores.scores`)."""


class ErmScores(_Scores[Share, ShareOrNaN]):
    """The metrics of ERM's head: numbers."""


def _kind(scores: Scores | ErmScores) -> tuple[set[str], set[str]]:
    """The keys of the metrics, and the names of the groups or classes."""
    names = scores.groups if "groups" in scores.model_fields_set else scores.classes
    return scores.model_fields_set, set(names)


class Row(_Checked):
    """A method in the comparison."""

    title: Text
    source: Text
    labels: Labels
    sign: Text
    chosen: dict[str, Any]
    note: Text
    seeds: Positive
    val: Scores
    test: Scores


class LastLayerRow(Row):
    """A method of the last layer."""

    head_seed: Count

    @model_validator(mode="after")
    def _has_this_head(self) -> "LastLayerRow":
        if self.head_seed >= self.seeds:
            raise ValueError("head_seed: there is no such head")
        for value in self.chosen.values():
            if isinstance(value, list) and len(value) not in (0, self.seeds):
                raise ValueError("chosen: has not one value for each head")
        return self


class LeftOut(_Checked):
    """A method that cannot be fitted."""

    title: Text
    reason: Text


class Convergence(_Checked):
    """ERM's head and the one that is trained on (`results.convergence`)."""

    own: bool
    rows: Positive
    loss: Weight
    lowest: Weight
    images: Positive
    right: Count
    later: Count
    p: Share


class Baselines(_Checked):
    """metrics.json of baselines."""

    methods: Annotated[dict[MethodName, LastLayerRow], Field(min_length=1)]
    left_out: dict[MethodName, LeftOut]
    convergence: Convergence | None

    @model_validator(mode="after")
    def _alike(self) -> "Baselines":
        _require_alike([row.test for row in self.methods.values()])
        return self


class SweepScores(_Checked):
    """The accuracies of a setting."""

    val_worst: Share
    val_mean: ShareOrNaN
    test_worst: Share
    test_mean: ShareOrNaN


class Sweep(SweepScores):
    """metrics.json of sweep."""

    alpha: Weight | None
    beta: Weight | None
    l2: Weight | None = None
    picked: Literal["erm", "setting"]
    picked_by: Literal["criterion", "diagnosis"] = "criterion"
    criterion: Criterion
    reason: Text
    erm: SweepScores
    plain: SweepScores

    @model_validator(mode="after")
    def _one_setting(self) -> "Sweep":
        if {self.alpha is None, self.beta is None, self.picked == "erm"} not in ({True}, {False}):
            raise ValueError("alpha, beta and picked contradict each other")
        return self


class OfMasks(_Checked):
    """A kind of mask in the ablation."""

    name: Text
    alpha: Weight
    beta: Weight
    l2: Weight = _ABSENT
    seeds: Positive
    test: Scores


class Difference(_Checked):
    """Two kinds of mask, compared."""

    name: Text
    mean: Points
    low: Number
    high: Number

    @model_validator(mode="after")
    def _around(self) -> "Difference":
        if not self.low <= self.mean <= self.high:
            raise ValueError("low, mean and high are not in this order")
        return self


class Ablation(_Checked):
    """metrics.json of ablation."""

    pixels: Count
    settings: Text
    masks: Annotated[list[OfMasks], Field(min_length=1, max_length=100)]
    differences: Annotated[list[Difference], Field(min_length=1, max_length=100)]

    @model_validator(mode="after")
    def _alike(self) -> "Ablation":
        _require_alike([row.test for row in self.masks])
        if len({"l2" in row.model_fields_set for row in self.masks}) > 1:
            raise ValueError("masks: only some have l2")
        return self


class Setting(_Checked):
    """What MaC's heads were fitted with."""

    alpha: Weight | None
    beta: Weight | None
    l2: Weight | None = None
    chosen_by: Literal["params", "sweep", "sweep_l2"]

    @model_validator(mode="after")
    def _one_setting(self) -> "Setting":
        if (self.alpha is None) != (self.beta is None):
            raise ValueError("alpha and beta contradict each other")
        return self


class Diagnosis(_Checked):
    """The diagnosis, of which the rest is not checked."""

    convergence: Convergence | None = _ABSENT


class Compared(_Checked):
    """MaC minus another method (`results.verdict.Difference`)."""

    title: Text
    mean: Points
    low: Points
    high: Points
    mean_accuracy: Points


class Metrics(_Checked):
    """metrics.json of evaluate."""

    erm: dict[Literal["val", "test"], ErmScores]
    mac: dict[Literal["val", "test"], Scores]
    count: dict[Literal["val", "test"], dict[str, Count]]
    seeds: Positive
    setting: Setting
    diagnosis: Diagnosis = _ABSENT
    compared: dict[MethodName, Compared]
    best_other: MethodName | None

    @model_validator(mode="after")
    def _alike(self) -> "Metrics":
        if lacking := {"erm", self.best_other or "erm"} - self.compared.keys():
            raise ValueError(f"compared: lacks {min(lacking)}")
        for held_out in (self.erm, self.mac, self.count):
            if "test" not in held_out:
                raise ValueError("test is missing")
        if _kind(self.erm["test"]) != _kind(self.mac["test"]):
            raise ValueError("erm and mac have other metrics")
        if not _kind(self.erm["test"])[1] <= set(self.count["test"]):
            raise ValueError("count: lacks a group")
        return self


class OfErm(_Checked):
    """metrics.json of erm, which is only shown."""

    epoch: Count = _ABSENT
    best_epoch: Count = _ABSENT
    criterion: Criterion = _ABSENT
    val: dict[Text, Share | dict[Text, Share]] = _ABSENT


class OfRetrained(_Checked):
    """metrics.json of retrained, which is only shown."""

    alpha: Weight | None = None
    beta: Weight | None = None
    l2: Weight | None = None
    chosen_by: Literal["params", "sweep", "sweep_l2"] = _ABSENT
    head_seed: Count = _ABSENT
    criterion: Criterion = _ABSENT
    epoch: list[Count] = _ABSENT
    val: dict[Text, Spread | dict[Text, Spread]] = _ABSENT


class Timing(_Checked):
    """The last run of a stage."""

    seconds: Weight
    device: Text
    cores: Count


class RunDiagnosis(_Checked):
    """What the diagnosis says of a run, in a word each; `stopped_early` is of its ERM."""

    verdict: Literal["holds", "doubtful", "fails", "unknown"]
    dependence: Literal["depends", "unclear", "unknown"]
    stopped_early: bool


class Chosen(_Checked):
    """`results.choice.Choice.values`: None is ERM as it is."""

    alpha: Weight | None
    beta: Weight | None
    l2: Weight | None = None
    chosen_by: Literal["params", "sweep", "sweep_l2"]


class MacSetting(Chosen):
    """What MaC was in a run."""

    criterion: Criterion


class Run(_Checked):
    """metrics.json of a run of the study."""

    variant: Text
    changes: dict[Text, Any]
    seed: Annotated[int, Field(ge=0, lt=2**63)]
    kind: Literal["group", "class"]
    groups: Annotated[dict[Text, Count], Field(min_length=1)]
    methods: Annotated[dict[Text, Row], Field(min_length=2)]
    left_out: dict[Text, LeftOut]
    criterion: Criterion
    coverage: list["Coverage"]
    diagnosis: RunDiagnosis

    @model_validator(mode="after")
    def _complete(self) -> "Run":
        if not {"erm", "mac"} <= self.methods.keys():
            raise ValueError("methods: lacks ERM or MaC")
        Chosen.model_validate(self.methods["mac"].chosen)
        _require_alike([row.test for row in self.methods.values()])
        return self


class OverRuns(_Checked):
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


class OverStudy(_Checked):
    """A method over the runs of a variant."""

    title: Text
    labels: Labels
    sign: Text
    heads: list[Positive]
    raw_mean: OverRuns
    worst_group: WorstOverRuns = _ABSENT
    worst_class: WorstOverRuns = _ABSENT


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


class MeanCoverage(_Checked):
    """How much the masks cover."""

    mask_fg: Share
    mask_bg: Share


class LeftOutOfSome(_Checked):
    """A method that not all runs have."""

    title: Text
    runs: Count
    reasons: list[Text]


class Variant(_Checked):
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


class Study(_Checked):
    """study.json."""

    variants: Annotated[dict[Text, Variant], Field(min_length=1)]


def _require_alike(rows: Sequence[Scores]) -> None:
    """Raise a ValueError if some rows have other metrics than the first."""
    if any(_kind(row) != _kind(rows[0]) for row in rows):
        raise ValueError("not all have the same metrics")


# A cell of a CSV file: text, such as 0.5; an empty one is None.
def _cell(value: Any) -> Any:
    return None if value == "" else value


class _Cells(BaseModel):
    model_config = ConfigDict(extra="allow")


class SweepRow(_Cells):
    """A row of sweep/mean.csv."""

    alpha: Annotated[Weight | None, BeforeValidator(_cell)]
    beta: Annotated[Weight | None, BeforeValidator(_cell)]
    l2: Annotated[Weight | None, BeforeValidator(_cell)] = None
    val_worst: Share
    val_mean: ShareOrNaN
    test_worst: Share
    test_mean: ShareOrNaN
    picked: Annotated[int, Field(ge=0, le=1)]


class EpochRow(_Cells):
    """A row of erm/history.csv."""

    epoch: Annotated[int, Field(ge=0, le=10**9)]
    val_worst: Share
    val_mean: ShareOrNaN


class SeedRow(EpochRow):
    """A row of retrained/history.csv."""

    seed: Annotated[int, Field(ge=0, le=2**63)]


# metrics.json of each kind of artefact; `metrics` is the file of evaluate.
TABLES: dict[str, type[BaseModel]] = {
    "baselines": Baselines,
    "sweep": Sweep,
    "ablation": Ablation,
    "jtt": Row,
    "masktune": Row,
    "erm": OfErm,
    "retrained": OfRetrained,
    "metrics": Metrics,
    "timings": Timing,
    "run": Run,
    "study": Study,
}
# The CSV files that are read, by kind of artefact and name.
ROWS: dict[tuple[str, str], type[_Cells]] = {
    ("sweep", "mean.csv"): SweepRow,
    ("erm", "history.csv"): EpochRow,
    ("retrained", "history.csv"): SeedRow,
}


class Coverage(_Checked):
    """A row of the attribute `coverage` of examples.h5."""

    group: Text
    n: Annotated[int, Field(ge=1, le=2**53)]
    map_fg: Number
    map_bg: Number
    mask_fg: Share
    mask_bg: Share


def _declared(prefix: str, block: type[BaseModel], *keys: str) -> dict[str, Any]:
    """The types of some parameters, with their limits."""
    fields = {key: block.model_fields[key] for key in keys}
    return {f"{prefix}{key}": Annotated[field.annotation, field] for key, field in fields.items()}


# What is used of the parameters that artefacts state: their types by kind of artefact and key.
STATED: dict[str, dict[str, Any]] = {
    "images": {"name": Text, "to_stored": ToStored, "interpolation": Interpolation, "range": Range},
    "erm": {
        "selection.criterion": Criterion,
        **_declared("train.", TrainParams, "select", "hold_out", "seed", "weight_decay"),
    },
    "maps": _declared("", MapParams, "method", "precision"),
    "originals": _declared("", OriginalsParams, "precision"),
    "masks": _declared("", MapParams, "method", "flip") | _declared("", CoreParams, "size", "side", "top_k"),
    "retrained": {
        "alpha": Weight | None,
        "beta": Weight | None,
        "l2": Weight | None,
        "chosen_by": Literal["params", "sweep", "sweep_l2"],
        "reason": Text,
        "labels": Labels,
        "solver": Literal["adam", "lbfgs"],
        "criterion": Criterion,
    },
    "examples": {"coverage": list[Coverage]},
}


def problem(values: Mapping[str, Any], kind: str) -> str:
    """What is wrong with the values of a metrics.json; empty if nothing is, or if it is not declared."""
    return _problem(TABLES[kind].model_validate, values) if kind in TABLES else ""


def shown(values: Mapping[str, Any], kind: str) -> dict[str, Any]:
    """What is declared of the values of a metrics.json that has no problem."""
    return TABLES[kind].model_validate(values, strict=True).model_dump(exclude_unset=True)


def problem_of_stated(value: object, kind: str, key: str) -> str:
    """What is wrong with a value that an artefact states; empty if nothing is, or if it is not declared."""
    return _problem(_adapter(kind, key).validate_python, value) if key in STATED.get(kind, {}) else ""


def rows_of(cells: Sequence[Mapping[str, str]], kind: str, name: str) -> list[dict[str, Any]]:
    """The rows of a CSV file, with numbers where numbers are.

    Raises:
        ValueError: one is not as declared.
    """
    if not cells:
        raise ValueError("has no rows")
    rows = []
    for number, row in enumerate(cells, 2):
        try:
            rows.append(ROWS[kind, name].model_validate(row, strict=False).model_dump())
        except ValidationError as error:
            raise ValueError(f"line {number}: {_said(error)}") from None
    if kind == "sweep":
        erm = [row for row in rows if row["alpha"] is None and row["beta"] is None]
        half = [row for row in rows if (row["alpha"] is None) != (row["beta"] is None)]
        if len(erm) != 1 or half or len(rows) < 2 or sum(row["picked"] for row in rows) != 1:
            raise ValueError("should have one row of ERM, others, and one row that is picked")
    return rows


@cache
def _adapter(kind: str, key: str) -> TypeAdapter[Any]:
    return TypeAdapter(STATED[kind][key])


def _problem(check: Callable[..., object], value: object) -> str:
    try:
        check(value, strict=True)
    except ValidationError as error:
        return _said(error)
    return ""


def _said(error: ValidationError) -> str:
    first = error.errors()[0]
    place = ".".join(str(name) for name in first["loc"])
    if first["type"] == "missing":
        return f"does not state {place}"
    return f"{place}: {first['msg']}" if place else str(first["msg"])
