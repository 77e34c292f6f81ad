"""Opens one artefact by itself, wherever it is and whatever its name is."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from pipeline import graph
from pipeline.kind import Kind
from pipeline.project import Opened, Project


@contextmanager
def open_single(path: Path, name: str | None = None) -> Iterator[tuple[Kind, Opened]]:
    """Open an artefact, whether or not it was made from those beside it.

    So an artefact that no longer fits can still be inspected.

    Args:
        path: an HDF5 file or a model folder.
        name: the kind that it must be, such as `images`; None for the kind that it states.

    Yields:
        Its kind, and the artefact.

    Raises:
        MacError: it is missing, damaged, no artefact, or of another kind.
    """
    project = graph.project(path.parent)
    kind = project.kinds[name] if name else project.kind_of(path)
    with Project(path.parent, {kind.name: kind}, {kind.name: path}).open(kind.name) as given:
        yield kind, given
