import csv
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from scipy import stats

from pipeline.comparison import ablation as module
from pipeline.comparison.ablation import ablation, paired
from pipeline.compute.context import Context
from pipeline.errors import MacError
from pipeline.network.classifier import Classifier
from pipeline.params.cores import CoreParams
from pipeline.params.features import FeaturesParams
from pipeline.params.maps import MapParams
from pipeline.params.selection import SelectionParams
from pipeline.params.sweep import SweepParams
from pipeline.project import Opened, Project
from pipeline.results.tables import of_ablation
from pipeline.steps.sweep import sweep
from pipeline.store import FittedHeads, Provenance
from tests import cached, made_up
from tests.cached import AUTO, fit_params
from tests.conftest import edited

NEEDS = ("images", "erm", "originals", "masks", "features")
MAPS = cached.MAPS
CORES = cached.CORES.model_copy(update={"top_k": 0.25})
FEATURES = cached.FEATURES.model_copy(update={"draws": made_up.DRAWS})
FIT = fit_params()
SWEEP = SweepParams(
    alphas=[0, 1], betas=[0, 2], pick="auto", default=(1, 2), l2s=[0], seeds=FIT.seeds, average=FIT.average
)


def run(
    project: Project,
    maps: MapParams = MAPS,
    cores: CoreParams = CORES,
    selection: SelectionParams = AUTO,
) -> str:
    params, context = (maps, cores, FEATURES, SWEEP, FIT, selection), Context("cpu", project.data / "scratch")
    with project.open(*NEEDS) as given:
        return ablation(given, project.path("ablation"), *params, context)


def result(project: Project) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((project.path("ablation") / "metrics.json").read_text())
    return found


@pytest.fixture
def project(tmp_path: Path) -> Project:
    """Twelve of sixteen images of the retraining set, and one more, have a true mask."""
    return made_up.write(tmp_path)


def test_the_ablation_compares_like_with_like(project: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "with_foreground", lambda _images, rows: rows)
    table = run(project)
    found = result(project)
    assert [mask["name"] for mask in found["masks"]] == [
        "xgradcam (MaC)",
        "random masks of the same size",
        "true masks",
    ]
    own, random, true = (mask["test"]["worst_group"]["mean"] for mask in found["masks"])
    first, second = found["differences"]
    assert first["name"] == "xgradcam (MaC) − random masks of the same size"
    assert first["mean"] == pytest.approx(own - random)
    assert second["name"] == "true masks − xgradcam (MaC)"
    assert second["mean"] == pytest.approx(true - own)
    assert "true masks − xgradcam (MaC): " in table
    assert table.endswith("α and β: for each kind of mask its own best ones, by validation")
    assert found["pixels"] == round(0.25 * 64 * 64)
    with project.open(*NEEDS, "ablation") as given:
        sources = ("images", "erm", "masks", "features")
        assert given.table("ablation").provenance.made_from == given.digests(*sources)
    assert not any((project.data / "scratch").iterdir())


def test_where_no_groups_choose_all_masks_have_the_default_pair(project: Project) -> None:
    table = run(project, selection=SelectionParams(criterion="worst_class"))
    assert table.endswith("α and β: for each kind of mask the default ones (sweep.default)")
    assert {(mask["alpha"], mask["beta"]) for mask in result(project)["masks"]} == {(1, 2)}


def test_a_table_names_l2_where_it_was_picked() -> None:
    test = {name: {"mean": 0.5, "std": 0.0} for name in ("worst_group", "raw_mean")}
    row = {"name": "true masks", "alpha": 1.0, "beta": 2.0, "l2": 0.3, "test": test}
    head, line, over, picked = of_ablation(
        {"masks": [row], "differences": [], "settings": "own"}
    ).splitlines()
    assert (head.split()[-3:], line.split()[-3:]) == (["alpha", "beta", "l2"], ["1", "2", "0.3"])
    assert over.endswith("over the heads of one ERM run")
    assert picked == "α, β and l2: own"


