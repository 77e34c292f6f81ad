"""Stage retrain: fits the last layer on cached features of original, masked and combined images."""

from dataclasses import asdict
from pathlib import Path

import torch

from pipeline import store
from pipeline.compute.context import Context
from pipeline.compute.progress import log
from pipeline.last_layer import mac
from pipeline.last_layer.heads import Heads
from pipeline.last_layer.held_out_split import HeldOutSplit
from pipeline.last_layer.spread import spread
from pipeline.last_layer.views import Views
from pipeline.metrics import as_dict, over_seeds, prefer, seen
from pipeline.params.retrain import RetrainParams
from pipeline.params.selection import SelectionParams
from pipeline.project import Opened
from pipeline.results.choice import Choice
from pipeline.selection import criterion_of, spoken_scores
from pipeline.setting import Setting


def retrain(
    given: Opened, out: Path, params: RetrainParams, selection: SelectionParams, context: Context
) -> None:
    """Fit the heads and write the model folder `out`.

    head.safetensors has the heads of all seeds, weight (S, C, D) and bias (S, C). model.safetensors is the
    whole classifier, with the head that validation prefers, by the criterion of `selection`. model.json and
    metrics.json name this criterion; the accuracies in metrics.json are by group, where groups are known.

    If α and β, or these and l2, are auto, they are what stage sweep picked. If it picked ERM as it is, that
    is the one head.

    Args:
        given: erm and features; and sweep, which is read if α and β are auto.

    Raises:
        MacError: the loss is not finite, or metrics.json of sweep does not say what was picked.
    """
    if isinstance(params.alpha, str) or isinstance(params.beta, str) or isinstance(params.l2, str):
        choice, made_from = Choice.by_sweep(given, params.l2), given.digests("features", "erm", "sweep")
    else:
        choice = Choice.by_params(params.alpha, params.beta, params.l2)
        made_from = given.digests("features", "erm")
    erm, features = given.model("erm"), given.file("features")
    on = context.on if context.cluster is None else torch.device("cpu")  # this process may lack the workers'
    validation = HeldOutSplit.to_choose(features, on, erm.head(), selection.criterion)
    criterion = criterion_of(validation.criterion)
    labels = seen("validation, to choose", criterion, given.erm_labels)
    start = Heads.of(erm.head()).to(on)
    if setting := choice.setting:
        retrained = _fitted(given, params, setting, validation, start, context)
    else:
        retrained = mac.as_it_is(validation, start)
    accuracy = validation.accuracy(retrained.heads)[:, 0]
    worst, mean = (scores[:, 0] for scores in validation.scores(retrained.heads))
    chosen = prefer(worst, mean)
    head_seed = params.head_seeds[chosen]
    heads = retrained.heads.fitted()
    made = {"head_seed": head_seed, "criterion": criterion}
    metrics = {
        **choice.values,
        **made,
        "epoch": retrained.epoch[:, 0].tolist(),
        "val": over_seeds([as_dict(each, validation.grouping, None) for each in accuracy]),
    }
    with store.create_folder(out) as folder:
        store.write_model(
            folder,
            "retrained",
            erm.read() | {"head.weight": heads.weight[chosen], "head.bias": heads.bias[chosen]},
            erm.spec,
            {**params.model_dump(exclude=params.of_machine), **asdict(choice), **made, "labels": labels},
            made_from,
            head={"weight": heads.weight, "bias": heads.bias},
        )
        store.write_csv(folder / "history.csv", retrained.history)
        store.write_json(folder / "metrics.json", metrics)
    log.info("%s", choice.reason)
    scores = spoken_scores(criterion, worst.mean(), mean.mean())
    log.info("validation: %s (mean of %d heads)", scores, len(heads))


def _fitted(
    given: Opened,
    params: RetrainParams,
    setting: Setting,
    validation: HeldOutSplit,
    start: Heads,
    context: Context,
) -> mac.Retrained:
    """The heads of one setting. The workers of a cluster, if there is one, share the work of L-BFGS."""
    features, on = given.file("features"), start.bias.device
    if context.cluster is None:
        return mac.fit(Views.of(features, params, on), validation, start, params, [setting])
    here = params.model_copy(update={"memory": "streamed"})
    with spread(context.cluster, given.reference("erm", "features"), params, context.on.type) as elsewhere:
        views = Views.of(features, here, on)
        return mac.fit(views, validation, start, params, [setting], elsewhere=elsewhere)
