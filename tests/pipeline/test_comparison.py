"""Whole-network methods and the mask ablation, on the tiny project."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from scipy import stats

from pipeline import ablation, jtt, masktune, store
from pipeline.network import training
from tests.conftest import Project
from tests.pipeline.test_report import Page


@pytest.fixture(scope="module")
def compared(finished: Project, tmp_path_factory: pytest.TempPathFactory) -> Project:
    """The finished project with everything of the second pipeline."""
    folder = tmp_path_factory.mktemp("compared")
    shutil.copytree(finished.folder, folder / "project", ignore=shutil.ignore_patterns("raw"))
    project = Project(folder / "project")
    project.set(jtt__first_epochs=1, jtt__epochs=2, jtt__upweight=3, masktune__sigmas=0.5)
    for command in ("jtt", "masktune", "ablation"):
        project.succeed(command)
    project.succeed("report", "--comparison")
    return project


def row(project: Project, name: str) -> dict[str, object]:
    return json.loads((project.data / "comparison" / name / "metrics.json").read_text())  # type: ignore[no-any-return]


def test_each_method_has_a_model_and_a_row(compared: Project) -> None:
    for name, sign in (("jtt", "✓"), ("masktune", "✗")):
        found = row(compared, name)
        assert (found["sign"], found["seeds"]) == (sign, 1)
        assert 0 <= found["test"]["worst_group"]["mean"] <= 1  # type: ignore[index]
        model = store.open_model(compared.data / "comparison" / name, name)
        assert model.spec["architecture"] == "shufflenet_v2_x0_5"
    assert not any((compared.data / "scratch").glob("*"))


def test_the_report_shows_them_all(compared: Project) -> None:
    text = Page((compared.data / "comparison/report.html").read_text()).text
    for name in ("JTT", "MaskTune", "Is it the masks?", "random masks of the same size", "true masks"):
        assert name in text
    assert "dvc repro data/comparison" not in text
    assert "Is it the masks?" not in (compared.data / "report.html").read_text()


def test_a_report_without_what_it_is_asked_for_is_refused(project: Project) -> None:
    assert "comparison/jtt/metrics.json: cannot be read (No such file or directory); run 'dvc repro data/comparison" in project.fail(
        "report", "--comparison"
    )


def test_the_error_set_is_what_comes_out_wrong_and_counts_more(finished: Project) -> None:
    params = finished.params
    with store.open_artefact(finished.data / "images.h5", "images") as images:
        run = training.Run(images, params.model, params.train, torch.device("cpu"))
        errors = jtt.error_set(run)
        predicted = run.predict(run.rows).numpy()
        label = images["label"][:][run.rows]
    assert errors.tolist() == run.rows[predicted != label].tolist()
    rows = jtt.upweighted(np.arange(5), np.array([1, 3]), 4)
    assert np.bincount(rows).tolist() == [1, 4, 1, 4, 1]
    assert jtt.upweighted(np.arange(5), np.array([1]), 1).tolist() == [0, 1, 2, 3, 4]


def test_masktune_masks_what_is_above_the_mean_by_two_deviations() -> None:
    maps = torch.randn(3, 8, 8, generator=torch.Generator().manual_seed(0))
    for found, scores in zip(masktune.highest(maps, 2.0), maps.numpy(), strict=True):
        np.testing.assert_array_equal(found.numpy(), scores > scores.mean() + 2 * scores.std())
    assert not masktune.highest(torch.zeros(1, 4, 4), 2.0).any()


def test_masktune_starts_from_erm_and_trains_one_epoch(compared: Project) -> None:
    erm = store.open_model(compared.data / "erm", "erm").read()
    tuned = store.open_model(compared.data / "comparison/masktune", "masktune").read()
    change = max(float(np.abs(tuned[name] - erm[name]).max()) for name in erm if name.endswith("weight"))
    assert 0 < change < 0.1
    assert len((compared.data / "comparison/masktune/history.csv").read_text().splitlines()) == 2


def test_masktune_trains_on_images_without_their_brightest_map(compared: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every input of the epoch is the input grid with some pixels black, and nothing else changed."""
    seen: list[torch.Tensor] = []
    original = masktune.normalize
    monkeypatch.setattr(masktune, "normalize", lambda pixels: (seen.append(pixels), original(pixels))[1])
    compared.succeed("masktune")
    grids, inputs = seen[0::2], seen[1::2]
    assert sum(map(len, inputs)) == 70
    for grid, masked in zip(grids, inputs, strict=True):
        black = (masked == 0).all(1)
        assert 0.05 < black.float().mean() < 0.6
        assert torch.equal(torch.where(black[:, None], 0, grid), masked)


