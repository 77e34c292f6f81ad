import csv
import os
import socket
import subprocess
import sys
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path

import pytest

from pipeline import store


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
    dead = int(subprocess.run([sys.executable, "-c", "import os; print(os.getpid())"], capture_output=True, check=True).stdout)
    here = socket.gethostname()
    left = [f".x.h5.{dead}@{here}.tmp", f".x.h5.{dead}@{here}.ballast.tmp"]
    others = [f".x.h5.{os.getppid()}@{here}.tmp", f".x.h5.{dead}@elsewhere.tmp", f".y.h5.{dead}@{here}.tmp", "x.h5.tmp"]
    for name in left + others:
        (tmp_path / name).touch()
    with making(tmp_path / "x.h5") as temporary:
        if making is store.replacing:
            temporary.touch()
    assert {path.name for path in tmp_path.iterdir()} == {"x.h5", *others}
