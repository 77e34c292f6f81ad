"""Artefacts and datasets that lie are read, or refused.

    python -m tests.fuzz --count 2000 images erm jsonl tar

Each changed artefact is read by `mac inspect` and by another command that reads it, as someone would who was
given it; each changed dataset by `mac prepare`. A command either succeeds, or refuses with one line and
leaves nothing half written. Commands run in a process of their own, so that one that crashes, hangs, or takes
all memory is seen.
"""

import argparse
import gc
import shutil
import sys
import tempfile
import time
from collections import Counter
from functools import partial
from pathlib import Path

import torch

from pipeline.project import Project
from pipeline.study import statistics
from tests.fuzz import artefacts, datasets
from tests.fuzz.artefacts import AS_IT_IS
from tests.fuzz.running import Outcome, apart


def outcome(project: Project | None, name: str, seed: int, folder: Path, quick: bool) -> Outcome:
    """The outcome of a seed, in a process of its own."""
    if project is None:
        found = apart(
            partial(datasets.outcome, name, seed, folder, quick), f"{name} {seed}", room=datasets.ROOM
        )
    else:
        found = apart(partial(artefacts.outcome, project, name, seed, folder, quick), f"{name} {seed}")
    shutil.rmtree(folder, ignore_errors=True)
    return found


def main() -> None:
    """Print a table, and all that is neither success nor refusal."""
    parser = argparse.ArgumentParser()
    parser.add_argument("kinds", nargs="*", default=(*artefacts.KINDS, *datasets.KINDS))
    parser.add_argument("--count", type=int, default=2000)
    parser.add_argument("--first", type=int, default=0)
    parser.add_argument("--quick", action="store_true", help="only by the quick readers")
    parser.add_argument("--said", action="store_true", help="print the refusals too")
    chosen = parser.parse_args()
    torch.set_num_threads(1)
    titles = ("ok", "refused", "traceback", "crash", "hang", "leavings")
    table, bad = [], 0
    statistics.RESAMPLES = 20  # enough for an interval, and quick
    with tempfile.TemporaryDirectory() as folder:
        made = artefacts.build(Path(folder) / "made") if {*chosen.kinds} & {*artefacts.KINDS} else None
        gc.freeze()  # so that a child does not copy what it does not change
        for name in chosen.kinds:
            start, count = time.monotonic(), Counter[str]()
            project = made if name in artefacts.KINDS else None
            as_it_is = outcome(project, name, AS_IT_IS, Path(folder) / name, chosen.quick)
            assert as_it_is.what == "ok", as_it_is
            for seed in range(chosen.first, chosen.first + chosen.count):
                found = outcome(project, name, seed, Path(folder) / f"{name}{seed}", chosen.quick)
                count[found.what] += 1
                if found.what not in ("ok", "refused") or chosen.said:
                    print(f"{name} {seed} {found.what} {found.how} {found.reader}: {found.said}", flush=True)
            bad += sum(count.values()) - count["ok"] - count["refused"]
            cells = "".join(f"{count[title]:>10}" for title in titles)
            table.append(f"{name:<16}{cells}{time.monotonic() - start:>10.0f}")
    print(f"{'kind':<16}" + "".join(f"{title:>10}" for title in (*titles, "seconds")), *table, sep="\n")
    sys.exit(bool(bad))


if __name__ == "__main__":
    main()
