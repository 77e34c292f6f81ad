"""Spawrious, NICO++, ImageNet-9 and WILDS folders: made-up samples in the published layouts."""

from collections import Counter
from itertools import product
from pathlib import Path

import pytest

from pipeline.datasets import celeba, imagenetbg, nicopp, spawrious, waterbirds
from pipeline.datasets.record import Dataset
from pipeline.errors import MacError
from tests import official_layouts


def touch(folder: Path, count: int, suffix: str = ".png") -> None:
    folder.mkdir(parents=True)
    for number in range(count):
        (folder / f"{number}{suffix}").touch()


def counts(dataset: Dataset) -> Counter[tuple[str, str, int]]:
    dataset.check()
    groups = dataset.groups
    names = (*groups.attributes, "")  # UNKNOWN is -1
    return Counter((groups.classes[r.label], names[r.attribute], r.split) for r in dataset.records)


def test_spawrious(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(spawrious, "TOTAL", 20)
    places = ("snow", "jungle", "desert", "dirt", "mountain", "beach")
    for environment, place, breed in product("01", places, spawrious.BREEDS):
        touch(tmp_path / environment / place / breed, 20)
    dataset = spawrious.read(tmp_path, spawrious.Options(benchmark="o2o_hard", val=0.2))
    assert dataset.groups.classes == ("bulldog", "corgi", "dachshund", "labrador")
    expected = Counter[tuple[str, str, int]]()
    train = {"bulldog": "jungle", "dachshund": "mountain", "labrador": "snow", "corgi": "desert"}
    test = {"bulldog": "mountain", "dachshund": "snow", "labrador": "desert", "corgi": "jungle"}
    for breed in train:  # 19 and 17 of 20, and the rest on the beach: 1 and 3
        expected |= {(breed, train[breed], 0): 29, (breed, train[breed], 1): 7}
        expected |= {(breed, "beach", 0): 3, (breed, "beach", 1): 1, (breed, test[breed], 2): 40}
    assert counts(dataset) == expected
    many = counts(spawrious.read(tmp_path, spawrious.Options(benchmark="m2m_easy", val=0.2)))
    assert many["bulldog", "desert", 0] == many["labrador", "jungle", 0] == 16
    assert many["bulldog", "jungle", 2] == many["corgi", "desert", 2] == 20
    with pytest.raises(
        MacError, match="0/jungle/bulldog: no such folder; dataset.root should be the folder spaw"
    ):
        spawrious.read(tmp_path / "snow", spawrious.Options())


def test_nico(tmp_path: Path) -> None:
    for context, (name, count) in product(nicopp.CONTEXTS, [("bear", 20), ("cat", 9), ("dog", 4)]):
        touch(tmp_path / context / name, count + 10 * (context == "dim"), ".jpg")
    dataset = nicopp.read(tmp_path, nicopp.Options(held_out=9))
    found = counts(dataset)
    assert [found["bear", "rock", split] for split in range(3)] == [11, 3, 6]
    assert [found["cat", "rock", split] for split in range(3)] == [0, 3, 6]
    assert [found["dog", "rock", split] for split in range(3)] == [0, 1, 3]
    assert [found["cat", "dim", split] for split in range(3)] == [10, 3, 6]
    assert nicopp.read(tmp_path, nicopp.Options(held_out=9)) == dataset
    assert nicopp.read(tmp_path, nicopp.Options(held_out=9, seed=1)) != dataset
    (tmp_path / "rock" / "1.jpg").touch()
    with pytest.raises(
        MacError, match="rock/1.jpg: expected <context>/<class>/<image>, such as autumn/bear/1.jpg"
    ):
        nicopp.read(tmp_path, nicopp.Options())


def test_imagenet_9(tmp_path: Path) -> None:
    for place, count in [("in9l/train", 5), ("in9l/val", 2), ("bg_challenge/mixed_rand/val", 3),
                         ("bg_challenge/original/val", 4), ("bg_challenge/mixed_same/val", 1)]:  # fmt: skip
        for name in ("00_dog", "02_wheeled vehicle"):
            touch(tmp_path / place / name, count, ".JPEG")
    found = counts(imagenetbg.read(tmp_path, imagenetbg.Options(variations=["original", "mixed_rand"])))
    expected = {}
    for name in ("dog", "wheeled vehicle"):
        expected |= {(name, "", 0): 5, (name, "", 1): 2, (name, "original", 2): 4, (name, "mixed_rand", 2): 3}
    assert found == expected
    with pytest.raises(
        MacError, match="bg_challenge/no_fg/val: no such folder; dataset.root should be the folder"
    ):
        imagenetbg.read(tmp_path, imagenetbg.Options(variations=["no_fg"]))
    touch(tmp_path / "in9l/train/dog", 1)
    with pytest.raises(
        MacError, match="train/dog/0.png: expected train/<number>_<class>/<image>, such as 00_dog"
    ):
        imagenetbg.read(tmp_path, imagenetbg.Options())


def test_the_folders_of_wilds(tmp_path: Path) -> None:
    root = tmp_path / "waterbirds_v1.0"
    rows = ["img_id,img_filename,y,split,place,place_filename"]
    for number, (y, place, split) in enumerate(product((0, 1), (0, 1), (0, 1, 2))):
        rows.append(f"{number},{number:03d}.Bird/{number}.jpg,{y},{split},{place},/o/ocean/{number}.jpg")
    root.mkdir()
    (root / "metadata.csv").write_text("\n".join(rows))
    dataset = waterbirds.read(root, waterbirds.Options())
    assert [(r.label, r.attribute, r.split) for r in dataset.records] == list(
        product((0, 1), (0, 1), (0, 1, 2))
    )
    root = tmp_path / "celebA_v1.0"
    official_layouts.celeba(root, "csv")
    images = root / "img_align_celeba"
    for file in (images / "img_align_celeba").iterdir():
        file.rename(images / file.name)
    (images / "img_align_celeba").rmdir()
    dataset = celeba.read(root, celeba.Options(attribute=["Male", "Smiling"]))
    dataset.check()
    assert dataset.groups.attributes == (
        "not_Male+not_Smiling",
        "not_Male+Smiling",
        "Male+not_Smiling",
        "Male+Smiling",
    )
    written = [(number % 12 % 4 // 2, 2 * (number % 12 % 2) + (number % 12 % 3 > 0)) for number in range(36)]
    assert [(r.label, r.attribute) for r in dataset.records] == written
    assert dataset.records[35].image.load(root).size == (178, 218)
