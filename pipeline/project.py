"""A project's artefacts: where they are, and how they are opened and checked. All code opens them here.

    with project.open("images", "erm") as given:
        images, erm = given.file("images"), given.model("erm")

An opened artefact is complete, of the right kind, and made from the other artefacts of the project.
`pipeline.graph` has the list of artefacts, and makes the project.
"""

from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from functools import cached_property
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipeline import store
from pipeline.agreement import DisagreementError, require_agreement
from pipeline.errors import MacError
from pipeline.kind import Kind
from pipeline.metrics import Grouping, Groups, Labels, seen_by_erm
from pipeline.schemas.models import NEEDED, fields_of
from pipeline.store import SPLITS, Artefact, ModelFolder, Provenance


@dataclass(frozen=True)
class Table:
    """A folder with metrics.json: its values, and what it was made from."""

    path: Path
    values: Mapping[str, Any]
    provenance: Provenance

    @property
    def digest(self) -> str:
        return self.provenance.digest

    @classmethod
    def read(cls, path: Path, kind: Kind) -> "Table":
        """Read metrics.json in the folder `path`, and check that it is as `schemas.tables` declares.

        Raises:
            MacError: it cannot be read, does not say what it was made from, or is not as declared.
        """
        file, remedy = path / "metrics.json", kind.remedy
        values = read_table(file, kind.name, remedy)
        try:
            made = Provenance.checked({}, values.get("made_from"), store.file_digest(file))
        except ValueError as error:
            raise MacError(f"{file}: damaged ({error}); {remedy}") from None
        return cls(path, values, made)


def _tables() -> Any:
    """`schemas.tables`, imported now. So no stage depends on it: what it checks changes no result."""
    return import_module("pipeline.schemas.tables")


def read_table(file: Path, kind: str, remedy: str) -> dict[str, Any]:
    """A metrics.json of a kind of artefact, as `schemas.tables` declares it.

    Raises:
        MacError: it cannot be read, or is not as declared.
    """
    values = store.read_json(file, remedy)
    if problem := _tables().problem(values, kind):
        raise MacError(f"{file}: damaged ({problem}); {remedy}")
    return values


@dataclass(frozen=True)
class Project:
    """Where a project's artefacts are.

    Attributes:
        data: the data folder.
        kinds: all kinds of artefact, by name.
        elsewhere: the paths of artefacts that are in another place than `kinds` says.
    """

    data: Path
    kinds: Mapping[str, Kind]
    elsewhere: Mapping[str, Path] = field(default_factory=dict)

    def path(self, name: str) -> Path:
        """The path of an artefact."""
        return self.elsewhere.get(name, self.data / self.kinds[name].path)

    @contextmanager
    def open(self, *names: str, digests: Mapping[str, str] | None = None) -> Iterator["Opened"]:
        """Open artefacts and check them.

        Each must have been made from the artefacts of this project, whether these are opened or not. An
        artefact that it was made from may be missing.

        Args:
            digests: the digests that some of them must have.

        Raises:
            MacError: one is missing, damaged, or does not belong to the others. One line that names it and
                the remedy.
        """
        wanted = digests or {}
        with ExitStack() as stack:
            found = {name: self._opened(name, wanted.get(name), stack) for name in names}
            for name, artefact in found.items():
                self._require(name, artefact.provenance.made_from, found)
            try:
                require_agreement(found)
            except DisagreementError as error:
                remedy = self.kinds[error.name].remedy
                raise MacError(f"{self.path(error.name)}: {error}; {remedy} again") from None
            yield Opened(self, found)

    def _opened(self, name: str, digest: str | None, stack: ExitStack) -> "Artefact | ModelFolder | Table":
        kind, path = self.kinds[name], self.path(name)
        if kind.form == "hdf5":
            schema = import_module(f"pipeline.schemas.{name}").SCHEMA
            return stack.enter_context(store.open_artefact(path, name, schema, kind.remedy, digest))
        if kind.form == "model":
            return store.open_model(path, name, kind.remedy, digest, fields_of, NEEDED.get(name, ()))
        if kind.form == "table":
            return Table.read(path, kind)
        raise ValueError(f"{name} is not for opening")

    def _require(self, name: str, made_from: Mapping[str, str], found: Mapping[str, Any]) -> None:
        for source, digest in made_from.items():
            if source not in self.kinds:
                continue  # a file of the user's, such as weights
            here = found[source].digest if source in found else self._stated_digest(source)
            if here is not None and here != digest:
                raise MacError(
                    f"{self.path(name)}: was made from other {source} (digest {digest[:12]}) than those here "
                    f"(digest {here[:12]}); {self.kinds[name].remedy} again"
                )

    def _stated_digest(self, name: str) -> str | None:
        """The digest that an artefact states, without opening it; None if it is missing or states none."""
        path = self.path(name)
        if self.kinds[name].form == "model":
            return store.stated_model(path)[1]
        if self.kinds[name].form == "table":
            file = path / "metrics.json"
            return store.file_digest(file) if file.is_file() else None
        return store.stated_digest(path) if path.is_file() else None

    def kind_of(self, path: Path) -> Kind:
        """The kind of a file or a folder, by its name or by what it states.

        Raises:
            MacError: it is missing, or no artefact.
        """
        if not path.exists():
            raise MacError(f"{path}: no such file or folder; see 'mac --help'")
        for kind in self.kinds.values():
            if kind.form in ("hdf5", "model") and Path(kind.path).name == path.name:
                return kind  # opening it says what is wrong with it
        name = store.stated_model(path)[0] if path.is_dir() else store.stated_kind(path)
        if name is None or name not in self.kinds:
            raise MacError(f"{path}: is no MaC artefact, or damaged; see 'mac --help'")
        return self.kinds[name]


