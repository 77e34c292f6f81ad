from pathlib import Path

import numpy as np
import pytest

from pipeline import store
from pipeline.errors import MacError
from pipeline.schemas.masks import SCHEMA
from pipeline.store import writer
from tests.pipeline.store import masks_file


def test_remaking_an_artefact_gives_the_same_bytes(masks: Path, tmp_path: Path) -> None:
    masks_file.write(tmp_path / "again.h5")
    assert (tmp_path / "again.h5").read_bytes() == masks.read_bytes()


def test_the_digest_follows_the_contents(tmp_path: Path) -> None:
    digests = set()
    for name, rows in (("one.h5", 4), ("two.h5", 4), ("three.h5", 5)):
        masks_file.write(tmp_path / name, rows)
        with masks_file.opened(tmp_path / name) as artefact:
            digests.add(artefact.digest)
    assert len(digests) == 2


def test_a_failure_while_writing_leaves_the_old_artefact(masks: Path) -> None:
    before = masks.read_bytes()
    with (
        pytest.raises(RuntimeError, match="half-way"),
        store.create(masks, "masks", SCHEMA, {}, {}) as artefact,
    ):
        artefact.write("row", np.arange(9))
        raise RuntimeError("half-way")
    assert masks.read_bytes() == before
    assert sorted(p.name for p in masks.parent.iterdir()) == [".masks.h5.verified", "masks.h5"]


def test_a_folder_that_cannot_be_written_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    below = store.create(tmp_path / "file" / "masks.h5", "masks", SCHEMA, {}, {})
    with pytest.raises(MacError, match="cannot be written"), below:
        pass
    with pytest.raises(MacError, match="cannot be written"), store.create_folder(tmp_path / "file" / "erm"):
        pass


def test_a_text_that_could_not_be_read_is_not_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(writer, "MOST_TEXT", 100)
    with (
        pytest.raises(MacError, match="masks.h5: cannot be written: attribute 'params' is too long"),
        store.create(tmp_path / "masks.h5", "masks", SCHEMA, {"k": "x" * 100}, {}),
    ):
        pass


@pytest.mark.parametrize("value", [np.nan, np.inf, 1e30])
def test_what_could_not_be_read_is_not_written(tmp_path: Path, value: float) -> None:
    with (
        pytest.raises(MacError, match=r"masks.h5: cannot be written: dataset 'cam' has .*, expected finite"),
        store.create(tmp_path / "masks.h5", "masks", SCHEMA, {}, {}) as artefact,
    ):
        artefact.write("cam", np.full((4, 2, 2), value, np.float32))
    assert not list(tmp_path.iterdir())
