"""Which code a module uses, compared with what other tools say."""

import importlib.metadata
import os
import subprocess
import sys
import zlib

import grimp
import h5py
import PIL
import pytest
import torch

from pipeline.compute import code
from pipeline.compute.code import code_of, difference
from tests.conftest import REPOSITORY

MODULES = (
    "pipeline.steps.prepare",
    "pipeline.steps.saliency",
    "pipeline.comparison.jtt",
    "pipeline.tools.checks",
)


def without_packages(names: set[str]) -> set[str]:
    """Modules without the packages that hold them, which run too, but are not imported by name."""
    return {name for name in names if not (REPOSITORY / name.replace(".", "/")).is_dir()}


def _with_packages(names: set[str], graph: grimp.ImportGraph) -> set[str]:
    """Modules, and what the packages that hold them import: it is run too."""
    while True:
        packages = {name.rpartition(".")[0] for name in names if "." in name}
        more = set(names)
        for package in packages:
            more |= {package} | graph.find_upstream_modules(package)
        if more == names:
            return names
        names = more


def test_the_modules_are_those_of_the_import_graph() -> None:
    graph = grimp.build_graph("pipeline", exclude_type_checking_imports=True, cache_dir=None)
    for module in MODULES:
        found = {name for name in code_of(module) if name.startswith("pipeline")}
        graphed = _with_packages({module} | graph.find_upstream_modules(module), graph)
        assert graphed <= found
        assert without_packages(found) == without_packages(graphed)


def test_the_packages_and_their_versions() -> None:
    found = code_of("pipeline.steps.prepare")
    assert found["pillow"] == PIL.__version__
    assert found["h5py"] == h5py.__version__
    assert found["zlib"] == zlib.ZLIB_RUNTIME_VERSION
    assert found["libwebp"] == PIL.features.version("webp")
    assert found["torch"] == torch.__version__.partition("+")[0]
    assert not {"scipy", "kneed", "dask", "pathlib", "pipeline"} & found.keys() - {"pipeline"}
    assert "pyarrow" not in found  # a worker that lacks it may decode images, and installing it changes none
    assert "kneed" in code_of("pipeline.steps.masks")  # imported by a function of a module


def test_each_package_is_asked_by_the_name_that_it_is_installed_by() -> None:
    installed = importlib.metadata.packages_distributions()
    everything = code_of("a module that is not of this package")
    assert {name for name in everything if name.startswith("pipeline")} == set(code._LOADED)
    for name, installed_as in code.INSTALLED_AS.items():
        assert name not in installed or installed_as in {each.lower() for each in installed[name]}
    ours = {name: its for name, its in everything.items() if not name.startswith("pipeline")}
    for name, its in ours.items():
        assert its != "none" or name not in installed


def test_every_process_says_the_same() -> None:
    program = (
        "from pipeline.compute.code import code_of; print(sorted(code_of('pipeline.steps.saliency').items()))"
    )
    environment = {**os.environ, "PYTHONPATH": str(REPOSITORY)}
    done = subprocess.run([sys.executable, "-c", program], env=environment, capture_output=True, text=True)
    assert done.stdout.strip() == str(sorted(code_of("pipeline.steps.saliency").items()))


def test_what_differs_is_named() -> None:
    here = {"pipeline.a": "1", "pipeline.b": "2", "torch": "2.11.0", "numpy": "2.4.6"}
    assert difference(here, dict(here)) == ""
    assert difference(here, {**here, "torch": "2.6.0"}) == "torch 2.6.0, here 2.11.0"
    assert difference(here, {"pipeline.a": "1", "pipeline.b": "3"}) == (
        "numpy none, here 2.4.6, pipeline.b, torch none, here 2.11.0"
    )
    assert difference(here, {}).endswith("pipeline.a, pipeline.b and 1 more")


def test_a_file_that_is_edited_does_not_change_what_this_process_runs(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    before, now = code_of("pipeline.steps.prepare"), code._on_disk()
    assert code.edited("pipeline.steps.prepare") == []
    now["pipeline.store.artefact"] += b"\nEDITED = True\n"
    now["pipeline.store.files"] += b"# a comment"
    del now["pipeline.datasets.bar"]
    now["pipeline.method.knee"] = b"not used by prepare"
    monkeypatch.setattr(code, "_on_disk", lambda: now)
    assert code.edited("pipeline.steps.prepare") == ["pipeline.datasets.bar", "pipeline.store.artefact"]
    code_of.cache_clear()
    assert code_of("pipeline.steps.prepare") == before