def test_paired_differences_have_student_s_interval() -> None:
    differences = np.array([0.1, 0.2, 0.15, 0.3, 0.05])
    found = ablation.paired(differences)
    expected = stats.ttest_1samp(differences, 0).confidence_interval(0.95)
    assert found == pytest.approx({"mean": differences.mean(), "low": expected.low, "high": expected.high})
    assert ablation.paired(differences[:1]) == {"mean": 0.1, "low": 0.1, "high": 0.1}


def test_the_ablation_compares_like_with_like(compared: Project) -> None:
    found = row(compared, "ablation")
    names = [mask["name"] for mask in found["masks"]]  # type: ignore[attr-defined]
    assert names == ["xgradcam (MaC)", "random masks of the same size", "true masks"]
    assert [d["name"] for d in found["differences"]] == [  # type: ignore[attr-defined]
        "xgradcam (MaC) − random masks of the same size", "true masks − xgradcam (MaC)"
    ]  # fmt: skip
    own, random = (mask["test"]["worst_group"]["mean"] for mask in found["masks"][:2])  # type: ignore[index]
    assert found["differences"][0]["mean"] == pytest.approx(own - random)  # type: ignore[index]
    assert "true masks − xgradcam (MaC): " in compared.succeed("inspect", str(compared.data / "comparison/ablation/metrics.json")).output
    picked = json.loads((compared.data / "sweep/picked.json").read_text())
    assert (found["masks"][0]["alpha"], found["masks"][0]["beta"]) == (picked["alpha"], picked["beta"])  # type: ignore[index]
    assert own == pytest.approx(picked["test_worst"])


def test_where_few_true_masks_are_known_both_sides_see_those_images_alone(project: Project, tmp_path: Path) -> None:
    raw = Path(project.params.dataset.root)
    shutil.copytree(raw, tmp_path / "raw")
    masks = sorted((tmp_path / "raw/segmentations").rglob("*.png"))
    for file in masks[::3]:
        file.unlink()
    project.set(dataset__root=str(tmp_path / "raw"), retrain__seeds=2)
    for command in ("prepare", "train", "saliency", "features"):
        project.succeed(command)
    output = project.succeed("ablation").output
    assert "xgradcam, images with a true mask" in output
    assert "true masks − xgradcam, images with a true mask" in output


def test_a_control_is_not_compared_with_itself(project: Project) -> None:
    project.set(saliency__method="random")
    assert "ablation: saliency.method is the control 'random'" in project.fail("ablation")


def test_an_interrupted_ablation_takes_up_what_is_done(project: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    original, made = ablation.features, []

    def once(*arguments: object) -> None:
        if made:
            raise KeyboardInterrupt
        made.append(arguments)
        original(*arguments)  # type: ignore[arg-type]

    monkeypatch.setattr(ablation, "features", once)
    assert project.run("ablation").exit_code == 130
    monkeypatch.setattr(ablation, "features", original)
    done = next((project.data / "scratch").glob("ablation-*/random/features.h5"))
    before = done.stat().st_mtime_ns
    monkeypatch.setattr(ablation, "_fitted", lambda path, *_: pytest.fail(f"{path} {done.stat().st_mtime_ns - before}"))
    with pytest.raises(pytest.fail.Exception, match=" 0$"):
        raise_of(project)


def raise_of(project: Project) -> None:
    result = project.run("ablation")
    assert result.exception is not None
    raise result.exception
