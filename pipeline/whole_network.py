"""What the whole-network methods share: the ERM run that they build on, and the model folder with its row of the comparison."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from pipeline import store
from pipeline.metrics import SIGNS, Groups, Labels
from pipeline.network.training import Run, as_numpy
from pipeline.params import ModelParams, TrainParams
from pipeline.results.scores import scores
from pipeline.store import Artefact, ModelFolder


@dataclass(frozen=True)
class Base:
    """The ERM run: its images, its model, and how it was trained.

    Attributes:
        label: (N,) int64, of all images.
    """

    images: Artefact
    erm: ModelFolder
    model: ModelParams
    train: TrainParams
    label: Tensor

    @property
    def made_from(self) -> dict[str, str]:
        return {"images": self.images.digest, "erm": self.erm.digest}


@contextmanager
def base(images_path: Path, erm_path: Path) -> Iterator[Base]:
    """Open the ERM run that a method starts from or repeats; its parameters are those in the artefact."""
    with store.open_artefact(images_path, "images") as images:
        erm = store.open_model(erm_path, "erm", {"images": images.digest})
        made = erm.provenance.params
        yield Base(images, erm, ModelParams(**made["model"]), TrainParams(**made["train"]), torch.from_numpy(images["label"][:]))


@dataclass(frozen=True)
class About:
    """What a row of the comparison says of its method."""

    kind: str
    title: str
    source: str
    labels: Labels
    chosen: dict[str, object]


def write(out: Path, start: Base, run: Run, state: dict[str, Tensor], about: About, params: dict[str, object]) -> None:
    """Write the model folder: the tensors `state`, history.csv, and metrics.json in the form of the baselines' rows."""
    run.model.load_state_dict(state)
    measured = {part: _measured(start, run, number) for part, number in (("val", 1), ("test", 2))}
    row = {"title": about.title, "source": about.source, "labels": about.labels, "sign": SIGNS[about.labels], "chosen": about.chosen}
    with store.create_folder(out) as folder:
        spec = run.spec(start.model.architecture)
        store.write_model(folder, about.kind, as_numpy(state), spec, params, start.made_from)
        store.write_csv(folder / "history.csv", run.history)
        store.write_json(folder / "metrics.json", {"made_from": start.made_from, **row, "note": "", "seeds": 1, **measured})


def _measured(start: Base, run: Run, split: int) -> dict[str, object]:
    images = start.images
    rows: NDArray[np.int64] = np.flatnonzero(images["split"][:] == split)
    label, attribute = images["label"][:][rows], images["attribute"][:][rows]
    return scores(run.logits(rows)[None].numpy(), label, Groups.of(images).grouping(label, attribute), run.training)
