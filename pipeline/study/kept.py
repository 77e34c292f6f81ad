"""The runs of the study that are kept, read and checked."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipeline.errors import MacError
from pipeline.made_with import require_made_with
from pipeline.params.block import Block
from pipeline.params.study import StudyParams, of_every_run, with_changes
from pipeline.project import Project
from pipeline.results.tables import worst_of
from pipeline.study.names import ERM


@dataclass(frozen=True)
class Run:
    """A run of the study.

    Attributes:
        metrics: its metrics.json.
        made: `params`, those of its stages but for the seeds; `from`, the digests of its images and of the
            user's files.
        correct: by method, whether each head is right about each test image, (S, N) bool.
        test: `row`, `label` and `group` of the test images, (N,).
    """

    path: Path
    metrics: Mapping[str, Any]
    made: Mapping[str, Any]
    correct: Mapping[str, NDArray[np.bool_]]
    test: Mapping[str, NDArray[np.int64]]

    @property
    def methods(self) -> Mapping[str, Mapping[str, Any]]:
        """The methods in metrics.json, by name."""
        found: Mapping[str, Mapping[str, Any]] = self.metrics["methods"]
        return found

    @property
    def worst(self) -> str:
        """The key of the worst accuracy on the test split: `worst_group` or `worst_class`."""
        return worst_of(self.methods[ERM]["test"])[0]

    @property
    def common(self) -> tuple[Any, ...]:
        """What all runs of a variant have in common, besides the test images."""
        return self.metrics["kind"], self.metrics["groups"], set(self.methods[ERM]["test"]), self.made


def read(project: Project, variant: str, params: StudyParams, others: Sequence[Block]) -> list[Run]:
    """The runs of a variant, one for each seed.

    Args:
        others: the parameters of a run, as params.yaml has them; `params` among them.

    Raises:
        MacError: one is missing, damaged, of other images than the project's, was made with other parameters
            than these and the changes of the variant, or differs from the others in more than its seed.
    """
    changes = params.variants[variant]
    wanted = of_every_run(with_changes(others, changes))
    runs = [_read(project, variant, seed) for seed in params.seeds]
    for run in runs:
        made = {**run.made["params"], **run.metrics["changes"]}
        remedy = "'dvc repro data/study/dvc.yaml' makes it anew"
        require_made_with(run.path, made, {**wanted, **changes}, remedy, whole=True)
        alike = all(np.array_equal(run.test[name], runs[0].test[name]) for name in run.test)
        if not alike or run.common != runs[0].common:
            raise MacError(
                f"{run.path}: was made from other images or files than {runs[0].path}; "
                "'dvc repro data/study/dvc.yaml' makes them alike"
            )
    return runs


def _read(project: Project, variant: str, seed: int) -> Run:
    path = project.path("run") / variant / str(seed)
    kind = project.kinds["run"].by(f"study-run --variant {variant} --seed {seed}")
    elsewhere = {**project.elsewhere, "run": path}
    with replace(project, kinds={**project.kinds, "run": kind}, elsewhere=elsewhere).open("run") as given:
        metrics, model = given.metrics("run"), given.model("run")
    said = (metrics["variant"], metrics["seed"])
    if said != (variant, seed):
        raise MacError(f"{path}: is the run of variant {said[0]}, seed {said[1]}; {kind.remedy}")
    answers, stored = model.read("answers"), model.read("test")
    test = {name: stored[name] for name in ("row", "label", "group")}
    if answers.keys() != metrics["methods"].keys() or test["group"].max() >= len(metrics["groups"]):
        raise MacError(f"{path}: damaged (its answers are not those of metrics.json); {kind.remedy}")
    correct = {name: each == test["label"] for name, each in answers.items()}
    made = {"params": model.provenance.params, "from": model.provenance.made_from}
    return Run(path, metrics, made, correct, test)
