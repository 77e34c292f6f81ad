import csv
import errno
import multiprocessing
import os
import socket
import subprocess
import sys
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path

import pytest

from pipeline import store
from pipeline.errors import MacError
from pipeline.store import files


def test_a_csv_cell_may_hold_anything(tmp_path: Path) -> None:
    rows = [{"epoch": 1, "val_gull, grey": 0.1}, {"epoch": 'a "b"\nc', "val_gull, grey": float("nan")}]
    store.write_csv(tmp_path / "x.csv", rows)
    with (tmp_path / "x.csv").open(newline="") as file:
        found = list(csv.DictReader(file))
    assert found == [{key: str(value) for key, value in row.items()} for row in rows]


@pytest.mark.parametrize("making", [store.replacing, store.create_folder])
def test_what_a_killed_process_left_goes_and_what_others_are_writing_stays(
    tmp_path: Path, making: Callable[[Path], AbstractContextManager[Path]]
) -> None:
    command = [sys.executable, "-c", "import os; print(os.getpid())"]
    dead = int(subprocess.run(command, capture_output=True, check=True).stdout)
    here = socket.gethostname()
    left = [f".x.h5.{dead}@{here}.{end}" for end in ("tmp", "ballast.tmp", "old")]
    left.append(f".x.h5.{os.getpid()}@{here}.ballast.tmp")  # a container gives every run the same number
    others = [
        f".x.h5.{os.getppid()}@{here}.tmp",
        f".x.h5.{dead}@elsewhere.tmp",
        f".y.h5.{dead}@{here}.tmp",
        "x.h5.tmp",
    ]
    for name in left + others:
        (tmp_path / name).touch()
    (tmp_path / "x.h5").touch() if making is store.replacing else (tmp_path / "x.h5").mkdir()
    with making(tmp_path / "x.h5") as temporary:
        if making is store.replacing:
            temporary.touch()
    assert {path.name for path in tmp_path.iterdir()} == {"x.h5", *others}


def test_a_csv_file_s_columns_can_be_given_and_its_rows_read_back(tmp_path: Path) -> None:
    store.write_csv(tmp_path / "x.csv", [], ["a", "b"])
    assert (tmp_path / "x.csv").read_text() == "a,b\n"
    store.write_csv(tmp_path / "x.csv", [{"a": 1, "b": "é"}], ["b", "a"])
    assert (tmp_path / "x.csv").read_text() == "b,a\né,1\n"
    assert store.read_csv(tmp_path / "x.csv", "") == [{"b": "é", "a": "1"}]
    with pytest.raises(MacError, match=r"y.csv: no such file; run 'mac train'"):
        store.read_csv(tmp_path / "y.csv", "run 'mac train'")


@pytest.mark.parametrize(
    ("text", "message"), [(None, "no such file"), ("{", "is not JSON"), ("[1]", "holds no JSON object")]
)
def test_a_json_file_that_holds_no_object_is_one_line(tmp_path: Path, text: str | None, message: str) -> None:
    path = tmp_path / "metrics.json"
    if text is not None:
        path.write_text(text)
    with pytest.raises(MacError, match=f"metrics.json: {message}.*; run 'mac sweep'"):
        store.read_json(path, "run 'mac sweep'")


def test_a_json_object_can_be_read_back(tmp_path: Path) -> None:
    store.write_json(tmp_path / "x.json", {"β": [1.5, None]})
    assert store.read_json(tmp_path / "x.json", "") == {"β": [1.5, None]}
    assert "β" in (tmp_path / "x.json").read_text(encoding="utf-8")


def test_a_failure_leaves_what_was_there_and_nothing_beside_it(tmp_path: Path) -> None:
    path = tmp_path / "x"
    path.write_text("before")
    with pytest.raises(RuntimeError), store.replacing(path) as temporary:
        temporary.write_text("half")
        raise RuntimeError
    with pytest.raises(MacError, match="x: cannot be written"), store.replacing(path):
        pass  # nothing was written
    assert path.read_text() == "before"
    assert [file.name for file in tmp_path.iterdir()] == ["x"]


def test_a_regular_file_is_opened_and_nothing_else(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").write_bytes(b"x")
    (tmp_path / "link").symlink_to("file")
    for name in ("file", "link"):
        with store.regular(tmp_path / name) as opened:
            assert opened.read() == b"x"
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "to_pipe").symlink_to("pipe")
    monkeypatch.chdir(tmp_path)  # the name of a socket is short
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind("socket")
        kinds = {"pipe": "a named pipe", "to_pipe": "a named pipe", "socket": "a socket", "": "a folder"}
        for name, kind in {**kinds, "/dev/zero": "a device"}.items():
            with pytest.raises(MacError, match=f"{name}: is {kind}, and no file; name a file"):
                store.regular(tmp_path / name)
    for name in ("nothing", "a\0b", "x" * 300):
        with pytest.raises(OSError, match=r"No such file|null|too long"):
            store.regular(tmp_path / name)


def test_a_pipe_put_in_a_file_s_place_does_not_hang(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "file").touch()
    status = (tmp_path / "file").stat()
    monkeypatch.setattr(Path, "stat", lambda _path: status)
    with pytest.raises(MacError, match="pipe: is a named pipe"):
        store.regular(tmp_path / "pipe")


TEXTS = ["=1+1", "+cmd|' /C calc'!A0", "-x", "@SUM(A1)", "\t=1", "\r=1", "\n=1", "＝1", "=", "-1+1", "+1e5x"]


