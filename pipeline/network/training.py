"""Training a whole network by SGD, resumable after every epoch: ERM, and the methods to compare with that train again."""

import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from pipeline import store
from pipeline.compute import device
from pipeline.compute.progress import Progress, log
from pipeline.compute.ranks import ALONE, Ranks
from pipeline.errors import MacError
from pipeline.metrics import Groups, as_dict, group_accuracy, weighted_mean, worst_group
from pipeline.network import backbone
from pipeline.network.inputs import IMAGENET_MEAN, IMAGENET_STD, normalize, random_resized_crop_and_flip, to_input_grid
from pipeline.network.loading import image_batches
from pipeline.params import ModelParams, TrainParams
from pipeline.parts import held_out

EVAL_BATCH = 64

# From the rows of a batch, their stored images (B, H, W, 3) uint8 and a seeded CPU generator to the network's input.
MakeInput = Callable[[NDArray[np.integer], Tensor, torch.Generator], Tensor]


def learning_rate(schedule: str, peak: float, progress: float) -> float:
    """The learning rate after the fraction `progress` of all steps.

    `one_cycle` (Smith & Topin 2018): up over the first 30 %, from peak/25, then down to nothing, both along a cosine.
    """
    if schedule == "constant":
        return peak
    if schedule == "cosine":
        return peak * (1 + math.cos(math.pi * progress)) / 2
    if progress < 0.3:
        return peak / 25 + (peak - peak / 25) * (1 - math.cos(math.pi * progress / 0.3)) / 2
    return peak * (1 + math.cos(math.pi * (progress - 0.3) / 0.7)) / 2


