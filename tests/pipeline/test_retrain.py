import csv
import json
import re

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from safetensors.numpy import load_file

from pipeline import store
from pipeline.last_layer import heads, mac
from pipeline.last_layer.heads import Heads
from pipeline.last_layer.validation import Validation
from pipeline.method import interventions, pairing
from pipeline.network import backbone
from pipeline.network.inputs import normalize, to_input_grid
from tests.conftest import Project

CPU = torch.device("cpu")


def test_cached_retraining_equals_the_online_algorithm_step_by_step(project: Project) -> None:
    """With R = epochs the cache holds what the paper computes online: masks, interventions and forward passes per batch.

    The loop below is the paper's section 3.2 on pixels. It shares with the pipeline the plan (who is in which batch, whose
    partner is whom) and the masks' K, nothing else.
    """
    epochs, alpha, beta, lr = 3, 2.0, 3.0, 0.005
    project.set(features__draws=epochs, retrain__epochs=epochs, retrain__seeds=1, retrain__alpha=alpha, retrain__beta=beta)
    project.set(retrain__class_weights="none", retrain__standardize=False)
    project.succeed("features")
    params = project.params
    with store.open_artefact(project.data / "features.h5", "features") as cached:
        views = mac.load_views(cached, params.retrain, CPU)
    erm = store.open_model(project.data / "erm", "erm")
    start = Heads(*(torch.from_numpy(part)[None, None] for part in erm.head()))
    cached_losses: list[float] = []
    cached_heads: list[Heads] = []
    solver = heads.Adam(epochs, lr, params.retrain.lr_step, params.retrain.lr_gamma)

    def keep(_epoch: int, fitted: Heads, loss: torch.Tensor) -> None:
        cached_losses.append(loss.item())
        cached_heads.append(Heads(fitted.weight.clone(), fitted.bias.clone()))

    heads.fit_adam(views, torch.tensor([alpha]), torch.tensor([beta]), [0], start, 0.0, solver, keep)

    model = backbone.load(erm, CPU)
    with store.open_artefact(project.data / "images.h5", "images") as images:
        rows = np.flatnonzero(images["split"][:] == 0)
        pixels = to_input_grid(torch.from_numpy(images["image"][:][rows]), 64, "center_crop").float() / 255
        label = torch.from_numpy(images["label"][:][rows])
    k = round(params.saliency.top_k * 64 * 64)
    head = torch.nn.Linear(*reversed(model.head.weight.shape))
    head.load_state_dict(model.head.state_dict())
    optimizer = torch.optim.Adam(head.parameters(), lr=lr)
    schedule = torch.optim.lr_scheduler.StepLR(optimizer, params.retrain.lr_step, params.retrain.lr_gamma)

    def core(x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        """xGradCAM by autograd, bilinear upsampling, the top K by sorting."""
        activations = model.trunk(normalize(x)).detach().requires_grad_()
        score = model.head(activations.mean((2, 3))).gather(1, y[:, None]).sum()
        (gradient,) = torch.autograd.grad(score, activations)
        weight = (gradient * activations).sum((2, 3)) / (activations.sum((2, 3)) + 1e-7)
        cam = torch.einsum("bc,bchw->bhw", weight, activations).detach()
        scores = F.interpolate(cam[:, None], (64, 64), mode="bilinear").flatten(1)
        mask = torch.zeros_like(scores, dtype=torch.bool)
        mask.scatter_(1, scores.argsort(dim=1, descending=True, stable=True)[:, :k], True)
        return mask.view(-1, 1, 64, 64).float()

    def phi(x: torch.Tensor) -> torch.Tensor:
        with torch.no_grad():
            return model.trunk(normalize(x)).mean((2, 3))

    online_losses = []
    for epoch in range(epochs):
        draw = pairing.draw(label.numpy(), params.features.batch_size, params.features.seed, epoch)
        losses = []
        for number in heads.batch_order(0, epoch, int(draw.batch.max()) + 1):
            members = np.flatnonzero(draw.batch == number)
            partners = draw.partner[members]
            x_i, x_j, y = pixels[members], pixels[partners], label[members]
            m_i, m_j = core(x_i, y), core(x_j, label[partners])
            b = x_i.mean((0, 2, 3)).view(1, 3, 1, 1)
            loss = F.cross_entropy(head(phi(x_i)), y)
            loss = loss + alpha * F.cross_entropy(head(phi(interventions.masked(x_i, m_i, b))), y)
            loss = loss + beta * F.cross_entropy(head(phi(interventions.combined(x_i, m_i, x_j, m_j, b))), y)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            losses.append(loss.item())
        schedule.step()
        online_losses.append(float(np.mean(losses)))
    np.testing.assert_allclose(cached_losses, online_losses, rtol=2e-4)
    np.testing.assert_allclose(cached_heads[-1].weight[0, 0], head.weight.detach(), atol=5e-4)
    np.testing.assert_allclose(cached_heads[-1].bias[0, 0], head.bias.detach(), atol=5e-4)


def test_the_folder_holds_a_whole_model_and_all_heads(finished: Project) -> None:
    folder = store.open_model(finished.data / "retrained", "retrained")
    erm = store.open_model(finished.data / "erm", "erm")
    seeds = load_file(finished.data / "retrained/head.safetensors")
    assert seeds["weight"].shape == (2, *erm.head()[0].shape)
    metrics = json.loads((finished.data / "retrained/metrics.json").read_text())
    np.testing.assert_array_equal(folder.head()[0], seeds["weight"][metrics["head_seed"]])
    for name, tensor in erm.read().items():
        if not name.startswith("head."):
            np.testing.assert_array_equal(folder.read()[name], tensor)
    model = backbone.load(folder, CPU)
    with store.open_artefact(finished.data / "features.h5") as cached, store.open_artefact(finished.data / "images.h5") as images:
        x = normalize(to_input_grid(torch.from_numpy(images["image"][:][cached["test/row"][:]]), 64, "center_crop"))
        expected = cached["test/original"][:] @ folder.head()[0].T + folder.head()[1]
    with torch.no_grad():
        np.testing.assert_allclose(model(x), expected, rtol=1e-3, atol=1e-3)


def test_the_best_validation_epoch_of_each_seed_is_kept(finished: Project) -> None:
    history = list(csv.DictReader((finished.data / "retrained/history.csv").read_text().splitlines()))
    metrics = json.loads((finished.data / "retrained/metrics.json").read_text())
    worst = []
    for seed in range(2):
        rows = [row for row in history if row["seed"] == str(seed)]
        assert len(rows) == 3
        best = max(rows, key=lambda row: (float(row["val_worst"]), float(row["val_mean"]), -int(row["epoch"])))
        assert metrics["epoch"][seed] == int(best["epoch"])
        worst.append(float(best["val_worst"]))
    assert metrics["val"]["worst_group"]["mean"] == pytest.approx(np.mean(worst))


@pytest.mark.parametrize(
    "options", [{}, {"solver": "lbfgs", "l2": 0.01}, {"standardize": True, "class_weights": "balanced", "init": "zeros"}]
)
def test_every_solver_learns_and_repeats_itself(project: Project, options: dict[str, object]) -> None:
    project.set(**{f"retrain__{key}": value for key, value in options.items()})
    project.succeed("retrain")
    first = {file.name: file.read_bytes() for file in (project.data / "retrained").iterdir()}
    project.succeed("retrain")
    assert first == {file.name: file.read_bytes() for file in (project.data / "retrained").iterdir()}
    project.succeed("evaluate")


def test_many_settings_at_once_equal_one_at_a_time(finished: Project) -> None:
    with store.open_artefact(finished.data / "features.h5") as cached:
        params = finished.params.retrain
        views, validation = mac.load_views(cached, params, CPU), Validation.of(cached, CPU)
    start = Heads(*(torch.from_numpy(part)[None, None] for part in store.open_model(finished.data / "erm", "erm").head()))
    for changes in ({}, {"standardize": True}, {"solver": "lbfgs", "l2": 0.01}):
        chosen = params.model_copy(update=changes)
        grid = mac.fit(views, validation, start, chosen, [0, 1, 2], [3, 0, 1], [0, 1] if chosen.solver == "adam" else [0])
        for k, (alpha, beta) in enumerate(((0, 3), (1, 0), (2, 1))):
            alone = mac.fit(views, validation, start, chosen, [alpha], [beta], [0])
            scale = alone.heads.weight.abs().max().item()  # features that hardly vary have large weights
            assert torch.allclose(grid.heads.weight[0, k], alone.heads.weight[0, 0], atol=1e-5 * max(1, scale))
            assert grid.epoch[0, k] == alone.epoch[0, 0]


def test_a_head_is_the_mean_of_as_many_fits(finished: Project) -> None:
    params = finished.params.retrain
    with store.open_artefact(finished.data / "features.h5", "features") as cached:
        views, validation = mac.load_views(cached, params, CPU), Validation.of(cached, CPU)
    start = Heads.of(*store.open_model(finished.data / "erm", "erm").head())
    single = mac.fit(views, validation, start, params, [1.0], [2.0], [0, 1, 2, 3])
    pairs = mac.fit(views, validation, start, params.model_copy(update={"average": 2}), [1.0], [2.0], [0, 1])
    torch.testing.assert_close(pairs.heads.weight[:, 0], single.heads.weight[:, 0].view(2, 2, 2, -1).mean(1))
    torch.testing.assert_close(pairs.heads.bias[:, 0], single.heads.bias[:, 0].view(2, 2, 2).mean(1))
    assert pairs.epoch.tolist() == single.epoch.tolist()
    assert {row["seed"] for row in pairs.history} == {0, 1, 2, 3}


def test_a_diverging_fit_is_told_and_the_earlier_model_stays(project: Project) -> None:
    before = (project.data / "retrained/model.safetensors").read_bytes()
    project.set(retrain__lr=1e37)
    assert "retrain: the loss is" in project.fail("retrain")
    assert (project.data / "retrained/model.safetensors").read_bytes() == before


def test_a_loss_that_is_not_finite_names_epoch_batch_and_seed_and_keeps_the_earlier_heads(project: Project) -> None:
    before = (project.data / "retrained/model.safetensors").read_bytes()
    project.set(retrain__lr=1e38)
    assert re.search(r"retrain: the loss is (nan|inf) in epoch \d+, batch \d+, seed \d+; lower retrain.lr", project.fail("retrain"))
    assert (project.data / "retrained/model.safetensors").read_bytes() == before
