"""The promise of the README, kept in a copy of the repository: `dvc repro` on the demo, then one changed parameter after another."""

import json
import re
import shutil
import sys

import pytest

from tests.conftest import REPOSITORY
from tests.end_to_end.clone import DVC, Clone

pytestmark = pytest.mark.skipif(not DVC.exists(), reason="DVC is not installed beside this Python (extra 'dvc')")


MAIN = ("dvc.yaml", "data/raw/dvc.yaml")  # not the pipeline that compares, which nobody has run


@pytest.fixture(scope="module")
def clone(tmp_path_factory: pytest.TempPathFactory) -> Clone:
    clone = Clone(tmp_path_factory.mktemp("clone") / "mac")
    (clone.folder / "first.txt").write_text("\n".join(clone.stages_run("dvc", "repro")))
    return clone


def test_the_demo_shows_the_paper_s_situation(clone: Clone) -> None:
    ran = (clone.folder / "first.txt").read_text().split()
    assert ran[:5] == ["data/raw/dvc.yaml:demo", "prepare", "train", "saliency", "features"]
    assert sorted(ran[5:]) == ["baselines", "evaluate", "examples", "report", "retrain", "sweep"]
    metrics = clone.metrics()
    erm, mac = metrics["erm"]["test"], metrics["mac"]["test"]
    # Kept loose: other hardware rounds otherwise. README.md has the figures of one machine.
    assert erm["worst_group"] < erm["adjusted_mean"] - 0.1
    assert mac["worst_group"]["mean"] > erm["worst_group"] + 0.05
    assert metrics["seeds"] == 5


def test_a_second_repro_does_nothing(clone: Clone) -> None:
    assert clone.stages_run("dvc", "repro") == []
    assert "up to date" in clone.run("dvc", "status", *MAIN)


def test_the_readme_s_commands_of_using_the_result(clone: Clone) -> None:
    """As they are written there; and the Python beside them."""
    section = (REPOSITORY / "README.md").read_text().partition("## Using the result")[2].partition("\n## ")[0]
    (commands,) = re.findall(r"```\n(.*?)```", section, re.DOTALL)
    (program,) = re.findall(r"```python\n(.*?)```", section, re.DOTALL)
    said = clone.run("bash", "-ec", commands)
    for word in ("disk", "lowest first", "grid.png", "wrong.csv", "x.png", "predictions.csv", "mac.onnx"):
        assert word in said
    left = ("grid.png", "wrong.csv", "x.png", "predictions.csv", "mac.onnx", "MODEL_CARD.md", "bird.jpg")
    assert all((clone.folder / name).stat().st_size for name in left[:-1])
    shutil.copy(next((clone.folder / "data/raw/demo/waterbird").glob("*.jpg")), clone.folder / "bird.jpg")
    clone.run(sys.executable, "-c", program + "assert probabilities.shape == (1, 2)")
    for name in left:
        (clone.folder / name).unlink()


def test_another_alpha_runs_retrain_evaluate_and_report_alone(clone: Clone) -> None:
    clone.run("git", "add", "-A")
    clone.run("git", "commit", "-qm", "results")
    before = clone.metrics()
    assert clone.stages_run("dvc", "exp", "run", "-S", "retrain.alpha=1.25") == ["retrain", "evaluate", "report"]
    after = clone.metrics()
    assert after["erm"] == before["erm"]
    assert after["mac"] != before["mac"]
    assert "mac.test.worst_group.mean" in clone.run("dvc", "metrics", "diff", "--all")
    shown = clone.run("dvc", "exp", "show", "--csv")
    assert "mac.test.worst_group.mean" in shown
    assert "retrain.alpha" in shown
    plots = clone.run("dvc", "plots", "show")
    page = (clone.folder / "dvc_plots/index.html").read_text()
    assert "index.html" in plots
    titles = ("ERM: validation accuracy", "Retraining: validation worst-group accuracy", "Sweep: validation", "Test accuracy by group")
    for title in (*titles, "MaC: test images by class"):
        assert title in page


@pytest.mark.parametrize(
    ("block", "old", "new", "changed"),
    [
        ("retrain", "beta: ", "beta: 1", ["retrain"]),
        ("saliency", "top_k: ", "top_k: 0.11", ["saliency"]),
        ("features", "draws: ", "draws: 1", ["features"]),
        ("train", "weight_decay: ", "weight_decay: 0.5", ["train"]),
        ("dataset", "input_size: ", "input_size: 144", ["prepare"]),
    ],
)
def test_a_parameter_touches_its_own_stage_first(clone: Clone, block: str, old: str, new: str, changed: list[str]) -> None:
    path = clone.folder / "params.yaml"
    before = path.read_text()
    lines = before.splitlines()
    start = lines.index(f"{block}:")
    at = next(i for i in range(start, len(lines)) if lines[i].startswith(f"  {old}"))
    lines[at] = f"  {new}"
    path.write_text("\n".join(lines) + "\n")
    try:
        status = json.loads(clone.run("dvc", "status", "--json", *MAIN))
        assert [stage for stage, reasons in status.items() if any("params.yaml" in str(reason) for reason in reasons)] == changed
        assert set(status) <= {*changed}
    finally:
        path.write_text(before)


def test_another_top_k_does_not_train_the_backbone_again(clone: Clone) -> None:
    ran = clone.stages_run("dvc", "exp", "run", "-S", "saliency.top_k=0.2", "-S", "features.draws=1")
    assert ran[:2] == ["saliency", "features"]
    assert sorted(ran[2:]) == ["baselines", "evaluate", "examples", "report", "retrain", "sweep"]


def test_the_second_pipeline_ends_with_the_whole_report(clone: Clone) -> None:
    path = clone.folder / "params.yaml"
    lines = path.read_text().splitlines()
    start = lines.index("jtt:")
    for i, line in enumerate(lines[start:], start):
        if line.startswith(("  first_epochs:", "  epochs:")):
            lines[i] = line.partition(":")[0] + ": 1"
    path.write_text("\n".join(lines) + "\n")
    ran = clone.stages_run("dvc", "repro", "data/comparison/dvc.yaml")
    assert [name.rpartition(":")[2] for name in ran][-1] == "comparison_report"
    page = (clone.folder / "data/comparison/report.html").read_text()
    for name in ("JTT", "MaskTune", "Is it the masks?", "DFR"):
        assert name in page
    assert len(page) < 5_000_000
    assert clone.stages_run("dvc", "repro") == []  # the main pipeline is not touched
