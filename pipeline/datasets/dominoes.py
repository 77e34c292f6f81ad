"""Dominoes (Shah et al. 2020, D-BAT): a digit above an object.

The object is the class; the digit is the spurious attribute.

<root>/cifar-10-batches-py/                torchvision's files of CIFAR-10 ("cifar10")
<root>/{MNIST,FashionMNIST}/raw/           torchvision's files of "mnist" and "fashion_mnist"
<root>/<name>/{train,test}/<class>/*.png   or any images, in class folders

As in both papers, each half is 32 x 32 pixels; digits of 28 x 28 pixels have a black border. In training, the
share `correlation` of each class has the digit of this class. In the validation and test splits, all pairs of
object and digit are equally frequent. The true mask is the lower half. (In D-BAT's own data, test digits are
random, and the training correlation is 1.)
"""

import pickle
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Annotated, Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from pydantic import AfterValidator, ConfigDict, Field, model_validator

from pipeline.datasets.listing import below, not_used
from pipeline.datasets.options import DrawnValidation
from pipeline.datasets.record import Dataset, Record
from pipeline.datasets.sources import Pixels, inside, open_image
from pipeline.errors import MacError, first_line
from pipeline.metrics import Groups
from pipeline.store import regular

SIDE = 32
CORE_HALF = Pixels("lower half", (np.zeros((SIDE, SIDE), np.uint8), np.full((SIDE, SIDE), 255, np.uint8)))
Images = NDArray[np.uint8]  # (n, 32, 32, 3)


def _distinct(value: list[str]) -> list[str]:
    if len(set(value)) < max(2, len(value)):
        raise ValueError("should be two or more different classes")
    return value


Classes = Annotated[list[str], AfterValidator(_distinct)]
CORE = "lower half: cifar10, fashion_mnist, mnist, or a folder of `<split>/<class>/`"
CORRELATION = "share of a class's training images that have the attribute of this class"


class Options(DrawnValidation):
    """Which images are put together, and how strongly their classes are correlated."""

    model_config = ConfigDict(coerce_numbers_to_str=True)

    core: str = Field(default="cifar10", description=CORE)
    spurious: str = Field(default="mnist", description="upper half: the same values as for core")
    core_classes: Classes = Field(default=["automobile", "truck"], description="the classes")
    spurious_classes: Classes = Field(
        default=["0", "1"], description="the attributes, in the order of their classes"
    )
    correlation: float = Field(default=0.95, ge=0, le=1, description=CORRELATION)

    @model_validator(mode="after")
    def _pairs(self) -> "Options":
        if len(self.core_classes) != len(self.spurious_classes):
            raise ValueError(
                "core_classes and spurious_classes should be of one length: a class has one attribute"
            )
        return self


def read(root: Path, options: Options) -> Dataset:
    """Build the dominoes of `options.core_classes` and `options.spurious_classes`, paired in the order given.

    Raises:
        MacError: files are missing or damaged, or have no such class, or no images of it.
    """
    records: list[Record] = []
    count, unused = len(options.core_classes), list[tuple[str, Path]]()
    for folder in ("train", "test"):
        core = _images(root, options.core, folder, options.core_classes, unused)
        digits = _images(root, options.spurious, folder, options.spurious_classes, unused)
        rng = np.random.default_rng([options.seed, folder == "test"])
        deal = [_dealer(images, rng) for images in digits]
        for label, objects in enumerate(core):
            order = rng.permutation(len(objects))
            held_out = len(order) if folder == "test" else round(options.val * len(order))
            held_out_split = 2 if folder == "test" else 1
            for split, rows in ((held_out_split, order[:held_out]), (0, order[held_out:])):
                attributes = _attributes(
                    label, count, len(rows), options.correlation if split == 0 else 1 / count, rng
                )
                for row, attribute in zip(rows, attributes, strict=True):
                    number, digit = deal[attribute]()
                    pair = f"{options.core_classes[label]}+{options.spurious_classes[attribute]}"
                    image = Pixels(f"{folder}/{pair}/{row:05d}+{number:05d}", (digit, objects[row]))
                    records.append(Record(image, label, int(attribute), split, CORE_HALF))
    groups = Groups(tuple(options.core_classes), tuple(options.spurious_classes))
    return Dataset(root, records, groups, tuple(not_used(list(dict.fromkeys(unused)))))


def _attributes(
    label: int, count: int, rows: int, correlation: float, rng: np.random.Generator
) -> NDArray[np.int64]:
    """The attribute of each image: `label` for the share `correlation`; the others equally often."""
    others = [attribute for attribute in range(count) if attribute != label]
    aligned = round(correlation * rows)
    return rng.permutation(np.concatenate([np.full(aligned, label), np.resize(others, rows - aligned)]))


def _dealer(images: Images, rng: np.random.Generator) -> Callable[[], tuple[int, Images]]:
    """A function that returns one image after another, in a random order that repeats when all were used."""
    order = rng.permutation(len(images))
    dealt = 0

    def deal() -> tuple[int, Images]:
        nonlocal dealt
        row = int(order[dealt % len(order)])
        dealt += 1
        return row, images[row]

    return deal


