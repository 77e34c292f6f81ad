"""Commands that read what was changed, each change in a process of its own, and what happened."""

import json
import os
import resource
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from click.testing import CliRunner

from pipeline.errors import MacError
from stages.cli import main as mac


class Outcome(NamedTuple):
    """What happened: `ok`, `refused`, `traceback`, `crash`, `hang` or `leavings`; and the last line of it."""

    what: str
    how: str
    reader: str
    said: str


def run(*arguments: str) -> None:
    """A command of `mac`. A refusal is a MacError again.

    Raises:
        MacError: the command refuses, with one line.
    """
    result = CliRunner().invoke(mac, list(arguments))
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    if result.exit_code:
        lines = [line for line in result.stderr.splitlines() if line.startswith("Error: ")]
        assert (result.exit_code, len(lines)) == (1, 1), result.stderr
        raise MacError(lines[0])


def last(error: BaseException) -> str:
    """Where an exception was raised, and what it says."""
    place, at = error.__traceback__, ""
    while place is not None:
        if (
            "/pipeline/" in place.tb_frame.f_code.co_filename
            or "/stages/" in place.tb_frame.f_code.co_filename
        ):
            at = f"{Path(place.tb_frame.f_code.co_filename).name}:{place.tb_lineno}"
        place = place.tb_next
    return f"{at} {type(error).__name__}: {str(error)[:200]}"


def apart(outcome: Callable[[], Outcome], about: str, limit: int = 20, room: int = 1 << 30) -> Outcome:
    """An outcome in a process of its own, with at most `limit` seconds, and so many bytes beyond this one's.

    Args:
        about: says which, should the fuzz itself fail.
    """
    pages = int(Path("/proc/self/statm").read_text().split()[5])  # of data
    most = pages * resource.getpagesize() + room
    reading, writing = os.pipe()
    child = os.fork()
    if not child:
        try:
            os.close(reading)
            signal.signal(signal.SIGALRM, signal.SIG_DFL)
            signal.alarm(limit)
            resource.setrlimit(resource.RLIMIT_DATA, (most, most))
            resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
            found = outcome()
            with os.fdopen(writing, "w", errors="replace") as pipe:
                pipe.write(json.dumps(found))
        except BaseException as error:
            print(f"{about}: the fuzz itself fails: {last(error)}", file=sys.stderr)
        finally:
            os._exit(0)
    os.close(writing)
    with os.fdopen(reading) as pipe:
        said = pipe.read()
    status = os.waitpid(child, 0)[1]
    if os.WIFSIGNALED(status):
        what = "hang" if os.WTERMSIG(status) == signal.SIGALRM else "crash"
        return Outcome(what, "?", "?", f"signal {os.WTERMSIG(status)}")
    return Outcome(*json.loads(said)) if said else Outcome("crash", "?", "?", "nothing said")
