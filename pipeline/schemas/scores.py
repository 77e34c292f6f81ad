"""Types of the values that metrics.json files have in common: numbers with their limits, and scores."""

import math
from collections.abc import Sequence
from typing import Annotated, Any, Generic, Literal, TypeVar

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, model_validator

from pipeline.params.block import Positive

ABSENT: Any = None  # of a key that may be absent, and is not None where it is there
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


class Checked(BaseModel):
    """Values with these keys, and perhaps more."""

    model_config = ConfigDict(strict=True)


class Spread(Checked):
    """A metric over several heads."""

    mean: ShareOrNaN
    std: ShareOrNaN


class Interval(Checked):
    """The ends of an interval."""

    low: Share
    high: Share


Value = TypeVar("Value")
Mean = TypeVar("Mean")


class _Scores(Checked, Generic[Value, Mean]):
    """The metrics of heads on a split, either by groups or by classes. What is None is absent."""

    raw_mean: Mean
    robust_coverage: Value
    balanced_accuracy: Value
    ece: Value
    adjusted_mean: Mean = ABSENT
    auroc: Value = ABSENT
    worst_group: Value = ABSENT
    worst_class: Value = ABSENT
    groups: Annotated[dict[str, Value], Field(min_length=1)] = ABSENT
    classes: Annotated[dict[str, Value], Field(min_length=1)] = ABSENT
    worst_group_interval: Interval = ABSENT
    worst_class_interval: Interval = ABSENT

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


def kind_of(scores: Scores | ErmScores) -> tuple[set[str], set[str]]:
    """The keys of the metrics, and the names of the groups or classes."""
    names = scores.groups if "groups" in scores.model_fields_set else scores.classes
    return scores.model_fields_set, set(names)


class Row(Checked):
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


class LeftOut(Checked):
    """A method that cannot be fitted."""

    title: Text
    reason: Text


def require_alike(rows: Sequence[Scores]) -> None:
    """Raise a ValueError if some rows have other metrics than the first."""
    if any(kind_of(row) != kind_of(rows[0]) for row in rows):
        raise ValueError("not all have the same metrics")


class Coverage(Checked):
    """A row of the attribute `coverage` of examples.h5."""

    group: Text
    n: Annotated[int, Field(ge=1, le=2**53)]
    map_fg: Number
    map_bg: Number
    mask_fg: Share
    mask_bg: Share
