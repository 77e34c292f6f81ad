"""Stage train: trains the ERM classifier, which relies on the spurious attribute (paper section 4.2).

If `model.classifier` names a trained one, it is checked, converted and measured instead.
"""

from pathlib import Path

import numpy as np

from pipeline import store
from pipeline.compute.context import Context
from pipeline.compute.progress import log
from pipeline.compute.ranks import here
from pipeline.compute.scratch import shared_scratch
from pipeline.errors import MacError
from pipeline.network import classifier
from pipeline.network.training import Training, as_numpy
from pipeline.network.weights import digests
from pipeline.params.inputs import InputParams, misfit
from pipeline.params.model import ModelParams
from pipeline.params.selection import SelectionParams
from pipeline.params.train import TrainParams
from pipeline.project import Opened
from pipeline.spec import ModelSpec


def train(
    given: Opened,
    out: Path,
    inputs: InputParams,
    model: ModelParams,
    params: TrainParams,
    selection: SelectionParams,
    context: Context,
) -> None:
    """Train on the training split, and write the model folder `out`.

    `params.select` names an epoch, last or best; the criterion of `selection` says which one is the best, and
    model.json and metrics.json name it. Its model is model.safetensors; the other one is
    best.safetensors or last.safetensors. The folder also has history.csv and metrics.json. If
    `params.keep_epochs` has E epochs, there is early.safetensors: `epoch` (E,) int64; `logits` (E, N, C)
    float32 of the N training images after each of them, without augmentation, in the order of images.h5,
    those included that `params.hold_out` keeps from ERM; and `erm`, int64, the epoch that is the model. A
    run that was killed continues after its last whole epoch, and ends with the same bytes. If several
    processes train together, the first one writes.

    If `model.classifier` is a file, its classifier is the model of epoch 0, and no other is written.

    Raises:
        MacError: the input is larger than the stored images, the criterion needs attributes of validation
            that are unknown, a loss is not finite, or a file of weights does not fit.
    """
    _require_room(given, inputs)
    if model.classifier is not None:
        params = params.model_copy(update={"select": "last"})  # no epoch is chosen, whatever it says
    made_from = {**given.digests("images"), **digests(model.weights, model.classifier)}
    made = {
        "model": model.model_dump(),
        "train": params.model_dump(exclude={"keep_epochs"}),  # the model is the same, whatever is kept
        "input": inputs.model_dump(),
    }
    if context.threads is not None:
        made["study"] = {"threads": context.threads}
    ranks = here()
    training = Training(
        *(given, model, inputs, params, context.on),
        criterion=selection.criterion,
        ranks=ranks,
        track=context.track,
    )
    made["selection"] = {"criterion": training.criterion}
    _say_what_it_was_made_for(training.spec())
    if model.classifier is not None:
        training.measure()
        _write(out, training, made, made_from)
        return
    depends = (made, {"keep_epochs": params.keep_epochs}, made_from)
    with shared_scratch(context, ranks, "train", __name__, *depends) as folder:
        training.to_end(folder / "checkpoint.safetensors")
        _write(out, training, made, made_from)


def _say_what_it_was_made_for(spec: ModelSpec) -> None:
    """Log how the input differs from that of the network's published weights, where its library says."""
    made_for = classifier.data_config(spec.architecture)
    if made_for is None:
        return
    wanted = f"{made_for.input_size} pixels, {made_for.interpolation}"
    given = f"{spec.input_size} pixels, {spec.interpolation}"
    if wanted != given:
        log.info("train: %s was made for %s; here the input has %s", spec.architecture, wanted, given)


def _require_room(given: Opened, inputs: InputParams) -> None:
    """Refuse an input grid that is larger than the stored images."""
    stored = given.file("images")["image"].shape[1]
    if wrong := misfit(inputs.input_size, inputs.to_input, stored):
        raise MacError(wrong)


def _write(
    out: Path, training: Training, params: dict[str, dict[str, object]], made_from: dict[str, str]
) -> None:
    if not training.ranks.first:
        return
    history, select = training.history, training.params.select
    states = {"last": training.state(), "best": training.best}
    epoch = {"last": training.epoch, "best": history.best_epoch}[select]
    other = "best" if select == "last" else "last"
    others = {other: as_numpy(states[other])} if training.epoch else {}
    if kept := training.params.keep_epochs:
        logits = np.stack([training.early[str(each)].numpy() for each in kept])
        others["early"] = {"epoch": np.array(kept), "logits": logits, "erm": np.array(epoch)}
    metrics = {
        "epoch": epoch,
        "best_epoch": history.best_epoch,
        "criterion": training.criterion,
        "val": history.val_metrics(epoch),
    }
    with store.create_folder(out) as folder:
        store.write_model(
            folder, "erm", as_numpy(states[select]), training.spec(), params, made_from, **others
        )
        store.write_csv(folder / "history.csv", history.rows())
        store.write_json(folder / "metrics.json", metrics)
