"""Small made-up datasets in the exact layout of the published files."""

import gzip
import pickle
import struct
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

ATTRIBUTES = ["5_o_Clock_Shadow", "Blond_Hair", "Male", "Smiling"]
CIFAR_CLASSES = ["airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck"]


def picture(file: Path, rng: np.random.Generator, size: tuple[int, int] = (40, 30), tint: int = 0) -> None:
    """A noisy JPEG of (width, height), brighter in one channel."""
    file.parent.mkdir(parents=True, exist_ok=True)
    pixels = rng.integers(0, 120, (size[1], size[0], 3), dtype=np.uint8)
    pixels[..., tint % 3] += 100
    Image.fromarray(pixels).save(file)


def celeba(root: Path, spelling: str, per_group: int = 3) -> None:
    """Every pair of Blond_Hair and Male in every split; `spelling` is "txt" (official) or "csv" (Kaggle)."""
    rng = np.random.default_rng(0)
    folder = (
        root / "img_align_celeba" if spelling == "txt" else root / "img_align_celeba" / "img_align_celeba"
    )
    rows, partition = [], []
    for split in range(3):
        for group in range(4 * per_group):
            blond, male = group % 4 // 2, group % 2
            name = f"{len(rows) + 1:06d}.jpg"
            picture(folder / name, rng, (178, 218), blond)
            rows.append([name, -1, 2 * blond - 1, 2 * male - 1, 1 if group % 3 else -1])
            partition.append([name, split])
    if spelling == "txt":
        lines = [str(len(rows)), " ".join(ATTRIBUTES) + " "]
        for name, *values in rows:
            lines.append(" ".join([name, *(f"{value:2d}" for value in values)]))
        (root / "list_attr_celeba.txt").write_text("\n".join(lines) + "\n")
        lines = [f"{name} {split}\n" for name, split in partition]
        (root / "list_eval_partition.txt").write_text("".join(lines))
    else:
        for name, header, table in (
            ("list_attr_celeba.csv", ["image_id", *ATTRIBUTES], rows),
            ("list_eval_partition.csv", ["image_id", "partition"], partition),
        ):
            (root / name).write_text("\n".join(",".join(map(str, line)) for line in [header, *table]) + "\n")


def metashift(root: Path, train: int = 6, test: int = 8) -> None:
    rng = np.random.default_rng(0)
    for part, count, contexts in (
        ("train", train, {"cat": "sofa bed", "dog": "bench bike"}),
        ("test", test, {"cat": "shelf", "dog": "shelf"}),
    ):
        for tint, (name, places) in enumerate(contexts.items()):
            for place in places.split():
                for number in range(count):
                    picture(
                        root / part / name / f"{name}({place})" / f"{2300000 + number}.jpg", rng, tint=tint
                    )


def bar(root: Path, train: int = 6, test: int = 3) -> None:
    rng = np.random.default_rng(0)
    for tint, name in enumerate(["climbing", "diving", "fishing", "pole vaulting", "racing", "throwing"]):
        for number in range(train + test):
            part = "train" if number < train else "test"
            picture(root / part / f"{name}_{number}.{'png' if number == 1 else 'jpg'}", rng, tint=tint)


def mnist(root: Path, folder: str = "MNIST", train: int = 200, test: int = 100) -> None:
    """torchvision's raw files: IDX, the archives left beside them."""
    rng = np.random.default_rng(0)
    raw = root / folder / "raw"
    raw.mkdir(parents=True)
    for prefix, count in (("train", train), ("t10k", test)):
        labels = (np.arange(count) % 10).astype(np.uint8)
        images = rng.integers(0, 20, (count, 28, 28), dtype=np.uint8) + labels[:, None, None] * 20
        for name, data, magic in (("images-idx3", images, 2051), ("labels-idx1", labels, 2049)):
            contents = struct.pack(f">{1 + data.ndim}i", magic, *data.shape) + data.tobytes()
            (raw / f"{prefix}-{name}-ubyte").write_bytes(contents)
            (raw / f"{prefix}-{name}-ubyte.gz").write_bytes(gzip.compress(contents))


def cifar10(root: Path, per_batch: int = 60) -> None:
    """The Python version: five batches, a test batch and the names, pickled."""
    rng = np.random.default_rng(1)
    folder = root / "cifar-10-batches-py"
    folder.mkdir(parents=True)
    for name in [*(f"data_batch_{i}" for i in range(1, 6)), "test_batch"]:
        labels = [int(label) for label in np.arange(per_batch) % 10]
        data: NDArray[np.uint8] = rng.integers(0, 100, (per_batch, 3072), dtype=np.uint8)
        for row, label in enumerate(labels):
            data[row, 1024 * (label % 3) : 1024 * (label % 3 + 1)] += 100
        batch = {
            "batch_label": name,
            "labels": labels,
            "data": data,
            "filenames": [f"{label}.png" for label in labels],
        }
        (folder / name).write_bytes(pickle.dumps(batch, protocol=2))
    meta = {"num_cases_per_batch": per_batch, "label_names": CIFAR_CLASSES, "num_vis": 3072}
    (folder / "batches.meta").write_bytes(pickle.dumps(meta, protocol=2))


def class_folders(root: Path, name: str, classes: list[str], size: tuple[int, int], count: int = 12) -> None:
    rng = np.random.default_rng(2)
    for part in ("train", "test"):
        for tint, label in enumerate(classes):
            for number in range(count):
                picture(root / name / part / label / f"{number}.png", rng, size, tint)
