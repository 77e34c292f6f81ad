"""Stage retrain on random features, and against the paper's online algorithm on a few images."""

import csv
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from safetensors.numpy import load_file
from torch import Tensor

from pipeline.errors import MacError
from pipeline.last_layer import adam, mac
from pipeline.last_layer.heads import Heads
from pipeline.last_layer.held_out_split import HeldOutSplit
from pipeline.last_layer.views import Views
from pipeline.method import interventions, pairing
from pipeline.network import classifier
from pipeline.network.classifier import Classifier
from pipeline.network.inputs import to_input_grid
from pipeline.params.originals import OriginalsParams
from pipeline.params.retrain import RetrainParams
from pipeline.params.retraining_set import RetrainingSetParams
from pipeline.params.sweep import SweepParams
from pipeline.project import Project
from pipeline.results.scores import head_scores
from pipeline.setting import Setting
from pipeline.steps.features import features
from pipeline.steps.masks import write_masks
from pipeline.steps.originals import originals
from pipeline.steps.retrain import retrain
from pipeline.steps.saliency import write_maps
from pipeline.steps.sweep import sweep
from tests import cached, made_up, tiny
from tests.cached import fit_params

CPU = torch.device("cpu")


def params(**changes: object) -> RetrainParams:
    return RetrainParams(**fit_params(**changes).model_dump(), alpha=1.0, beta=2.0)


def run(project: Project, out: Path, made: RetrainParams) -> None:
    with project.open("erm", "features") as given:
        retrain(given, out, made, cached.AUTO, cached.context(project.data))


def test_the_folder_holds_a_whole_model_and_all_heads(tmp_path: Path) -> None:
    project = cached.write(tmp_path)
    made = params(seeds=3)
    run(project, project.path("retrained"), made)
    with project.open("erm", "features", "retrained") as given:
        folder, erm = given.model("retrained"), given.model("erm")
        assert folder.provenance.made_from == given.digests("features", "erm")
    heads, metrics = folder.heads(), json.loads((folder.path / "metrics.json").read_text())
    assert heads.weight.shape == (3, *erm.head().weight.shape[1:])
    seed = metrics["head_seed"]
    np.testing.assert_array_equal(folder.head().weight, heads[seed].weight)
    np.testing.assert_array_equal(folder.head().bias, heads[seed].bias)
    np.testing.assert_array_equal(folder.read()["trunk.some"], erm.read()["trunk.some"])
    assert folder.spec == erm.spec
    reason = "set in params.yaml: α = 1, β = 2"
    about = {"chosen_by": "params", "reason": reason, "head_seed": seed}
    seen = {"criterion": "groups", "labels": "validation, to choose"}
    assert folder.provenance.params == {**made.model_dump(exclude={"memory"}), **about, **seen}
    assert (metrics["alpha"], metrics["beta"], metrics["chosen_by"]) == (1, 2, "params")


def run_auto(project: Project, **fit: Any) -> dict[str, Any]:
    """Run the sweep, then retrain with α and β auto; return metrics.json of the sweep."""
    grid = SweepParams(
        alphas=[0, 2], betas=[0, 9], pick="auto", default=(2, 9), l2s=[0, 0.01], seeds=1, average=1
    )
    with project.open("images", "erm", "masks", "features") as given:
        sweep(
            given, project.path("sweep"), grid, fit_params(**fit), cached.AUTO, cached.context(project.data)
        )
    auto = RetrainParams(**fit_params(**fit).model_dump(), alpha="auto", beta="auto")
    with project.open("erm", "features", "sweep") as given:
        retrain(given, project.path("retrained"), auto, cached.AUTO, cached.context(project.data))
    found: dict[str, Any] = json.loads((project.path("sweep") / "metrics.json").read_text())
    return found


