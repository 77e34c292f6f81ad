"""Stage jtt: Just Train Twice (Liu et al. 2021).

A first, short training finds the images that it gets wrong. In the second training these images count more.
"""

from functools import cache, partial
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from pipeline.comparison import whole_network
from pipeline.compute.context import Context
from pipeline.compute.progress import log
from pipeline.compute.ranks import here
from pipeline.compute.scratch import shared_scratch
from pipeline.metrics import seen
from pipeline.network.training import Training
from pipeline.network.weights import digests
from pipeline.params.jtt import JttParams
from pipeline.params.selection import SelectionParams
from pipeline.project import Opened


def jtt(given: Opened, out: Path, params: JttParams, selection: SelectionParams, context: Context) -> None:
    """Write the model folder `out`: the best epoch of the second training by the criterion of `selection`.

    Both trainings start where ERM started, and use its batch size, schedule, augmentation and seed. If ERM
    was trained elsewhere, they start from `model.weights`. The criterion's reference is the finished ERM.
    """
    erm = whole_network.ErmParams.of(given)
    start = erm.model
    if start.classifier is not None:
        log.info("jtt: starts from model.weights (%s), not from model.classifier", start.weights)
        start = start.model_copy(update={"classifier": None, "classes": None})
    changed = {"lr": params.lr, "weight_decay": params.weight_decay, "select": "best"}
    short = erm.train.model_copy(update={**changed, "epochs": params.first_epochs})
    long = erm.train.model_copy(update={**changed, "epochs": params.epochs})
    made_from = given.digests("images", "erm")
    ranks = here()
    reference = cache(partial(whole_network.reference, given, erm, context.on, ranks))
    train = partial(
        Training, given, criterion=selection.criterion, reference=reference, name="jtt", ranks=ranks
    )
    begins = digests(start.weights, start.classifier)
    depends = (params.model_dump(), selection.model_dump(), made_from, begins)
    with shared_scratch(context, ranks, "jtt", __name__, *depends) as folder:
        first = train(start, erm.inputs, short, context.on)
        first.to_end(folder / "first.safetensors")
        errors = error_set(first)
        log.info(
            "jtt: %d of %d training images are wrong after %d epochs",
            *(len(errors), len(first.rows), params.first_epochs),
        )
        note = _without_errors(given, first, errors)
        if note:
            log.warning("jtt: %s; lower jtt.first_epochs", note)
        rows = upweighted(first.rows, errors, params.upweight)
        second = train(start, erm.inputs, long, context.on, rows=rows)
        second.to_end(folder / "second.safetensors")
        chosen: dict[str, object] = {
            "T": params.first_epochs,
            "lambda": params.upweight,
            "error set": len(errors),
            "epoch": second.history.best_epoch,
        }
        labels = seen("validation, to choose", second.criterion, given.erm_labels)
        about = whole_network.About("jtt", "JTT", "Liu et al. 2021", labels, chosen, note)
        whole_network.write(out, second, second.best, about, params.model_dump())


def _without_errors(given: Opened, first: Training, errors: NDArray[np.int64]) -> str:
    """The classes whose images the first model gets all right, so that none counts more; often empty."""
    found = set(first.label[errors].tolist())
    missing = [name for label, name in enumerate(given.groups.classes) if label not in found]
    return f"no training image of {', '.join(missing)} is in the error set" if missing else ""


def error_set(training: Training) -> NDArray[np.int64]:
    """The training rows that the model gets wrong, without augmentation."""
    rows = training.rows
    wrong = training.predict(rows) != training.label[rows]
    return np.asarray(rows[wrong.numpy()])


def upweighted(rows: NDArray[np.int64], errors: NDArray[np.int64], upweight: int) -> NDArray[np.int64]:
    """The rows, in which each row of `errors` occurs `upweight` times."""
    return np.concatenate([rows, np.repeat(errors, upweight - 1)])
