"""A small project, run once through all stages, that tests read or copy."""

import csv
import json
import os
import shutil
import signal
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib import import_module
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
import torch
from click.testing import CliRunner, Result
from ruamel.yaml import YAML
from safetensors.numpy import load_file

from pipeline import graph, store
from pipeline.demo import waterbirds_layout
from pipeline.params_file import Params, parse
from pipeline.project import Opened
from pipeline.schemas import features, masks
from pipeline.store import seal, verified
from pipeline.store.models import sealed
from stages.cli import main

REPOSITORY = Path(__file__).parent.parent
SHARED = REPOSITORY.parent / "shared"
STAGES = tuple(stage.name for stage in graph.STAGES if stage.pipeline == "main")
COMPARED = tuple(stage.name for stage in graph.STAGES if stage.pipeline == "comparison")
STUDY = tuple(stage.name for stage in graph.STAGES if stage.pipeline == "study")
TOOLS = ("clean", "diagnose", "predict", "explain", "export", "doctor", "whatif")
WITH_DATA = (*STAGES, *COMPARED, *STUDY, *TOOLS)
WITH_PARAMS = (*(stage.name for stage in graph.STAGES if stage.params or stage.tracked), "doctor", "whatif")
CACHE = tempfile.TemporaryDirectory(prefix="mac-cache-")  # it goes when this process ends
COUNTS = {0: (40, 6, 4, 20), 1: (6, 6, 6, 6), 2: (8, 8, 8, 8)}


# One thread here and in every process that a test starts: their bytes are compared, and they run at once.
os.environ["OMP_NUM_THREADS"] = "1"
torch.set_num_threads(1)
# What a test notes as checked is no note of the user's.
os.environ["XDG_CACHE_HOME"] = CACHE.name
# A shell that starts the tests in the background ignores Ctrl-C, and so would the processes that they start.
signal.signal(signal.SIGINT, signal.default_int_handler)


def default_params() -> dict[str, Any]:
    """The repository's own params.yaml as a dictionary."""
    values: dict[str, Any] = YAML(typ="safe").load(REPOSITORY / "params.yaml")
    return values


class Project:
    """A folder with params.yaml, raw images and artefacts, and the `mac` command to run in it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.data = folder / "data"
        self.params_file = folder / "params.yaml"

    def set(self, **changes: Any) -> None:
        """Change parameters: `set(retrain__alpha=1)`."""
        yaml = YAML(typ="safe")
        values = yaml.load(self.params_file)
        for key, value in changes.items():
            block, name = key.split("__")
            values[block][name] = value
        yaml.dump(values, self.params_file)

    @contextmanager
    def open(self, *names: str) -> Iterator[Opened]:
        """Artefacts of this project, opened."""
        with graph.project(self.data).open(*names) as given:
            yield given

    @property
    def params(self) -> Params:
        return parse(YAML(typ="safe").load(self.params_file), "params.yaml")

    def copied(self, folder: Path) -> "Project":
        """A copy in `folder`, to be changed at will (the raw images are shared)."""
        shutil.copytree(self.folder, folder, ignore=shutil.ignore_patterns("raw"))
        return Project(folder)

    def run(self, *arguments: str) -> Result:
        """Run `mac` with these arguments; a stage gets this project's params and data folder."""
        options = ["--data", str(self.data)] if arguments[0] in WITH_DATA else []
        if arguments[0] in WITH_PARAMS:
            options += ["--params", str(self.params_file)]
        return CliRunner().invoke(main, [*arguments, *options])

    def succeed(self, *arguments: str) -> Result:
        result = self.run(*arguments)
        assert result.exit_code == 0, f"{result.output}\n{result.exception!r}"
        return result

    def fail(self, *arguments: str) -> str:
        """Run a command that must fail with one clear line; return that line."""
        result = self.run(*arguments)
        assert result.exit_code == 1, f"{result.output}\n{result.exception!r}"
        lines = [line for line in result.stderr.splitlines() if line.startswith("Error:")]
        assert len(lines) == 1
        assert "Traceback" not in result.output
        return lines[0]


