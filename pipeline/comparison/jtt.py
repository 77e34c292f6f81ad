"""Stage jtt: Just Train Twice (Liu et al. 2021).

A first, short training finds the images that it gets wrong. In the second training these images count more.
"""

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from pipeline.comparison import whole_network
from pipeline.compute.context import Context
from pipeline.compute.engine import Shards
from pipeline.compute.progress import log
from pipeline.network.training import Training
from pipeline.params.jtt import JttParams
from pipeline.project import Opened


def jtt(given: Opened, out: Path, params: JttParams, context: Context) -> None:
    """Write the model folder `out`: the epoch of the second training with the best validation worst group.

    Both trainings start where ERM started, and use its batch size, schedule, augmentation and seed.
    """
    erm = whole_network.ErmParams.of(given)
    changed = {"lr": params.lr, "weight_decay": params.weight_decay, "select": "best"}
    short = erm.train.model_copy(update={**changed, "epochs": params.first_epochs})
    long = erm.train.model_copy(update={**changed, "epochs": params.epochs})
    made_from = given.digests("images", "erm")
    with Shards(context.scratch, "jtt", params.model_dump(), made_from) as shards:
        first = Training(given, erm.model, erm.inputs, short, context.on, name="jtt")
        first.to_end(shards.folder / "first.safetensors")
        errors = error_set(first)
        log.info(
            "jtt: %d of %d training images are wrong after %d epochs",
            *(len(errors), len(first.rows), params.first_epochs),
        )
        rows = upweighted(first.rows, errors, params.upweight)
        second = Training(given, erm.model, erm.inputs, long, context.on, rows=rows, name="jtt")
        second.to_end(shards.folder / "second.safetensors")
        chosen: dict[str, object] = {
            "T": params.first_epochs,
            "lambda": params.upweight,
            "error set": len(errors),
            "epoch": second.history.best_epoch,
        }
        about = whole_network.About("jtt", "JTT", "Liu et al. 2021", "validation, to choose", chosen)
        whole_network.write(out, second, second.best, about, params.model_dump())


def error_set(training: Training) -> NDArray[np.int64]:
    """The training rows that the model gets wrong, without augmentation."""
    rows = training.rows
    wrong = training.predict(rows) != training.label[rows]
    return np.asarray(rows[wrong.numpy()])


def upweighted(rows: NDArray[np.int64], errors: NDArray[np.int64], upweight: int) -> NDArray[np.int64]:
    """The rows, in which each row of `errors` occurs `upweight` times."""
    return np.concatenate([rows, np.repeat(errors, upweight - 1)])
