"""Retraining: a grid of heads in one batched fit, against the same fits one at a time with nn.Linear and torch.optim.Adam.

Waterbirds' size by default: 4,795 rows, 2,048 features, 4 draws, 18 settings of (α, β) and 5 seeds, 10 epochs.
"""

from itertools import product
from pathlib import Path

import click
import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from benchmarks.measure import device_option, medians, repeats_option, seconds, tell
from pipeline import pairing, store
from pipeline.device import keep_freed_memory, pick
from pipeline.last_layer import heads, mac
from pipeline.last_layer.heads import Heads, Views
from pipeline.last_layer.validation import Validation
from pipeline.metrics import Grouping
from pipeline.params import RetrainParams

ALPHAS, BETAS, SEEDS = (0.0, 1.0, 2.0), (0.0, 1.0, 2.0, 3.0, 4.0, 5.0), 5  # the paper's grid
PARAMS = RetrainParams.model_validate(
    {
        "solver": "adam", "alpha": 2, "beta": 3, "seeds": SEEDS, "average": 1, "init": "erm", "standardize": False,
        "class_weights": "none", "l2": 0, "epochs": 10, "lr": 0.005, "lr_step": 5, "lr_gamma": 0.5,
    }
)  # fmt: skip


def synthetic(rows: int, width: int, draws: int, on: torch.device) -> tuple[Views, Validation, Heads]:
    """Features that are never negative, as those behind a ReLU, of two classes with a shift between them."""
    rng, generator = np.random.default_rng(0), torch.Generator().manual_seed(0)
    label = torch.from_numpy((rng.random(rows) < 0.23).astype(np.int64))

    def features(of: Tensor) -> Tensor:
        shift = torch.randn(width, generator=torch.Generator().manual_seed(1)) / 4
        return (torch.randn(len(of), width, generator=generator) + of[:, None] * shift).relu()

    table = torch.cat([features(label) for _ in range(1 + 2 * draws)])
    batch = torch.from_numpy(np.stack([pairing.draw(label.numpy(), 32, 0, r).batch for r in range(draws)])).long()
    views = Views(table.to(on), label.to(on), batch.to(on), torch.ones(rows, device=on))
    val_label = torch.arange(1199) % 2
    group = torch.arange(1199) % 4
    validation = Validation(
        features(val_label).to(on), val_label.to(on), group.to(on), Grouping("group", ["a", "b", "c", "d"], group.numpy())
    )
    start = Heads(torch.randn(1, 1, 2, width, generator=generator) / 50, torch.zeros(1, 1, 2)).to(on)
    return views, validation, start


def one_head(views: Views, validation: Validation, start: Heads, alpha: float, beta: float, seed: int) -> nn.Linear:
    """What one would write in PyTorch: a loop over the batches of precomputed features, and the best epoch by validation."""
    classes, width = start.weight.shape[-2:]
    head = nn.Linear(width, classes).to(views.table.device)
    with torch.no_grad():
        head.weight.copy_(start.weight[0, 0])
        head.bias.copy_(start.bias[0, 0])
    optimizer = torch.optim.Adam(head.parameters(), lr=PARAMS.lr)
    schedule = torch.optim.lr_scheduler.StepLR(optimizer, PARAMS.lr_step, PARAMS.lr_gamma)
    masked, combined = views.interventions
    batches = [[(batch == number).nonzero()[:, 0] for number in range(int(batch.max()) + 1)] for batch in views.batch]
    best, kept = (-1.0, -1.0), {}
    for epoch in range(PARAMS.epochs):
        draw = heads.draw_of(seed, epoch, len(views.batch))
        for number in heads.batch_order(seed, epoch, len(batches[draw])):
            rows = batches[draw][number]
            y = views.label[rows]
            loss = F.cross_entropy(head(views.original[rows]), y)
            loss = loss + alpha * F.cross_entropy(head(masked[draw, rows]), y) + beta * F.cross_entropy(head(combined[draw, rows]), y)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        schedule.step()
        with torch.no_grad():
            accuracy = validation.accuracy(Heads(head.weight[None, None], head.bias[None, None]))
            worst, mean = (score.item() for score in validation.scores(accuracy))
        if (worst, mean) > best:
            best, kept = (worst, mean), {name: part.detach().clone() for name, part in head.state_dict().items()}
    head.load_state_dict(kept)
    return head


@click.command(help=__doc__)
@click.option("--rows", default=4795, show_default=True)
@click.option("--width", default=2048, show_default=True, help="Features D.")
@click.option("--draws", default=4, show_default=True, help="R.")
@click.option("--data", type=click.Path(path_type=Path), help="Take features.h5 and erm/ of this folder in place of synthetic features.")
@device_option
@repeats_option
def main(rows: int, width: int, draws: int, data: Path | None, device: str, repeats: int) -> None:
    on = pick(device)
    keep_freed_memory()
    if data:
        with store.open_artefact(data / "features.h5", "features") as features:
            views, validation = mac.load_views(features, PARAMS, on), Validation.of(features, on)
        start = Heads.of(*store.open_model(data / "erm", "erm").head()).to(on)
    else:
        views, validation, start = synthetic(rows, width, draws, on)
    settings = list(product(ALPHAS, BETAS))
    alphas, betas = [a for a, _ in settings], [b for _, b in settings]
    fits: list[mac.Fit] = []
    times = medians(
        {
            "all": lambda: fits.append(mac.fit(views, validation, start, PARAMS, alphas, betas, list(range(SEEDS)))),
            "one": lambda: mac.fit(views, validation, start, PARAMS, [2.0], [3.0], [0]),
        },
        on,
        repeats,
    )
    alone: list[nn.Linear] = []
    one_head(views, validation, start, 2.0, 3.0, 0)
    linear = sum(
        seconds(lambda s=s, a=a, b=b: alone.append(one_head(views, validation, start, a, b, s)), on)  # type: ignore[misc]
        for s in range(SEEDS)
        for a, b in settings
    )
    apart = max(
        float((head.weight - fits[-1].heads.weight[n // len(settings), n % len(settings)]).abs().max()) for n, head in enumerate(alone)
    )
    many = SEEDS * len(settings)
    size = f"{len(views.label)} x {views.table.shape[1]}, R = {len(views.batch)}, {PARAMS.epochs} epochs"
    tell(
        "retrain",
        on,
        [
            ("size", size),
            (f"{many} heads at once", f"{times['all']:.2f} s"),
            ("one head, same code", f"{times['one']:.2f} s"),
            (f"{many} heads one at a time, nn.Linear and Adam", f"{linear:.1f} s"),
            ("largest difference of a weight", f"{apart:.1e}"),
        ],
        ratio=linear / times["all"],
        heads_to_one=times["all"] / times["one"],
        seconds=times["all"],
        one_head_seconds=times["one"],
        one_at_a_time_seconds=linear,
        weight_difference=apart,
        size=size,
    )


if __name__ == "__main__":
    main()
