"""A kind of artefact: its name, its place, its form, and the stage that makes it."""

from dataclasses import dataclass, replace
from typing import Literal


@dataclass(frozen=True)
class Kind:
    """A kind of artefact.

    Attributes:
        name: its name in the list of stages.
        path: its path below the data folder.
        form: `hdf5`, a file with the schema `pipeline.schemas.<name>`; `model`, a folder with model.json;
            `table`, a folder with metrics.json, which says what it was made from; `metrics`, a file for DVC;
            `files`, anything else.
        stage: the stage that makes it.
    """

    name: str
    path: str
    form: Literal["hdf5", "model", "table", "metrics", "files"]
    stage: str = ""

    def by(self, stage: str) -> "Kind":
        """The same kind, made by `stage`."""
        return replace(self, stage=stage)

    @property
    def command(self) -> str:
        """The command that makes it."""
        return f"mac {self.stage}"

    @property
    def remedy(self) -> str:
        """What to do when it is missing or does not fit."""
        return f"run '{self.command}'" if self.stage else "see 'mac --help'"
