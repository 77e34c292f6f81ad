"""What JTT and MaskTune share: how ERM was trained, and the model folder that they write."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import ValidationError
from torch import Tensor

from pipeline import store
from pipeline.compute.ranks import Ranks
from pipeline.errors import MacError, first_line
from pipeline.metrics import SIGNS, Labels
from pipeline.network.checkpoint import Tensors
from pipeline.network.training import Training, as_numpy
from pipeline.params.inputs import InputParams
from pipeline.params.model import ModelParams
from pipeline.params.train import TrainParams
from pipeline.project import Opened
from pipeline.results.scores import answers, scores


@dataclass(frozen=True)
class ErmParams:
    """How ERM was trained: the parameters in its model folder."""

    model: ModelParams
    inputs: InputParams
    train: TrainParams

    @classmethod
    def of(cls, given: Opened) -> "ErmParams":
        """The parameters of the opened ERM model. A training with them keeps no early epoch.

        Raises:
            MacError: it does not state them, or they are of another version.
        """
        made = {key: given.stated("erm", key) for key in ("model", "input", "train")}
        try:
            train = TrainParams(**{**made["train"], "keep_epochs": []})
            return cls(ModelParams(**made["model"]), InputParams(**made["input"]), train)
        except (TypeError, ValidationError) as error:
            file, remedy = given.model("erm").path / "model.json", given.project.kinds["erm"].remedy
            raise MacError(
                f"{file}: states parameters that it cannot have ({first_line(error)}); {remedy}"
            ) from None


def reference(given: Opened, made: ErmParams, on: torch.device, ranks: Ranks) -> Tensor:
    """ERM's logits on the validation split, (n, classes) float32 on the CPU: the criterion's reference."""
    erm = Training(given, made.model, made.inputs, made.train, on, start=given.model("erm"), ranks=ranks)
    return erm.logits(given.rows("val"))


@dataclass(frozen=True)
class About:
    """The description of a method in the comparison.

    Attributes:
        kind: the kind of its model folder.
        title: its name.
        source: who published it.
        labels: the group labels that it sees.
        chosen: its settings, which are shown.
        note: a remark on its row.
    """

    kind: str
    title: str
    source: str
    labels: Labels
    chosen: dict[str, object]
    note: str = ""


def write(out: Path, training: Training, state: Tensors, about: About, params: dict[str, Any]) -> None:
    """Measure a trained model, and write its folder. If several processes train, the first one writes.

    The folder holds the model, its answers on the test split (`answers.safetensors`), history.csv, and
    metrics.json in the form of a row of the baselines.

    Args:
        training: the training of the model, with images.h5 and ERM open.
        state: the model's state dict.
        params: the parameters of the method. The model folder states them, and the criterion.
    """
    given = training.given
    made_from = given.digests("images", "erm")
    training.model.load_state_dict(state)
    row = {
        "made_from": made_from,
        "title": about.title,
        "source": about.source,
        "criterion": training.criterion,
        "labels": about.labels,
        "sign": SIGNS[about.labels],
        "chosen": about.chosen,
        "note": about.note,
        "seeds": 1,
    }
    made = {**params, "criterion": training.criterion}
    logits = {split: training.logits(given.rows(split))[None].numpy() for split in ("val", "test")}
    if not training.ranks.first:
        return
    measured = {split: _measured(training, split, of_split) for split, of_split in logits.items()}
    seen = {"test": answers(logits["test"])}
    with store.create_folder(out) as folder:
        spec = training.spec()
        store.write_model(folder, about.kind, as_numpy(state), spec, made, made_from, answers=seen)
        store.write_csv(folder / "history.csv", training.history.rows())
        store.write_json(folder / "metrics.json", {**row, **measured})


def _measured(training: Training, split: str, logits: NDArray[np.float32]) -> dict[str, Any]:
    given = training.given
    label = training.label[given.rows(split)].numpy()
    return scores(logits, label, given.grouping(split), given.grouping("train"))
