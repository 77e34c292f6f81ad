"""Where soft errors choose, no attribute of any split changes a head, bit for bit; α, β and l2 are auto."""

from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np
import pytest
from numpy.typing import NDArray

from pipeline.params.baselines import BaselinesParams
from pipeline.params.retrain import RetrainParams
from pipeline.params.selection import SelectionParams
from pipeline.params.sweep import SweepParams
from pipeline.project import Project
from pipeline.steps.baselines import baselines
from pipeline.steps.retrain import retrain
from pipeline.steps.sweep import sweep
from pipeline.store import SPLITS
from tests import cached
from tests.cached import fit_params

METHODS = BaselinesParams(methods=["erm", "llr", "class_scaling", "evals", "afr", "self"])
FIT = fit_params(lr=0.1, l2="auto")


Pick = Literal["criterion", "diagnosis"]


def chosen(project: Project, pick: Pick) -> tuple[dict[str, NDArray[Any]], dict[str, Any]]:
    """The heads of MaC and of the other methods; and what was chosen on the way."""
    selection, context = SelectionParams(criterion="soft_errors"), cached.context(project.data)
    params = RetrainParams(**FIT.model_dump(), alpha="auto", beta="auto")
    with project.open("images", "erm", "masks", "features") as given:
        grid = SweepParams(
            alphas=[0], betas=[0, 2], pick=pick, default=(0, 2), l2s=[0, 0.1], seeds=2, average=1
        )
        baselines(given, project.path("baselines"), METHODS, grid, FIT, selection, context)
        sweep(given, project.path("sweep"), grid, FIT, selection, context)
    with project.open("erm", "features", "sweep") as given:
        retrain(given, project.path("retrained"), params, selection, context)
    with project.open("retrained", "baselines", "sweep") as given:
        mac, others = given.model("retrained"), given.model("baselines")
        heads = {"mac.weight": mac.heads().weight, "mac.bias": mac.heads().bias} | others.read()
        picked = given.table("sweep").values
        return heads, {
            **{name: picked[name] for name in ("alpha", "beta", "l2", "val_worst", "val_mean")},
            "head_seed": mac.provenance.params["head_seed"],
            "criterion": picked["criterion"],
        }


@pytest.mark.parametrize("pick", get_args(Pick))
def test_erasing_all_attributes_changes_no_head(tmp_path: Path, pick: Pick) -> None:
    told = cached.write(tmp_path / "told", kept=[1])
    untold = cached.write(tmp_path / "untold", unknown=SPLITS, kept=[1])
    heads, picked = chosen(told, pick)
    others, picked_again = chosen(untold, pick)
    assert picked == picked_again
    assert heads.keys() == others.keys()
    for name, tensor in heads.items():
        np.testing.assert_array_equal(tensor, others[name])