def test_no_cell_of_a_table_is_a_formula(tmp_path: Path) -> None:
    rows = [
        {text: text, "x": value} for text, value in zip(["=1"] * 4, ["-1", "+2.5e-3", -1, -0.5], strict=True)
    ]
    store.write_csv(tmp_path / "x.csv", rows)
    with (tmp_path / "x.csv").open(newline="") as file:
        head, *found = csv.reader(file)
    assert head == ["'=1", "x"]
    assert found == [["'=1", "-1"], ["'=1", "+2.5e-3"], ["'=1", "-1"], ["'=1", "-0.5"]]
    store.write_csv(tmp_path / "y.csv", [{"name": text} for text in [*TEXTS, "a=b", "it's", "", "犬"]])
    with (tmp_path / "y.csv").open(newline="") as file:
        names = [row["name"] for row in csv.DictReader(file)]
    assert names == [*(f"'{text}" for text in TEXTS), "a=b", "it's", "", "犬"]


@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")
@pytest.mark.parametrize("exchanges", [True, False])
def test_processes_that_write_the_same_folder_do_not_disturb_each_other(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, exchanges: bool
) -> None:
    if not exchanges:
        monkeypatch.setattr(files, "_exchanged", lambda one, other: False)
    _write_often(tmp_path / "x", 1)
    fork = multiprocessing.get_context("fork")
    processes = [fork.Process(target=_write_often, args=(tmp_path / "x", 15)) for _ in range(4)]
    for process in processes:
        process.start()
    missing = 0
    while any(process.is_alive() for process in processes):
        missing += not (tmp_path / "x").exists()
    for process in processes:
        process.join()
    assert [process.exitcode for process in processes] == [0] * 4
    assert {file.name for file in tmp_path.rglob("*")} == {"x", "one", "two"}
    assert (tmp_path / "x" / "one").read_text() == (tmp_path / "x" / "two").read_text()
    assert missing == 0 or not exchanges


def _write_often(path: Path, times: int) -> None:
    for _ in range(times):
        with store.create_folder(path) as folder:
            for name in ("one", "two"):
                (folder / name).write_text(str(os.getpid()))


@pytest.mark.parametrize("exchanges", [True, False])
@pytest.mark.parametrize("kind", ["nothing", "folder", "link"])
def test_a_folder_replaces_whatever_was_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, exchanges: bool, kind: str
) -> None:
    if not exchanges:
        monkeypatch.setattr(files, "_exchanged", lambda one, other: False)
    path, other = tmp_path / "here" / "x", tmp_path / "other"
    for folder in (path.parent, other):
        folder.mkdir()
    (other / "kept").touch()
    if kind == "folder":
        path.mkdir()
        (path / "old").touch()
    elif kind == "link":
        path.symlink_to(other)
    with store.create_folder(path) as folder:
        (folder / "new").touch()
    assert [file.name for file in path.parent.rglob("*")] == ["x", "new"]
    assert not path.is_symlink()
    assert (other / "kept").exists()


def test_a_folder_does_not_replace_a_file(tmp_path: Path) -> None:
    (tmp_path / "x").write_text("kept")
    with pytest.raises(MacError, match="x: is no folder; choose another name"):
        store.create_folder(tmp_path / "x").__enter__()
    assert (tmp_path / "x").read_text() == "kept"


def test_a_folder_that_cannot_be_renamed_is_copied(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As in a lower layer of overlayfs, in a container."""
    path, rename = tmp_path / "x", Path.rename

    def refuse(self: Path, target: Path) -> Path:
        if self == path:
            raise OSError(errno.EXDEV, os.strerror(errno.EXDEV))
        return rename(self, target)

    _write_often(path, 1)
    monkeypatch.setattr(files, "_exchanged", lambda one, other: False)
    monkeypatch.setattr(Path, "rename", refuse)
    with store.create_folder(path) as folder:
        (folder / "new").touch()
    assert [file.name for file in tmp_path.rglob("*")] == ["x", "new"]


def test_a_folder_that_a_killed_process_had_moved_away_is_put_back(tmp_path: Path) -> None:
    dead = subprocess.Popen([sys.executable, "-c", ""])
    dead.wait()
    old = tmp_path / f".x.{dead.pid}@{socket.gethostname()}.old"
    old.mkdir()
    (old / "old").touch()
    with pytest.raises(RuntimeError), store.create_folder(tmp_path / "x"):
        raise RuntimeError
    assert [str(file.relative_to(tmp_path)) for file in tmp_path.rglob("*")] == ["x", "x/old"]


def test_a_folder_that_cannot_be_put_back_is_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    dead = subprocess.Popen([sys.executable, "-c", ""])
    dead.wait()
    old = tmp_path / f".x.{dead.pid}@{socket.gethostname()}.old"
    old.mkdir()
    rename = Path.rename

    def refuse(self: Path, target: Path) -> Path:
        if self.suffix == ".old":
            raise OSError(errno.EACCES, os.strerror(errno.EACCES))
        return rename(self, target)

    monkeypatch.setattr(Path, "rename", refuse)
    with pytest.raises(RuntimeError), store.create_folder(tmp_path / "x"):
        raise RuntimeError
    assert list(tmp_path.iterdir()) == [old]


@pytest.mark.parametrize("out", ["/dev/fd/1", "fifo", "folder", "link"])
def test_what_is_no_file_is_not_replaced_by_one(tmp_path: Path, out: str) -> None:
    (tmp_path / "folder").mkdir()
    (tmp_path / "link").symlink_to("/dev/null")
    os.mkfifo(tmp_path / "fifo")
    path = tmp_path / out
    with pytest.raises(MacError, match=f"{out}: is no file; choose another name"):
        store.write_text(path, "x")
    assert {file.name for file in tmp_path.iterdir()} == {"fifo", "folder", "link"}
    assert (tmp_path / "link").is_symlink()
