import errno
import os
import pickle
import shutil
import tracemalloc
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from hashlib import sha256
from pathlib import Path

import h5py
import numpy as np
import pytest
from numpy.typing import NDArray

from pipeline import store
from pipeline.errors import MacError
from pipeline.store import Field, Place, Writer, verified

RNG = np.random.default_rng(0)
SCHEMA = {
    "image": Field("uint8", ("row", "y", "x", 3), "pixels"),
    "phi": Field("float32", ("draw", "position", "feature"), "features"),
    "mask": Field("bool", ("row", "height", "width"), "masks", "gzip"),
    "label": Field("int64", ("row",), "classes", optional=True),
}
IMAGES = RNG.integers(0, 256, (10, 4, 4, 3), np.uint8)
MASKS = RNG.random((10, 40, 40)) > 0.6
PHI = RNG.standard_normal((2, 10, 3)).astype(np.float32)


class Killed(Exception):  # noqa: N818 (it is no error)
    pass


@contextmanager
def writing(out: Path, scratch: Path) -> Iterator[Writer]:
    scratch.mkdir(exist_ok=True)
    with store.create(out, "rows", SCHEMA, {}, {}, scratch=scratch) as artefact:
        yield artefact


def write_all(out: Path, scratch: Path, *, rows: bool = True) -> None:
    """Write the artefact, in blocks of 4 rows."""
    with writing(out, scratch) as artefact:
        image, mask = artefact.place("image", IMAGES.shape), artefact.chunks("mask", MASKS.shape)
        phi = artefact.place("phi", PHI.shape, axis=1)
        for start in (8, 0, 4):
            stop = min(start + 4, 10)
            if rows:
                image.at(start, stop).write(IMAGES[start:stop])
                phi.at(start, stop).write(PHI[:, start:stop])
        for start in (0, 4, 8):
            mask.add(mask.at(start, start + 4).write(MASKS[start : start + 4]))
        artefact.write("label", np.arange(10))


def read(path: Path, name: str) -> NDArray[np.generic]:
    with store.open_artefact(path, "rows", SCHEMA, "run it again") as artefact:
        return np.asarray(artefact[name][:])


def test_rows_are_read_as_they_were_written(tmp_path: Path) -> None:
    write_all(tmp_path / "a.h5", tmp_path / "scratch")
    for name, values in {"image": IMAGES, "phi": PHI, "mask": MASKS, "label": np.arange(10)}.items():
        assert np.array_equal(read(tmp_path / "a.h5", name), values)
    assert not list((tmp_path / "scratch").iterdir())


@pytest.mark.parametrize("axes", [(2, 3), (3,)])
def test_rows_go_where_their_order_says(tmp_path: Path, axes: tuple[int, ...]) -> None:
    """In each draw to scattered places, as NumPy's own indexing puts them."""
    file = tmp_path / "file"
    file.write_bytes(bytes(7 + 4 * 2 * 9 * 5))
    draws, axis = axes[:-1], len(axes) - 1
    order = np.stack([RNG.permutation(9) for _ in range(2)]) if draws else RNG.permutation(9)
    values = RNG.standard_normal((*draws, 9, 5)).astype(np.float32)
    place = Place(file, 7, values.shape, values.dtype, axis, order)
    for start, stop in ((3, 9), (0, 3)):
        target = place.at(start, stop)
        kept = target.write(values[..., start:stop, :])
        assert target.holds(kept)
        digests = [sha256(row).digest() for row in values[..., start:stop, :].reshape(-1, 5)]
        assert kept["digest"].tobytes() == b"".join(digests)
    expected = np.zeros_like(values)
    np.put_along_axis(expected, order[..., None].repeat(5, -1), values, axis=axis)
    assert file.read_bytes()[7 : 7 + values.nbytes] == expected.tobytes()


def test_where_the_rows_of_all_blocks_go_takes_no_memory_before_they_are_written() -> None:
    """In an order, almost every row is a span of its own."""
    order = np.stack([RNG.permutation(20_000) for _ in range(4)])
    place = Place(Path("file"), 0, (*order.shape, 5), np.dtype(np.float32), 1, order)
    tracemalloc.start()
    targets = [place.at(start, start + 200) for start in range(0, 20_000, 200)]
    taken, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert taken < order.nbytes / 4
    assert len(pickle.dumps(targets[0])) < 2 * order[:, :200].nbytes  # it is sent with its own rows alone


