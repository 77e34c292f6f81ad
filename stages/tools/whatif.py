"""mac whatif: say what other values of alpha and beta would give, and change nothing."""

from itertools import product
from pathlib import Path

import click

from pipeline import graph, params_file
from pipeline.compute.device import keep_freed_memory, pick
from pipeline.params.fit import FitParams
from pipeline.params.selection import SelectionParams
from pipeline.setting import LARGE, Setting
from pipeline.tools.whatif import table, whatif
from stages.echo import say, say_json
from stages.options import data_option, device_option, params_option

NUMBER = click.FloatRange(0, LARGE)


@click.command("whatif")
@click.option("--alpha", "alphas", type=NUMBER, multiple=True, required=True, help="May be given again.")
@click.option("--beta", "betas", type=NUMBER, multiple=True, required=True, help="May be given again.")
@click.option("--l2", type=NUMBER, help="In place of retrain.l2.")
@data_option
@params_option
@device_option
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
def command(
    alphas: tuple[float, ...],
    betas: tuple[float, ...],
    l2: float | None,
    data: Path,
    params_path: Path,
    device: str,
    as_json: bool,
) -> None:
    """Say what other values of alpha and beta would give, in seconds, and change nothing.

    Heads are fitted as stage retrain would fit them, with the rest of params.yaml, for every pair of the
    given values. They are compared with ERM on the validation and the test split. It needs erm/ and
    features.h5.
    """
    params = params_file.load(params_path)
    fit = params.of(FitParams)
    if l2 is None and fit.l2 == "auto":
        raise click.UsageError("retrain.l2 is auto: give --l2, a number, too")
    settings = [Setting(alpha, beta, l2) for alpha, beta in product(alphas, betas)]
    keep_freed_memory()
    with graph.project(data).open("erm", "features") as given:
        found = whatif(given, fit, settings, params.of(SelectionParams), pick(device))
    if as_json:
        say_json(found)
    else:
        say(table(found))
