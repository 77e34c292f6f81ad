"""The page of images that look alike: the right pairs, all of them counted, nothing of a file's name run."""

import base64
import io
import sys
from itertools import combinations
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageEnhance
from ruamel.yaml import YAML

from pipeline.datasets import memory
from pipeline.datasets.memory import announce
from pipeline.datasets.record import Dataset, Record
from pipeline.datasets.sources import Pixels
from pipeline.errors import MacError
from pipeline.metrics import Groups
from pipeline.setting import Range
from pipeline.tools import near_duplicates
from pipeline.tools.near_duplicates import LIMIT, find
from tests.conftest import Project, default_params
from tests.page import Page


@pytest.mark.parametrize("block", [7, 512])
def test_pairs_are_those_of_a_plain_search(block: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(near_duplicates, "BLOCK", block)
    monkeypatch.setattr(near_duplicates, "SHOWN", 40)
    rng = np.random.default_rng(0)
    hashes = rng.random((60, 64)) < 0.5
    hashes[20:] = hashes[rng.integers(0, 20, 40)] ^ (rng.random((40, 64)) < 0.05)
    split, label = rng.integers(0, 3, 60), rng.integers(0, 2, 60)
    expected = []
    for one, other in combinations(range(60), 2):
        distance = int((hashes[one] ^ hashes[other]).sum())
        if distance <= LIMIT:
            expected.append((distance, split[one] == split[other], one, other))
    expected.sort()
    assert len(expected) > 40
    near = find(hashes, split, label)
    assert near.pairs.tolist() == [[one, other, distance] for distance, _, one, other in expected[:40]]
    distances = [row[0] for row in expected]
    assert near.count.tolist() == np.bincount(distances, minlength=LIMIT + 1).tolist()
    assert near.across.sum() == sum(not same for _, same, _, _ in expected)
    assert near.differ.sum() == sum(label[one] != label[other] for _, _, one, other in expected)


def test_an_image_counts_as_held_as_long_as_it_is_made_small(tmp_path: Path) -> None:
    class Large(Pixels):
        def load(self, root: Path, white: Range = "auto") -> Image.Image:
            announce(1000)
            assert memory._held["pixels"] == 1000
            return super().load(root, white)

    record = Record(Large("x", (np.zeros((90, 60, 3), np.uint8),)), 0, 0, 0)
    assert near_duplicates._small(record, tmp_path, "auto", 30).size == (20, 30)
    assert memory._held["pixels"] == 0


def test_the_page(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A brighter, smaller JPEG of a training image is in the test split; others are far from each other."""
    pytest.importorskip("imagehash", reason="the extra duplicates is not installed")
    rng, raw = np.random.default_rng(0), tmp_path / "raw"
    raw.mkdir()
    rows = ["path,label,split"]
    for number, split in enumerate(("train", "train", "val", "val", "test")):
        coarse = Image.fromarray(rng.integers(0, 256, (8, 8, 3), np.uint8))
        coarse.resize((96, 80), Image.Resampling.BICUBIC).save(raw / f"{number}.png")
        rows.append(f"{number}.png,{number % 2},{split}")
    with Image.open(raw / "1.png") as image:
        ImageEnhance.Brightness(image.resize((70, 60))).enhance(1.1).save(raw / "<b>near.jpg", quality=80)
    (raw / "bad.png").write_bytes(b"bad")
    (raw / "m.csv").write_text("\n".join([*rows, "<b>near.jpg,0,test", "bad.png,0,train"]))
    project, values = Project(tmp_path), default_params()
    values["dataset"] |= {"name": "folder", "root": str(raw), "options": {"metadata": "m.csv"}}
    YAML(typ="safe").dump(values, project.params_file)
    said = project.succeed("doctor", "--near-duplicates", str(tmp_path / "near.html")).stdout
    assert (
        said == f"pairs that look alike among 6 images: 1, in two splits: 1; see {tmp_path / 'near.html'}\n"
    )
    text = (tmp_path / "near.html").read_text()
    page = Page(text)
    for words in ("1.png", "<b>near.jpg", "train, 1", "test, 0", "in two splits", "of two classes"):
        assert words in page.text
    assert "Images that cannot be read, and are left out: 1." in page.text
    assert "://" not in text
    assert not page.all("b")
    pictures = [str(image["src"]).removeprefix("data:image/jpeg;base64,") for image in page.all("img")]
    sizes = [Image.open(io.BytesIO(base64.b64decode(picture))).size for picture in pictures]
    assert sizes == [(96, 80), (70, 60)]


def test_without_imagehash(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "imagehash", None)
    dataset = Dataset(tmp_path, [], Groups(("a", "b"), ()))
    with pytest.raises(MacError, match=r"need imagehash: pip install 'mac-robust\[duplicates\]'"):
        near_duplicates.hash_images(dataset, "auto")
