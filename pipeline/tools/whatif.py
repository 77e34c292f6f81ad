"""What other α and β would give: heads are fitted and measured, and nothing is written."""

from collections.abc import Mapping, Sequence
from typing import Any

import torch

from pipeline.last_layer import mac
from pipeline.last_layer.heads import Heads
from pipeline.last_layer.held_out_split import HeldOutSplit
from pipeline.last_layer.views import Views
from pipeline.metrics import as_dict, over_seeds
from pipeline.params.fit import FitParams
from pipeline.params.selection import SelectionParams
from pipeline.project import Opened
from pipeline.results.tables import name_of, worst_of
from pipeline.setting import Setting

SPLITS = {"val": "validation", "test": "test"}


def whatif(
    given: Opened, fit: FitParams, settings: Sequence[Setting], selection: SelectionParams, on: torch.device
) -> dict[str, Any]:
    """ERM and the heads of each setting on the validation and the test split.

    The heads are those that stage retrain would fit: all settings at once, each head as if it were alone.

    Args:
        given: erm and features.
        fit: its l2 is that of settings that have none.

    Returns:
        `count.<split>.<group>`: the number of images. `erm` and each of `heads` have in `val` and `test` each
        metric of `metrics.as_dict`, as `{mean, std}` over the heads. Each of `heads` has its `alpha`, `beta`
        and `l2` too, and `seeds`, how many heads there are.

    Raises:
        MacError: a loss or a head is not finite, or the criterion needs labels that are unknown.
    """
    erm, features = given.model("erm").head(), given.file("features")
    validation = HeldOutSplit.to_choose(features, on, erm, selection.criterion)
    splits = {"val": validation, "test": HeldOutSplit.to_measure(features, "test", on)}
    start = Heads.of(erm).to(on)
    fitted = mac.fit(Views.of(features, fit, on), validation, start, fit, settings).heads
    heads = []
    for k, (alpha, beta, _) in enumerate(settings):
        made = {"alpha": alpha, "beta": beta, "l2": settings[k].strength(fit.l2)}
        heads.append({**made, "seeds": len(fit.head_seeds), **_measured(splits, fitted.of_setting(k))})
    count = {name: _counts(split) for name, split in splits.items()}
    return {"count": count, "erm": _measured(splits, start), "heads": heads}


def _measured(splits: Mapping[str, HeldOutSplit], heads: Heads) -> dict[str, Any]:
    """The metrics of heads (S, 1, …) on each split."""
    found = {}
    for name, split in splits.items():
        found[name] = over_seeds(
            [as_dict(each, split.grouping, None) for each in split.accuracy(heads)[:, 0]]
        )
    return found


def _counts(split: HeldOutSplit) -> dict[str, int]:
    return dict(zip(split.grouping.names, split.grouping.count.tolist(), strict=True))


def table(found: Mapping[str, Any]) -> str:
    """The result of `whatif` as text, in percent."""
    columns = [found["erm"], *found["heads"]]
    titles = ["ERM", *(f"α {each['alpha']:g}, β {each['beta']:g}" for each in found["heads"])]
    rows: list[list[str]] = []
    for split, spoken in SPLITS.items():
        metrics, count = [each[split] for each in columns], found["count"][split]
        worst, groups = worst_of(metrics[0])
        rows.append([f"{spoken} accuracy, %", "n", *titles])
        for key in (worst, "raw_mean"):
            rows.append([name_of(key), str(sum(count.values())), *(_cell(each[key]) for each in metrics)])
        for name, n in count.items():
            if n:
                rows.append([name, str(n), *(_cell(each[groups][name]) for each in metrics)])
        rows.append([""] * len(rows[0]))
    lines = _aligned(rows)
    seeds = found["heads"][0]["seeds"]
    if seeds > 1:
        lines.append(f"±: standard deviation over {seeds} retrained heads of one ERM run")
    lines.append("Choose by the validation split: what is chosen by the test split looks better than it is.")
    return "\n".join(lines)


def _aligned(rows: Sequence[Sequence[str]]) -> list[str]:
    """A line for each row. Columns are as wide as their cells; only the first is to the left."""
    first, *others = (max(map(len, column)) for column in zip(*rows, strict=True))
    lines = []
    for name, *cells in rows:
        aligned = (f"  {cell:>{width}}" for cell, width in zip(cells, others, strict=True))
        lines.append((f"{name:<{first}}" + "".join(aligned)).rstrip())
    return lines


def _cell(value: Mapping[str, float]) -> str:
    """A mean in percent, with its standard deviation if there is one."""
    return f"{100 * value['mean']:.1f}" + (f" ± {100 * value['std']:.1f}" if value["std"] else "")
