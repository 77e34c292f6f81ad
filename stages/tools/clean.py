"""mac clean: list or remove what unfinished runs left in the scratch folder."""

import shutil
import time
from pathlib import Path

import click

from pipeline.compute.engine import left_in
from pipeline.errors import MacError, first_line
from stages.echo import say
from stages.frame import scratch_of
from stages.options import data_option


@click.command("clean")
@data_option
@click.option("--remove", is_flag=True, help="Remove what is not in use; unfinished stages then start again.")
@click.option(
    "--older-than", "days", type=float, default=0, help="Only what has not changed for this number of days."
)
def command(data: Path, remove: bool, days: float) -> None:
    """List what unfinished runs left in the scratch folder; with --remove, remove it."""
    scratch = scratch_of(data)
    found = [left for left in left_in(scratch) if time.time() - left.changed >= 86400 * days]
    failed = 0
    for left in found:
        state = "in use" if left.in_use else "left by a run that was broken off"
        if remove and not left.in_use:
            try:
                shutil.rmtree(left.path)
                state = "removed"
            except OSError as error:  # of another user, or on a disk that may only be read
                state, failed = f"cannot be removed ({first_line(error)})", failed + 1
        age = (time.time() - left.changed) / 3600
        say(f"{left.path.name:<32} {left.bytes / 2**20:>10.1f} MiB {age:>8.1f} h  {state}")
    if not found:
        say(f"{scratch}: nothing left")
    elif not remove and not all(left.in_use for left in found):
        say("the same stage, run again, goes on from there; 'mac clean --remove' removes it")
    if failed:
        raise MacError(f"{scratch}: {failed} of these could not be removed; ask their owner to do it")