def test_the_first_row_is_the_pair_that_the_sweep_prefers(project: Project) -> None:
    run(project)
    with project.open(*NEEDS) as given:
        sweep(given, project.path("sweep"), SWEEP, FIT, AUTO, Context("cpu", project.data / "scratch"))
    _erm, *pairs = csv.DictReader((project.path("sweep") / "mean.csv").read_text().splitlines())
    best = max(pairs, key=lambda row: (float(row["val_worst"]), float(row["val_mean"])))
    own = result(project)["masks"][0]
    assert (own["alpha"], own["beta"], own["seeds"]) == (float(best["alpha"]), float(best["beta"]), 2)
    assert own["test"]["worst_group"]["mean"] == pytest.approx(float(best["test_worst"]))


def test_where_few_true_masks_are_known_both_sides_see_those_images_alone(
    project: Project, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Row 1 has no true mask; those of two more are empty, one of them only on the input grid."""
    with edited(project.path("images")) as file:
        file["foreground"][2:4] = False
        file["foreground"][3, 0, 0] = True
    seen: dict[str, tuple[str, int]] = {}
    original, shown, features = module.write_maps, list[int](), Classifier.features

    def write_maps(given: Opened, out: Path, rows: np.ndarray, maps: MapParams, context: Context) -> None:
        seen[out.parent.name] = (maps.method, len(rows))
        original(given, out, rows, maps, context)

    def counted(self: Classifier, x: torch.Tensor) -> torch.Tensor:
        shown.append(len(x))
        return features(self, x)

    monkeypatch.setattr(module, "write_maps", write_maps)
    monkeypatch.setattr(Classifier, "features", counted)
    with caplog.at_level("INFO"):
        table = run(project)
    # Masked and combined images of 16 random masks, of 13 of its own and of the 13 true ones; no originals.
    assert sum(shown) == 2 * made_up.DRAWS * (16 + 13 + 13)
    assert "2 of 15 true masks have no foreground on the input grid; left out" in caplog.text
    assert seen == {"random": ("random", 16), "foreground": ("foreground", 13)}  # its own are those it has
    assert "xgradcam, images with a true mask" in table
    assert "true masks − xgradcam, images with a true mask" in table


def test_true_masks_of_one_class_are_not_compared(project: Project) -> None:
    with edited(project.path("images")) as file:
        file["has_foreground"][:] = file["label"][:] == 0
    run(project)
    assert len(result(project)["masks"]) == 2


def test_without_true_masks_random_ones_are_left(tmp_path: Path) -> None:
    project = made_up.write(tmp_path, foregrounds=False)
    run(project)
    assert len(result(project)["masks"]) == 2
    assert len(result(project)["differences"]) == 1


@pytest.mark.parametrize("method", ["random", "foreground"])
def test_a_control_is_not_compared_with_itself(project: Project, method: str) -> None:
    with pytest.raises(MacError, match=f"ablation: saliency.method is the control '{method}'"):
        run(project, MAPS.model_copy(update={"method": method}))


def test_masks_of_other_parameters_are_not_compared(project: Project) -> None:
    with pytest.raises(MacError) as error:
        run(project, cores=CORES.model_copy(update={"top_k": 0.3}))
    assert str(error.value) == (
        f"{project.path('masks')}: was made with other saliency.top_k (0.25) than params.yaml has (0.3); "
        "run 'mac masks' again"
    )
    with pytest.raises(MacError, match=r"other saliency.flip \(False\) .* run 'mac saliency' again"):
        run(project, MAPS.model_copy(update={"flip": True}))
    assert not project.path("ablation").exists()


def test_features_of_other_parameters_are_not_compared(project: Project) -> None:
    with project.open(*NEEDS) as given:
        artefact = given.file("features")
        stated = FEATURES.model_dump() | {"seed": 1}
        artefact.provenance = Provenance(stated, artefact.provenance.made_from, artefact.digest)
        context = Context("cpu", project.data / "scratch")
        with pytest.raises(
            MacError, match=r"other features.seed \(1\) than params.yaml has \(0\); run 'mac f"
        ):
            ablation(given, project.path("ablation"), MAPS, CORES, FEATURES, SWEEP, FIT, AUTO, context)


def test_an_interrupted_ablation_takes_up_what_is_done(
    project: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    original = module.write_features
    made: list[Path] = []

    def once(given: Opened, out: Path, params: FeaturesParams, context: Context) -> None:
        if made:
            raise KeyboardInterrupt
        made.append(out)
        original(given, out, params, context)

    monkeypatch.setattr(module, "write_features", once)
    with pytest.raises(KeyboardInterrupt):
        run(project)
    (random,) = made
    before = random.stat().st_mtime_ns
    after: list[Path] = []

    def more(given: Opened, out: Path, params: FeaturesParams, context: Context) -> None:
        after.append(out)
        assert random.stat().st_mtime_ns == before
        original(given, out, params, context)

    monkeypatch.setattr(module, "write_features", more)
    run(project)
    assert [out.parent.name for out in after] == ["own_known", "foreground"]
    assert not random.exists()


def test_an_interrupted_ablation_of_other_masks_is_not_taken_up(
    project: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Masks from files may change, and no parameter with them."""
    original, seen = module.write_features, list[np.ndarray]()

    def write_features(given: Opened, out: Path, *others: Any) -> None:
        if out.parent.name == "own_known":
            seen.append(given.file("masks")["mask"][:])
            raise KeyboardInterrupt
        original(given, out, *others)

    heads = FittedHeads(np.zeros((1, 2, 3), np.float32), np.zeros((1, 2), np.float32))
    measured = module.Measured({"name": "", "criterion": "groups"}, heads, np.zeros(1))
    monkeypatch.setattr(module, "_measure", lambda *_: measured)
    monkeypatch.setattr(module, "write_features", write_features)
    for seed in (1, 2):
        with project.open("images", "erm") as given:
            made_up._write_masks(project, given, np.random.default_rng(seed))
        with project.open("images", "erm", "masks") as given:
            made_up._write_features(project, given, np.random.default_rng(seed))
            own, rows = given.file("masks")["mask"][:], given.file("masks")["row"][:]
        with pytest.raises(KeyboardInterrupt):
            run(project)
        np.testing.assert_array_equal(seen.pop(), own[rows != 1])  # row 1 has no true mask


def test_paired_differences_have_student_s_interval() -> None:
    differences = np.array([0.1, 0.2, 0.15, 0.3, 0.05])
    expected = stats.ttest_1samp(differences, 0).confidence_interval(0.95)
    assert paired(differences) == pytest.approx(
        {"mean": differences.mean(), "low": expected.low, "high": expected.high}
    )
    assert paired(differences[:1]) == {"mean": 0.1, "low": 0.1, "high": 0.1}


def test_masks_from_files_are_compared_without_the_files(
    project: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its masks of the images with a true mask are those of masks.h5."""
    seen: list[np.ndarray] = []
    original = module.write_features

    def write_features(given: Opened, *others: Any) -> None:
        masks = given.file("masks")
        if masks.path.parent.name == "own_known":
            seen.extend([masks["row"][:], masks["mask"][:]])
        original(given, *others)

    monkeypatch.setattr(module, "write_features", write_features)
    with project.open(*NEEDS) as given:
        masks = given.file("masks")
        rows, own, made = masks["row"][:], masks["mask"][:], masks.provenance
        stated = {**made.params, "method": "external"}
        masks.provenance = Provenance(stated, made.made_from, made.digest)
        maps = MAPS.model_copy(update={"method": "external"})
        context = Context("cpu", project.data / "scratch")
        ablation(given, project.path("ablation"), maps, CORES, FEATURES, SWEEP, FIT, AUTO, context)
    names = [mask["name"] for mask in result(project)["masks"]]
    assert (names[0], names[2]) == ("external (MaC)", "external, images with a true mask")
    np.testing.assert_array_equal(seen[0], rows[rows != 1])
    np.testing.assert_array_equal(seen[1], own[rows != 1])
