"""Retraining: a grid of heads in one batched fit, against the same fits one at a time with nn.Linear and torch.optim.Adam.

Waterbirds' size by default: 4,795 rows, 2,048 features, 4 draws, 18 settings of (α, β) and 5 seeds, 10 epochs.
"""

from functools import partial
from pathlib import Path

import click
import torch
import torch.nn.functional as F
from torch import nn

from benchmarks import project
from benchmarks.measure import device_option, medians, repeats_option, seconds, tell
from benchmarks.project import GRID, RETRAIN, SEEDS
from pipeline import store
from pipeline.compute.device import keep_freed_memory, pick
from pipeline.last_layer import heads, mac
from pipeline.last_layer.heads import Heads, Views
from pipeline.last_layer.validation import Validation


def one_head(views: Views, validation: Validation, start: Heads, alpha: float, beta: float, seed: int) -> Heads:
    """What one would write in PyTorch: a loop over the batches of precomputed features, and the best epoch by validation."""
    classes, width = start.weight.shape[-2:]
    head = nn.Linear(width, classes).to(views.table.device)
    with torch.no_grad():
        head.weight.copy_(start.weight[0, 0])
        head.bias.copy_(start.bias[0, 0])
    optimizer = torch.optim.Adam(head.parameters(), lr=RETRAIN.lr)
    schedule = torch.optim.lr_scheduler.StepLR(optimizer, RETRAIN.lr_step, RETRAIN.lr_gamma)
    masked, combined = views.interventions
    batches = [[(batch == number).nonzero()[:, 0] for number in range(int(batch.max()) + 1)] for batch in views.batch]
    best, kept = (-1.0, -1.0), start
    for epoch in range(RETRAIN.epochs):
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
        fitted = Heads(head.weight.detach()[None, None], head.bias.detach()[None, None])
        worst, mean = (score.item() for score in validation.scores(validation.accuracy(fitted)))
        if (worst, mean) > best:
            best, kept = (worst, mean), Heads(fitted.weight.clone(), fitted.bias.clone())
    return kept


@click.command(help=__doc__)
@click.option("--rows", default=4795, show_default=True)
@click.option("--width", default=2048, show_default=True, help="Features D.")
@click.option("--draws", default=4, show_default=True, help="R.")
@click.option("--data", type=click.Path(path_type=Path), help="Take features.h5 and erm/ of this folder in place of noise.")
@device_option
@repeats_option
def main(rows: int, width: int, draws: int, data: Path | None, device: str, repeats: int) -> None:
    on = pick(device)
    keep_freed_memory()
    with project.folder() as folder:
        if data is None:
            project.write_head(folder / "erm", width)
            project.write_features(folder / "features.h5", folder / "erm", rows, draws, held_out=(1199, 1199))
        with store.open_artefact((data or folder) / "features.h5", "features") as features:
            views, validation = mac.load_views(features, RETRAIN, on), Validation.of(features, on)
        start = Heads.of(*store.open_model((data or folder) / "erm", "erm").head()).to(on)
    alphas, betas = [a for a, _ in GRID], [b for _, b in GRID]
    fits: list[mac.Fit] = []
    times = medians(
        {
            "all": lambda: fits.append(mac.fit(views, validation, start, RETRAIN, alphas, betas, list(range(SEEDS)))),
            "one": lambda: mac.fit(views, validation, start, RETRAIN, [2.0], [3.0], [0]),
        },
        on,
        repeats,
    )
    alone: list[Heads] = []
    one_head(views, validation, start, 2.0, 3.0, 0)  # warm-up
    fits_alone = [partial(one_head, views, validation, start, a, b, s) for s in range(SEEDS) for a, b in GRID]
    linear = sum(seconds(lambda fit=fit: alone.append(fit()), on) for fit in fits_alone)  # type: ignore[misc]
    expected = torch.cat([head.weight for head in alone], 1).view_as(fits[-1].heads.weight)
    apart = ((fits[-1].heads.weight - expected).norm() / expected.norm()).item()
    many = SEEDS * len(GRID)
    size = f"{len(views.label)} x {views.table.shape[1]}, R = {len(views.batch)}, {RETRAIN.epochs} epochs"
    tell(
        "retrain",
        on,
        [
            ("size", size),
            (f"{many} heads at once", f"{times['all']:.2f} s"),
            ("one head, same code", f"{times['one']:.2f} s"),
            (f"{many} heads one at a time, nn.Linear and Adam", f"{linear:.1f} s"),
            ("how far the weights are apart, relative", f"{apart:.1e}"),
        ],
        ratio=linear / times["all"],
        heads_to_one=times["all"] / times["one"],
        seconds=times["all"],
        one_head_seconds=times["one"],
        one_at_a_time_seconds=linear,
        size=size,
    )


if __name__ == "__main__":
    main()
