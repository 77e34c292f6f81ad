"""Stage retrain: the last layer on originals + α · masked + β · combined, from cached features, in seconds."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from pipeline import heads, store
from pipeline.errors import MacError
from pipeline.heads import Adam, Heads, Scale, Views
from pipeline.metrics import Grouping, Groups, as_dict, group_accuracy, over_seeds, weighted_mean, worst_group
from pipeline.params import RetrainParams
from pipeline.progress import log
from pipeline.store import Artefact


@dataclass(frozen=True)
class Validation:
    """The validation split, on the device: features (n, D), label (n,), group (n,) or class where groups are unknown."""

    features: Tensor
    label: Tensor
    group: Tensor
    grouping: Grouping

    def accuracy(self, fitted: Heads) -> Tensor:
        """(S, K, groups or classes) float64."""
        return group_accuracy(fitted.logits(self.features).argmax(-1) == self.label, self.group, len(self.grouping.names))

    def scores(self, accuracy: Tensor) -> tuple[Tensor, Tensor]:
        """Worst-group (or worst-class) and mean accuracy, (S, K) each: what model selection looks at, in this order."""
        return worst_group(accuracy), weighted_mean(accuracy, torch.bincount(self.group, minlength=len(self.grouping.names)))


@dataclass
class Fit:
    """Fitted heads, on raw features, each at its best epoch.

    Attributes:
        heads: (S, K, …).
        epoch: (S, K) int64, from 1; the epoch kept.
        history: a row an epoch and seed (of the first setting), for history.csv.
    """

    heads: Heads
    epoch: Tensor
    history: list[dict[str, object]]


def retrain(features_path: Path, erm_path: Path, masks_path: Path, out: Path, params: RetrainParams, on: torch.device) -> None:
    """Fit the heads and write the model folder `out`.

    Of the masks only the digest is read, and only where the file is there: features of other masks are refused.

    head.safetensors has all seeds' heads, weight (S, C, D) and bias (S, C); model.safetensors is the whole classifier with
    the head that validation prefers (worst group, then mean, then the lower seed).
    """
    with store.open_artefact(features_path, "features") as features:
        erm = store.open_model(erm_path, "erm")
        features.provenance.require("features", features_path, {"erm": erm.digest})
        if masks_path.is_file():
            with store.open_artefact(masks_path, "masks") as masks:
                features.provenance.require("features", features_path, {"masks": masks.digest})
        views, validation = load_views(features, params, on), load_validation(features, on)
        made_from = {"features": features.digest, "erm": erm.digest}
    start = Heads(*(torch.from_numpy(part)[None, None].to(on) for part in erm.head()))
    seeds = list(range(params.seeds)) if params.solver == "adam" else [0]  # the minimum of a convex loss has no seed
    result = fit(views, validation, start, params, [params.alpha], [params.beta], seeds)
    accuracy = validation.accuracy(result.heads)[:, 0]
    worst, mean = (score.tolist() for score in validation.scores(accuracy))
    chosen = max(range(len(seeds)), key=lambda s: (worst[s], mean[s], -s))
    val = over_seeds([as_dict(a.cpu(), validation.grouping, None) for a in accuracy])
    weight, bias = result.heads.weight[:, 0].cpu().numpy(), result.heads.bias[:, 0].cpu().numpy()
    with store.create_folder(out) as folder:
        tensors = erm.read() | {"head.weight": weight[chosen], "head.bias": bias[chosen]}
        made = params.model_dump() | {"head_seed": seeds[chosen]}
        store.write_model(folder, "retrained", tensors, erm.spec, made, made_from, head={"weight": weight, "bias": bias})
        store.write_csv(folder / "history.csv", result.history)
        store.write_json(folder / "metrics.json", {"head_seed": seeds[chosen], "epoch": result.epoch[:, 0].tolist(), "val": val})
    kind = validation.grouping.kind
    log.info("validation worst %s %.3f, mean %.3f (mean of %d heads)", kind, np.mean(worst), np.mean(mean), len(seeds))


def load_views(features: Artefact, params: RetrainParams, on: torch.device) -> Views:
    """The retraining set of features.h5 on the device."""
    label = torch.from_numpy(features["train/label"][:]).to(on)
    return Views(
        **{name: torch.from_numpy(features[f"train/{name}"][:]).to(on) for name in ("original", "masked", "combined")},
        label=label,
        batch=torch.from_numpy(features["train/batch"][:]).long().to(on),
        weight=heads.class_weights(label, len(features.attribute("classes")), params.class_weights),
    )


def load_validation(features: Artefact, on: torch.device) -> Validation:
    """The validation split of features.h5 on the device."""
    grouping = Groups.of(features).grouping(features["val/label"][:], features["val/attribute"][:])
    original, label, group = (
        torch.from_numpy(part).to(on) for part in (features["val/original"][:], features["val/label"][:], grouping.index)
    )
    return Validation(original, label, group, grouping)


def fit(
    views: Views, validation: Validation, start: Heads, params: RetrainParams, alphas: list[float], betas: list[float], seeds: list[int]
) -> Fit:
    """Fit a head for every seed and every setting (alphas[k], betas[k]) at once.

    With `adam`, each head is kept at the epoch with the best validation worst-group (or worst-class) accuracy (ties: higher mean, then
    earlier); `lbfgs` takes the minimum, and no seed changes it.

    Raises:
        MacError: the loss is not finite.
    """
    scale = Scale.of(views.original) if params.standardize else None
    if scale:
        views, start = scale.views(views), scale.into(start)
    if params.init == "zeros":
        start = Heads(torch.zeros_like(start.weight), torch.zeros_like(start.bias))
    raw = scale.out_of if scale else lambda fitted: fitted
    history: list[dict[str, object]] = []
    names = [f"val_{name}" for name in validation.grouping.names]

    def record(epoch: int, accuracy: Tensor, loss: Tensor) -> None:
        bad = (~loss.isfinite()).nonzero()
        if len(bad):
            raise MacError(
                f"retrain: the loss is {loss[tuple(bad[0])].item()} in epoch {epoch + 1}, seed {seeds[int(bad[0, 0])]}; lower retrain.lr"
            )
        worst, mean = validation.scores(accuracy)
        for s, seed in enumerate(seeds):
            row = {
                "epoch": epoch + 1,
                "seed": seed,
                "loss": loss[s, 0].item(),
                "val_worst": worst[s, 0].item(),
                "val_mean": mean[s, 0].item(),
            }
            history.append(row | dict(zip(names, accuracy[s, 0].tolist(), strict=True)))

    if params.solver == "lbfgs":
        pairs = [heads.fit_lbfgs(views, a, b, start.bias.shape[-1], params.l2) for a, b in zip(alphas, betas, strict=True)]
        solved = raw(Heads(torch.cat([h.weight for h, _ in pairs], 1), torch.cat([h.bias for h, _ in pairs], 1)))
        seeds = seeds[:1]
        record(0, validation.accuracy(solved), torch.tensor([[loss for _, loss in pairs]]))
        return Fit(solved, torch.ones(1, len(alphas), dtype=torch.int64), history)

    best: Fit | None = None
    best_scores: tuple[Tensor, Tensor]

    def keep_best(epoch: int, fitted: Heads, loss: Tensor) -> None:
        nonlocal best, best_scores
        fitted = raw(fitted)
        accuracy = validation.accuracy(fitted)
        record(epoch, accuracy, loss)
        worst, mean = validation.scores(accuracy)
        if best is None:
            best = Fit(Heads(fitted.weight.clone(), fitted.bias.clone()), torch.ones(worst.shape, dtype=torch.int64), history)
            best_scores = worst, mean
            return
        better = (worst > best_scores[0]) | ((worst == best_scores[0]) & (mean > best_scores[1]))
        best.heads.weight[better], best.heads.bias[better], best.epoch[better.cpu()] = fitted.weight[better], fitted.bias[better], epoch + 1
        best_scores = torch.where(better, worst, best_scores[0]), torch.where(better, mean, best_scores[1])

    device = views.original.device
    alpha, beta = (torch.tensor(values, dtype=torch.float32, device=device) for values in (alphas, betas))
    solver = Adam(params.epochs, params.lr, params.lr_step, params.lr_gamma)
    heads.fit_adam(views, alpha, beta, seeds, start, params.l2, solver, keep_best)
    assert best is not None
    return best
