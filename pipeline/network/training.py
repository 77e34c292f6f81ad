"""Trains a whole network by SGD, epoch by epoch: for ERM, JTT and MaskTune."""

import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn

from pipeline import selection
from pipeline.compute import device
from pipeline.compute.context import Track, untracked
from pipeline.compute.progress import Progress, log
from pipeline.compute.ranks import ALONE, Ranks
from pipeline.errors import MacError, first_line
from pipeline.metrics import Grouping
from pipeline.network import classifier
from pipeline.network.checkpoint import Checkpoint, Tensors
from pipeline.network.history import Epoch, History
from pipeline.network.inputs import random_resized_crop_and_flip, to_input_grid
from pipeline.network.loading import image_batches
from pipeline.network.schedule import batches_of_epoch, learning_rate, seed_of_epoch
from pipeline.params.inputs import InputParams
from pipeline.params.model import ModelParams
from pipeline.params.selection import CriterionName
from pipeline.params.train import TrainParams
from pipeline.project import Opened
from pipeline.spec import ModelSpec
from pipeline.splits import unseen_by_erm
from pipeline.store import ModelFolder

EVAL_BATCH = 64

# Takes the rows of a batch, their stored images (B, H, W, 3) uint8, and a seeded CPU generator. Returns the
# pixels to train on: (B, 3, S, S), uint8 or float32 in [0, 1].
MakeInput = Callable[[NDArray[np.integer], Tensor, torch.Generator], Tensor]


