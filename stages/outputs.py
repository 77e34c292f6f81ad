"""Refuses an output file that would replace an input or an artefact."""

from collections.abc import Iterable
from pathlib import Path

from pipeline.errors import MacError


def check_output(out: Path | None, inputs: Iterable[Path] = ()) -> None:
    """Check the name of a file to write, if there is one, before any work.

    Raises:
        MacError: it is one of the files that the command reads, or an artefact, or in an artefact's folder.
    """
    if out is None or not out.exists():
        return
    if any(each.exists() and out.samefile(each) for each in inputs):
        raise MacError(f"{out}: is read by this command; choose another name for the output")
    if out.suffix == ".h5" or (out.parent / "model.json").exists():
        raise MacError(f"{out}: is an artefact, or in the folder of one; choose another name for the output")
