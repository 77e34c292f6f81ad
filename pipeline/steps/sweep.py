"""Stage sweep: fits every (α, β), and where l2 is auto every (α, β, l2), with every seed at once.

One is picked, or ERM's head stays as it is: by validation, or by the diagnosis. Test results are shown, but
they pick nothing.
"""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from pipeline import store
from pipeline.compute.context import Context
from pipeline.compute.progress import log
from pipeline.last_layer.grid import accuracy_on_test_split, fit_grid
from pipeline.last_layer.heads import Heads
from pipeline.metrics import Accuracy
from pipeline.params.fit import FitParams
from pipeline.params.selection import SelectionParams
from pipeline.params.sweep import SweepParams
from pipeline.project import Opened
from pipeline.results.choice import OF_GROUP, Candidate, by_criterion, by_diagnosis, names_of
from pipeline.results.diagnosis import diagnose

NAMES = ("val_worst", "val_mean", "test_worst", "test_mean")

Row = dict[str, object]


def sweep(
    given: Opened,
    out: Path,
    params: SweepParams,
    fit: FitParams,
    selection: SelectionParams,
    context: Context,
) -> None:
    """Fit the grid and write the folder `out`.

    The candidates are ERM as it is, (0, 0), the pairs of `params`, and if the diagnosis picks, its default,
    in this order; if l2 is auto, each pair with every l2. mean.csv has a row for each: alpha, beta, and l2 if
    it is auto (empty for ERM); `val_worst`, `val_mean`, `test_worst`, `test_mean`, means over the seeds;
    and `picked`, which is 1 for the one that is picked and 0 for the others. groups.csv has the same rows
    with `test_of_<name>`, the accuracy of each test group (or class), instead: DVC draws mean.csv, and would
    put the names into the script of its page as they are. seeds.csv has a row for each candidate and seed.
    metrics.json has the row of what was picked, in which `picked` is `erm` or `setting`; `picked_by`,
    `criterion` or `diagnosis`; the scores of `erm` and of `plain`, the best with α = β = 0; the `criterion`,
    of which `val_worst` and `val_mean` are; and `reason`, a sentence that says why.

    The rules are `choice.by_criterion` and `choice.by_diagnosis`. The criterion chooses epochs and l2 in
    either case. Only groups compare ERM with the others. With another criterion ERM has its `val_worst` and
    `val_mean` too, but they are not used: no other criterion can judge it.

    Args:
        given: images, erm, masks and features.
        params: its seeds and average take the place of those of `fit`.
    """
    features, erm = given.file("features"), given.model("erm").head()
    few = fit.model_copy(update={"seeds": params.seeds, "average": params.average})
    grid = fit_grid(features, erm, few, params, selection.criterion, context.on)
    test, groups_of_settings, groups = accuracy_on_test_split(features, grid.heads)
    test_of_erm, groups_of_erm, _ = accuracy_on_test_split(features, Heads.of(erm))
    of_settings = np.concatenate([grid.val, test])  # (NAMES, S, K)
    of_erm = np.concatenate([grid.erm, test_of_erm[:, 0, 0]])  # (NAMES,)
    by_group = [*groups_of_erm[:, 0], *groups_of_settings.mean(0)]  # (G,) for each candidate
    settings: list[Candidate] = [None, *grid.settings]
    names = names_of(l2=fit.l2 == "auto")
    found = [of_erm[:, None], *np.moveaxis(of_settings, 2, 0)]
    worst, mean, *_ = np.stack([each.mean(1) for each in found], axis=1)  # (1 + K,) each
    if grid.default is not None:
        found_by = diagnose(given)
        default, plain_one = grid.settings[grid.default], grid.settings[grid.plain]
        setting, reason = by_diagnosis(default, plain_one, found_by["verdict"], found_by["dependence"])
    else:
        verdict = None if grid.criterion == "groups" else diagnose(given)["verdict"]
        compared = (grid.settings, worst, mean, grid.best, grid.plain, grid.criterion)
        setting, reason = by_criterion(*compared, verdict)
    chosen, plain = settings.index(setting), 1 + grid.plain
    means = [_row(names, setting, each.mean(1)) for setting, each in zip(settings, found, strict=True)]
    result = {
        "made_from": given.digests("features", "erm"),
        "criterion": grid.criterion,
        **means[chosen],
        "picked": "erm" if setting is None else "setting",
        "picked_by": "criterion" if grid.default is None else "diagnosis",
        "erm": _scores(found[0].mean(1)),
        "plain": _scores(found[plain].mean(1)),
        "reason": reason,
    }
    with store.create_folder(out) as folder:
        store.write_csv(folder / "seeds.csv", _of_seeds(names, settings, found))
        marked = [{**row, "picked": int(k == chosen)} for k, row in enumerate(means)]
        store.write_csv(folder / "mean.csv", marked)
        of_groups = []
        for setting, values in zip(settings, by_group, strict=True):
            accuracies = zip(groups, values.tolist(), strict=True)
            of_groups.append({**_named(names, setting), **{OF_GROUP + name: v for name, v in accuracies}})
        store.write_csv(folder / "groups.csv", of_groups)
        store.write_json(folder / "metrics.json", result)
    log.info("%s", reason)


def _of_seeds(names: Sequence[str], settings: list[Candidate], found: list[Accuracy]) -> list[Row]:
    """The rows of seeds.csv, from the accuracies of each candidate, (NAMES, S)."""
    rows = []
    for setting, each in zip(settings, found, strict=True):
        for seed, values in enumerate(each.T):
            rows.append({"seed": seed, **_row(names, setting, values)})
    return rows


def _row(names: Sequence[str], setting: Candidate, values: NDArray[np.float64]) -> Row:
    """A candidate and its accuracies (NAMES,)."""
    return {**_named(names, setting), **_scores(values)}


def _named(names: Sequence[str], setting: Candidate) -> Row:
    """A candidate, by the names of what it has; None for ERM."""
    return {name: getattr(setting, name, None) for name in names}


def _scores(values: NDArray[np.float64]) -> Row:
    return dict(zip(NAMES, values.tolist(), strict=True))
