"""Stage masktune: MaskTune (Asgari et al. 2022). Mask what ERM looks at most, and fine-tune on what is left."""

from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors.torch import load_file
from torch import Tensor

from pipeline import whole_network
from pipeline.compute import device
from pipeline.compute.engine import Shards
from pipeline.method import xgradcam
from pipeline.method.masks import upsample
from pipeline.network import backbone
from pipeline.network.inputs import normalize, to_input_grid
from pipeline.network.training import Run
from pipeline.params import MaskTuneParams


def masktune(images_path: Path, erm_path: Path, out: Path, params: MaskTuneParams, on: torch.device, scratch: Path) -> None:
    """Write the model folder `out`: ERM after one more epoch on masked images. No group label is looked at."""
    with whole_network.base(images_path, erm_path) as start, Shards(scratch, "masktune", params.model_dump(), start.made_from) as shards:
        changed = {"lr": params.lr, "schedule": "constant", "select": "last", "epochs": 1}
        tuned = start.train.model_copy(update=changed)
        looking = backbone.load(start.erm, on)
        size, how = start.erm.spec["input_size"], start.erm.spec["to_input"]

        def masked_input(rows: NDArray[np.integer], stored: Tensor, _generator: torch.Generator) -> Tensor:
            grid = to_input_grid(stored, size, how)
            with torch.no_grad(), device.autocast(on, tuned.precision):
                activations = looking.activations(normalize(grid))
            target = start.label[torch.from_numpy(np.asarray(rows))].to(on)
            seen = highest(upsample(xgradcam.closed_form(activations, looking.head.weight, target), size), params.sigmas)
            return normalize(torch.where(seen[:, None], 0, grid))

        run = Run(start.images, start.model, tuned, on, start=load_file(start.erm.tensors), make_input=masked_input, name="masktune")
        run.to_end(shards.folder / "checkpoint.safetensors")
        about = whole_network.About("masktune", "MaskTune", "Asgari et al. 2022", "none", {"sigmas": params.sigmas})
        whole_network.write(out, start, run, run.state(), about, params.model_dump())


def highest(maps: Tensor, sigmas: float) -> Tensor:
    """Where each map (B, H, W) is above its mean by `sigmas` deviations: (B, H, W) bool."""
    flat = maps.flatten(1)
    threshold = flat.mean(1) + sigmas * flat.std(1, correction=0)
    return maps > threshold[:, None, None]
