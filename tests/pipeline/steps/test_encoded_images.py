"""`dataset.storage: encoded`: images.h5 has other bytes, and what is made of it the same values."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, features

from pipeline import store
from pipeline.compute.engine import Arrays, Block
from pipeline.datasets.record import Dataset
from pipeline.errors import MacError
from pipeline.params.dataset import DatasetParams
from pipeline.project import Project
from pipeline.steps import prepare
from pipeline.store import Artefact
from tests import tiny
from tests.conftest import open_file
from tests.pipeline.steps import test_prepare, untrained
from tests.pipeline.steps.test_prepare import MORE, damage, run, write_dataset, write_true_mask

ENCODED = {"storage": "encoded"}


@pytest.fixture
def raw(tmp_path: Path) -> Path:
    """A dataset with a true mask."""
    write_dataset(tmp_path / "raw", MORE)
    write_true_mask(tmp_path / "raw")
    return tmp_path / "raw"


def values(images: Artefact) -> dict[str, np.ndarray]:
    return {name: images[name][:] for name in images}


def test_prepare_writes_the_same_images(tmp_path: Path, raw: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with open_file(run(tmp_path)) as images:
        pixels = values(images)
    out = run(tmp_path, **ENCODED)
    first = out.read_bytes()
    with open_file(out) as images:
        assert images.provenance.params["storage"] == "encoded"
        found = values(images)
        assert found.keys() == pixels.keys()
        for name, expected in pixels.items():
            np.testing.assert_array_equal(found[name], expected)
    monkeypatch.setattr(prepare, "BLOCK", 1)
    assert run(tmp_path, **ENCODED).read_bytes() == first
    assert not any((tmp_path / "scratch").iterdir())


def test_its_pictures_lie_on_the_disk_twice_at_most(
    tmp_path: Path, raw: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(prepare, "BLOCK", 2)
    write_pictures, found = store.Writer.write_pictures, []

    def and_look(writer: store.Writer, name: str, sizes: store.Sizes, packed: Iterator[np.ndarray]) -> None:
        write_pictures(writer, name, sizes, packed)
        writer.file.flush()
        files = [each for each in (tmp_path / "scratch").rglob("*") if each.is_file()]
        found.append(sum(each.stat().st_size for each in files if "ballast" not in each.name))
        found.append(int(sizes.offset[-1]))

    monkeypatch.setattr(store.Writer, "write_pictures", and_look)
    run(tmp_path, stored_size=256, **ENCODED)
    there, pictures = found
    assert 2 * pictures < there < 2.2 * pictures


def test_without_webp_it_does_not_begin(tmp_path: Path, raw: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(features, "version", lambda name: None)
    with pytest.raises(
        MacError, match=r"^dataset.storage: encoded needs WebP, and this Pillow was built with"
    ):
        run(tmp_path, **ENCODED)
    run(tmp_path)


@pytest.mark.parametrize("block", [1, 64])  # with 1, there are blocks without an image
def test_files_that_cannot_be_read_are_left_out(
    tmp_path: Path, raw: Path, monkeypatch: pytest.MonkeyPatch, block: int
) -> None:
    monkeypatch.setattr(prepare, "BLOCK", block)
    damage(raw)
    found = []
    for storage in ("pixels", "encoded"):
        with open_file(run(tmp_path, on_error="skip", storage=storage)) as images:
            found.append(values(images))
    assert len(found[0]["image"]) == 4
    for name, expected in found[0].items():
        np.testing.assert_array_equal(found[1][name], expected)


def test_copies_are_found_by_their_pixels(tmp_path: Path, raw: Path) -> None:
    with Image.open(raw / "a/1.jpg") as picture:
        picture.save(raw / "b/4.png")
    rows = [*MORE, "7,b/4.png,0,2,0,x"]
    (raw / "metadata.csv").write_text("\n".join([test_prepare.HEADER, *rows]))
    with pytest.raises(MacError, match=r"a/1.jpg \(train, landbird\) = b/4.png \(test, landbird\)"):
        run(tmp_path, **ENCODED)


def test_it_continues_after_an_interruption(
    tmp_path: Path, raw: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(prepare, "BLOCK", 2)
    monkeypatch.setattr(prepare, "usable_cores", lambda: 1)
    whole = run(tmp_path, **ENCODED).read_bytes()
    decode_block, done = prepare._decode_block, []

    def until_the_third(dataset: Dataset, params: DatasetParams, foreground: bool, block: Block) -> Arrays:
        done.append(block.start)
        if len(done) == 3:
            raise RuntimeError("killed")
        return decode_block(dataset, params, foreground, block)

    monkeypatch.setattr(prepare, "_decode_block", until_the_third)
    with pytest.raises(RuntimeError, match="killed"):
        run(tmp_path, **ENCODED)
    assert run(tmp_path, **ENCODED).read_bytes() == whole
    assert done == [0, 2, 4, 4]


def test_what_follows_has_the_same_values(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(untrained, "COUNTS", {0: (8, 2, 2, 5), 1: (2, 2, 2, 2), 2: (2, 2, 2, 2)})
    projects = []
    for encoded in (False, True):
        project = untrained.write_project(tmp_path / f"{encoded}", encoded)
        untrained.make_masks(project, target="prediction")
        untrained.make_features(project, draws=1, validation_draws=1)
        projects.append(project)
    for name in ("maps", "masks", "originals", "features"):
        pixels, encoded = (all_of(project, name) for project in projects)
        assert pixels.keys() == encoded.keys()
        for dataset, expected in pixels.items():
            np.testing.assert_array_equal(encoded[dataset], expected, f"{name}: {dataset}")
    trained = [tiny.train_erm(project, epochs=1) / "model.safetensors" for project in projects]
    assert trained[0].read_bytes() == trained[1].read_bytes()


def all_of(project: Project, name: str) -> dict[str, np.ndarray]:
    with open_file(project.path(name)) as artefact:
        return {dataset: artefact[dataset][:] for dataset in artefact}
