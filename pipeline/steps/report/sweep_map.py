"""The sweep as maps of α and β. Each setting has its accuracy in every test group."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from typing import Any

import numpy as np

from pipeline.results.choice import OF_GROUP, Choice
from pipeline.steps.report import figures
from pipeline.steps.report.figures import Spoken

Row = Mapping[str, Any]
Cell = Row | None  # None is a pair that was not tried

_SCORES = ("val_worst", "val_mean", "test_worst", "test_mean")


@dataclass(frozen=True)
class SweepMap:
    """What the page needs for the maps and for the bars of a setting.

    Attributes:
        alphas, betas: those that were tried.
        cells: (alphas, betas), the highest α first; the row of each pair.
        erm: the row of ERM as it is.
        picked: the row of what the sweep picked.
        ours: the row of the setting that MaC has; None if the sweep did not try it.
        shown: the title of each map, by the column that it shows.
        bars: what is drawn of a setting: column and name. Of many groups, those that are the worst of any
            setting, or nearest to it.
        left_out: the number of groups that are not drawn.
        penalty: ", l2 = …" if the sweep tried several.
        alt: what the maps show, in words.
    """

    alphas: Sequence[float]
    betas: Sequence[float]
    cells: Sequence[Sequence[Cell]]
    erm: Row
    picked: Row
    ours: Row | None
    shown: Mapping[str, str]
    bars: Mapping[str, str]
    left_out: int
    penalty: str
    alt: str

    @property
    def first(self) -> Row:
        """The setting whose bars are seen first: that of MaC if the sweep tried it."""
        return self.ours or self.picked

    def depth(self, row: Row, key: str) -> float:
        """Where an accuracy is between the lowest and the highest of its map, in [0, 1]."""
        values = [cell[key] for cell in chain.from_iterable(self.cells) if cell]
        low, high = min(values), max(values)
        return float((row[key] - low) / (high - low)) if high > low else 0.0

    def values(self, row: Row) -> str:
        """The bars of a setting, in percent; empty where a group has no images."""
        return " ".join("-" if np.isnan(row[key]) else f"{100 * row[key]:.1f}" for key in self.bars)

    def mark(self, row: Row) -> str:
        """The sign of what is picked, or of what MaC has, if that is something else."""
        if row is self.picked:
            return "*"
        return "†" if row is self.ours else ""

    def name(self, row: Row) -> str:
        """A setting in words."""
        if row is self.erm:
            return "ERM as it is"
        return f"α {row['alpha']:g}, β {row['beta']:g}{self.penalty}"


def sweep_map(rows: Sequence[Row], spoken: Spoken, worst: str, choice: Choice) -> SweepMap:
    """The maps of worst accuracy, on validation and on test (paper Figure 2).

    Args:
        rows: one for each pair, with `alpha`, `beta`, the four scores, `picked`, and the accuracy of each
            test group; and one for ERM as it is, whose alpha and beta are None. If they have an `l2`, those
            are shown that have the l2 of the best one.
        spoken: what `val_worst` and `val_mean` are.
        worst: what `test_worst` is.
        choice: what MaC has.
    """
    erm, pairs, l2 = _erm_and_pairs(rows)
    alphas, betas = sorted({row["alpha"] for row in pairs}), sorted({row["beta"] for row in pairs})
    of_pair = {(row["alpha"], row["beta"]): row for row in pairs}
    cells = []
    for alpha in reversed(alphas):
        cells.append([of_pair.get((alpha, beta)) for beta in betas])
    picked = next(row for row in rows if row["picked"])
    penalty = "" if l2 is None else f", l2 = {l2:g}"
    named = (
        "ERM as it is" if picked is erm else f"alpha {picked['alpha']:g}, beta {picked['beta']:g}{penalty}"
    )
    alt = (
        f"Worst accuracy for every alpha and beta{penalty}; on validation: {spoken.worst}. "
        f"The sweep picks {named}: {100 * picked['val_worst']:.1f} percent on validation, "
        f"{100 * picked['test_worst']:.1f} on test; ERM as it is has {100 * erm['val_worst']:.1f} "
        f"and {100 * erm['test_worst']:.1f}."
    )
    titles = (f"validation: {spoken.worst}", f"validation: {spoken.mean}", f"test: {worst}", "test: mean")
    groups = [key for key in erm if key.startswith(OF_GROUP)]
    above_worst = []
    for row in (erm, *pairs):
        accuracies = np.array([row[key] for key in groups])
        above_worst.append(accuracies - np.fmin.reduce(accuracies, initial=np.nan))
    lowest = figures.lowest(*above_worst)
    of_groups = {groups[place]: f"test: {groups[place].removeprefix(OF_GROUP)}" for place in lowest}
    return SweepMap(
        alphas=alphas[::-1],
        betas=betas,
        cells=cells,
        erm=erm,
        picked=picked,
        ours=erm if choice.setting is None else _row_of(choice, pairs),
        shown={"val_worst": f"{titles[0]}, %", "test_worst": f"{titles[2]}, % (shown, picks nothing)"},
        bars=dict(zip(_SCORES, titles, strict=True)) | of_groups,
        left_out=len(groups) - len(lowest),
        penalty=penalty,
        alt=alt,
    )


def _row_of(choice: Choice, pairs: Sequence[Row]) -> Row | None:
    """Rows without an l2 have that of params.yaml, as MaC does."""
    of_pair = [row for row in pairs if (row["alpha"], row["beta"]) == (choice.alpha, choice.beta)]
    return next((row for row in of_pair if row.get("l2") in (None, choice.l2)), None)


def _erm_and_pairs(rows: Sequence[Row]) -> tuple[Row, list[Row], float | None]:
    """The row of ERM as it is; those of the pairs of α and β with the l2 of the best one; this l2, if any."""
    (erm,) = (row for row in rows if row["alpha"] is None)
    settings = [row for row in rows if row is not erm]
    picked = [row for row in settings if row["picked"]]
    best = picked[0] if picked else max(settings, key=lambda row: (row["val_worst"], row["val_mean"]))
    l2 = best.get("l2")
    return erm, [row for row in settings if row.get("l2") == l2], l2
