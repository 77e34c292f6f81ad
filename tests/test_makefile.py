"""The Makefile's recipes, with a `dvc` that only notes how it is called."""

import subprocess
from pathlib import Path

from tests.conftest import REPOSITORY

DVC = """\
#!/bin/sh
echo "$@" >> "{calls}"
case "$*" in
  "stage list"*) printf 'study-train@a-0\\nstudy-run@a-0\\nstudy-run@a-1\\nstudy-run@b-0\\nstudy\\n' ;;
  *study-run@a-0) exit 255 ;;
esac
"""


def test_a_run_of_the_study_that_fails_stops_no_other(tmp_path: Path) -> None:
    calls, dvc = tmp_path / "calls", tmp_path / "dvc"
    dvc.write_text(DVC.format(calls=calls))
    dvc.chmod(0o755)
    command = ["make", "study", "JOBS=1", f"BIN={tmp_path}", f"INSTALLED={dvc}"]
    done = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True)
    assert done.returncode != 0
    file = "data/study/dvc.yaml"
    runs = []
    for run in ("a-0", "a-1", "b-0"):
        runs.append(f"--wait-for-lock repro -s {file}:study-train@{run} {file}:study-run@{run}")
    assert calls.read_text().splitlines() == ["repro prepare", f"stage list --name-only {file}", *runs]