class Training:
    """The training of one network: the model, and all other state that changes from epoch to epoch.

    Args:
        given: with images.h5 open.
        network: the architecture, and the weights at the start, with the head if it names a classifier.
        inputs: from the stored image to the network's input.
        params: how it is trained.
        on: the device of this process.
        rows: rows of images.h5 to train on, repeats allowed. None: the training split without the share
            `params.hold_out`.
        start: a model to start from, instead of `network.weights` and a new head.
        make_input: makes the pixels to train on. None: crop and flip at random.
        criterion: what chooses the best epoch, on validation.
        reference: gives the logits of the criterion's reference on validation, (n, classes); called once, if
            the criterion reads them. None: those of this training's own model after its first epoch. It has
            learnt what is easy, which is the shortcut, and not yet the single hard images.
        name: its name in progress and messages: the block of params.yaml that has its learning rate.
        ranks: the processes that train together.
        track: is told the row of history.csv of each epoch, those before a checkpoint too; each once.

    Attributes:
        model: the network as it is now.
        rows: (n,) int64, the training rows.
        label: (N,) int64, the class of every row of images.h5.
        epoch: how many epochs are done.
        history: their measurements.
        best: the model's state dict after the best epoch so far, on the CPU.
        early: (N, classes) float32, the logits on the training split, what is held out included, after each
            epoch of `params.keep_epochs` so far, by its number. Process 0 alone has them.
        criterion: what chooses: what `auto` stands for here.

    Raises:
        MacError: the criterion needs attributes of validation that are unknown, images.h5 states what it
            cannot have, or there are more processes than images for them in a batch.
    """

    def __init__(
        self,
        given: Opened,
        network: ModelParams,
        inputs: InputParams,
        params: TrainParams,
        on: torch.device,
        *,
        rows: NDArray[np.int64] | None = None,
        start: ModelFolder | None = None,
        make_input: MakeInput | None = None,
        criterion: CriterionName = "auto",
        reference: Callable[[], Tensor] | None = None,
        name: str = "train",
        ranks: Ranks = ALONE,
        track: Track = untracked,
    ) -> None:
        self.given, self.network, self.inputs, self.params = given, network, inputs, params
        self.on, self.name, self.ranks, self._track = on, name, ranks, track
        self.images = given.file("images")
        self.label = torch.from_numpy(self.images["label"][:])
        self.rows = self._training_rows() if rows is None else rows
        self._require_enough_for_all()
        self.make_input = self._augmented if make_input is None else make_input
        self.model = self._new_model(start)
        if start is None:
            self._require_input()
        self._parallel = ranks.wrap(self.model)
        self._optimizer = torch.optim.SGD(
            self.model.parameters(), lr=params.lr, momentum=params.momentum, weight_decay=params.weight_decay
        )
        self.epoch = 0
        self._val_attribute = self.images["attribute"][:][given.rows("val")]
        self.criterion = selection.resolved(criterion, given.groups, self._val_attribute)
        by_other = reference is not None and self.criterion in selection.BY_REFERENCE
        self._refer = reference if by_other else None
        self._reference: Tensor | None = None
        self.history = History(given.grouping("val"), given.grouping("train"))
        self.best: Tensors = {}
        self.early: Tensors = {}
        self.spec()  # what images.h5 states is checked now, not after hours of training

    def _new_model(self, start: ModelFolder | None) -> classifier.Classifier:
        if start is not None:
            return classifier.load(start.spec, start.read(), self.on).requires_grad_(True)
        network, size = self.network, self.inputs.input_size
        if network.classifier is not None:
            return classifier.from_file(
                *(network.architecture, Path(network.classifier), self.given.groups.classes),
                *(network.classes, network.own_normalization, size),
            ).to(self.on)
        return classifier.build(
            *(network.architecture, len(self.given.groups.classes), network.weights, self.params.seed),
            *(network.own_normalization, size),
        ).to(self.on)

    def _require_enough_for_all(self) -> None:
        """Batch normalisation needs two images of a batch in each process."""
        batch, count = min(self.params.batch_size, len(self.rows)), self.ranks.count
        if count > 1 and batch < 2 * count:
            raise MacError(
                f"{self.name}: a batch of {batch} images is too small for {count} processes, which need two "
                "each; start fewer, or raise train.batch_size"
            )

    @torch.no_grad()
    def _require_input(self) -> None:
        """Refuse an input size that the network does not take, by a trial of one image."""
        size = self.inputs.input_size
        blank = torch.zeros(1, 3, size, size, dtype=torch.uint8, device=self.on)
        try:
            self.model.eval()(self.model.input(blank))
        except (RuntimeError, ValueError, AssertionError, IndexError) as error:
            name = self.network.architecture
            raise MacError(
                f"model.architecture: {name} does not take {size} pixels ({first_line(error)}); change "
                "dataset.input_size"
            ) from None

    def _augmented(self, _rows: NDArray[np.integer], stored: Tensor, generator: torch.Generator) -> Tensor:
        size, scale, flip = self.inputs.input_size, self.params.crop_scale, self.params.flip
        return random_resized_crop_and_flip(stored, size, scale, flip, generator)

    def to_end(self, checkpoint: Path) -> None:
        """Train all epochs.

        Args:
            checkpoint: a file that is written after every epoch. If it exists, training continues from it.
        """
        found = Checkpoint.read(checkpoint)
        if found is not None:
            self.restore(found)
        done = self.ranks.each(self.epoch)[0]
        self.ranks.require_all(
            self.epoch == done, f"does not see that {done} epochs are done; start all anew"
        )
        while self.epoch < self.params.epochs:
            self.train_epoch()
            if self.ranks.first:
                self.checkpoint().write(checkpoint)
            self.ranks.wait()

    def measure(self) -> None:
        """Validate the model as it is, as epoch 0: nothing is trained."""
        self.history.first = 0
        logits = self._validated(math.nan, math.nan, math.nan)
        label = self.label[self.given.rows("val")]
        right, most = int((logits.argmax(1) == label).sum()), int(label.bincount().max())
        worst, mean = self.history.epochs[0].val_worst, self.history.epochs[0].val_mean
        log.info(
            "%s: %s is right about %d of %d validation images (%.3f); %s",
            *(self.name, self.network.classifier, right, len(label), right / len(label)),
            selection.spoken_scores(self.criterion, worst, mean),
        )
        if right <= most:
            log.warning(
                "%s: that is no more than to answer always with the most frequent class (%.3f); are "
                "model.classes, model.architecture, model.normalization or dataset.input_size others than "
                "in its training?",
                *(self.name, most / len(label)),
            )

    def train_epoch(self) -> None:
        """One pass over the training rows, then validation; also the early logits, if the epoch has them."""
        loss, accuracy, rate = self.train_batches()
        self.ranks.level(self.model)
        self.epoch += 1
        self._validate(loss, accuracy, rate)
        if self.epoch in self.params.keep_epochs:
            shares = self.ranks.to_first(self._logits_here(self.given.rows("train")))
            if shares is not None:
                self.early[str(self.epoch)] = _in_order(shares)

    def train_batches(self) -> tuple[float, float, float]:
        """One pass over the training rows.

        Returns:
            The mean loss of the batches, the share of correctly classified images (both measured before each
            step), and the last learning rate.

        Raises:
            MacError: the loss of a batch is not finite.
        """
        params, epoch = self.params, self.epoch + 1
        batches = batches_of_epoch(self.rows, params.batch_size, params.seed, epoch, self.ranks)
        count = sum(len(rows) for rows in batches)
        losses = torch.empty(len(batches), device=self.on)
        correct = torch.zeros((), dtype=torch.int64, device=self.on)
        seed = seed_of_epoch(params.seed, epoch, self.ranks.rank)
        generator = torch.Generator().manual_seed(seed)
        torch.manual_seed(seed)
        self.model.train()
        with Progress(f"{self.name}, epoch {epoch} of {params.epochs}", count, "images") as progress:
            images = image_batches(self.images, batches, self.on)
            for step, (rows, stored) in enumerate(zip(batches, images, strict=True)):
                done = (self.epoch + step / len(batches)) / params.epochs
                rate = learning_rate(params.schedule, params.lr, done)
                x = self.model.input(self.make_input(rows, stored, generator))
                losses[step], right = self._step(x, self.label[rows].to(self.on), rate)
                correct += right
                progress.update(len(rows))
        losses = self.ranks.total(losses) / self.ranks.count
        correct = self.ranks.total(correct)
        self._require_finite(losses, epoch)
        return losses.mean().item(), correct.item() / (count * self.ranks.count), rate

    def _step(self, x: Tensor, y: Tensor, rate: float) -> tuple[Tensor, Tensor]:
        """One step of SGD on a batch.

        Returns:
            The batch's loss, and the number of its correctly classified images; both before the step.
        """
        for group in self._optimizer.param_groups:
            group["lr"] = rate
        with device.autocast(self.on, self.params.precision):
            logits = self._parallel(x)
        loss = F.cross_entropy(logits.float(), y)
        self._optimizer.zero_grad()
        loss.backward()
        self._optimizer.step()
        return loss.detach(), (logits.detach().argmax(1) == y).sum()

    def _require_finite(self, losses: Tensor, epoch: int) -> None:
        bad = (~losses.isfinite()).nonzero()
        if len(bad):
            step = int(bad[0, 0])
            raise MacError(
                f"{self.name}: the loss is {losses[step].item()} in epoch {epoch}, batch {step + 1}; "
                f"lower {self.name}.lr"
            )

    def _validate(self, loss: float, train_accuracy: float, rate: float) -> None:
        """Measure the last epoch, keep the model if it is the best so far, and log it."""
        self._validated(loss, train_accuracy, rate)
        epoch = self.history.epochs[-1]
        log.info(
            "%s, epoch %d of %d: loss %.3f, train accuracy %.3f, validation: %s",
            *(self.name, self.epoch, self.params.epochs, loss, train_accuracy),
            selection.spoken_scores(self.criterion, epoch.val_worst, epoch.val_mean),
        )

    def _validated(self, loss: float, train_accuracy: float, rate: float) -> Tensor:
        """Measure the last epoch, and keep the model if it is the best so far; the logits on validation."""
        rows = self.given.rows("val")
        logits = self.logits(rows)
        if self._reference is None:
            self._reference = logits if self._refer is None else self._refer()
        correct = (logits.argmax(1) == self.label[rows]).numpy()
        chooses = self._chooses(self._reference)
        worst, mean = (score.item() for score in chooses.scores(chooses.accuracy(correct)))
        accuracy = tuple(self.history.validation.accuracy(correct).tolist())
        self.history.epochs.append(Epoch(rate, loss, train_accuracy, accuracy, worst, mean))
        if self.history.best_epoch == self.epoch:
            self.best = self.state()
        self._track(self.epoch, self.history.rows()[-1])
        return logits

    def _chooses(self, reference: Tensor) -> Grouping:
        """The validation split, grouped by the criterion."""
        label = self.label[self.given.rows("val")].numpy()
        return selection.criterion(
            self.criterion, self.given.groups, label, self._val_attribute, reference.numpy()
        )

    def _training_rows(self) -> NDArray[np.int64]:
        """The rows of the training split without the share `hold_out`."""
        rows = self.given.rows("train")
        return rows[~unseen_by_erm(self.label[rows].numpy(), self.params.hold_out, self.params.seed)]

    def predict(self, rows: NDArray[np.int64]) -> Tensor:
        """The class that the model predicts for each row, (n,) int64 on the CPU."""
        return self.logits(rows).argmax(1)

    def logits(self, rows: NDArray[np.int64]) -> Tensor:
        """The model's logits of each row without augmentation, (n, classes) float32 on the CPU.

        Each process computes its share of the batches, and gets those of all.

        Raises:
            MacError: they are not finite.
        """
        return _in_order(self.ranks.each(self._logits_here(rows)))

    @torch.no_grad()
    def _logits_here(self, rows: NDArray[np.int64]) -> list[Tensor]:
        """The logits of this process's share of the batches of `rows`.

        Raises:
            MacError: in every process, if those of one are not finite.
        """
        self.model.eval()
        batches = [rows[start : start + EVAL_BATCH] for start in range(0, len(rows), EVAL_BATCH)]
        found = []
        for stored in image_batches(self.images, batches[self.ranks.rank :: self.ranks.count], self.on):
            x = self.model.input(to_input_grid(stored, self.inputs))
            with device.autocast(self.on, self.params.precision):
                logits = self.model(x)
            found.append(logits.float().cpu())
        finite = all(bool(logits.isfinite().all()) for logits in found)
        if not all(self.ranks.each(finite)):  # the last step of an epoch may do it, which no loss shows
            remedy = f"lower {self.name}.lr" if self.epoch else "use other weights"
            raise MacError(f"{self.name}: the logits are NaN or infinite after epoch {self.epoch}; {remedy}")
        return found

    def spec(self) -> ModelSpec:
        """How to build the model, and how an image file becomes its input."""
        groups, made = self.given.groups, self.images.provenance.params
        unusual = {key: self.given.stated("images", key) for key in ("interpolation", "range") if key in made}
        return ModelSpec(
            architecture=self.network.architecture,
            classes=groups.classes,
            attributes=groups.attributes,
            stored_size=self.images["image"].shape[1],
            to_stored=self.given.stated("images", "to_stored"),
            input_size=self.inputs.input_size,
            to_input=self.inputs.to_input,
            normalization=self.model.trunk.normalization,
            **unusual,
        )

    def state(self) -> Tensors:
        """The model's state dict, copied to the CPU."""
        return {name: _copied(tensor) for name, tensor in self.model.state_dict().items()}

    def checkpoint(self) -> Checkpoint:
        """All that the training needs to continue after this epoch."""
        momentum = {}
        for number, parameter in self._parameters():
            buffer = self._optimizer.state[parameter].get("momentum_buffer")
            if buffer is not None:
                momentum[str(number)] = buffer.cpu().contiguous()
        assert self._reference is not None  # an epoch is done
        return Checkpoint(
            last=self.state(),
            best=self.best,
            momentum=momentum,
            early=self.early,
            reference=self._reference,
            epochs=self.history.epochs,
        )

    def restore(self, checkpoint: Checkpoint) -> None:
        """Continue after the last epoch of a checkpoint of the same training."""
        self.model.load_state_dict(checkpoint.last)
        self.best, self.early = checkpoint.best, checkpoint.early if self.ranks.first else {}
        self._reference = checkpoint.reference
        for number, parameter in self._parameters():
            if str(number) in checkpoint.momentum:
                buffer = torch.empty_like(parameter).copy_(checkpoint.momentum[str(number)])
                self._optimizer.state[parameter]["momentum_buffer"] = buffer
        self.history.epochs = list(checkpoint.epochs)
        self.epoch = len(checkpoint.epochs)
        for number, row in enumerate(self.history.rows(), self.history.first):
            self._track(number, row)
        log.info("%s: continuing after epoch %d of %d", self.name, self.epoch, self.params.epochs)

    def _parameters(self) -> list[tuple[int, nn.Parameter]]:
        """The parameters that are trained, numbered."""
        return list(enumerate(self._optimizer.param_groups[0]["params"]))


def _in_order(shares: Sequence[Sequence[Tensor]]) -> Tensor:
    """What the processes computed of batches, of which each took every N-th, together (n, …)."""
    count = sum(len(share) for share in shares)
    return torch.cat([shares[each % len(shares)][each // len(shares)] for each in range(count)])


def _copied(tensor: Tensor) -> Tensor:
    return tensor.detach().cpu().clone(memory_format=torch.contiguous_format)


def as_numpy(tensors: Tensors) -> dict[str, NDArray[Any]]:
    """A state dict as NumPy arrays, for `store.write_model`."""
    return {name: tensor.numpy() for name, tensor in tensors.items()}
