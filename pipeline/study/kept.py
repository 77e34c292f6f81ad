"""The runs of the study that are kept, read and checked."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipeline.errors import MacError
from pipeline.project import Project
from pipeline.results.tables import worst_of
from pipeline.study.names import ERM


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

    def require_like(self, other: "Run") -> None:
        """Check that the two differ in their seeds alone.

        Raises:
            MacError: they do not.
        """
        alike = all(np.array_equal(self.test[name], other.test[name]) for name in self.test)
        if not alike or self._alike() != other._alike():
            raise MacError(
                f"{self.path}: was made with other parameters or images than {other.path}; "
                "'dvc repro data/study/dvc.yaml' makes them alike"
            )

    def _alike(self) -> tuple[Any, ...]:
        """What all runs of a variant have in common."""
        scores = set(self.methods[ERM]["test"])
        return self.metrics["kind"], self.metrics["groups"], scores, _without_seeds(self.made)


def _without_seeds(made: Any) -> Any:
    if isinstance(made, Mapping):
        return {key: _without_seeds(value) for key, value in made.items() if key != "seed"}
    return made


def read(project: Project, variant: str, seeds: Sequence[int]) -> list[Run]:
    """The runs of a variant, one for each seed.

    Raises:
        MacError: one is missing, damaged, of other images than the project's, or differs from the others.
    """
    runs = [_read(project, variant, seed) for seed in seeds]
    for run in runs[1:]:
        run.require_like(runs[0])
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
