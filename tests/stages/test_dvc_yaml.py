"""dvc.yaml says exactly what each stage uses: modules, parameters and nothing else."""

from pathlib import Path
from typing import Any

import grimp
import pytest
from ruamel.yaml import YAML

from pipeline.params import Params
from tests.conftest import REPOSITORY

# What each stage reads of params.yaml; evaluate reads none.
BLOCKS = {
    "prepare": ["dataset"],
    "train": ["model", "train"],
    "saliency": ["saliency"],
    "features": ["features"],
    "retrain": ["retrain"],
    "evaluate": [],
    "baselines": ["baselines", "retrain"],
    "sweep": ["sweep", "retrain"],
    "examples": ["examples"],
    "report": [],
    "jtt": ["jtt"],
    "masktune": ["masktune"],
    "ablation": ["saliency", "features", "retrain", "sweep"],
    "comparison_report": [],
}
# What they do not look at, so that another alpha does not run them again.
UNREAD = {
    "baselines": {"retrain.alpha", "retrain.beta", "retrain.class_weights"},
    "sweep": {"retrain.alpha", "retrain.beta"},
    "ablation": {"saliency.balance", "saliency.previews", "retrain.alpha", "retrain.beta"},
}


def stages(file: Path) -> dict[str, Any]:
    return YAML(typ="safe").load(file)["stages"]  # type: ignore[no-any-return]


def all_stages() -> dict[str, Any]:
    """The main pipeline's stages, and those that compare with whole-network methods."""
    return stages(REPOSITORY / "dvc.yaml") | stages(REPOSITORY / "data/comparison/dvc.yaml")


def modules(stage: str) -> set[str]:
    """Files of the stage's module and of everything that it imports, directly or not; a package used as a whole is its folder."""
    stage = {"comparison_report": "report"}.get(stage, stage)
    graph = grimp.build_graph("pipeline", "stages")
    names = {f"stages.{stage}"} | graph.find_upstream_modules(f"stages.{stage}")
    whole = {name for name in names if (parts := graph.find_descendants(name)) and parts <= names}
    paths = [Path(*name.split(".")) for name in names - whole if name.rpartition(".")[0] not in whole]
    files = {path / "__init__.py" if (REPOSITORY / path).is_dir() else path.with_suffix(".py") for path in paths}
    return {str(path) for path in files | {Path(*name.split(".")) for name in whole}}


def leaves(stage: str) -> list[str]:
    """The dotted parameters that a stage reads."""
    found = [f"{block}.{name}" for block in BLOCKS[stage] for name in Params.model_fields[block].annotation.model_fields]  # type: ignore[union-attr]
    return [key for key in found if key not in UNREAD.get(stage, set())]


@pytest.mark.parametrize("stage", BLOCKS)
def test_module_dependencies_are_the_import_closure(stage: str) -> None:
    listed = {dep for dep in all_stages()[stage]["deps"] if dep.startswith(("pipeline", "stages"))}
    assert listed == modules(stage)


def test_module_dependencies_of_the_demo_are_the_import_closure() -> None:
    folder = REPOSITORY / "data" / "raw"
    listed = {str((folder / dep).resolve().relative_to(REPOSITORY)) for dep in stages(folder / "dvc.yaml")["demo"]["deps"]}
    assert listed == modules("demo")


@pytest.mark.parametrize("stage", BLOCKS)
def test_parameters_are_the_leaves_of_the_stage_s_blocks(stage: str) -> None:
    assert all_stages()[stage].get("params", []) == leaves(stage)


def test_every_stage_says_what_it_is_for() -> None:
    for stage in all_stages().values():
        assert stage["desc"]