def test_masks_are_compressed_as_hdf5_does_it(tmp_path: Path) -> None:
    """So that the bytes do not depend on who compresses them."""
    write_all(tmp_path / "a.h5", tmp_path / "scratch")
    with h5py.File(tmp_path / "other.h5", "w") as other, h5py.File(tmp_path / "a.h5") as file:
        other.create_dataset("mask", data=MASKS, chunks=(1, 40, 40), compression="gzip", compression_opts=1)
        for row in range(10):
            found, by_hdf5 = (each["mask"].id.read_direct_chunk((row, 0, 0)) for each in (file, other))
            assert found == by_hdf5
            assert len(found[1]) < MASKS[row].nbytes
            assert zlib.decompress(found[1]) == MASKS[row].tobytes()


def test_a_try_after_one_that_failed_finds_its_rows_and_nothing_else(tmp_path: Path) -> None:
    """What is left of the file's structure is not seen in the bytes of the next try."""
    write_all(tmp_path / "whole.h5", tmp_path / "scratch")
    out, scratch = tmp_path / "a.h5", tmp_path / "scratch"
    with pytest.raises(Killed), writing(out, scratch) as artefact:
        image = artefact.place("image", IMAGES.shape)
        for start in range(0, 10, 5):
            image.at(start, start + 5).write(IMAGES[start : start + 5])
        for number in range(200):  # groups whose names and nodes are elsewhere in the next try
            artefact.file.create_group(f"other {number}").attrs["about"] = "x" * 100
        raise Killed
    assert not out.exists()
    with writing(out, scratch) as artefact:
        image = artefact.place("image", IMAGES.shape)
        assert image.at(0, 10).holds({"digest": np.stack([of(row) for row in IMAGES])})
        mask, phi = artefact.chunks("mask", MASKS.shape), artefact.place("phi", PHI.shape, axis=1)
        phi.at(0, 10).write(PHI)
        mask.add(mask.at(0, 10).write(MASKS))
        artefact.write("label", np.arange(10))
    assert out.read_bytes() == (tmp_path / "whole.h5").read_bytes()


@pytest.mark.parametrize("killed", [True, False])
@pytest.mark.parametrize("places", [0, 1])
def test_a_second_try_that_fails_keeps_the_rows_at_places_that_it_did_not_make(
    tmp_path: Path, killed: bool, places: int
) -> None:
    """A killed try leaves the file as it is at that moment; else HDF5 closes it."""
    write_all(tmp_path / "whole.h5", tmp_path / "scratch")
    out, scratch, as_killed = tmp_path / "a.h5", tmp_path / "scratch", tmp_path / "as killed"

    def fail(made: int) -> None:
        with pytest.raises(Killed), writing(out, scratch) as artefact:
            image = artefact.place("image", IMAGES.shape) if made > 0 else None
            mask = artefact.chunks("mask", MASKS.shape) if made > 1 else None
            if image and mask:
                image.at(0, 10).write(IMAGES)
                artefact.place("phi", PHI.shape, axis=1).at(0, 10).write(PHI)
            if killed:
                shutil.copytree(scratch, as_killed)
            raise Killed
        if killed:
            shutil.rmtree(scratch)
            as_killed.rename(scratch)

    fail(2)
    fail(places)
    with writing(out, scratch) as artefact:
        image, mask = artefact.place("image", IMAGES.shape), artefact.chunks("mask", MASKS.shape)
        phi = artefact.place("phi", PHI.shape, axis=1)
        digests = np.stack([of(row) for row in PHI.reshape(-1, 3)])
        assert phi.at(0, 10).holds({"digest": digests})
        assert image.at(0, 10).holds({"digest": np.stack([of(row) for row in IMAGES])})
        mask.add(mask.at(0, 10).write(MASKS))
        artefact.write("label", np.arange(10))
    assert out.read_bytes() == (tmp_path / "whole.h5").read_bytes()


@pytest.mark.parametrize(
    "noted", ["5", "[1]", "[[1, null]]", '{"a": 1}', "[[-1, 3]]", "[[1.5, 2]]", "\udcff"]
)
def test_a_list_of_places_that_is_none_is_not_used(tmp_path: Path, noted: str) -> None:
    write_all(tmp_path / "whole.h5", tmp_path / "scratch")
    (tmp_path / "scratch/a.places.json").write_text(noted, errors="surrogateescape")
    write_all(tmp_path / "a.h5", tmp_path / "scratch")
    assert (tmp_path / "a.h5").read_bytes() == (tmp_path / "whole.h5").read_bytes()


def of(row: NDArray[np.generic]) -> NDArray[np.uint8]:
    return np.frombuffer(sha256(row.tobytes()).digest(), np.uint8)


