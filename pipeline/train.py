"""Stage train: ERM, the classifier that leans on the spurious attribute (paper section 4.2)."""

from contextlib import nullcontext
from pathlib import Path

import torch

from pipeline import store
from pipeline.compute.engine import Shards
from pipeline.compute.ranks import ALONE, Ranks
from pipeline.network.training import Run, as_numpy
from pipeline.params import ModelParams, TrainParams


def train(
    images_path: Path, out: Path, model_params: ModelParams, params: TrainParams, on: torch.device, scratch: Path, ranks: Ranks = ALONE
) -> None:
    """Train on the rows of split 0 and write the model folder `out`.

    The folder holds the model of the epoch that `params.select` names as model.safetensors, the other of last and best
    under its own name, history.csv and metrics.json. A killed run continues after its last whole epoch, bit for bit.
    Of several processes that train together, `ranks`, the first one writes.
    """
    with store.open_artefact(images_path, "images") as images:
        made_from = {"images": images.digest}
        if Path(model_params.weights).is_file():
            made_from["weights"] = store.file_digest(Path(model_params.weights))
        run = Run(images, model_params, params, on, ranks=ranks)
        together = {} if ranks.count == 1 else {"processes": ranks.count}
        shards = Shards(scratch, "train", model_params.model_dump(), params.model_dump() | together, made_from)
        with shards if ranks.first else nullcontext():
            run.to_end(shards.folder / "checkpoint.safetensors")
            if not ranks.first:
                return
            spec = run.spec(model_params.architecture)
            states = {"last": run.state(), "best": run.best}
            other = "best" if params.select == "last" else "last"
            made = {"model": model_params.model_dump(), "train": params.model_dump()}
            with store.create_folder(out) as folder:
                store.write_model(folder, "erm", as_numpy(states[params.select]), spec, made, made_from, **{other: as_numpy(states[other])})
                store.write_csv(folder / "history.csv", run.history)
                epochs = {"last": params.epochs, "best": run.best_epoch}
                metrics = {"epoch": epochs[params.select], "best_epoch": run.best_epoch, "val": run.val_metrics[epochs[params.select] - 1]}
                store.write_json(folder / "metrics.json", metrics)
