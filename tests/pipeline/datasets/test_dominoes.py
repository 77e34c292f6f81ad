import pickle
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pydantic import ValidationError

from pipeline.datasets import dominoes
from pipeline.datasets.record import Dataset
from pipeline.errors import MacError
from tests import official_layouts


def read(root: Path, **options: Any) -> Dataset:
    dataset = dominoes.read(root, dominoes.Options(**options))
    dataset.check()
    return dataset


def counts(dataset: Dataset, split: int) -> list[int]:
    found = Counter((r.label, r.attribute) for r in dataset.records if r.split == split)
    classes = range(len(dataset.groups.classes))
    return [found[c, a] for c in classes for a in classes]


@pytest.fixture
def root(tmp_path: Path) -> Path:
    official_layouts.mnist(tmp_path, train=2000, test=400)
    official_layouts.mnist(tmp_path, "FashionMNIST")
    official_layouts.cifar10(tmp_path, per_batch=200)
    return tmp_path


def test_digits_above_objects_go_with_them_in_training_alone(root: Path) -> None:
    dataset = read(root, correlation=0.9, val=0.2)
    assert dataset.groups.classes == ("automobile", "truck")
    assert dataset.groups.attributes == ("0", "1")
    assert counts(dataset, 0) == [72, 8, 8, 72]
    assert counts(dataset, 1) == counts(dataset, 2) == [10, 10, 10, 10]


def test_the_halves_are_the_images_that_the_name_says(root: Path) -> None:
    record = next(r for r in read(root).records if r.label == 1 and r.attribute == 0)
    part, classes, rows = record.image.name.split("/")
    assert (part, classes) == ("train", "truck+0")
    lower, upper = (int(number) for number in rows.split("+"))
    trucks = [
        image
        for i in range(1, 6)
        for image in pickle.loads((root / f"cifar-10-batches-py/data_batch_{i}").read_bytes())["data"][9::10]
    ]
    digits = np.frombuffer((root / "MNIST/raw/train-images-idx3-ubyte").read_bytes()[16:], np.uint8).reshape(
        -1, 28, 28
    )[0::10]
    pixels = np.asarray(record.image.load(root))
    assert pixels.shape == (64, 32, 3)
    np.testing.assert_array_equal(pixels[32:], trucks[lower].reshape(3, 32, 32).transpose(1, 2, 0))
    np.testing.assert_array_equal(pixels[2:30, 2:30], np.repeat(digits[upper][..., None], 3, 2))
    assert not pixels[:2].any()
    assert record.foreground is not None
    mask = np.asarray(record.foreground.load(root))
    assert (mask[32:] == 255).all()
    assert not mask[:32].any()


def test_no_image_is_twice_in_a_split_and_none_in_two(root: Path) -> None:
    records = read(root).records
    part_and_row = [
        (r.image.name.split("/")[0], r.label, r.image.name.split("/")[2].split("+")[0]) for r in records
    ]
    assert len(set(part_and_row)) == len(records)
    digits = Counter((r.image.name.split("/")[0], r.attribute, r.image.name.split("+")[2]) for r in records)
    assert max(digits.values()) == 1  # there are more digits than objects here


def test_a_seed_gives_the_same_dominoes(root: Path) -> None:
    names = [[r.image.name for r in read(root, seed=seed).records] for seed in (0, 0, 1)]
    assert names[0] == names[1] != names[2]


def test_more_classes_and_other_sources(root: Path) -> None:
    dataset = read(
        root,
        core="fashion_mnist",
        core_classes=["T-shirt/top", "Bag", "Sandal"],
        spurious_classes=[3, 7, 8],
        correlation=1,
    )
    assert dataset.groups.attributes == ("3", "7", "8")
    assert counts(dataset, 0) == [17, 0, 0, 0, 17, 0, 0, 0, 17]
    assert dataset.records[0].image.load(root).size == (32, 64)


def test_class_folders_of_images(tmp_path: Path) -> None:
    official_layouts.class_folders(tmp_path, "cifar10", ["automobile", "truck"], (32, 32))
    official_layouts.class_folders(tmp_path, "letters", ["a", "b"], (60, 50))
    (tmp_path / "letters" / "train" / "b" / "notes.txt").touch()
    dataset = read(tmp_path, spurious="letters", spurious_classes=["a", "b"], val=0.25)
    assert dataset.notes == ("not used: 1 .txt (letters/train 1)",)
    assert counts(dataset, 0) == [9, 0, 0, 9]
    assert dataset.records[0].image.load(tmp_path).size == (32, 64)


def test_what_is_not_there_is_named(tmp_path: Path, root: Path) -> None:
    with pytest.raises(MacError, match=r"neither MNIST/ nor mnist/train/<class>/ is there"):
        read(tmp_path / "nowhere", core="mnist")
    with pytest.raises(MacError, match="cifar10 has no class lorry; it has airplane, automobile"):
        read(root, core_classes=["automobile", "lorry"])
    with pytest.raises(MacError, match=r"dataset.options: path '../x' leaves the dataset's folder"):
        read(root, spurious="../x")
    for options in (
        {"core_classes": ["cat"]},
        {"core_classes": ["cat", "cat"]},
        {"spurious_classes": ["1", "2", "3"]},
    ):
        with pytest.raises(
            ValidationError,
            match="Value error, (should be two or more different|core_classes and spurious_classes)",
        ):
            dominoes.Options(**options)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "file",
    [
        "cifar-10-batches-py/data_batch_3",
        "cifar-10-batches-py/batches.meta",
        "MNIST/raw/t10k-images-idx3-ubyte",
    ],
)
def test_a_truncated_file_is_one_line(root: Path, file: str) -> None:
    (root / file).write_bytes((root / file).read_bytes()[:40])
    with pytest.raises(MacError, match="cannot be read .*download it again") as error:
        read(root)
    assert "\n" not in str(error.value)


class _Evil:
    def __reduce__(self) -> tuple[Any, ...]:
        return print, ("this must not be printed",)


@pytest.mark.parametrize("protocol", [2, 4, 5])
def test_a_pickle_rebuilds_arrays_and_runs_nothing(
    root: Path, capsys: pytest.CaptureFixture[str], protocol: int
) -> None:
    file = root / "cifar-10-batches-py/test_batch"
    batch = pickle.loads(file.read_bytes())
    names = [r.image.name for r in read(root).records]
    file.write_bytes(pickle.dumps(batch, protocol=protocol))
    assert [r.image.name for r in read(root).records] == names
    file.write_bytes(pickle.dumps({**batch, "more": _Evil()}, protocol=protocol))
    with pytest.raises(MacError, match=r"(__builtin__|builtins).print has no place"):
        read(root)
    assert capsys.readouterr().out == ""
