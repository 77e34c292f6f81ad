"""Refuses an output file that would replace an input or an artefact."""

from collections.abc import Iterable
from pathlib import Path

from pipeline import graph
from pipeline.errors import MacError

PARAMS = Path("params.yaml")


def check_output(out: Path | None, inputs: Iterable[Path] = (), data: Path = Path("data")) -> None:
    """Check the name of a file to write, if there is one, before any work.

    Args:
        inputs: what the command reads, or the project has.
        data: the project's data folder.

    Raises:
        MacError: it is one of the inputs; or an artefact, or in the folder of one, be it there or not.
    """
    if out is None:
        return
    if out.exists() and any(each.exists() and out.samefile(each) for each in inputs):
        raise MacError(f"{out}: is an input; choose another name for the output")
    project, place = graph.project(data), out.resolve()
    is_artefact = any(place.is_relative_to(project.path(name).resolve()) for name in project.kinds)
    if is_artefact or (out.exists() and out.suffix == ".h5") or (out.parent / "model.json").exists():
        raise MacError(f"{out}: is an artefact, or in the folder of one; choose another name for the output")
