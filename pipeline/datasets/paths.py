"""Whether the files that a dataset names are there: each folder is listed once."""

import os
from collections.abc import Sequence
from pathlib import Path


class Paths:
    """The files below a dataset's folder, listed once, when they are first asked for.

    Attributes:
        turned: how many paths `read` had to turn.
    """

    def __init__(self, root: Path) -> None:
        self.turned = 0
        self._root = root
        self._names: dict[str, frozenset[str]] = {}

    def has(self, path: str) -> bool:
        """Whether there is such a file; `path` is relative to the dataset's folder."""
        folder, _, name = path.rpartition("/")
        if folder not in self._names:
            try:
                self._names[folder] = frozenset(path.name for path in (self._root / folder).iterdir())
            except (OSError, ValueError):
                self._names[folder] = frozenset()
        # The second look is for spellings such as a/../b, and for disks that ignore upper and lower case.
        return name in self._names[folder] or os.path.lexists(self._root / path)

    def read(self, path: str) -> str:
        """A path as a table has it; with / for the \\ of Windows, if there is a file of that name alone."""
        turned = path.replace("\\", "/")
        if turned == path or "\0" in path or Path(turned).is_absolute() or ".." in Path(turned).parts:
            return path
        if self.has(path) or not self.has(turned):
            return path
        self.turned += 1
        return turned

    def missing(self, paths: Sequence[str]) -> list[str]:
        """Those of the paths that are not there."""
        return [path for path in paths if not self.has(path)]
