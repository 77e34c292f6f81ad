"""Applies two heads to image files from anywhere (`mac predict`)."""

from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from glob import glob
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.special import softmax
from torch import Tensor

from pipeline.compute import device
from pipeline.compute.progress import log
from pipeline.datasets.listing import image_files
from pipeline.datasets.sources import check_name
from pipeline.errors import MacError, first_line
from pipeline.method import gradient_maps
from pipeline.method.knee import at_knee
from pipeline.method.maps import mean_of_mirrored
from pipeline.network import classifier
from pipeline.network.backbone import State
from pipeline.network.classifier import Classifier
from pipeline.network.loading import prefetch
from pipeline.project import Project
from pipeline.store import FittedHeads
from pipeline.tools import heads
from pipeline.tools.heads import ERM, MAC, NamedHead
from pipeline.tools.model import Transform, with_head


@dataclass(frozen=True)
class Pair:
    """ERM's frozen trunk with two heads: ERM's, and another one to compare it with.

    Attributes:
        model: the classifier, with ERM's head.
        transform: from an image file to the input grid.
        heads: ERM's head, and the other one.
        on: the device.
    """

    model: Classifier
    transform: Transform
    heads: tuple[NamedHead, NamedHead]
    on: torch.device

    @classmethod
    def load(cls, project: Project, other: str, on: torch.device) -> "Pair":
        """ERM and one of `heads.OTHERS`, from a project.

        Raises:
            MacError: an artefact is missing or does not belong to the others, or there is no such head
                besides ERM's.
        """
        if other == ERM:
            raise MacError(f"{ERM}: is one of the two heads already; name another method")
        with project.open("erm", heads.artefact_of(other)) as given:
            both = heads.named_head(given, ERM), heads.named_head(given, other)
            model = classifier.for_inference(with_head(given, both[0], on), torch.float32)
            return cls(model, Transform(given.model("erm").spec), both, on)

    @property
    def classes(self) -> tuple[str, ...]:
        """The names of the classes."""
        return self.transform.spec.classes

    @property
    def note(self) -> str:
        """What a user should know of the second head; often empty."""
        other = self.heads[1]
        return f"{other.title}: {other.note}" if other.name == MAC and not other.chosen else ""

    @torch.no_grad()
    def state(self, pixels: Tensor) -> State:
        """(B, 3, S, S) uint8 to the state of each image, on the device."""
        return self.model.encode(self.model.input(pixels.to(self.on)))

    @torch.no_grad()
    def probabilities(self, state: State) -> NDArray[np.float32]:
        """The probabilities of the two heads for each image, (B, 2, classes).

        Raises:
            MacError: a logit is not finite, so there is no answer.
        """
        both = FittedHeads(
            np.concatenate([each.head.weight for each in self.heads]),
            np.concatenate([each.head.bias for each in self.heads]),
        )
        logits = both.logits(self.model.trunk.pool(state).cpu().numpy())
        for each, of_one in zip(self.heads, logits, strict=True):
            if not np.isfinite(of_one).all():
                raise MacError(f"{each.title}: its logits are NaN or infinite; train it again ('mac --help')")
        return np.asarray(softmax(logits, -1).swapaxes(0, 1))

    def maps(self, state: State, label: int, mirrored: State | None = None) -> list[Tensor]:
        """The maps of a class for each of the two heads, (B, h, w) each, on the device.

        Args:
            mirrored: the state of the mirror images, for maps with `saliency.flip`.
        """
        target = torch.full((len(state),), label, device=self.on)
        found = []
        for each in self.heads:
            weight = torch.from_numpy(each.head.weight[0]).to(self.on)
            map_of = partial(gradient_maps.of_head, self.model.trunk, head_weight=weight, target=target)
            cam = map_of(state)
            found.append(cam if mirrored is None else mean_of_mirrored(cam, map_of(mirrored)))
        return found

    @torch.no_grad()
    def at_knee(self, pixels: Tensor, maps: Tensor, label: int) -> Tensor:
        """The highest pixels of ERM's maps of a class (B, h, w), as many as with `saliency.size: knee`.

        Args:
            pixels: (B, 3, S, S) uint8.

        Returns:
            (B, S, S) bool, on the device.
        """
        target = torch.full((len(pixels),), label, device=self.on)
        return at_knee(self.model, pixels.to(self.on), maps, target).mask


