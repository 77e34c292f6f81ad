"""Stage study: compares the methods over all runs of the study."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipeline import store
from pipeline.compute.context import Context
from pipeline.errors import MacError
from pipeline.params.study import StudyParams
from pipeline.project import Opened, Project
from pipeline.results import verdict
from pipeline.results.tables import worst_of
from pipeline.study import figure, statistics, table
from pipeline.study.names import ERM, MAC, OF_MASKS, PAIRS_OF_MASKS

_OTHER_METRICS = ("raw_mean", "adjusted_mean", "robust_coverage", "balanced_accuracy", "auroc", "ece")
_COLUMNS = ("variant", "seed", "method", "title", "labels", "heads")


@dataclass(frozen=True)
class Run:
    """A run of the study.

    Attributes:
        metrics: its metrics.json.
        made: the parameters that its artefacts were made with, and the digest of its images.
        correct: by method, whether each head is right about each test image, (S, N) bool.
        test: `row`, `label` and `group` of the test images, (N,).
    """

    path: Path
    seed: int
    metrics: Mapping[str, Any]
    made: Mapping[str, Any]
    correct: Mapping[str, NDArray[np.bool_]]
    test: Mapping[str, NDArray[np.int64]]

    @property
    def rows(self) -> Mapping[str, Mapping[str, Any]]:
        """The methods in metrics.json."""
        found: Mapping[str, Mapping[str, Any]] = self.metrics["methods"]
        return found


def study(
    given: Opened, json_out: Path, csv_out: Path, figure_out: Path, params: StudyParams, _context: Context
) -> str:
    """Write the results of the study, a table of all runs, and a figure of them; return the text to print.

    study.json has by variant: `methods.<name>`, what each method scores over the runs; and `differences`, the
    paired comparisons of MaC with each other method, and of its masks with random and true ones
    (`study.statistics`). runs.csv has a row for each run and method.

    Raises:
        MacError: a run is missing, damaged, or does not belong to the others of its variant.
    """
    variants, lines = {}, list[dict[str, object]]()
    for name, changes in params.variants.items():
        runs = [_read(given.project, name, seed) for seed in params.seeds]
        _require_alike(runs)
        variants[name] = _compared(runs, changes)
        for run in runs:
            lines += _lines(run)
    found = {"variants": variants}
    columns = list(dict.fromkeys(_columns(lines)))
    store.write_csv(csv_out, [{**dict.fromkeys(columns, ""), **line} for line in lines], columns)
    store.write_text(figure_out, figure.of_study(found))
    store.write_json(json_out, found)
    return table.of_study(found)


def _read(project: Project, variant: str, seed: int) -> Run:
    path = project.path("run") / variant / str(seed)
    with _opened(project, path, variant, seed) as given:
        metrics, model = given.metrics("run"), given.model("run")
        answers, test = model.read("answers"), model.read("test")
        remedy = given.project.kinds["run"].remedy
        said = (metrics["variant"], metrics["seed"])
        if said != (variant, seed):
            raise MacError(f"{path}: is the run of variant {said[0]}, seed {said[1]}; {remedy}")
        if answers.keys() != metrics["methods"].keys() or test["group"].max() >= len(metrics["groups"]):
            raise MacError(f"{path}: damaged (its answers are not those of metrics.json); {remedy}")
        correct = {name: each == test["label"] for name, each in answers.items()}
        made = {"params": model.provenance.params, "from": model.provenance.made_from}
        return Run(path, seed, metrics, made, correct, test)


@contextmanager
def _opened(project: Project, path: Path, variant: str, seed: int) -> Iterator[Opened]:
    """A run, opened, with the remedy that makes it again. It is of the project's images, or of its own."""
    kind = project.kinds["run"].by(f"study-run --variant {variant} --seed {seed}")
    elsewhere = {**project.elsewhere, "run": path}
    with replace(project, kinds={**project.kinds, "run": kind}, elsewhere=elsewhere).open("run") as given:
        yield given


def _require_alike(runs: Sequence[Run]) -> None:
    """Raise an error if runs of one variant differ in more than their seeds."""
    first = runs[0]
    for run in runs[1:]:
        same_images = all(np.array_equal(run.test[name], first.test[name]) for name in first.test)
        same = (
            run.metrics["groups"] == first.metrics["groups"] and run.metrics["kind"] == first.metrics["kind"]
        )
        if not (same_images and same and _without_seeds(run.made) == _without_seeds(first.made)):
            raise MacError(
                f"{run.path}: was made with other parameters or images than {first.path}; "
                "'dvc repro data/study/dvc.yaml' makes them alike"
            )


def _without_seeds(made: Any) -> Any:
    if isinstance(made, Mapping):
        return {key: _without_seeds(value) for key, value in made.items() if key != "seed"}
    return made


