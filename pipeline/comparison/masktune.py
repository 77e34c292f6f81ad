"""Stage masktune: MaskTune (Asgari et al. 2022).

The pixels that ERM looks at the most are made black. Then ERM is trained on these images for one more epoch.
"""

from functools import partial
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from pipeline.comparison import whole_network
from pipeline.compute import device
from pipeline.compute.context import Context
from pipeline.compute.ranks import here
from pipeline.compute.scratch import shared_scratch
from pipeline.method import gradient_maps
from pipeline.method.masks import upsample
from pipeline.network import classifier
from pipeline.network.inputs import to_input_grid
from pipeline.network.training import Training
from pipeline.params.masktune import MaskTuneParams
from pipeline.params.selection import SelectionParams
from pipeline.project import Opened


def masktune(
    given: Opened, out: Path, params: MaskTuneParams, selection: SelectionParams, context: Context
) -> None:
    """Write the model folder `out`: ERM after one more epoch, on masked images. No epoch is chosen, so
    the group labels that it sees are those that ERM saw.

    history.csv has the accuracy by the criterion of `selection`, whose reference is ERM.
    """
    erm, on, ranks = given.model("erm"), context.on, here()
    made = whole_network.ErmParams.of(given)
    changed = {"lr": params.lr, "schedule": "constant", "select": "last", "epochs": 1}
    tuned = made.train.model_copy(update=changed)
    looking = classifier.load(erm.spec, erm.read(), on)
    label = torch.from_numpy(given.file("images")["label"][:])

    def masked(rows: NDArray[np.integer], stored: Tensor, _generator: torch.Generator) -> Tensor:
        grid = to_input_grid(stored, erm.spec)
        x = looking.input(grid)
        with torch.no_grad(), device.autocast(on, tuned.precision):
            state = looking.encode(x)
        target = label[torch.from_numpy(np.asarray(rows))].to(on)
        maps = gradient_maps.of_head(looking.trunk, state, looking.head.weight, target)
        seen = highest(upsample(maps, erm.spec.input_size), params.sigmas)
        return torch.where(seen[:, None], 0, grid)

    depends = (params.model_dump(), selection.model_dump(), given.digests("images", "erm"))
    with shared_scratch(context, ranks, "masktune", __name__, *depends) as folder:
        training = Training(
            *(given, made.model, made.inputs, tuned, on),
            start=erm,
            make_input=masked,
            criterion=selection.criterion,
            reference=partial(whole_network.reference, given, made, on, ranks),
            name="masktune",
            ranks=ranks,
        )
        training.to_end(folder / "checkpoint.safetensors")
        chosen: dict[str, object] = {"sigmas": params.sigmas}
        about = whole_network.About("masktune", "MaskTune", "Asgari et al. 2022", given.erm_labels, chosen)
        whole_network.write(out, training, training.state(), about, params.model_dump())


def highest(maps: Tensor, sigmas: float) -> Tensor:
    """Where a map is more than `sigmas` standard deviations above its own mean.

    Args:
        maps: (B, H, W).

    Returns:
        (B, H, W) bool.
    """
    flat = maps.flatten(1)
    threshold = flat.mean(1) + sigmas * flat.std(1, correction=0)
    return maps > threshold[:, None, None]
