"""A sample of `make fuzz`: artefacts and datasets that were changed are read, or refused in one line."""

import os
import subprocess
import sys

from tests.conftest import REPOSITORY

KINDS = (
    "images",
    "maps",
    "masks",
    "originals",
    "features",
    "examples",
    "images_encoded",
    "erm",
    "retrained",
    "baselines",
    "jtt",
    "masktune",
    "sweep",
    "ablation",
    "metrics",
    "run",
    "study",
    "jsonl",
    "parquet",
    "tar",
)
EACH = 10  # 200 in all


def test_changed_artefacts_are_read_or_refused() -> None:
    """The reports, and what else takes long, are for `make fuzz`. It forks, so it is a process of its own."""
    command = [sys.executable, "-m", "tests.fuzz", "--quick", "--count", str(EACH), *KINDS]
    environment = {**os.environ, "PYTHONPATH": str(REPOSITORY)}
    done = subprocess.run(command, capture_output=True, text=True, cwd=REPOSITORY, env=environment)
    assert done.returncode == 0, done.stdout + done.stderr
    rows = [line.split() for line in done.stdout.splitlines()[-len(KINDS) :]]
    assert [row[0] for row in rows] == list(KINDS)
    for name, ok, refused, *_ in rows:
        assert int(ok) + int(refused) == EACH, name
        assert int(refused) >= EACH // 5, name
    assert sum(int(row[1]) for row in rows) >= len(rows)  # and each kind as it is, or tests.fuzz fails
