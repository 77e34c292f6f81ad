"""mac doctor: check this machine and these parameters before anything runs."""

import sys
from dataclasses import asdict
from pathlib import Path

import click

from pipeline.tools import checks
from stages import LOCK
from stages.echo import say, say_json
from stages.options import data_option, device_option, params_option
from stages.outputs import check_output


@click.command("doctor")
@params_option
@data_option
@device_option
@click.option(
    "--near-duplicates",
    "page",
    type=click.Path(path_type=Path),
    help="Write a page with the images of the dataset that look alike, such as near.html, and nothing else.",
)
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
def command(params_path: Path, data: Path, device: str, page: Path | None, as_json: bool) -> None:
    """Check Python, PyTorch, device, HDF5, DVC, mac.lock, parameters, weights, dataset and disk.

    If parameters and dataset can be read, it also estimates what the stages will need.
    """
    if page is not None:
        from pipeline.tools import near_duplicates

        check_output(page, [params_path], data)
        say(near_duplicates.report(params_path, page))
        return
    of_machine = list(checks.machine(device))
    of_project, estimates = checks.project(params_path, data, device)
    findings = [*of_machine, *_lock(data.parent), *of_project]
    if as_json:
        found = {
            "findings": [asdict(each) for each in findings],
            "stages": [asdict(each) for each in estimates],
        }
        say_json(found)
    else:
        for each in findings:
            remedy = f"; {each.remedy}" if each.remedy else ""
            say(f"{each.state:<8} {each.what}: {each.found}{remedy}")
        if estimates:
            say(f"\n{'stage':<10}{'on disk':>12}{'time':>12}   (estimates)")
        for need in estimates:
            size, time = checks.as_bytes(need.bytes), checks.as_time(need.seconds)
            say(f"{need.stage:<10}{size:>12}{time:>12}")
    if any(each.state == "error" for each in findings):
        sys.exit(1)


def _lock(folder: Path) -> list[checks.Finding]:
    """Whether the installed code is that of the project's mac.lock, if it has one."""
    if not (folder / LOCK).exists():
        return []
    from stages import lock  # what finds the code takes a while to import

    return [lock.finding(folder)]
