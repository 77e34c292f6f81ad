"""dvc.yaml says exactly what each stage uses: modules, parameters and nothing else."""

from typing import Any

import pytest

from pipeline.params import Params
from tests.conftest import REPOSITORY
from tests.generated import DVC_FILES, dvc_file, stages

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


def all_stages() -> dict[str, Any]:
    """The main pipeline's stages, and those that compare with whole-network methods."""
    return stages("dvc.yaml") | stages("data/comparison/dvc.yaml")


def leaves(stage: str) -> list[str]:
    """The dotted parameters that a stage reads."""
    found = [f"{block}.{name}" for block in BLOCKS[stage] for name in Params.model_fields[block].annotation.model_fields]  # type: ignore[union-attr]
    return [key for key in found if key not in UNREAD.get(stage, set())]


@pytest.mark.parametrize("file", DVC_FILES)
def test_module_dependencies_are_the_import_closure(file: str) -> None:
    assert (REPOSITORY / file).read_text() == dvc_file(file), "run 'make generated'"


@pytest.mark.parametrize("stage", BLOCKS)
def test_parameters_are_the_leaves_of_the_stage_s_blocks(stage: str) -> None:
    assert all_stages()[stage].get("params", []) == leaves(stage)


def test_every_stage_says_what_it_is_for() -> None:
    for stage in all_stages().values():
        assert stage["desc"]
