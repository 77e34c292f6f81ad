"""Measure retraining: a grid of heads in one fit, against one fit after another in plain PyTorch.

The other side is nn.Linear and torch.optim.Adam. The size is Waterbirds' by default: 4,795 rows, 2,048
features, 4 draws, 18 settings of (α, β) and 5 seeds, 10 epochs.
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
from pipeline import graph
from pipeline.compute.device import keep_freed_memory, pick
from pipeline.last_layer import adam, mac
from pipeline.last_layer.heads import Heads
from pipeline.last_layer.held_out_split import HeldOutSplit
from pipeline.last_layer.table import Resident
from pipeline.last_layer.views import Views
from pipeline.setting import Setting

SETTINGS = [Setting(alpha, beta) for alpha, beta in GRID]
IN_MEMORY = RETRAIN.model_copy(update={"memory": "resident"})
MANY = RETRAIN.model_copy(update={"seeds": SEEDS})


def one_head(
    views: Views, validation: HeldOutSplit, start: Heads, alpha: float, beta: float, seed: int
) -> Heads:
    """What one would write in PyTorch: a loop over the batches of cached features.

    It keeps the best epoch on the validation split.
    """
    classes, width = start.weight.shape[-2:]
    head = nn.Linear(width, classes).to(start.weight.device)
    with torch.no_grad():
        head.weight.copy_(start.weight[0, 0])
        head.bias.copy_(start.bias[0, 0])
    optimizer = torch.optim.Adam(head.parameters(), lr=RETRAIN.lr)
    schedule = torch.optim.lr_scheduler.StepLR(optimizer, RETRAIN.lr_step, RETRAIN.lr_gamma)
    assert isinstance(views.table, Resident)
    original, others = views.table.values.split([len(views.label), 2 * views.order.numel()])
    masked, combined = others.view(2, *views.order.shape, width)
    end = views.sizes.cumsum(0).tolist()
    best, kept = (-1.0, -1.0), start
    for epoch in range(RETRAIN.epochs):
        draw = adam.draw_of(seed, epoch, len(views.order))
        for number in adam.batch_order(seed, epoch, len(end)):
            here = slice(end[number] - int(views.sizes[number]), end[number])
            rows = views.order[draw, here]
            y = views.label[rows]
            loss = F.cross_entropy(head(original[rows]), y)
            loss = loss + alpha * F.cross_entropy(head(masked[draw, here]), y)
            loss = loss + beta * F.cross_entropy(head(combined[draw, here]), y)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        schedule.step()
        fitted = Heads(head.weight.detach()[None, None], head.bias.detach()[None, None])
        worst, mean = (score.item() for score in validation.scores(fitted))
        if (worst, mean) > best:
            best, kept = (worst, mean), Heads(fitted.weight.clone(), fitted.bias.clone())
    return kept


@click.command(help=__doc__)
@click.option("--rows", default=4795, show_default=True, help="Training images.")
@click.option("--width", default=2048, show_default=True, help="Features D.")
@click.option("--draws", default=4, show_default=True, help="R.")
@click.option(
    "--data",
    type=click.Path(path_type=Path),
    help="A data folder, whose features.h5 and erm/ take the place of noise.",
)
@device_option
@repeats_option
def main(rows: int, width: int, draws: int, data: Path | None, device: str, repeats: int) -> None:
    on = pick(device)
    keep_freed_memory()
    with project.folder() as folder:
        measured = graph.project(data or folder)
        if data is None:
            project.write_head(measured, width)
            project.write_features(measured, rows, draws, held_out=(1199, 1199))
        with measured.open("erm", "features") as given:
            views = Views.of(given.file("features"), IN_MEMORY, on)
            validation = HeldOutSplit.to_measure(given.file("features"), "val", on)
            start = Heads.of(given.model("erm").head()).to(on)
    fits: list[mac.Retrained] = []
    times = medians(
        {
            "all": lambda: fits.append(mac.fit(views, validation, start, MANY, SETTINGS)),
            "one": lambda: mac.fit(views, validation, start, RETRAIN, [Setting(2.0, 3.0)]),
        },
        on,
        repeats,
    )
    alone: list[Heads] = []

    def fit_alone(alpha: float, beta: float, seed: int) -> None:
        alone.append(one_head(views, validation, start, alpha, beta, seed))

    one_head(views, validation, start, 2.0, 3.0, 0)  # warm-up
    linear = 0.0
    for seed in range(SEEDS):
        linear += sum(seconds(partial(fit_alone, alpha, beta, seed), on) for alpha, beta in GRID)
    found = fits[-1].heads.weight
    expected = torch.cat([head.weight for head in alone], 1).view_as(found)
    apart = ((found - expected).norm() / expected.norm()).item()
    many = SEEDS * len(GRID)
    size = f"{len(views.label)} x {views.table.width}, R = {len(views.order)}, {RETRAIN.epochs} epochs"
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
