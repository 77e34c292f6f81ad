"""Stage jtt: Just Train Twice (Liu et al. 2021). Train briefly, then again with the images that came out wrong counting more."""

from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from pipeline import whole_network
from pipeline.compute.engine import Shards
from pipeline.compute.progress import log
from pipeline.network.training import Run
from pipeline.params import JttParams


def jtt(images_path: Path, erm_path: Path, out: Path, params: JttParams, on: torch.device, scratch: Path) -> None:
    """Write the model folder `out`: the epoch with the best validation worst group.

    Both trainings start where ERM started, with its batch size, schedule, augmentation and seed.
    """
    with whole_network.base(images_path, erm_path) as start, Shards(scratch, "jtt", params.model_dump(), start.made_from) as shards:
        shared = {"lr": params.lr, "weight_decay": params.weight_decay, "select": "best"}
        short = start.train.model_copy(update={**shared, "epochs": params.first_epochs})
        long = start.train.model_copy(update={**shared, "epochs": params.epochs})
        first = Run(start.images, start.model, short, on, name="jtt")
        first.to_end(shards.folder / "first.safetensors")
        errors = error_set(first)
        log.info("jtt: %d of %d training images are wrong after %d epochs", len(errors), len(first.rows), params.first_epochs)
        second = Run(start.images, start.model, long, on, rows=upweighted(first.rows, errors, params.upweight), name="jtt")
        second.to_end(shards.folder / "second.safetensors")
        chosen: dict[str, object] = {
            "T": params.first_epochs,
            "lambda": params.upweight,
            "error set": len(errors),
            "epoch": second.best_epoch,
        }
        about = whole_network.About("jtt", "JTT", "Liu et al. 2021", "validation, to choose", chosen)
        whole_network.write(out, start, second, second.best, about, params.model_dump())


def error_set(run: Run) -> NDArray[np.int64]:
    """The training rows that the model gets wrong, without augmentation."""
    return np.asarray(run.rows[(run.predict(run.rows) != run.label[run.rows]).numpy()])


def upweighted(rows: NDArray[np.int64], errors: NDArray[np.int64], upweight: int) -> NDArray[np.int64]:
    """The rows with each of `errors` `upweight` times in all."""
    return np.concatenate([rows, np.repeat(errors, upweight - 1)])
