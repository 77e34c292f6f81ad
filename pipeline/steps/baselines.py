"""Stage baselines: other methods of the last layer on the same cached features, in seconds each."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipeline import store
from pipeline.compute.context import Context
from pipeline.compute.progress import log, track
from pipeline.errors import MacError
from pipeline.last_layer.method import Cached, Fitted, Method, NotApplicableError
from pipeline.last_layer.methods import METHODS
from pipeline.metrics import SIGNS, prefer, seen
from pipeline.params.baselines import BaselinesParams
from pipeline.params.fit import FitParams
from pipeline.params.selection import SelectionParams
from pipeline.params.sweep import PenaltyParams
from pipeline.project import Opened
from pipeline.results import tables
from pipeline.results.convergence import convergence
from pipeline.results.scores import head_scores
from pipeline.selection import criterion_of


def baselines(
    given: Opened,
    out: Path,
    params: BaselinesParams,
    penalty: PenaltyParams,
    fit: FitParams,
    selection: SelectionParams,
    context: Context,
) -> str:
    """Fit each of `params.methods` and write the model folder `out`; return the table to print.

    model.safetensors has `<name>.weight` (S, C, D) and `<name>.bias` (S, C) of each method that was fitted.
    metrics.json has for each, in `methods.<name>`: its title and source, the group labels that it saw, the
    settings that were chosen, the number of its heads, the one that validation prefers (`head_seed`), and the
    metrics of `scores.scores` on the validation and the test split. `left_out.<name>` has the title of a
    method that cannot be fitted on this dataset, and the reason. `criterion` is what chose. `convergence` is
    what becomes of ERM's head when it is trained on (`convergence.convergence`).

    Args:
        given: images, erm and features.
        penalty: what retrain.l2 can be where it is auto. Each method that has this penalty chooses its own.

    Raises:
        MacError: none of the methods can be fitted here.
    """
    l2s = penalty.strengths(fit.l2)
    cached = Cached.of(given, fit, l2s, selection.criterion, context.on)
    criterion = criterion_of(cached.validation.criterion)
    fitted, left_out = _fit_all(cached, params)
    if not fitted:
        reasons = "; ".join(each["reason"] for each in left_out.values())
        raise MacError(f"baselines.methods: none of them can be had on this dataset ({reasons})")
    made_from = given.digests("features", "erm")
    metrics = {
        "made_from": made_from,
        "criterion": criterion,
        "methods": {name: _described(given, cached, METHODS[name], each) for name, each in fitted.items()},
        "left_out": left_out,
        "convergence": convergence(given),
    }
    made = {
        "baselines": params.model_dump(),
        "retrain": fit.model_dump(include=FitParams.model_fields.keys() - fit.of_machine),
        "selection": {"criterion": criterion},
    }
    if fit.l2 == "auto":
        made["sweep"] = penalty.model_dump()
    with store.create_folder(out) as folder:
        store.write_model(folder, "baselines", _tensors(fitted), given.model("erm").spec, made, made_from)
        store.write_json(folder / "metrics.json", metrics)
    return tables.of_baselines(metrics)


def _fit_all(cached: Cached, params: BaselinesParams) -> tuple[dict[str, Fitted], dict[str, dict[str, str]]]:
    """The results of the methods by name; and the title of each other one, and why it cannot be fitted."""
    fitted: dict[str, Fitted] = {}
    left_out: dict[str, dict[str, str]] = {}
    for name in track(params.methods, "baselines", len(params.methods), "methods"):
        method = METHODS[name]
        try:
            found = method.fit(cached)
            if not found.heads.finite().all():
                raise NotApplicableError("its head is NaN or infinite after the fit on these features")
        except NotApplicableError as reason:
            left_out[name] = {"title": method.title, "reason": str(reason)}
            log.warning("%s is left out: %s", method.title, reason)
        else:
            fitted[name] = found
            log.info("%s: fitted", method.title)
    return fitted, left_out


def _tensors(fitted: Mapping[str, Fitted]) -> dict[str, NDArray[np.float32]]:
    tensors: dict[str, NDArray[np.float32]] = {}
    for name, each in fitted.items():
        tensors |= each.heads.fitted().named(name)
    return tensors


def _described(given: Opened, cached: Cached, method: Method, fitted: Fitted) -> dict[str, Any]:
    """A method's entry in metrics.json."""
    criterion = criterion_of(cached.validation.criterion)
    labels = fitted.labels or seen(method.labels, criterion, cached.erm_labels)
    worst, mean = cached.validation.scores(fitted.heads)
    heads = fitted.heads.fitted()
    return {
        "title": method.title,
        "source": method.source,
        "labels": labels,
        "sign": SIGNS[labels],
        "chosen": fitted.chosen,
        "note": fitted.note,
        "seeds": len(heads),
        "head_seed": prefer(worst[:, 0], mean[:, 0]),
        "val": head_scores(given, heads, "val"),
        "test": head_scores(given, heads, "test"),
    }