def _compared(runs: Sequence[Run], changes: Mapping[str, Any]) -> dict[str, Any]:
    """A variant's entry in study.json."""
    first = runs[0]
    names = [set(run.rows) for run in runs]
    in_all = set.intersection(*names)
    everywhere = [name for name in first.rows if name in in_all]
    worst, _ = worst_of(first.rows[ERM]["test"])
    observed = {name: _of_runs(runs, name, worst) for name in everywhere}
    resampled = statistics.resampled_worst(
        [_part(run.correct, everywhere) for run in runs], first.test["group"]
    )
    drawn = statistics.drawn_runs(len(runs))
    methods: dict[str, dict[str, Any]] = {}
    for name in everywhere:
        low, high = statistics.hierarchical_interval(observed[name], resampled[name], drawn, 0.0)
        row = first.rows[name]
        methods[name] = {
            **{key: row[key] for key in ("title", "labels", "sign")},
            "heads": row["seeds"],
            worst: {
                **statistics.summary(observed[name]),
                "low": low,
                "high": high,
                "runs": observed[name].tolist(),
            },
        }
        for key in _OTHER_METRICS:
            if key in row["test"]:
                methods[name][key] = statistics.summary(_of_runs(runs, name, key))
    others = [(MAC, name) for name in everywhere if name != MAC and name not in OF_MASKS]
    pairs = [*others, *_pairs_of_masks(everywhere)]
    differences: list[dict[str, Any]] = []
    for one, other in pairs:
        difference = observed[one] - observed[other]
        between = resampled[one] - resampled[other]
        low, high = statistics.hierarchical_interval(difference, between, drawn, -1.0)
        means = [methods[name]["raw_mean"]["mean"] for name in (one, other)]
        about = {"of": one, "than": other, "mean_accuracy": means[0] - means[1]}
        found = {**statistics.summary(difference), "low": low, "high": high}
        differences.append({**about, **found, **statistics.paired(difference)})
    for test in ("t", "wilcoxon"):
        corrected = statistics.holm([row[f"{test}_p"] for row in differences])
        for row, value in zip(differences, corrected, strict=True):
            row[f"{test}_p_holm"] = value
    return {
        "changes": dict(changes),
        "seeds": [run.seed for run in runs],
        "worst": worst,
        "images": sum(first.metrics["groups"].values()),
        "methods": methods,
        "differences": differences,
        "not_in_all": sorted(set.union(*names) - in_all),
        "verdict": _verdict(methods, differences, worst, len(runs)),
        "diagnoses": [run.metrics["diagnosis"]["verdict"] for run in runs],
        "coverage": _coverage(runs),
    }


def _part(correct: Mapping[str, NDArray[np.bool_]], names: Sequence[str]) -> dict[str, NDArray[np.bool_]]:
    return {name: correct[name] for name in names}


def _of_runs(runs: Sequence[Run], name: str, metric: str) -> NDArray[np.float64]:
    """A test metric of a method, the mean of its heads, in each run: (R,)."""
    return np.array([run.rows[name]["test"][metric]["mean"] for run in runs])


def _pairs_of_masks(there: Sequence[str]) -> list[tuple[str, str]]:
    """The kinds of masks to compare; true ones once, with MaC's of the same images."""
    found: dict[str, tuple[str, str]] = {}
    for pair in PAIRS_OF_MASKS:
        if set(pair) <= set(there):
            found.setdefault(pair[0], pair)
    return list(found.values())


def _verdict(
    methods: Mapping[str, Mapping[str, Any]], differences: Sequence[Mapping[str, Any]], worst: str, runs: int
) -> str:
    """MaC against ERM, and against the best other method that sees no more group labels, in words."""
    found = {}
    for row in differences:
        if row["of"] == MAC:
            figures = (row[key] for key in ("mean", "low", "high", "mean_accuracy"))
            found[row["than"]] = verdict.Difference(methods[row["than"]]["title"], *figures)
    rivals = {name: {**methods[name], "test": methods[name]} for name in found}
    best = verdict.best_other(rivals, methods[MAC]["labels"], worst)
    return verdict.paragraph(worst, found[ERM], found[best] if best else None, runs)


def _coverage(runs: Sequence[Run]) -> dict[str, float] | None:
    """How much of the true foregrounds, and of the rest, the masks cover: means over images and runs."""
    rows = list(chain.from_iterable(run.metrics["coverage"] for run in runs))
    if not rows:
        return None
    shares = np.array([(row["mask_fg"], row["mask_bg"]) for row in rows])
    inside, outside = np.average(shares, axis=0, weights=[row["n"] for row in rows]).tolist()
    return {"mask_fg": inside, "mask_bg": outside}


def _lines(run: Run) -> list[dict[str, object]]:
    """The rows of runs.csv of one run."""
    lines = []
    for name, row in run.rows.items():
        cells = (run.metrics["variant"], run.seed, name, row["title"], row["labels"], row["seeds"])
        line: dict[str, object] = dict(zip(_COLUMNS, cells, strict=True))
        for split in ("val", "test"):
            worst, many = worst_of(row[split])
            for key in (worst, *_OTHER_METRICS):
                if key in row[split]:
                    line[f"{split}_{key}"] = row[split][key]["mean"]
            for group, value in row[split][many].items():
                line[f"{split}: {group}"] = value["mean"]
        lines.append(line)
    return lines


def _columns(lines: Sequence[Mapping[str, object]]) -> Iterator[str]:
    for line in lines:
        yield from line
