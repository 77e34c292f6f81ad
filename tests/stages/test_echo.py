"""What a file is called cannot steer the terminal that its name is printed on."""

import ast
import json
import logging

import pytest

from stages.echo import Formatter, say, say_json
from tests.conftest import REPOSITORY

HOSTILE = "a\x1b]0;title\x07\x9b2J\u202egnp.exe\r\x7f\udcff犬"
SHOWN = "a\\x1b]0;title\\x07\\x9b2J\\u202egnp.exe\\r\\x7f\\udcff犬"


def test_text_keeps_its_lines_and_loses_its_codes(capsys: pytest.CaptureFixture[str]) -> None:
    say(f"{HOSTILE}\n  β = 1")
    say("no end", newline=False)
    assert capsys.readouterr().out == f"{SHOWN}\n  β = 1\nno end"


def test_json_is_read_back_as_it_was(capsys: pytest.CaptureFixture[str]) -> None:
    value = {HOSTILE: [HOSTILE, "\U000e0001", 1.5, None, "line\nbreak"]}
    say_json(value)
    out = capsys.readouterr().out
    assert out.rstrip("\n").isprintable()
    assert "犬" in out
    assert json.loads(out) == value


def test_a_line_of_the_log() -> None:
    record = logging.LogRecord("mac", logging.WARNING, "", 0, "row %d: %s", (3, HOSTILE), None)
    assert Formatter("%(message)s").format(record) == f"row 3: {SHOWN}"


def test_all_commands_print_in_this_way() -> None:
    for file in (REPOSITORY / "stages").rglob("*.py"):
        for node in ast.walk(ast.parse(file.read_text())):
            if isinstance(node, ast.Call) and file.name not in ("echo.py", "generate.py"):
                called = ast.unparse(node.func)
                assert called not in ("print", "click.secho"), file
                assert called != "click.echo" or any(each.arg == "err" for each in node.keywords), file
