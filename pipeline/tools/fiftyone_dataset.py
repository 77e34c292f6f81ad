"""Makes a dataset of FiftyOne: all images with masks, maps and both heads' answers (`mac fiftyone`).

FiftyOne keeps samples in its database, and pictures where they are. So the pictures are written first, on the
input grid, because masks and maps are of that.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from scipy.special import softmax

from pipeline.compute.progress import track
from pipeline.errors import MacError, first_line
from pipeline.project import Opened, Project
from pipeline.results.pictures import as_rgb, input_pixels
from pipeline.steps.report.gallery import OUTCOMES, upsampled
from pipeline.store import SPLITS

NEEDS = ("images", "erm", "masks", "features", "retrained")
CORE = 255  # of the pixels of a core, in its picture
_BLOCK = 64


@dataclass(frozen=True)
class Answer:
    """What a head says of an image: the class, its probability, and all logits (classes,)."""

    label: str
    confidence: float
    logits: NDArray[np.float32]


@dataclass(frozen=True)
class Look:
    """An image, and what is known of it.

    Attributes:
        file: its picture on the input grid.
        row, path, split: as in images.h5.
        label, group: the names of its class and group.
        outcome: ERM's answer compared with MaC's.
        phi: (D,) float32, its features.
        core, map: their pictures; None where masks.h5 has none of it, as of test images.
    """

    file: Path
    row: int
    path: str
    split: str
    label: str
    group: str
    erm: Answer
    mac: Answer
    outcome: str
    phi: NDArray[np.float32]
    core: Path | None
    map: Path | None


def looks(given: Opened, folder: Path) -> Iterator[Look]:
    """Every image of features.h5; pictures are written into the folder, three for each image at most.

    Args:
        given: the artefacts of NEEDS.
    """
    for name in ("image", "core", "map"):
        (folder / name).mkdir(parents=True, exist_ok=True)
    for split in SPLITS:
        yield from _of_split(given, split, folder)


def count(given: Opened) -> int:
    """How many images features.h5 has."""
    return sum(len(given.file("features")[f"{split}/row"]) for split in SPLITS)


def _of_split(given: Opened, split: str, folder: Path) -> Iterator[Look]:
    images, features, spec = given.file("images"), given.file("features"), given.model("erm").spec
    row, label = features[f"{split}/row"][:], features[f"{split}/label"][:]
    described = given.groups.described(label, features[f"{split}/attribute"][:])
    placed = _placed(given, split)
    for start in range(0, len(row), _BLOCK):
        here = slice(start, start + _BLOCK)
        pixels = as_rgb(input_pixels(images, row[here], spec))
        paths, phi = images.rows("path", row[here]), features[f"{split}/original"][here].astype(np.float32)
        said = [_answers(given, name, phi) for name in ("erm", "retrained")]
        for at, (number, true) in enumerate(zip(row[here].tolist(), label[here].tolist(), strict=True)):
            name, own = f"{number:07}.png", given.groups.classes[true]
            erm, mac = said[0][at], said[1][at]
            outcome = OUTCOMES[(erm.label != own) + 2 * (mac.label != own)]
            Image.fromarray(pixels[at]).save(folder / "image" / name)
            core, seen = _core_and_map(given, split, placed.get(number), folder, name)
            yield Look(
                file=folder / "image" / name,
                row=number,
                path=paths[at].decode(),
                split=split,
                label=own,
                group=described.names[int(described.index[start + at])],
                erm=erm,
                mac=mac,
                outcome=outcome,
                phi=phi[at],
                core=core,
                map=seen,
            )


def _answers(given: Opened, name: str, phi: NDArray[np.float32]) -> list[Answer]:
    logits = given.model(name).head().logits(phi)[0]
    found = []
    for values, probability in zip(logits, softmax(logits.astype(float), -1), strict=True):
        best = int(values.argmax())
        found.append(Answer(given.groups.classes[best], float(probability[best]), values))
    return found


def _placed(given: Opened, split: str) -> dict[int, int]:
    """The position in masks.h5 of every row of the split that is there."""
    masks, prefix = given.file("masks"), _prefix(split)
    if split == "test" or f"{prefix}row" not in masks:
        return {}
    return {int(row): position for position, row in enumerate(masks[f"{prefix}row"][:])}


def _prefix(split: str) -> str:
    return "val/" if split == "val" else ""


def _core_and_map(
    given: Opened, split: str, position: int | None, folder: Path, name: str
) -> tuple[Path | None, Path | None]:
    """Write the pictures of core and map of an image, where masks.h5 has them."""
    if position is None:
        return None, None
    masks, prefix = given.file("masks"), _prefix(split)
    core = masks[f"{prefix}mask"][position]
    Image.fromarray(np.where(core, CORE, 0).astype(np.uint8)).save(folder / "core" / name)
    if f"{prefix}cam" not in masks:
        return folder / "core" / name, None
    scores = upsampled(masks[f"{prefix}cam"][position], len(core))
    low, high = float(scores.min()), float(scores.max())
    heat = (scores - low) / (high - low) if high > low else np.zeros_like(scores)
    Image.fromarray(np.rint(255 * heat).astype(np.uint8)).save(folder / "map" / name)
    return folder / "core" / name, folder / "map" / name


def export(project: Project, folder: Path, name: str) -> int:
    """Make a dataset of FiftyOne that stays in its database; return the number of its images.

    Args:
        folder: for the pictures. FiftyOne shows them from there.
        name: of the dataset.

    Raises:
        MacError: FiftyOne is not installed, has no database, or has a dataset of this name; or an artefact is
            missing, or does not belong to the others.
    """
    fiftyone = _connected(name)
    with project.open(*NEEDS) as given:
        total = count(given)
        dataset = fiftyone.Dataset(name)
        try:
            dataset.default_mask_targets = {CORE: "core"}
            dataset.default_classes = list(given.groups.classes)
            all_of_them = track(looks(given, folder.resolve()), "fiftyone", total, "images")
            dataset.add_samples((sample(fiftyone, each) for each in all_of_them), num_samples=total)
            dataset.persistent = True
        except BaseException:
            dataset.delete()
            raise
    return total


def _connected(name: str) -> Any:
    """The package, connected to its database, which has no dataset of this name."""
    try:
        import fiftyone
    except ImportError:
        raise MacError("a dataset of FiftyOne needs fiftyone: pip install 'mac-robust[fiftyone]'") from None
    try:
        is_taken = fiftyone.dataset_exists(name)
    except Exception as error:
        raise MacError(
            f"FiftyOne has no database here ({first_line(error)}); start a MongoDB and name it in "
            "FIFTYONE_DATABASE_URI"
        ) from None
    if is_taken:
        raise MacError(
            f"{name}: FiftyOne has a dataset of this name; choose another, or run 'fiftyone datasets delete "
            f"{name}'"
        )
    return fiftyone


def sample(fiftyone: Any, look: Look) -> Any:
    """A sample of FiftyOne: answers as classifications, the core as segmentation, the map as heatmap."""
    made = fiftyone.Sample(filepath=str(look.file), tags=[look.split])
    for field in ("row", "path", "split", "group", "outcome", "phi"):
        made[field] = getattr(look, field)
    made["ground_truth"] = fiftyone.Classification(label=look.label)
    for field, answer in (("erm", look.erm), ("mac", look.mac)):
        made[field] = fiftyone.Classification(
            label=answer.label, confidence=answer.confidence, logits=answer.logits
        )
    if look.core:
        made["core"] = fiftyone.Segmentation(mask_path=str(look.core))
    if look.map:
        made["map"] = fiftyone.Heatmap(map_path=str(look.map), range=[0, 255])
    return made