def _images(
    root: Path, name: str, folder: str, classes: Sequence[str], unused: list[tuple[str, Path]]
) -> list[Images]:
    """The images of each class in one folder of the release, `train` or `test`.

    Args:
        unused: what is not used is added to it, see `Listing`.
    """
    if name in TORCHVISION and (root / TORCHVISION[name][0]).is_dir():
        place, read_files = TORCHVISION[name]
        try:
            images, labels, names = read_files(root, folder == "train")
        except (
            OSError,
            RuntimeError,
            ValueError,
            AssertionError,
            KeyError,
            EOFError,
            pickle.UnpicklingError,
        ) as error:
            raise MacError(
                f"{root / place}: cannot be read ({first_line(error)}); download it again"
            ) from None
        missing = [c for c in classes if c not in names]
        found = [images[labels == names.index(c)] for c in classes if c in names]
    elif (folder_of_classes := root / inside(root, name, "dataset.options") / folder).is_dir():
        names = sorted(path.name for path in folder_of_classes.iterdir() if path.is_dir())
        missing = [c for c in classes if c not in names]
        found = [_read_folder(root, f"{name}/{folder}/{c}", unused) for c in classes if c in names]
    else:
        raw = f"neither {TORCHVISION[name][0]}/ nor " if name in TORCHVISION else "no "
        raise MacError(
            f"{root}: {raw}{name}/{folder}/<class>/ is there; 'mac download --help' lists what it can get"
        )
    if missing:
        raise MacError(f"{root}: {name} has no class {', '.join(missing)}; it has {', '.join(names)}")
    for name_of_class, images in zip(classes, found, strict=True):
        if not len(images):
            raise MacError(f"{root}: {name} has no {folder} images of class {name_of_class}")
    return [_squared(images) for images in found]


def _squared(images: Images) -> Images:
    """(n, h, w) or (n, h, w, 3), at most 32 x 32, to (n, 32, 32, 3) by a black border; grey becomes RGB."""
    if images.ndim == 3:
        images = np.repeat(images[..., None], 3, axis=-1)
    height, width = images.shape[1:3]
    top, left = (SIDE - height) // 2, (SIDE - width) // 2
    return np.pad(images, ((0, 0), (top, SIDE - height - top), (left, SIDE - width - left), (0, 0)))


def _read_folder(root: Path, folder: str, unused: list[tuple[str, Path]]) -> Images:
    """The image files of a folder. Larger ones are scaled down to 32 pixels."""
    files, others = below(root, (folder,), "")
    unused += others
    images = [_small(root / inside(root, f"{folder}/{file}", str(root / folder))) for _, file in files]
    return np.concatenate(images) if images else np.empty((0, SIDE, SIDE, 3), np.uint8)


def _small(file: Path) -> Images:
    """An image file, (1, 32, 32, 3)."""
    picture = open_image(file).convert("RGB")
    if max(picture.size) > SIDE:
        picture = picture.resize((SIDE, SIDE), Image.Resampling.BILINEAR)
    return _squared(np.asarray(picture)[None])


def _read_mnist(root: Path, train: bool) -> tuple[Images, NDArray[np.int64], list[str]]:
    from torchvision.datasets import MNIST

    data = MNIST(str(root), train=train)
    return data.data.numpy(), data.targets.numpy(), [str(digit) for digit in range(10)]


def _read_fashion(root: Path, train: bool) -> tuple[Images, NDArray[np.int64], list[str]]:
    from torchvision.datasets import FashionMNIST

    data = FashionMNIST(str(root), train=train)
    return data.data.numpy(), data.targets.numpy(), list(FashionMNIST.classes)


def _read_cifar(root: Path, train: bool) -> tuple[Images, NDArray[np.int64], list[str]]:
    folder = root / "cifar-10-batches-py"
    names = [f"data_batch_{number}" for number in range(1, 6)] if train else ["test_batch"]
    batches = [_unpickle(folder / name) for name in names]
    images = np.concatenate([np.asarray(batch["data"], np.uint8) for batch in batches])
    labels = np.concatenate([np.asarray(batch["labels"], np.int64) for batch in batches])
    return (
        images.reshape(-1, 3, SIDE, SIDE).transpose(0, 2, 3, 1),
        labels,
        [str(name) for name in _unpickle(folder / "batches.meta")["label_names"]],
    )


# The functions that a pickle of NumPy arrays calls, by their names in different versions.
_ARRAYS = {
    ("numpy", "ndarray"): np.ndarray,
    ("numpy", "dtype"): np.dtype,
    ("_codecs", "encode"): lambda text, _encoding: text.encode("latin-1"),
    **{
        (f"numpy.{core}.multiarray", "_reconstruct"): np.empty(0).__reduce__()[0]
        for core in ("core", "_core")
    },
    **{
        (f"numpy.{core}.numeric", "_frombuffer"): np.empty(0).__reduce_ex__(5)[0]
        for core in ("core", "_core")
    },
}


class _ArraysOnly(pickle.Unpickler):
    """Loads only NumPy arrays. CIFAR-10 is published as pickles, and a pickle could run any code."""

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) not in _ARRAYS:
            raise pickle.UnpicklingError(f"{module}.{name} has no place in a pickle of images")
        return _ARRAYS[module, name]


def _unpickle(file: Path) -> dict[str, Any]:
    with regular(file) as opened:
        values = _ArraysOnly(opened, encoding="latin-1").load()
    if not isinstance(values, dict):
        raise ValueError(f"{file.name} holds no dictionary")
    return values


# torchvision's folder of each dataset, and a function that returns its images, labels and class names.
TORCHVISION = {
    "cifar10": ("cifar-10-batches-py", _read_cifar),
    "mnist": ("MNIST", _read_mnist),
    "fashion_mnist": ("FashionMNIST", _read_fashion),
}
