import hashlib
import os
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
from numpy.typing import NDArray

from pipeline import store
from pipeline.errors import MacError
from pipeline.schemas import images
from pipeline.schemas.masks import SCHEMA
from pipeline.store import seal
from tests.conftest import edited
from tests.pipeline.store import masks_file


def _digest_of(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def error_of(path: Path) -> str:
    with pytest.raises(MacError) as error, masks_file.opened(path):
        pass
    text = str(error.value)
    assert "\n" not in text
    assert str(path) in text
    assert masks_file.REMEDY in text
    return text


def test_an_artefact_can_be_read_back(masks: Path) -> None:
    with masks_file.opened(masks) as artefact:
        assert artefact.provenance.params == {"k": 1}
        assert artefact.provenance.made_from == {"images": "a", "erm": "b"}
        assert artefact.attribute("names") == ["é"]
        assert artefact["mask"].dims[1].label == "height"
        assert artefact.rows("row", np.array([3, 0, 1, 3])).tolist() == [3, 0, 1, 3]
        assert artefact.rows("row", np.array([], int)).tolist() == []


def test_a_missing_file(tmp_path: Path) -> None:
    assert "no such file" in error_of(tmp_path / "masks.h5")


@pytest.mark.parametrize("keep", [0, 10, 700, -1])
def test_a_truncated_file(masks: Path, keep: int) -> None:
    os.truncate(masks, keep if keep >= 0 else masks.stat().st_size - 1)
    assert re.search("truncated|is no MaC artefact, or damaged", error_of(masks))


def test_data_cut_out_of_a_file_is_found_when_it_is_read(masks: Path) -> None:
    with h5py.File(masks) as file:
        chunk = file["mask"].id.get_chunk_info(2)
    with masks.open("r+b") as file:
        file.seek(chunk.byte_offset)
        file.write(b"\xff" * chunk.size)
    with pytest.raises(MacError, match="damaged.*run 'mac masks'"), masks_file.opened(masks) as artefact:
        artefact["mask"][:]


def test_one_bit_of_the_data_is_found_when_the_file_is_opened(masks: Path) -> None:
    with h5py.File(masks) as file:
        place = file["cam"].id.get_offset() + 5
    content = bytearray(masks.read_bytes())
    content[place] ^= 1
    masks.write_bytes(content)
    assert "truncated or damaged, its contents are not what was written; run 'mac masks'" in error_of(masks)


def test_a_dataset_that_says_it_is_larger_than_its_file_is_refused_before_memory_is_taken(
    masks: Path,
) -> None:
    with edited(masks) as file:
        for name in (name for name in SCHEMA if name in file):
            del file[name]
        for name in ("row", "target"):
            file.create_dataset(name, (10**12,), np.int64)
        file.create_dataset("mask", (10**12, 224, 224), bool, chunks=(1, 224, 224), compression="gzip")
        file.create_dataset("cam", (10**12, 7, 7), np.float32)
        file.create_dataset("channel_mean", (10**12, 3), np.float32)
    assert "'row' says that it has 8000000000000 bytes, more than the file can hold" in error_of(masks)


def test_another_kind(tmp_path: Path, masks: Path) -> None:
    as_images = store.open_artefact(masks, "images", images.SCHEMA, "run 'mac prepare'")
    with pytest.raises(MacError, match=r"holds 'masks', expected images; run 'mac prepare'"), as_images:
        pass
    plain = tmp_path / "plain.h5"
    with h5py.File(plain, "w") as file:
        file["x"] = 1
    assert "is no MaC artefact" in error_of(plain)
    assert store.stated_kind(masks) == "masks"
    assert store.stated_kind(plain) is None


def replace(file: h5py.File, name: str, values: NDArray[Any]) -> None:
    del file[name]
    file[name] = values


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda f: f.attrs.__setitem__("version", 99), "schema version 99"),
        (lambda f: f.attrs.__setitem__("complete", False), "incomplete"),
        (lambda f: f.__delitem__("cam"), "dataset 'cam' is missing"),
        (lambda f: replace(f, "row", np.zeros(4, np.float32)), "dataset 'row' is float32"),
        (lambda f: replace(f, "row", np.zeros(3, np.int64)), "has 4 along 'position', expected 3"),
    ],
)
def test_an_artefact_that_does_not_hold_what_it_should(
    masks: Path, damage: Callable[[h5py.File], None], message: str
) -> None:
    with edited(masks) as file:
        damage(file)
    assert message in error_of(masks)


def test_an_artefact_that_was_replaced_while_it_was_in_use(masks: Path) -> None:
    with masks_file.opened(masks) as artefact:
        digest = artefact.digest
    with masks_file.opened(masks, digest):
        pass
    masks_file.write(masks, rows=5)
    with (
        pytest.raises(MacError, match="masks.h5: was replaced while it was in use"),
        masks_file.opened(masks, digest),
    ):
        pass


@pytest.mark.parametrize("mode", ["r", "r+"])
def test_a_file_that_another_program_has_open(masks: Path, mode: str) -> None:
    """A reader does not matter. A writer has changed the file's first bytes, and changes them back."""
    code = f"import h5py; f = h5py.File({str(masks)!r}, {mode!r}); print(flush=True); input()"
    with subprocess.Popen([sys.executable, "-c", code], stdin=-1, stdout=-1) as viewer:
        assert viewer.stdout is not None
        viewer.stdout.readline()
        if mode == "r":
            with masks_file.opened(masks) as artefact:
                assert artefact["row"][:].tolist() == [0, 1, 2, 3]
        else:
            with pytest.raises(MacError, match=r"masks.h5: another program has it open for writing; close"):
                masks_file.opened(masks).__enter__()
        viewer.communicate(b"\n")
    with masks_file.opened(masks) as artefact:
        assert artefact["row"][:].tolist() == [0, 1, 2, 3]


def test_an_error_of_reading_is_not_told_as_one_of_the_file_that_is_written(
    masks: Path, tmp_path: Path
) -> None:
    with h5py.File(masks) as file:
        place = file["mask"].id.get_chunk_info(0).byte_offset
    damaged = bytearray(masks.read_bytes())
    damaged[place : place + 8] = bytes(8)  # in gzip's data
    damaged[: seal.SEAL] = seal.seal(_digest_of(damaged[seal.SEAL :]))
    masks.write_bytes(damaged)
    message = r"masks.h5: dataset 'mask': damaged, its data cannot be read"
    for read in (lambda file: file["mask"][:], lambda file: file.rows("mask", np.array([0]))):
        other = store.create_folder(tmp_path / "other")
        with pytest.raises(MacError, match=message), masks_file.opened(masks) as artefact, other:
            read(artefact)
