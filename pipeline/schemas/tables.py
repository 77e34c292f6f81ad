"""What is in each metrics.json and in the CSV files beside it, and in what artefacts state of themselves.

The values are checked and used as they are: a file may come from anyone, and what is not as declared here is
refused before it is shown.
"""

from collections.abc import Callable, Mapping, Sequence
from functools import cache
from typing import Annotated, Any, Literal

from pydantic import (
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
from pipeline.schemas.scores import (
    ABSENT,
    Checked,
    Count,
    Coverage,
    ErmScores,
    Labels,
    LeftOut,
    Number,
    Points,
    Row,
    Scores,
    Share,
    ShareOrNaN,
    Spread,
    Text,
    Weight,
    kind_of,
    require_alike,
)
from pipeline.schemas.study_tables import Run, Study
from pipeline.setting import Interpolation, Range, ToStored


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


class Convergence(Checked):
    """ERM's head and the one that is trained on (`results.convergence`)."""

    own: bool
    rows: Positive
    loss: Weight
    lowest: Weight
    images: Positive
    right: Count
    later: Count
    p: Share


class Baselines(Checked):
    """metrics.json of baselines."""

    methods: Annotated[dict[MethodName, LastLayerRow], Field(min_length=1)]
    left_out: dict[MethodName, LeftOut]
    convergence: Convergence | None

    @model_validator(mode="after")
    def _alike(self) -> "Baselines":
        require_alike([row.test for row in self.methods.values()])
        return self


class SweepScores(Checked):
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


class OfMasks(Checked):
    """A kind of mask in the ablation."""

    name: Text
    alpha: Weight
    beta: Weight
    l2: Weight = ABSENT
    seeds: Positive
    test: Scores


class Difference(Checked):
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


class Ablation(Checked):
    """metrics.json of ablation."""

    pixels: Count
    settings: Text
    masks: Annotated[list[OfMasks], Field(min_length=1, max_length=100)]
    differences: Annotated[list[Difference], Field(min_length=1, max_length=100)]

    @model_validator(mode="after")
    def _alike(self) -> "Ablation":
        require_alike([row.test for row in self.masks])
        if len({"l2" in row.model_fields_set for row in self.masks}) > 1:
            raise ValueError("masks: only some have l2")
        return self


class Setting(Checked):
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


class Diagnosis(Checked):
    """The diagnosis, of which the rest is not checked."""

    convergence: Convergence | None = ABSENT


class Compared(Checked):
    """MaC minus another method (`results.verdict.Difference`)."""

    title: Text
    mean: Points
    low: Points
    high: Points
    mean_accuracy: Points


class Metrics(Checked):
    """metrics.json of evaluate."""

    erm: dict[Literal["val", "test"], ErmScores]
    mac: dict[Literal["val", "test"], Scores]
    count: dict[Literal["val", "test"], dict[str, Count]]
    seeds: Positive
    setting: Setting
    diagnosis: Diagnosis = ABSENT
    compared: dict[MethodName, Compared]
    best_other: MethodName | None

    @model_validator(mode="after")
    def _alike(self) -> "Metrics":
        if lacking := {"erm", self.best_other or "erm"} - self.compared.keys():
            raise ValueError(f"compared: lacks {min(lacking)}")
        for held_out in (self.erm, self.mac, self.count):
            if "test" not in held_out:
                raise ValueError("test is missing")
        if kind_of(self.erm["test"]) != kind_of(self.mac["test"]):
            raise ValueError("erm and mac have other metrics")
        if not kind_of(self.erm["test"])[1] <= set(self.count["test"]):
            raise ValueError("count: lacks a group")
        return self


class OfErm(Checked):
    """metrics.json of erm, which is only shown."""

    epoch: Count = ABSENT
    best_epoch: Count = ABSENT
    criterion: Criterion = ABSENT
    val: dict[Text, Share | dict[Text, Share]] = ABSENT


class OfRetrained(Checked):
    """metrics.json of retrained, which is only shown."""

    alpha: Weight | None = None
    beta: Weight | None = None
    l2: Weight | None = None
    chosen_by: Literal["params", "sweep", "sweep_l2"] = ABSENT
    head_seed: Count = ABSENT
    criterion: Criterion = ABSENT
    epoch: list[Count] = ABSENT
    val: dict[Text, Spread | dict[Text, Spread]] = ABSENT


class Timing(Checked):
    """The last run of a stage."""

    seconds: Weight
    device: Text
    cores: Count


# A cell of a CSV file: text, such as 0.5; an empty one is None.
def _cell(value: Any) -> Any:
    return None if value == "" else value


class _Cells(BaseModel):
    model_config = ConfigDict(extra="ignore")


class _OfSetting(_Cells):
    alpha: Annotated[Weight | None, BeforeValidator(_cell)]
    beta: Annotated[Weight | None, BeforeValidator(_cell)]
    l2: Annotated[Weight | None, BeforeValidator(_cell)] = None


class GroupsRow(_OfSetting):
    """A row of sweep/groups.csv. The other columns are the accuracies of groups."""

    model_config = ConfigDict(extra="allow")
    __pydantic_extra__: dict[str, ShareOrNaN]


class SweepRow(_OfSetting):
    """A row of sweep/mean.csv."""

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
    ("sweep", "groups.csv"): GroupsRow,
    ("erm", "history.csv"): EpochRow,
    ("retrained", "history.csv"): SeedRow,
}


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
    if (kind, name) == ("sweep", "mean.csv"):
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