def test_an_artefact_made_on_another_file_system_is_copied(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_all(tmp_path / "whole.h5", tmp_path / "scratch")
    (tmp_path / "data").mkdir()
    replace = os.replace

    def within_a_folder(source: Path, to: Path) -> None:
        if Path(source).parent != Path(to).parent:
            raise OSError(errno.EXDEV, os.strerror(errno.EXDEV))
        replace(source, to)

    monkeypatch.setattr(os, "replace", within_a_folder)
    write_all(tmp_path / "data/a.h5", tmp_path / "scratch")
    assert (tmp_path / "data/a.h5").read_bytes() == (tmp_path / "whole.h5").read_bytes()
    assert not list((tmp_path / "scratch").iterdir())
    monkeypatch.setattr(verified, "digest_in", lambda *_: "")  # it is known, and not read again
    assert np.array_equal(read(tmp_path / "data/a.h5", "label"), np.arange(10))


def test_a_folder_that_cannot_be_written_is_told_before_the_work(tmp_path: Path) -> None:
    """Though the work is done in another folder."""
    with pytest.raises(MacError, match="^/sys/a.h5: cannot be written"):  # noqa: SIM117
        with writing(Path("/sys/a.h5"), tmp_path / "scratch"):
            raise AssertionError


def test_rows_can_be_left_out_after_all_are_written(tmp_path: Path) -> None:
    out, keep = tmp_path / "a.h5", np.array([0, 1, 4, 5, 9])
    with writing(out, tmp_path / "scratch") as artefact:
        image, phi = artefact.place("image", IMAGES.shape), artefact.place("phi", PHI.shape, axis=1)
        mask = artefact.chunks("mask", (5, 40, 40))
        image.at(0, 10).write(IMAGES)
        phi.at(0, 10).write(PHI)
        mask.add(mask.at(0, 10).write(MASKS[keep]))
        artefact.write("label", np.arange(10))
        artefact.settle()
        artefact.follow(image, 7)
        artefact.take_up()
        del artefact.file["label"]
        artefact.keep_rows("image", image, keep)
        artefact.write("label", keep)
    assert np.array_equal(read(out, "image"), IMAGES[keep])
    assert np.array_equal(read(out, "label"), keep)
    assert np.array_equal(read(out, "phi"), PHI)


def test_rows_of_another_form_are_refused(tmp_path: Path) -> None:
    target = Place(tmp_path / "file", 0, (4, 2), np.dtype(np.int64)).at(0, 2)
    with pytest.raises(ValueError, match=r"the rows are float64 \(2, 2\), and their dataset int64 \(2, 2\)"):
        target.write(np.zeros((2, 2)))
    with pytest.raises(ValueError, match=r"the rows are int64 \(1, 2\), and their dataset int64 \(2, 2\)"):
        target.write(np.zeros((1, 2), np.int64))


def test_floating_point_numbers_are_rounded_to_what_their_dataset_has(tmp_path: Path) -> None:
    with writing(tmp_path / "a.h5", tmp_path / "scratch") as artefact:
        phi = artefact.place("phi", PHI.shape, axis=1, dtype="float16")
        assert phi.at(0, 10).holds(phi.at(0, 10).write(PHI))
    with h5py.File(tmp_path / "a.h5") as file:
        assert np.array_equal(file["phi"][:], PHI.astype(np.float16))


def test_the_digest_is_the_same_if_it_follows_the_rows(tmp_path: Path) -> None:
    """Rows are written after all else. A try that fails leaves the artefact that is there."""
    found = []
    for follows in (False, True):
        with writing(tmp_path / "a.h5", tmp_path / "scratch") as artefact:
            image, phi = artefact.place("image", IMAGES.shape), artefact.place("phi", PHI.shape, axis=1)
            mask = artefact.chunks("mask", MASKS.shape)
            mask.add(mask.at(0, 10).write(MASKS))
            artefact.write("label", np.arange(10))
            artefact.settle()
            phi.at(0, 10).write(PHI)
            for start in range(0, 10, 2):
                image.at(start, start + 2).write(IMAGES[start : start + 2])
                if follows:
                    artefact.follow(image, start + 2)
        found.append((tmp_path / "a.h5").read_bytes())
    assert found[0] == found[1]
    assert store.stated_digest(tmp_path / "a.h5") == sha256(found[0][512:]).hexdigest()
    with pytest.raises(MacError, match="a.h5: cannot be written"):  # noqa: SIM117
        with writing(tmp_path / "a.h5", tmp_path / "scratch") as artefact:
            raise OSError("full")
    assert (tmp_path / "a.h5").read_bytes() == found[0]
