"""The methods of one variant, compared over its runs."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import cached_property
from itertools import chain, product
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipeline.results import verdict
from pipeline.results.scores import resampled_worst
from pipeline.study import statistics
from pipeline.study.kept import Run
from pipeline.study.names import MAC, OF_MASKS, PAIRS_OF_MASKS

OTHER_METRICS = ("raw_mean", "adjusted_mean", "robust_coverage", "balanced_accuracy", "auroc", "ece")


class OverRuns:
    """What the runs of a variant say.

    Args:
        runs: R runs, which differ in their seeds alone.

    Attributes:
        worst: `worst_group` or `worst_class`.
        names: the methods that all runs have.
    """

    def __init__(self, runs: Sequence[Run]) -> None:
        self._runs, self._first = runs, runs[0]
        self.worst = self._first.worst
        of_runs = [set(run.methods) for run in runs]
        in_all = set.intersection(*of_runs)
        self.names = [name for name in self._first.methods if name in in_all]

    def as_dict(self) -> dict[str, Any]:
        """An entry of study.json, but for the changes of the variant."""
        return {
            "seeds": [run.metrics["seed"] for run in self._runs],
            "worst": self.worst,
            "images": len(self._first.test["group"]),
            "methods": self.methods,
            "differences": self.differences,
            "settings": self._settings(),
            "not_in_all": self._left_out(),
            "verdict": self._verdict(),
            "diagnoses": [run.metrics["diagnosis"] for run in self._runs],
            "coverage": self._coverage(),
        }

    def _observed(self, name: str, metric: str) -> NDArray[np.float64]:
        """A test metric of a method, the mean of its heads, in each run: (R,)."""
        return np.array([run.methods[name]["test"][metric]["mean"] for run in self._runs])

    @cached_property
    def _resampled(self) -> dict[str, NDArray[np.float64]]:
        """The worst accuracy on other test splits, by method, (RESAMPLES, R); the same splits for all."""
        heads = [run.correct[name] for name, run in product(self.names, self._runs)]
        lowest = resampled_worst(np.concatenate(heads), self._first.test["group"], statistics.RESAMPLES)
        of_runs = np.split(lowest, np.cumsum([len(each) for each in heads])[:-1], axis=1)
        means = np.stack([each.mean(1) for each in of_runs], axis=1)
        return dict(zip(self.names, np.split(means, len(self.names), axis=1), strict=True))

    @cached_property
    def _drawn(self) -> NDArray[np.int64]:
        return statistics.drawn_runs(len(self._runs))

    def _over_runs(
        self, observed: NDArray[np.float64], resampled: NDArray[np.float64], least: float
    ) -> dict[str, Any]:
        """The summary of a value of each run, and its interval over runs and test images."""
        low, high = statistics.hierarchical_interval(observed, resampled, self._drawn, least)
        return {**statistics.summary(observed), "low": low, "high": high}

    @cached_property
    def methods(self) -> dict[str, dict[str, Any]]:
        """What each method scores."""
        found = {}
        for name in self.names:
            row, observed = self._first.methods[name], self._observed(name, self.worst)
            about = {key: row[key] for key in ("title", "labels", "sign")}
            worst = {**self._over_runs(observed, self._resampled[name], 0.0), "runs": observed.tolist()}
            found[name] = {
                **about,
                "heads": [run.methods[name]["seeds"] for run in self._runs],
                self.worst: worst,
            }
            for key in OTHER_METRICS:
                if key in row["test"]:
                    found[name][key] = statistics.summary(self._observed(name, key))
        return found

    @cached_property
    def differences(self) -> list[dict[str, Any]]:
        """MaC compared with each other method, and its masks with random and true ones."""
        others = [(MAC, name) for name in self.names if name != MAC and name not in OF_MASKS]
        found = [self._difference(*pair) for pair in (*others, *self._pairs_of_masks())]
        for test in ("t_p", "wilcoxon_p"):
            corrected = statistics.holm([row[test] for row in found])
            for row, value in zip(found, corrected, strict=True):
                row[f"{test}_holm"] = value
        return found

    def _difference(self, one: str, other: str) -> dict[str, Any]:
        worst = self._observed(one, self.worst) - self._observed(other, self.worst)
        mean = self._observed(one, "raw_mean") - self._observed(other, "raw_mean")
        found = self._over_runs(worst, self._resampled[one] - self._resampled[other], -1.0)
        about = {"of": one, "than": other, "mean_accuracy": float(mean.mean())}
        return {**about, **found, **statistics.paired(worst)}

    def _pairs_of_masks(self) -> list[tuple[str, str]]:
        """The kinds of masks to compare; true ones once, with MaC's of the same images."""
        found: dict[str, tuple[str, str]] = {}
        for pair in PAIRS_OF_MASKS:
            if set(pair) <= set(self.names):
                found.setdefault(pair[0], pair)
        return list(found.values())

    def _verdict(self) -> str:
        """MaC against ERM, and against the best other method that sees no more group labels, in words."""
        found: dict[str, verdict.Difference] = {}
        for row in self.differences:
            if row["of"] == MAC:
                figures = (row[key] for key in ("mean", "low", "high", "mean_accuracy"))
                found[row["than"]] = verdict.Difference(self.methods[row["than"]]["title"], *figures)
        rivals: dict[str, Mapping[str, Any]] = {}
        for name in found:
            rivals[name] = {**self.methods[name], "test": self.methods[name]}
        best = verdict.best_other(rivals, self.methods[MAC]["labels"], self.worst)
        runs = len(self._runs)
        said = verdict.sentences(self.worst, found, best, runs)
        return str(said if runs > 1 else replace(said, basis=""))  # the table says it of one run

    def _settings(self) -> list[dict[str, Any]]:
        """What MaC was in each run: α and β, or None for ERM's head as it is; and what chose them."""
        found = []
        for run in self._runs:
            found.append({**run.methods[MAC]["chosen"], "criterion": run.metrics["criterion"]})
        return found

    def _left_out(self) -> dict[str, dict[str, Any]]:
        """The methods that not all runs have: the title, in how many it is, and why not in the others."""
        found: dict[str, dict[str, Any]] = {}
        for run in self._runs:
            for name, row in (run.methods | run.metrics["left_out"]).items():
                if name not in self.names:
                    about = found.setdefault(name, {"title": row["title"], "runs": 0, "reasons": []})
                    about["runs"] += name in run.methods
                    if (reason := row.get("reason")) and reason not in about["reasons"]:
                        about["reasons"].append(reason)
        return found

    def _coverage(self) -> dict[str, float] | None:
        """How much of the true foregrounds, and of the rest, the masks cover: means over images and runs."""
        rows = list(chain.from_iterable(run.metrics["coverage"] for run in self._runs))
        if not rows:
            return None
        shares = np.array([(row["mask_fg"], row["mask_bg"]) for row in rows])
        inside, outside = np.average(shares, axis=0, weights=[row["n"] for row in rows]).tolist()
        return {"mask_fg": inside, "mask_bg": outside}
