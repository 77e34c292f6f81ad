"""The list of what `python -m benchmarks` runs: 20 minutes, which should not end in a wrong option."""

import re
from importlib import import_module

import pytest

from benchmarks.__main__ import MILLION, RUNS, Goal, _page, _row, _section

COMMANDS = sorted({run.command for runs in RUNS.values() for run in runs} | {MILLION.command})


@pytest.mark.parametrize("command", COMMANDS)
def test_its_programs_take_their_options(command: str) -> None:
    program, *options = command.split()
    import_module(f"benchmarks.{program}").main.make_context(program, options)


def test_a_goal_and_its_figure_are_a_line_of_the_table() -> None:
    figures = {"ratio": 0.93456, "peak": 2.5, "architecture": "resnet50", "precision": "float32"}
    of = "resnet50, float32"
    assert _row(Goal("speed", "ratio", "≥ 0.92"), figures) == f"| speed | {of} | **0.9346** | ≥ 0.92 | ✓ |"
    assert _row(Goal("memory", "peak", "≤ 2"), figures).endswith("| **2.5** | ≤ 2 | ✗ |")
    assert _row(Goal("other", "whatif", "≤ 6"), {}) == "| other |  | not measured | ≤ 6 | |"


def test_a_machine_s_section_replaces_its_own_and_no_other() -> None:
    page = _page("# Title\n\nText.\n\n## other, CPU\n\nold\n", _section("here", ["| a |"], ["$ it"]))
    again = _page(page, _section("here", ["| b |"], ["$ it"]))
    assert re.findall("(?m)^#+ ([a-z]+)", again) == ["here", "other"]
    assert ("| a |" in again, "| b |" in again, "old" in again) == (False, True, True)