@pytest.mark.parametrize(
    "fit",
    [{"average": 2}, {"solver": "lbfgs", "l2": 0.01}, {"l2": "auto"}, {"solver": "lbfgs", "l2": "auto"}],
)
def test_auto_is_the_picked_numbers_bit_for_bit(tmp_path: Path, fit: dict[str, object]) -> None:
    project = cached.write_signed(tmp_path, erm=-1, original=-1, masked=-1, combined=1)
    picked = run_auto(project, lr=0.2, **fit)
    assert (picked["alpha"], picked["beta"]) == (0, 9)
    l2 = {"l2": picked["l2"]} if fit.get("l2") == "auto" else {}
    assert ("l2" in picked) == ("l2" in picked["reason"]) == bool(l2)
    numbers = RetrainParams(**fit_params(lr=0.2, **{**fit, **l2}).model_dump(), alpha=0, beta=9)
    run(project, tmp_path / "numbers", numbers)
    for name in ("model.safetensors", "head.safetensors", "history.csv"):
        assert (project.path("retrained") / name).read_bytes() == (tmp_path / "numbers" / name).read_bytes()
    with project.open("erm", "features", "sweep", "retrained") as given:
        made = given.model("retrained").provenance
        assert made.made_from == given.digests("erm", "features", "sweep")
    assert {key: made.params[key] for key in ("alpha", "beta", "l2", "chosen_by", "reason")} == {
        "alpha": 0, "beta": 9, "l2": numbers.l2, "chosen_by": "sweep_l2" if l2 else "sweep",
        "reason": picked["reason"],
    }  # fmt: skip
    metrics = json.loads((project.path("retrained") / "metrics.json").read_text())
    assert {key: metrics[key] for key in l2} == l2
    assert ("l2" in metrics) == bool(l2)


def test_where_validation_prefers_erm_its_head_stays(tmp_path: Path) -> None:
    project = cached.write_signed(tmp_path, erm=1, original=-1, masked=-1, combined=-1)
    assert run_auto(project, lr=0.2, average=2)["picked"] == "erm"
    with project.open("images", "erm", "features", "sweep", "retrained") as given:
        folder, erm = given.model("retrained"), given.model("erm")
        expected = head_scores(given, erm.head(), "val")
    for name, tensor in erm.read().items():
        np.testing.assert_array_equal(folder.read()[name], tensor)
    assert len(folder.heads()) == 1
    np.testing.assert_array_equal(folder.heads().weight, erm.head().weight)
    made = folder.provenance.params
    assert (made["alpha"], made["beta"], made["chosen_by"]) == (None, None, "sweep")
    metrics = json.loads((folder.path / "metrics.json").read_text())
    assert (metrics["alpha"], metrics["epoch"], metrics["head_seed"]) == (None, [0], 0)
    assert metrics["val"]["groups"] == expected["groups"]
    (row,) = csv.DictReader((folder.path / "history.csv").read_text().splitlines())
    assert (row["epoch"], row["seed"], row["loss"], float(row["val_worst"])) == ("0", "0", "nan", 1)


def test_a_new_sweep_makes_an_auto_head_stale_but_not_one_of_numbers(tmp_path: Path) -> None:
    project = cached.write_signed(tmp_path, erm=-1, original=1, masked=1, combined=1)
    run_auto(project)
    file = project.path("sweep") / "metrics.json"
    file.write_text(file.read_text().replace("validation", "another validation"))
    message = "retrained: was made from other sweep .* run 'mac retrain' again"
    with pytest.raises(MacError, match=message), project.open("retrained"):
        pass
    run(project, project.path("retrained"), params())
    with project.open("retrained"):
        pass


def test_the_best_validation_epoch_of_each_seed_is_kept_and_the_best_seed_chosen(tmp_path: Path) -> None:
    project = cached.write(tmp_path)
    run(project, project.path("retrained"), params(seeds=4, epochs=5, lr=0.1))
    history = list(csv.DictReader((project.path("retrained") / "history.csv").read_text().splitlines()))
    metrics = json.loads((project.path("retrained") / "metrics.json").read_text())
    best = []
    for seed in range(4):
        rows = [row for row in history if row["seed"] == str(seed)]
        assert len(rows) == 5
        best.append(max(rows, key=lambda row: (float(row["val_worst"]), float(row["val_mean"]))))
        assert metrics["epoch"][seed] == int(best[seed]["epoch"])
    scores = [(float(row["val_worst"]), float(row["val_mean"])) for row in best]
    assert metrics["head_seed"] == scores.index(max(scores))
    assert metrics["val"]["worst_group"]["mean"] == pytest.approx(np.mean([worst for worst, _ in scores]))


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"solver": "lbfgs", "l2": 0.01},
        {"standardize": True, "class_weights": "balanced", "init": "zeros", "average": 2},
    ],
)
def test_every_way_to_fit_repeats_itself_byte_by_byte(tmp_path: Path, changes: dict[str, object]) -> None:
    """And wherever the features are."""
    project = cached.write(tmp_path)
    for name, memory in {"first": "resident", "second": "streamed"}.items():
        run(project, tmp_path / name, params(**changes, memory=memory))
    names = {file.name for file in (tmp_path / "first").iterdir()}
    assert names == {"model.safetensors", "head.safetensors", "model.json", "history.csv", "metrics.json"}
    for name in names:
        assert (tmp_path / "first" / name).read_bytes() == (tmp_path / "second" / name).read_bytes()
    assert len(load_file(tmp_path / "first/head.safetensors")["bias"]) == (1 if "solver" in changes else 2)


