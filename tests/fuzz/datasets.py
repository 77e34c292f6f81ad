"""Datasets that lie: tables, shards, trees and images that are changed before `mac prepare` reads them."""

import csv
import io
import json
import os
import random
import shutil
import tarfile
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow
from PIL import Image
from pyarrow import parquet

from pipeline import params_file, presets
from pipeline.datasets import read
from pipeline.errors import MacError
from pipeline.params.dataset import DatasetParams
from tests.fuzz.changes import mutate_text
from tests.fuzz.running import Outcome, last, run

Row = dict[str, Any]
Rows = list[Row]
TABLE = "table"  # the name of a table, without its suffix
SPLITS = ("train", "train", "val", "test")
CONTEXTS = ("autumn", "dim", "grass", "outdoor", "rock", "water")


# --- What is changed --------------------------------------------------------------------------------------


def _png(value: int) -> bytes:
    out = io.BytesIO()
    Image.fromarray(np.full((9, 8, 3), value, np.uint8)).save(out, "PNG")
    return out.getvalue()


def _rows() -> Rows:
    """16 images with two classes, two attributes and three splits."""
    rows = []
    for number in range(16):
        about = {"label": ("cat", "dog")[number % 2], "split": SPLITS[number // 4], "place": number // 2 % 2}
        rows.append({"path": f"i/{number}.png", **about, "night": number % 3 == 0})
    return rows


def _images(raw: Path, rows: Rows) -> None:
    for number, row in enumerate(rows):
        (raw / row["path"]).parent.mkdir(parents=True, exist_ok=True)
        (raw / row["path"]).write_bytes(_png(15 * number))


def _separated(delimiter: str, file: Path, rows: Rows) -> None:
    with file.open("w", newline="", errors="surrogatepass") as out:
        writer = csv.writer(out, delimiter=delimiter)
        names = list({name: None for row in rows for name in row})
        writer.writerows([names, *([row.get(name, "") for name in names] for row in rows)])


def _json_lines(file: Path, rows: Rows) -> None:
    file.write_text("".join(f"{json.dumps(row)}\n" for row in rows))


def _parquet(file: Path, rows: Rows) -> None:
    parquet.write_table(pyarrow.Table.from_pylist(rows), file, row_group_size=5)


def _shards(file: Path, rows: Rows) -> None:
    """One tar file, with a sample for each row."""
    with tarfile.open(file, "w") as tar:
        for number, row in enumerate(rows):
            key = str(row.get("path", number)).removesuffix(".png")
            about = {name: value for name, value in row.items() if name not in ("path", "label")}
            members = {"png": _png(15 * number), "json": json.dumps(about).encode()}
            if "label" in row:
                members["cls"] = str(row["label"]).encode(errors="surrogatepass")
            for extension, contents in members.items():
                info = tarfile.TarInfo(f"{key}.{extension}")
                info.size = len(contents)
                tar.addfile(info, io.BytesIO(contents))


def _contexts(raw: Path) -> None:
    """The tree of NICO++."""
    for number, context in enumerate(CONTEXTS):
        _images(raw, [{"path": f"{context}/{name}/{number}{at}.jpg"} for name in "ab" for at in range(6)])


# How each kind of table is written, by its suffix; and the preset that reads it.
WRITERS: dict[str, Callable[[Path, Rows], None]] = {
    "csv": partial(_separated, ","),
    "tsv": partial(_separated, "\t"),
    "jsonl": _json_lines,
    "parquet": _parquet,
    "tar": _shards,
}
READ_BY = {
    "csv": "folder",
    "tsv": "folder",
    "jsonl": "folder",
    "parquet": "folder",
    "tar": "webdataset",
    "hf": "imagefolder",
    "nico": "nicopp",
}
KINDS = tuple(READ_BY)
ROOM = 4 << 30  # bytes that a process may have: pyarrow reserves much more than it uses


def _build(kind: str, folder: Path) -> None:
    """A dataset in `folder`/raw, and the params.yaml that reads it."""
    raw = folder / "raw"
    raw.mkdir(parents=True)
    changes = [f"dataset.root={raw}", "dataset.stored_size=40", "dataset.input_size=32", "saliency.top_k=0.3"]
    changes += ["dataset.on_duplicates=warn"]
    if kind == "nico":
        _contexts(raw)
        changes += ["dataset.options.held_out=3"]
    else:
        rows = _rows()
        changes += ["dataset.options.attribute=[place, night]", "dataset.options.split=split"]
        if kind == "hf":
            rows = [{"file_name": row.pop("path"), **row} for row in rows]
            _images(raw, [{"path": row["file_name"]} for row in rows])
        elif kind != "tar":
            _images(raw, rows)
            changes += [f"dataset.options.metadata={TABLE}.{kind}"]
        _write(kind, raw, rows)
    presets.write(READ_BY[kind], folder / "params.yaml", changes, replace=True)


def _file(kind: str, raw: Path) -> Path:
    """The table, or the shard."""
    return raw / ("metadata.jsonl" if kind == "hf" else f"{TABLE}.{kind}")


def _write(kind: str, raw: Path, rows: Rows) -> None:
    WRITERS["jsonl" if kind == "hf" else kind](_file(kind, raw), rows)


# --- Changes ----------------------------------------------------------------------------------------------


def _cells(kind: str, raw: Path, rng: random.Random) -> None:
    """Rows, columns and cells that are not as they should be."""
    rows = _rows()
    if kind == "hf":
        rows = [{"file_name": row.pop("path"), **row} for row in rows]
    row = rng.choice(rows)
    column = rng.choice([*row, *row, next(iter(row))])
    how = rng.randrange(9)
    if how == 0:
        rows = []
    elif how == 1:
        rows = [{name: value for name, value in each.items() if name != column} for each in rows]
    elif how == 2:
        rows.append(dict(row))
    elif how == 3:
        del row[column]
    elif how == 4:
        rows = [{(f" {name}" if name == column else name): each[name] for name in each} for each in rows]
    elif how == 5:
        value = rng.choice([None, float("nan"), "", 0, "nan", "train"])
        for each in rows:
            each[column] = value
    else:
        paths = [
            "../secret.png",
            "/etc/passwd",
            "i/../../secret.png",
            ".",
            "..",
            "i",
            "i/0.png",
            "i/missing.png",
        ]
        paths += ["link.png", "pipe.png", "out/secret.png", "i\\1.png", "~/x.png", "file:///etc/passwd"]
        texts = [
            "",
            " ",
            "nan",
            "NA",
            "é",
            "e\u0301",
            "\x00",
            "a\nb",
            "\x1b[31m",
            "x" * 5000,
            "\ud800",
            "cat ",
            "1",
        ]
        others = [None, float("nan"), float("inf"), 10**25, -1, 3, True, [1], {"bytes": "x"}, 1.5]
        row[column] = rng.choice(paths if rng.random() < 0.5 else [*texts, *others])
    _write(kind, raw, rows)


def _bytes(kind: str, raw: Path, rng: random.Random) -> None:
    """The bytes of the table or shard: cut off, overwritten, or another kind of file."""
    file = _file(kind, raw)
    whole = bytearray(file.read_bytes())
    how = rng.randrange(5)
    if how == 0:
        whole = whole[: rng.randrange(len(whole))]
    elif how == 1:
        for _ in range(rng.choice([1, 3, 30])):
            whole[rng.randrange(len(whole))] = rng.randrange(256)
    elif how == 2:
        start = rng.randrange(len(whole))
        whole[start : start + 600] = bytes(600) if rng.random() < 0.5 else rng.randbytes(600)
    elif how == 3 and kind not in ("tar", "parquet"):
        whole = bytearray(mutate_text(whole.decode(), rng))
    else:
        whole = bytearray(rng.choice([_png(1), b"\x1f\x8b" + bytes(90), b"PAR1", rng.randbytes(5000)]))
    file.write_bytes(whole)


def _members(_kind: str, raw: Path, rng: random.Random) -> None:
    """Another member of the shard: a link, a device, a name that leads out, a lie about its size."""
    names = ["../1.png", "/1.png", "i/0.png", "a.png", "i/0.cls", "i/0.jpg", "a\x00b.png", "x" * 300 + ".png"]
    info = tarfile.TarInfo(rng.choice([*names, "i\\0.png", "..", ".png", "é.png", "b.json"]))
    kinds = [tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.FIFOTYPE, tarfile.CHRTYPE, tarfile.DIRTYPE]
    kinds += [tarfile.CONTTYPE, b"9", tarfile.GNUTYPE_SPARSE, *[tarfile.REGTYPE] * 4]
    info.type = rng.choice(kinds)
    info.linkname = rng.choice(["i/0.png", "/etc/passwd", "../../x"])
    contents = rng.choice([b"", _png(5), b"text", rng.randbytes(2000)])
    info.size = rng.choice([len(contents)] * 3 + [10**11, len(contents) + 512])
    if rng.random() < 0.3:
        odd = {
            "size": "-5",
            "path": "../x.png",
            "GNU.sparse.size": "9",
            "GNU.sparse.map": "0,1",
            "mtime": "x",
        }
        info.pax_headers = dict([rng.choice(list(odd.items()))])
    header = info.tobuf(rng.choice([tarfile.PAX_FORMAT, tarfile.GNU_FORMAT]), errors="surrogateescape")
    padding = bytes(-len(contents) % tarfile.BLOCKSIZE)
    file = _file("tar", raw)
    file.write_bytes(header + contents + padding + file.read_bytes())


def _picture(_kind: str, raw: Path, rng: random.Random) -> None:
    """An image that is none, or another one; or what stands in its place."""
    file = rng.choice(sorted([*raw.rglob("*.png"), *raw.rglob("*.jpg")]))
    whole = bytearray(file.read_bytes())
    file.unlink()
    huge = whole[:16] + (60_000).to_bytes(4, "big") * 2 + whole[24:]
    how = rng.randrange(7)
    if how == 0:
        file.mkdir()
    elif how == 1:
        target = rng.choice(["secret.png", "pipe", "missing", file.name, ".", "/dev/zero"])
        file.symlink_to(target if target == file.name else raw.parent / target)
    elif how == 2:
        os.mkfifo(file)
    elif how > 3:
        texts = [
            b"",
            b"<svg/>",
            b"no image",
            bytes(whole[:30]),
            bytes(whole[:-20]),
            bytes(huge),
            rng.randbytes(99),
        ]
        file.write_bytes(rng.choice(texts))


def _folders(_kind: str, raw: Path, rng: random.Random) -> None:
    """A folder of the tree that is gone, empty, a link, or has another name."""
    folder = rng.choice(sorted(path for path in raw.rglob("*") if path.is_dir()))
    how = rng.randrange(5)
    if how == 0:
        shutil.rmtree(folder)
    elif how == 1:
        folder.rename(folder.with_name(rng.choice(["x", "train", "nan", "A", "a ", "é\n", "\udcff", ".x"])))
    elif how == 2:
        shutil.rmtree(folder)
        folder.symlink_to(rng.choice([raw, raw.parent, Path("/"), folder]))
    elif how == 3:
        (folder / "notes.txt").touch()
        (folder / "flat.jpg").write_bytes(_png(3))
    else:
        shutil.rmtree(folder)
        folder.write_bytes(b"no folder")


def _changes(kind: str) -> list[Callable[[str, Path, random.Random], None]]:
    """What can be changed in a dataset of a kind."""
    if kind == "nico":
        return [_picture, _folders]
    return [_cells, _cells, _bytes, _members if kind == "tar" else _picture]


def _read(folder: Path) -> None:
    """Read the dataset and each of its images, without stage prepare."""
    dataset = read(params_file.load(folder / "params.yaml").of(DatasetParams))
    for record in dataset.records:
        record.image.load(dataset.root)


def outcome(kind: str, seed: int, folder: Path, quick: bool) -> Outcome:
    """Change a dataset, prepare it (`quick`: only read it), and say what happened.

    Below 0, the seed changes nothing.
    """
    rng = random.Random(f"{kind} {seed}")
    _build(kind, folder)
    (folder / "secret.png").write_bytes(_png(9))
    os.mkfifo(folder / "pipe")
    raw, how = folder / "raw", "nothing"
    if kind != "nico":
        (raw / "link.png").symlink_to(folder / "secret.png")
        (raw / "out").symlink_to(folder)
        os.mkfifo(raw / "pipe.png")
    if seed >= 0:
        change = rng.choice(_changes(kind))
        how = change.__name__
        try:
            change(kind, raw, rng)
        except (ValueError, TypeError, pyarrow.ArrowException):
            how = "nothing"  # no such file can be made
            shutil.rmtree(folder)
            return outcome(kind, -1, folder, quick)
    try:
        if quick:
            _read(folder)
        else:
            run("-q", "prepare", "--data", str(folder / "data"), "--params", str(folder / "params.yaml"))
    except MacError as error:
        if "\n" in str(error) or not str(error):
            return Outcome("traceback", how, "prepare", repr(str(error)))
        there = [folder / "data/images.h5", *folder.rglob("*.tmp"), *folder.rglob("*.old")]
        left = [str(path) for path in there if path.exists()]
        return Outcome("leavings" if left else "refused", how, "prepare", ", ".join(left) or str(error))
    except BaseException as error:
        return Outcome("traceback", how, "prepare", last(error))
    return Outcome("ok", how, "prepare", "")