class Run:
    """A training run: everything that changes from epoch to epoch.

    Args:
        rows: rows of images.h5 to train on, repeats allowed; None takes the training split but for what `params.hold_out` keeps from it.
        start: state dict to start from in place of `model_params.weights` and a fresh head.
        make_input: None augments by random crop and flip.
        name: what progress and messages call it.
        ranks: the processes that train together.
    """

    def __init__(
        self,
        images: store.Artefact,
        model_params: ModelParams,
        params: TrainParams,
        on: torch.device,
        rows: NDArray[np.int64] | None = None,
        start: dict[str, Tensor] | None = None,
        make_input: MakeInput | None = None,
        name: str = "train",
        ranks: Ranks = ALONE,
    ) -> None:
        self.images, self.params, self.on, self.name, self.ranks = images, params, on, name, ranks
        self.size, self.to_input = images.provenance.params["input_size"], images.provenance.params["to_input"]
        self.groups = Groups.of(images)
        split = images["split"][:]
        self.label = torch.from_numpy(images["label"][:])
        label, attribute = images["label"][:], images["attribute"][:]
        in_training, self.val_rows = np.flatnonzero(split == 0), np.flatnonzero(split == 1)
        self.training, self.validation = (self.groups.grouping(label[rows], attribute[rows]) for rows in (in_training, self.val_rows))
        self.rows = in_training[~held_out(label[in_training], params.hold_out, params.seed)] if rows is None else rows
        self.make_input = make_input or self._augmented
        self.model = backbone.build(model_params.architecture, len(self.groups.classes), model_params.weights, params.seed).to(on)
        if start is not None:
            self.model.load_state_dict(start)
        self.parallel = ranks.wrap(self.model)
        self.optimizer = torch.optim.SGD(self.model.parameters(), lr=params.lr, momentum=params.momentum, weight_decay=params.weight_decay)
        self.epoch = 0
        self.history: list[dict[str, object]] = []
        self.val_metrics: list[dict[str, object]] = []
        self.best: dict[str, Tensor] = {}
        self.best_epoch = 0
        self._best_score = (-1.0, -1.0)

    def to_end(self, checkpoint: Path) -> None:
        """Train all epochs, from `checkpoint` on if there is one; it is kept up to date."""
        self.resume(checkpoint)
        self.ranks.wait()
        while self.epoch < self.params.epochs:
            self.train_epoch()
            if self.ranks.first:
                self.save(checkpoint)
            self.ranks.wait()

    def _augmented(self, _rows: NDArray[np.integer], stored: Tensor, generator: torch.Generator) -> Tensor:
        return normalize(random_resized_crop_and_flip(stored, self.size, self.params.crop_scale, self.params.flip, generator))

    def train_epoch(self) -> None:
        """One pass over the training rows, then validation."""
        loss, accuracy, rate = self.train_batches()
        self.epoch += 1
        if self.ranks.first:
            self._validate(loss, accuracy, rate)

    def train_batches(self) -> tuple[float, float, float]:
        """One pass over the training rows: mean loss, accuracy on the way, last learning rate."""
        params, epoch = self.params, self.epoch + 1
        batches = self._batches(epoch)
        losses = torch.empty(len(batches), device=self.on)
        correct = torch.zeros((), dtype=torch.int64, device=self.on)
        # Augmentation, dropout and stochastic depth depend on (seed, epoch) alone, so that a resumed run repeats them.
        seed = _seed(params.seed, epoch, *([] if self.ranks.first else [self.ranks.rank]))
        generator = torch.Generator().manual_seed(seed)
        torch.manual_seed(seed)
        self.model.train()
        with Progress(f"{self.name}, epoch {epoch} of {params.epochs}", sum(map(len, batches)), "images") as progress:
            for step, (rows, stored) in enumerate(zip(batches, image_batches(self.images, batches, self.on), strict=True)):
                rate = learning_rate(params.schedule, params.lr, (self.epoch + step / len(batches)) / params.epochs)
                for group in self.optimizer.param_groups:
                    group["lr"] = rate
                x = self.make_input(rows, stored, generator)
                y = self.label[rows].to(self.on)
                with device.autocast(self.on, params.precision):
                    logits = self.parallel(x)
                loss = F.cross_entropy(logits.float(), y)
                self.optimizer.zero_grad()
                loss.backward()
                self.optimizer.step()
                losses[step] = loss.detach()
                correct += (logits.detach().argmax(1) == y).sum()
                progress.update(len(rows))
        losses = self.ranks.total(losses) / self.ranks.count
        correct = self.ranks.total(correct)
        bad = (~losses.isfinite()).nonzero()
        if len(bad):
            raise MacError(
                f"{self.name}: the loss is {losses[bad[0, 0]].item()} in epoch {epoch}, batch {int(bad[0, 0]) + 1}; lower {self.name}.lr"
            )
        return losses.mean().item(), correct.item() / (sum(map(len, batches)) * self.ranks.count), rate

    def _batches(self, epoch: int) -> list[NDArray[np.int64]]:
        order = np.random.default_rng([self.params.seed, epoch]).permutation(self.rows)
        batches = [order[start : start + self.params.batch_size] for start in range(0, len(order), self.params.batch_size)]
        # Batch normalisation has no statistics of a single image; processes that train together have as many images each.
        count = self.ranks.count
        if len(batches) > 1 and len(batches[-1]) < 2 * count:
            batches.pop()
        return [batch[self.ranks.rank : len(batch) // count * count : count] for batch in batches]

    def _validate(self, loss: float, train_accuracy: float, rate: float) -> None:
        validation = self.validation
        predicted = self.predict(self.val_rows)
        accuracy = group_accuracy((predicted == self.label[self.val_rows]).numpy(), validation.index, len(validation.names))
        worst, mean = worst_group(accuracy).item(), weighted_mean(accuracy, validation.count).item()
        if (worst, mean) > self._best_score:
            self._best_score, self.best_epoch, self.best = (worst, mean), self.epoch, self.state()
        self.val_metrics.append(as_dict(accuracy, validation, self.training))
        row = {"epoch": self.epoch, "lr": rate, "train_loss": loss, "train_accuracy": train_accuracy}
        row |= {"val_worst": worst, "val_mean": mean}
        self.history.append(row | {f"val_{name}": value for name, value in zip(validation.names, accuracy.tolist(), strict=True)})
        log.info(
            "%s, epoch %d of %d: loss %.3f, train accuracy %.3f, validation worst %s %.3f, mean %.3f",
            self.name, self.epoch, self.params.epochs, loss, train_accuracy, validation.kind, worst, mean,
        )  # fmt: skip

    def predict(self, rows: NDArray[np.int64]) -> Tensor:
        """Predicted class of each row, (n,) int64 on the CPU."""
        return self.logits(rows).argmax(1)

    @torch.no_grad()
    def logits(self, rows: NDArray[np.int64]) -> Tensor:
        """(n, classes) float32 on the CPU, without augmentation."""
        self.model.eval()
        batches = [rows[start : start + EVAL_BATCH] for start in range(0, len(rows), EVAL_BATCH)]
        parts = []
        for stored in image_batches(self.images, batches, self.on):
            with device.autocast(self.on, self.params.precision):
                logits = self.model(normalize(to_input_grid(stored, self.size, self.to_input)))
            parts.append(logits.float().cpu())
        return torch.cat(parts)

    def spec(self, architecture: str) -> dict[str, Any]:
        """How to build the model: what a model folder says of it."""
        return {
            "architecture": architecture,
            "classes": list(self.groups.classes),
            "attributes": list(self.groups.attributes),
            "stored_size": self.images["image"].shape[1],
            "to_stored": self.images.provenance.params["to_stored"],
            "input_size": self.size,
            "to_input": self.to_input,
            "mean": IMAGENET_MEAN,
            "std": IMAGENET_STD,
        }

    def state(self) -> dict[str, Tensor]:
        """The model's tensors, copied to the CPU."""
        return {
            name: tensor.detach().cpu().clone(memory_format=torch.contiguous_format) for name, tensor in self.model.state_dict().items()
        }

    def save(self, path: Path) -> None:
        """Write the checkpoint, whole or not at all."""
        tensors = {f"last.{name}": tensor for name, tensor in self.state().items()}
        tensors |= {f"best.{name}": tensor for name, tensor in self.best.items()}
        for number, parameter in enumerate(self.optimizer.param_groups[0]["params"]):
            buffer = self.optimizer.state[parameter].get("momentum_buffer")
            if buffer is not None:
                tensors[f"momentum.{number}"] = buffer.cpu().contiguous()
        progress = {name: getattr(self, name) for name in ("epoch", "history", "val_metrics", "best_epoch", "_best_score")}
        with store.replacing(path) as temporary, store.tensor_errors():
            save_file(tensors, temporary, {"progress": json.dumps(progress)})

    def resume(self, path: Path) -> None:
        """Go on from the checkpoint of the same run, if there is one."""
        if not path.is_file():
            return
        try:
            with safe_open(path, "pt") as file:
                tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (not a dict)
                progress: dict[str, Any] = json.loads(file.metadata()["progress"])
        except (OSError, SafetensorError):
            log.warning("%s: damaged, training starts anew", path)
            return
        self.model.load_state_dict(_part(tensors, "last."))
        self.best = _part(tensors, "best.")
        for number, parameter in enumerate(self.optimizer.param_groups[0]["params"]):
            if f"momentum.{number}" in tensors:
                buffer = torch.empty_like(parameter).copy_(tensors[f"momentum.{number}"])
                self.optimizer.state[parameter]["momentum_buffer"] = buffer
        for name, value in progress.items():
            setattr(self, name, value)
        self._best_score = tuple(self._best_score)  # type: ignore[assignment]
        log.info("%s: continuing after epoch %d of %d", self.name, self.epoch, self.params.epochs)


def _part(tensors: dict[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {name.removeprefix(prefix): tensor for name, tensor in tensors.items() if name.startswith(prefix)}


def as_numpy(tensors: dict[str, Tensor]) -> dict[str, NDArray[Any]]:
    """Tensors as safetensors takes them."""
    return {name: tensor.numpy() for name, tensor in tensors.items()}


def _seed(*parts: int) -> int:
    return int(np.random.SeedSequence(parts).generate_state(1, np.uint64)[0] >> np.uint64(1))