def test_unknown_attributes_of_validation_are_reported_by_class(tmp_path: Path) -> None:
    project = cached.write(tmp_path, unknown=("val",))
    run(project, project.path("retrained"), params())
    metrics = json.loads((project.path("retrained") / "metrics.json").read_text())
    assert set(metrics["val"]) == {"worst_class", "raw_mean", "classes"}
    assert metrics["criterion"] == "soft_errors"
    with project.open("retrained") as given:
        made = given.model("retrained").provenance.params
        assert (made["criterion"], made["labels"]) == ("soft_errors", "none")


def test_an_erm_that_groups_chose_has_seen_them(tmp_path: Path) -> None:
    project = cached.write(tmp_path, unknown=("val",), select="best")
    run(project, project.path("retrained"), params())
    with project.open("retrained") as given:
        assert given.model("retrained").provenance.params["labels"] == "validation, to choose"


def test_a_diverging_fit_is_one_line_and_the_earlier_model_stays(tmp_path: Path) -> None:
    project = cached.write(tmp_path)
    run(project, project.path("retrained"), params())
    before = (project.path("retrained") / "model.safetensors").read_bytes()
    pattern = r"retrain: the loss is (nan|inf) in epoch \d+, batch \d+, seed \d+; lower retrain.lr"
    with pytest.raises(MacError, match=pattern):
        run(project, project.path("retrained"), params().model_copy(update={"lr": 1e38}))
    assert (project.path("retrained") / "model.safetensors").read_bytes() == before


def test_a_last_step_that_diverges_is_told_though_the_loss_before_it_is_finite(tmp_path: Path) -> None:
    project = cached.write(tmp_path)
    with project.open("features", "erm") as given:
        features, erm = given.file("features"), given.model("erm").head()
        made = params(epochs=1).model_copy(update={"lr": 1e38})
        views = Views.of(features, made, CPU)
        one_batch = replace(views, sizes=torch.tensor([len(views.label)]))
        validation = HeldOutSplit.to_choose(features, CPU, erm, "auto")
        message = "retrain: a head is NaN or infinite after its fit; lower retrain.lr or raise retrain.l2"
        with pytest.raises(MacError, match=message):
            mac.fit(one_batch, validation, Heads.of(erm), made, [Setting(0.0, 0.0)])


EPOCHS, ALPHA, BETA, LR, TOP_K = 3, 2.0, 3.0, 0.005, 0.25
CORES = cached.CORES.model_copy(update={"top_k": TOP_K})
FEATURES = cached.FEATURES.model_copy(update={"draws": EPOCHS})
FIT = fit_params(epochs=EPOCHS, lr=LR, seeds=1)


@pytest.fixture(scope="module")
def with_features(tmp_path_factory: pytest.TempPathFactory) -> Project:
    """A few images, ERM, its masks, and features of as many draws as there are epochs."""
    project = made_up.write(tmp_path_factory.mktemp("online"))
    tiny.train_erm(project)
    where = tiny.context(project.data)
    with project.open("images", "erm") as given:
        rows = np.flatnonzero(given.file("images")["split"][:] == 0)
        write_maps(given, project.path("maps"), rows, cached.MAPS, where)
        everything, params = RetrainingSetParams(balance="none", seed=0), OriginalsParams(precision="float32")
        originals(given, project.path("originals"), everything, params, where)
    with project.open("images", "erm", "maps") as given:
        write_masks(given, project.path("masks"), CORES, 0, where)
    with project.open("images", "erm", "originals", "masks") as given:
        features(given, project.path("features"), FEATURES, where)
    return project


