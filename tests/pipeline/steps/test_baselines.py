import json
from pathlib import Path
from typing import Any, get_args

import numpy as np
import pytest

from pipeline.errors import MacError
from pipeline.params.baselines import BaselinesParams, MethodName
from pipeline.params.sweep import PenaltyParams
from pipeline.project import Project
from pipeline.results.convergence import convergence
from pipeline.results.scores import head_scores
from pipeline.steps.baselines import baselines
from pipeline.store import FittedHeads, schema
from tests import cached
from tests.cached import fit_params

ALL = list(get_args(MethodName))
L2S = PenaltyParams(l2s=[0, 0.1])


def run(project: Project, methods: list[str], **changes: object) -> tuple[str, dict[str, Any]]:
    """The table, and what metrics.json says."""
    params = BaselinesParams.model_validate({"methods": methods})
    with project.open("images", "erm", "features") as given:
        out = project.path("baselines")
        models = (params, L2S, fit_params(**changes), cached.AUTO)
        table = baselines(given, out, *models, cached.context(project.data))
    return table, json.loads((project.path("baselines") / "metrics.json").read_text())


@pytest.fixture(scope="module")
def fitted(tmp_path_factory: pytest.TempPathFactory) -> tuple[Project, str, dict[str, Any]]:
    """A project with all methods, the table, and metrics.json."""
    project = cached.write(tmp_path_factory.mktemp("baselines"), kept=[1, 2])
    return project, *run(project, ALL)


def test_every_method_has_its_row_with_the_labels_it_saw(fitted: tuple[Project, str, dict[str, Any]]) -> None:
    project, table, metrics = fitted
    methods = metrics["methods"]
    signs = {name: row["sign"] for name, row in methods.items()}
    assert signs == dict(zip(ALL, ("✗", "✓", "✓", "✓✓", *["✓"] * 4, *["✓✓"] * 4), strict=True))
    seeds = {name: row["seeds"] for name, row in methods.items()}
    assert seeds == dict(zip(ALL, (1, 2, 2, 2, 1, 1, 1, 1, 2, 2, 2, 2), strict=True))
    assert metrics["left_out"] == {}
    with project.open("images", "erm", "features") as given:
        assert metrics["convergence"] == convergence(given)
    assert "✗ none" in table
    assert table.splitlines()[0].endswith(
        "robust coverage           AUROC             ECE  group labels seen"
    )
    erm = methods["erm"]["test"]
    values = [100 * erm[key]["mean"] for key in ("robust_coverage", "auroc", "ece")]
    assert [f"{value:.2f}" for value in values] == table.splitlines()[1].split()[4:7]
    assert "AFR: on images that ERM was trained on: none was held out" in table


def test_the_folder_has_the_heads_that_were_measured(fitted: tuple[Project, str, dict[str, Any]]) -> None:
    project, _, metrics = fitted
    with project.open("images", "erm", "features", "baselines") as given:
        folder, erm = given.model("baselines"), given.model("erm")
        tensors = folder.read()
        assert folder.spec == erm.spec
        assert folder.provenance.made_from == metrics["made_from"] == given.digests("features", "erm")
        assert set(tensors) == {f"{name}.{part}" for name in ALL for part in ("weight", "bias")}
        for name, row in metrics["methods"].items():
            heads = FittedHeads(tensors[f"{name}.weight"], tensors[f"{name}.bias"])
            assert heads.weight.shape == (row["seeds"], 2, cached.WIDTH)
            assert head_scores(given, heads, "test") == row["test"]
            each = [head_scores(given, heads[seed], "val") for seed in range(len(heads))]
            scores = [(one["worst_group"]["mean"], one["raw_mean"]["mean"]) for one in each]
            assert row["head_seed"] == scores.index(max(scores))
        np.testing.assert_array_equal(tensors["erm.weight"], erm.head().weight)