@contextmanager
def open_file(path: Path) -> Iterator[store.Artefact]:
    """An HDF5 artefact of any kind, by its path."""
    name = graph.project(path.parent).kind_of(path).name
    with graph.project(path.parent, **{name: path}).open(name) as given:
        yield given.file(name)


def nothing(folder: Path) -> Opened:
    """What a stage that needs nothing is given."""
    return Opened(graph.project(folder), {})


def erased(project: Project, folder: Path, splits: str) -> Project:
    """A project in the layout of Waterbirds made anew, in which the attribute of these splits is unknown."""
    again = Project(folder)
    raw = Path(project.params.values["dataset"]["root"])
    shutil.copytree(raw, folder / "raw")
    shutil.copy(project.params_file, again.params_file)
    again.set(dataset__root=str(folder / "raw"))
    rows = list(csv.DictReader((raw / "metadata.csv").read_text().splitlines()))
    with (folder / "raw/metadata.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, rows[0])
        writer.writeheader()
        writer.writerows({**row, "place": "" if row["split"] in splits else row["place"]} for row in rows)
    for stage in STAGES:
        again.succeed(stage)
    return again


@contextmanager
def edited(path: Path, *, sealed: bool = False) -> Iterator[h5py.File]:
    """Change an artefact in place: it still passes for what was written or, `sealed`, for another one."""
    with h5py.File(path, "r+") as file:
        schema = import_module(f"pipeline.schemas.{file.attrs['schema']}").SCHEMA
        yield file
    if sealed:
        with path.open("r+b") as whole:
            whole.write(seal.seal(store.file_digest(path, seal.SEAL)))
    verified.remember(path, schema, verified.state_of(path))


def restate(folder: Path, change: Callable[[dict[str, Any]], object]) -> None:
    """Change what the model.json in a folder states, and seal it again."""
    about = json.loads((folder / "model.json").read_text())
    change(about)
    (folder / "model.json").write_text(json.dumps(sealed(about)))


def assert_same_masks_features_and_heads(one: Project, other: Project) -> None:
    for name, schema in (("masks", masks.SCHEMA), ("features", features.SCHEMA)):
        with one.open(name) as told, other.open(name) as without:
            fields = [field for field in schema if field in told.file(name)]
            assert fields == [field for field in schema if field in without.file(name)]
            for field in fields:
                if field != "train/attribute":
                    assert np.array_equal(told.file(name)[field][:], without.file(name)[field][:]), field
    for file in ("erm/model.safetensors", "retrained/model.safetensors", "retrained/head.safetensors"):
        told, without = load_file(one.data / file), load_file(other.data / file)
        assert all(np.array_equal(told[name], without[name]) for name in told)


@pytest.fixture(scope="session")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Project:
    """A tiny project with every artefact made; not to be changed."""
    project = Project(tmp_path_factory.mktemp("finished"))
    raw = project.folder / "raw"
    waterbirds_layout.write(raw, 0, COUNTS)
    YAML(typ="safe").dump(default_params(), project.params_file)
    project.set(
        dataset__root=str(raw), dataset__stored_size=72, dataset__input_size=64, model__weights="none",
        train__epochs=2, train__batch_size=16, train__precision="float32",
        features__draws=2, features__batch_size=16,
        retrain__seeds=2, retrain__average=1, retrain__epochs=3,
        sweep__betas=[0, 1, 2, 3, 4, 5],
    )  # fmt: skip
    for stage in STAGES:
        project.succeed(stage)
    return project


@pytest.fixture
def project(finished: Project, tmp_path: Path) -> Project:
    """A copy of the finished project, to be changed at will."""
    return finished.copied(tmp_path / "project")


@pytest.fixture
def sample() -> Callable[..., torch.Tensor]:
    """Seeded uniform tensors: `sample(2, 3)`."""
    generator = torch.Generator().manual_seed(0)
    return lambda *shape: torch.rand(shape, generator=generator)