@dataclass(frozen=True)
class Prediction:
    """The prediction for one file.

    Attributes:
        probability: (2, classes) of the two heads, or None if the file cannot be read.
        error: why it cannot be read.
    """

    path: Path
    probability: NDArray[np.float32] | None
    error: str = ""

    def as_row(self, pair: Pair) -> dict[str, Any]:
        """A JSON-able dict: path, and for each head its class and all probabilities; or path and error."""
        row: dict[str, Any] = {"path": str(self.path)}
        if self.probability is None:
            return row | {"error": self.error}
        for each, probability in zip(pair.heads, self.probability, strict=True):
            by_class = dict(zip(pair.classes, probability.tolist(), strict=True))
            row[each.name] = {"class": pair.classes[int(probability.argmax())], "probability": by_class}
        return row

    def as_cells(self, pair: Pair) -> dict[str, object]:
        """A row of a table: path, the class that each head predicts, all probabilities, and the error.

        Classes and probabilities are empty if the file cannot be read.
        """
        seen: dict[str, object] = {}
        probabilities: dict[str, object] = {}
        for number, each in enumerate(pair.heads):
            found = None if self.probability is None else self.probability[number]
            seen[each.name] = "" if found is None else pair.classes[int(found.argmax())]
            for label, name in enumerate(pair.classes):
                probabilities[f"{each.name}: {name}"] = "" if found is None else float(found[label])
        return {"path": str(self.path), **seen, **probabilities, "error": self.error}


def predict(pair: Pair, files: Sequence[Path]) -> Iterator[Prediction]:
    """Every file's prediction, in order; for a file that cannot be read, its error."""
    size = device.forward_batch(pair.on)
    batches = [files[start : start + size] for start in range(0, len(files), size)]
    with ThreadPoolExecutor() as pool:
        read = partial(_read, pair.transform)
        reading = (list(pool.map(read, batch)) for batch in batches)
        # The next files are read while the network runs.
        for batch, found in zip(batches, prefetch(reading), strict=True):
            yield from _predicted(pair, batch, found)


def _read(transform: Transform, file: Path) -> Tensor | MacError:
    try:
        check_name(file.name, str(file.parent))
        return transform.pixels(file)
    except MacError as error:
        return error


def _predicted(pair: Pair, files: Sequence[Path], found: Sequence[Tensor | MacError]) -> Iterator[Prediction]:
    readable = [pixels for pixels in found if isinstance(pixels, Tensor)]
    probabilities = iter(pair.probabilities(pair.state(torch.stack(readable))) if readable else ())
    for file, pixels in zip(files, found, strict=True):
        if isinstance(pixels, MacError):
            yield Prediction(file, None, str(pixels))
        else:
            yield Prediction(file, next(probabilities))


def listed(paths: Sequence[str]) -> list[Path]:
    """The files of several paths, each once, in order.

    A path is a file, a folder with image files, or a pattern such as `birds/*.jpg`.

    Raises:
        MacError: a path is not there, a pattern finds nothing, or a folder has no image.
    """
    found: dict[Path, None] = {}
    for path in paths:
        try:
            found |= dict.fromkeys(_files_of(path))
        except OSError as error:  # a name that is too long, a folder that may not be entered
            raise MacError(f"{path}: cannot be read ({first_line(error)})") from None
    return list(found)


def _files_of(path: str) -> list[Path]:
    place = Path(path)
    if place.is_dir():
        files, notes = image_files(place, "")
        for note in notes:
            log.warning("%s: %s", path, note)
        if not files:
            raise MacError(f"{path}: no image file in this folder")
        return [place / file for file in files]
    if place.is_file():
        return [place]
    members = [Path(name) for name in sorted(glob(path, recursive=True))]  # noqa: PTH207 (a pattern may be absolute)
    if not members:
        raise MacError(f"{path}: no such file or folder, and no pattern that finds one")
    return members