def core(model: Classifier, x: Tensor, y: Tensor) -> Tensor:
    """Masks (B, 1, S, S): xGradCAM by autograd, bilinear upsampling, the top K by sorting."""
    size = x.shape[-1]
    activations = model.encode(model.input(x)).detach().requires_grad_()
    score = model.head(activations.mean((2, 3))).gather(1, y[:, None]).sum()
    (gradient,) = torch.autograd.grad(score, activations)
    weight = (gradient * activations).sum((2, 3)) / (activations.sum((2, 3)) + 1e-7)
    cam = torch.einsum("bc,bchw->bhw", weight, activations).detach()
    scores = F.interpolate(cam[:, None], (size, size), mode="bilinear").flatten(1)
    highest = scores.argsort(dim=1, descending=True, stable=True)[:, : round(TOP_K * size * size)]
    return torch.zeros_like(scores).scatter_(1, highest, 1.0).view(-1, 1, size, size)


def test_cached_retraining_equals_the_online_algorithm_step_by_step(with_features: Project) -> None:
    """With R = epochs the cache holds what the paper computes online: masks, interventions and φ of each
    batch.

    `online` is the paper's section 3.2 on pixels. It shares with the pipeline the draws (who is in which
    batch, whose partner is whom), nothing else.
    """
    losses: list[float] = []
    fitted: list[Heads] = []

    def after_epoch(_epoch: int, heads: Heads, loss: Tensor) -> None:
        losses.append(loss.item())
        fitted.append(Heads(heads.weight.clone(), heads.bias.clone()))

    with with_features.open("images", "erm", "features") as given:
        erm, images = given.model("erm"), given.file("images")
        views = Views.of(given.file("features"), FIT, CPU)
        adam.fit_adam(views, [Setting(ALPHA, BETA)], [0], Heads.of(erm.head()), FIT, after_epoch)
        rows = np.flatnonzero(images["split"][:] == 0)
        pixels = to_input_grid(torch.from_numpy(images["image"][:][rows]), erm.spec).float() / 255
        label = torch.from_numpy(images["label"][:][rows])
        head, expected = online(classifier.load(erm.spec, erm.read(), CPU), pixels, label)
    np.testing.assert_allclose(losses, expected, rtol=2e-4)
    np.testing.assert_allclose(fitted[-1].weight[0, 0], head.weight.detach(), atol=5e-4)
    np.testing.assert_allclose(fitted[-1].bias[0, 0], head.bias.detach(), atol=5e-4)


def online(model: Classifier, pixels: Tensor, label: Tensor) -> tuple[torch.nn.Linear, list[float]]:
    """The head after all epochs, and the mean loss of each epoch."""
    head = torch.nn.Linear(model.head.in_features, model.head.out_features)
    head.load_state_dict(model.head.state_dict())
    optimizer = torch.optim.Adam(head.parameters(), lr=LR)
    schedule = torch.optim.lr_scheduler.StepLR(optimizer, FIT.lr_step, FIT.lr_gamma)

    def cross_entropy(x: Tensor, y: Tensor) -> Tensor:
        with torch.no_grad():
            phi = model.features(model.input(x))
        return F.cross_entropy(head(phi), y)

    epochs = []
    for epoch in range(EPOCHS):
        draw = pairing.draw(label.numpy(), FEATURES.batch_size, FEATURES.seed, epoch)
        losses = []
        for number in adam.batch_order(0, epoch, int(draw.batch.max()) + 1):
            members = np.flatnonzero(draw.batch == number)
            partners = draw.partner[members]
            x_i, x_j, y = pixels[members], pixels[partners], label[members]
            m_i, m_j = core(model, x_i, y), core(model, x_j, label[partners])
            b = x_i.mean((0, 2, 3)).view(1, 3, 1, 1)
            loss = cross_entropy(x_i, y)
            loss = loss + ALPHA * cross_entropy(interventions.masked(x_i, m_i, b), y)
            loss = loss + BETA * cross_entropy(interventions.combined(x_i, m_i, x_j, m_j, b), y)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            losses.append(loss.item())
        schedule.step()
        epochs.append(float(np.mean(losses)))
    return head, epochs


def test_the_retrained_classifier_has_the_logits_of_the_cached_features(with_features: Project) -> None:
    run(with_features, with_features.path("retrained"), params())
    with with_features.open("images", "features", "retrained") as given:
        folder, cached_features = given.model("retrained"), given.file("features")
        model = classifier.load(folder.spec, folder.read(), CPU)
        stored = torch.from_numpy(given.file("images")["image"][:][cached_features["test/row"][:]])
        expected = folder.head().logits(cached_features["test/original"][:])[0]
    with torch.no_grad():
        found = model(model.input(to_input_grid(stored, folder.spec)))
    np.testing.assert_allclose(found, expected, rtol=1e-3, atol=1e-3)