class Opened:
    """Artefacts that are open and belong together."""

    def __init__(self, project: Project, artefacts: "Mapping[str, Artefact | ModelFolder | Table]") -> None:
        self.project = project
        self._artefacts = artefacts

    def file(self, name: str) -> Artefact:
        """An HDF5 artefact."""
        found = self._artefacts[name]
        assert isinstance(found, Artefact)
        return found

    def model(self, name: str) -> ModelFolder:
        """A model folder."""
        found = self._artefacts[name]
        assert isinstance(found, ModelFolder)
        return found

    def table(self, name: str) -> Table:
        """A folder with metrics.json."""
        found = self._artefacts[name]
        assert isinstance(found, Table)
        return found

    def __contains__(self, name: str) -> bool:
        return name in self._artefacts

    def digests(self, *names: str) -> dict[str, str]:
        """The digests of some of them, which an artefact made from them notes."""
        return {name: self._artefacts[name].digest for name in names}

    def metrics(self, name: str) -> dict[str, Any]:
        """The metrics.json in a model folder, as `schemas.tables` declares it.

        Raises:
            MacError: it cannot be read, is not as declared, or has methods without heads.
        """
        folder, remedy = self.model(name), self.project.kinds[name].remedy
        file = folder.path / "metrics.json"
        values = read_table(file, name, remedy)
        for method, row in values.get("methods", {}).items():
            if folder.lengths.get(f"seed of {method}") != row["seeds"]:
                raise MacError(
                    f"{file}: has {row['seeds']} heads of {method}, other than its tensors; {remedy}"
                )
        return values

    def rows_of_csv(self, name: str, file_name: str) -> list[dict[str, Any]]:
        """The rows of a CSV file in a folder, as `schemas.tables` declares them.

        Raises:
            MacError: it cannot be read, or is not as declared.
        """
        file, remedy = self._artefacts[name].path / file_name, self.project.kinds[name].remedy
        try:
            rows: list[dict[str, Any]] = _tables().rows_of(store.read_csv(file, remedy), name, file_name)
            return rows
        except ValueError as error:
            raise MacError(f"{file}: damaged ({error}); {remedy}") from None

    def attribute(self, name: str, key: str) -> Any:
        """A root attribute of an HDF5 artefact.

        Raises:
            MacError: it is missing, or is not as `schemas.tables` declares it.
        """
        artefact = self.file(name)
        try:
            value = artefact.attribute(key)
            if problem := _tables().problem_of_stated(value, name, key):
                raise ValueError(f"{key}: {problem}")
        except ValueError as error:
            raise MacError(f"{artefact.path}: damaged ({error}); {self.project.kinds[name].remedy}") from None
        return value

    def stated(self, name: str, *keys: str) -> Any:
        """A parameter that an artefact was made with, or a value in a table's metrics.json, by its keys.

        Raises:
            MacError: the artefact does not state it, or states what it cannot be.
        """
        artefact = self._artefacts[name]
        found: Any = artefact.values if isinstance(artefact, Table) else artefact.provenance.params
        files = {ModelFolder: " model.json", Table: " metrics.json"}
        file, remedy = files.get(type(artefact), ""), self.project.kinds[name].remedy
        stated = ".".join(keys)
        try:
            for key in keys:
                found = found[key]
        except (LookupError, TypeError):
            raise MacError(f"{artefact.path}:{file} does not state {stated}; {remedy}") from None
        if problem := _tables().problem_of_stated(found, name, stated):
            raise MacError(
                f"{artefact.path}:{file} states {stated} that it cannot have ({problem}); {remedy}"
            )
        return found

    @property
    def erm_labels(self) -> Labels:
        """The group labels that ERM saw."""
        return seen_by_erm(
            self.stated("erm", "train", "select"), self.stated("erm", "selection", "criterion")
        )

    def reference(self, *names: str) -> "Reference":
        """What another process needs to open the same artefacts."""
        project = self.project
        elsewhere = {name: project.path(name).resolve() for name in (*project.elsewhere, *names)}
        return Reference(Project(project.data.resolve(), project.kinds, elsewhere), self.digests(*names))

    @cached_property
    def groups(self) -> Groups:
        """The dataset's classes and attributes."""
        return Groups.of(self.file("images" if "images" in self else "features"))

    def rows(self, split: str) -> NDArray[np.int64]:
        """The rows of images.h5 that are in a split."""
        return np.flatnonzero(self.file("images")["split"][:] == SPLITS.index(split))

    def grouping(self, split: str) -> Grouping:
        """The groups of a split. For `train`, the whole training split, images.h5 must be open."""
        if "images" in self:
            images, rows = self.file("images"), self.rows(split)
            return self.groups.grouping(images["label"][:][rows], images["attribute"][:][rows])
        assert split != "train"
        features = self.file("features")
        return self.groups.grouping(features[f"{split}/label"][:], features[f"{split}/attribute"][:])


@dataclass(frozen=True)
class Reference:
    """Artefacts by path and digest. It can be sent to another process, which opens the same artefacts."""

    project: Project
    digests: Mapping[str, str]

    @contextmanager
    def open(self) -> Iterator[Opened]:
        """Open them.

        Raises:
            MacError: one is missing, or has been replaced.
        """
        with self.project.open(*self.digests, digests=self.digests) as given:
            yield given
