"""Two trees of images without a table."""

from collections import Counter
from pathlib import Path

import pytest

from pipeline.datasets import bar, metashift
from pipeline.errors import MacError
from pipeline.metrics import UNKNOWN
from tests import official_layouts


def test_metashift(tmp_path: Path) -> None:
    official_layouts.metashift(tmp_path, train=6, test=20)
    dataset = metashift.read(tmp_path, metashift.Options())
    dataset.check()
    assert dataset.groups.classes == ("cat", "dog")
    assert dataset.groups.attributes == ("bed", "bench", "bike", "shelf", "sofa")
    names = Counter(
        (dataset.groups.classes[r.label], dataset.groups.attributes[r.attribute], r.split)
        for r in dataset.records
    )
    assert names == {
        ("cat", "bed", 0): 6, ("cat", "sofa", 0): 6, ("dog", "bench", 0): 6, ("dog", "bike", 0): 6,
        ("cat", "shelf", 1): 3, ("cat", "shelf", 2): 17, ("dog", "shelf", 1): 3, ("dog", "shelf", 2): 17,
    }  # fmt: skip
    assert metashift.read(tmp_path, metashift.Options()) == dataset
    assert metashift.read(tmp_path, metashift.Options(seed=1)) != dataset


def test_metashift_elsewhere(tmp_path: Path) -> None:
    with pytest.raises(
        MacError,
        match=r"train: no such folder; dataset.root should be the folder that holds MetaShift",
    ):
        metashift.read(tmp_path, metashift.Options())
    official_layouts.metashift(tmp_path)
    (tmp_path / "train/cat/cat(sofa)").rename(tmp_path / "train/cat/sofa")
    with pytest.raises(
        MacError, match=r"cat/sofa/2300000.jpg: expected train/<class>/<class>\(<context>\)/<image>"
    ):
        metashift.read(tmp_path, metashift.Options())


def test_bar(tmp_path: Path) -> None:
    official_layouts.bar(tmp_path, train=20, test=5)
    dataset = bar.read(tmp_path, bar.Options())
    dataset.check()
    assert dataset.groups.classes == ("climbing", "diving", "fishing", "pole vaulting", "racing", "throwing")
    assert {r.attribute for r in dataset.records} == {UNKNOWN}
    assert Counter((r.label, r.split) for r in dataset.records) == {
        (c, s): n for c in range(6) for s, n in ((0, 17), (1, 3), (2, 5))
    }
    assert all(r.image.name.startswith("test/") == (r.split == 2) for r in dataset.records)


def test_bar_with_a_file_that_names_no_class(tmp_path: Path) -> None:
    official_layouts.bar(tmp_path)
    (tmp_path / "test/racing.jpg").write_bytes((tmp_path / "test/racing_6.jpg").read_bytes())
    with pytest.raises(MacError, match=r"test/racing.jpg: expected a name such as 'climbing_12.jpg'"):
        bar.read(tmp_path, bar.Options())


def test_both_enter_links_and_tell_what_is_not_used(tmp_path: Path) -> None:
    official_layouts.metashift(tmp_path / "m")
    (tmp_path / "m/train/cat/cat(sofa)").rename(tmp_path / "m/sofas")
    (tmp_path / "m/train/cat/cat(sofa)").symlink_to("../../sofas")
    (tmp_path / "m/train/cat/readme.txt").write_text("")
    dataset = metashift.read(tmp_path / "m", metashift.Options())
    assert "sofa" in dataset.groups.attributes
    assert dataset.notes == ("not used: 1 .txt (train/cat 1)",)
    official_layouts.bar(tmp_path / "b")
    (tmp_path / "b/test/clip.mp4").write_text("")
    assert bar.read(tmp_path / "b", bar.Options()).notes == ("not used: 1 .mp4 (test 1)",)
    (tmp_path / "b/test/Racing_9.jpg").write_bytes((tmp_path / "b/test/racing_6.jpg").read_bytes())
    with pytest.raises(MacError, match=r"classes differ in their spelling alone: 'Racing' \(1\) = 'racing'"):
        bar.read(tmp_path / "b", bar.Options())