def test_an_erm_that_validation_chose_says_so_and_held_out_images_are_taken(tmp_path: Path) -> None:
    project = cached.write(tmp_path, select="best", hold_out=0.25)
    table, metrics = run(project, ["erm", "afr"])
    assert metrics["methods"]["erm"]["labels"] == "validation, to choose"
    assert "✗" not in table
    assert metrics["methods"]["afr"]["note"] == ""


def test_what_only_chooses_sees_no_labels_where_errors_choose(tmp_path: Path) -> None:
    project = cached.write(tmp_path, unknown=("val",))
    table, metrics = run(project, ["erm", "llr", "afr"])
    assert metrics["criterion"] == "soft_errors"
    assert {row["sign"] for row in metrics["methods"].values()} == {"✗"}
    assert table.count("✗ none") == 3


def test_a_method_that_needs_unknown_labels_is_left_out_with_its_reason(tmp_path: Path) -> None:
    project = cached.write(tmp_path, unknown=("train",))
    table, metrics = run(project, ["group_dro", "llr", "dfr"])
    assert list(metrics["methods"]) == ["llr", "dfr"]
    reason = "needs the spurious attribute of every training image"
    assert metrics["left_out"] == {"group_dro": {"title": "Group DRO (last layer)", "reason": reason}}
    assert f"Group DRO (last layer) is left out: {reason}" in table
    with project.open("baselines") as given:
        assert "group_dro.weight" not in given.model("baselines").read()


def test_nothing_to_fit_is_one_line_and_the_earlier_folder_stays(tmp_path: Path) -> None:
    project = cached.write(tmp_path, unknown=("train",))
    run(project, ["erm"])
    before = (project.path("baselines") / "metrics.json").read_text()
    with pytest.raises(MacError, match=r"baselines.methods: none of them can be had .*\(needs the spurious"):
        run(project, ["dfr_train", "group_dro"])
    assert (project.path("baselines") / "metrics.json").read_text() == before


def test_full_batches_leave_one_head_where_nothing_is_random(tmp_path: Path) -> None:
    _, metrics = run(cached.write(tmp_path), ["llr", "group_dro"], solver="lbfgs", l2=0.1)
    assert {name: row["seeds"] for name, row in metrics["methods"].items()} == {"llr": 1, "group_dro": 2}


def test_where_l2_is_auto_each_method_with_this_penalty_chooses_its_own(tmp_path: Path) -> None:
    project = cached.write(tmp_path)
    _, metrics = run(project, ["erm", "llr", "cb_llr", "group_dro"], l2="auto")
    chosen = {name: row["chosen"] for name, row in metrics["methods"].items()}
    assert [name for name, each in chosen.items() if "l2" in each] == ["llr", "cb_llr", "group_dro"]
    for name in ("llr", "cb_llr", "group_dro"):
        tried = {}
        for l2 in L2S.l2s:
            row = run(project, [name], l2=l2)[1]["methods"][name]
            assert "l2" not in row["chosen"]
            tried[l2] = row["val"]["worst_group"]["mean"], row["val"]["raw_mean"]["mean"]
        assert chosen[name]["l2"] == max(tried, key=lambda l2: tried[l2])


@pytest.mark.parametrize(
    ("scale", "name", "reason"),
    [
        (1e25, "self", "its head is NaN or infinite after the fit"),
        (1e37, "dfr", "the features are too large to be standardised"),
    ],
)
def test_a_method_that_diverges_is_left_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, scale: float, name: str, reason: str
) -> None:
    rows = cached.rows

    def large(count: int, seed: int) -> tuple[Any, Any, Any]:
        x, label, attribute = rows(count, seed)
        return x * np.float32(scale), label, attribute

    monkeypatch.setattr(cached, "rows", large)
    monkeypatch.setattr(schema, "LARGEST", np.inf)  # a file with such features would be refused
    _, metrics = run(cached.write(tmp_path, kept=[1]), ["erm", name])
    assert list(metrics["methods"]) == ["erm"]
    assert metrics["left_out"][name]["reason"].startswith(reason)
