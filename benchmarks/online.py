"""Measure the pipeline against the online way: the paper's algorithm as it is written.

The online way makes masks and interventions anew in every batch of every epoch. In a batch it makes
xGradCAM maps by autograd, takes the top K pixels, makes masked and combined images, takes forward passes of
original, masked and combined images, and one step of Adam on the head. All that is for one (α, β) and one
seed; what the pipeline caches is used for all of them. Both sides start from images.h5.

A few batches of the online way are measured, and the stages from saliency to features on a few images. From
these follows what 10 epochs of 4,795 images (Waterbirds) take. Retraining is measured at that size as it is:
from features.h5 to retrained/.
"""

import click
import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from benchmarks import project
from benchmarks.measure import device_option, medians, precision_option, repeats_option, tell
from benchmarks.project import GRID, MASKS, RETRAIN, SEEDS, SELECTION, SIZE, SWEEP
from pipeline import graph
from pipeline.compute.context import Context
from pipeline.compute.device import autocast, keep_freed_memory, pick
from pipeline.last_layer.grid import fit_grid
from pipeline.method import interventions, pairing
from pipeline.method.masks import top_k_mask, upsample
from pipeline.method.pixels import pixel_count
from pipeline.network import classifier
from pipeline.network.inputs import to_input_grid
from pipeline.params.block import Precision
from pipeline.project import Opened
from pipeline.steps.retrain import retrain

ROWS, EPOCHS = 4795, 10  # Waterbirds; the paper's epochs
BATCH = 32  # of the online way
ONE = RETRAIN.model_copy(update={"epochs": EPOCHS})
MANY = ONE.model_copy(update={"seeds": SEEDS})


@click.command(help=__doc__)
@click.option("--architecture", default="resnet50", show_default=True)
@click.option(
    "--rows",
    default=256,
    show_default=True,
    help="Images that go through saliency to features.",
)
@click.option("--batches", default=4, show_default=True, help="Batches of 32 of the online way.")
@click.option("--draws", default=4, show_default=True, help="R.")
@precision_option
@device_option
@repeats_option
def main(
    architecture: str,
    rows: int,
    batches: int,
    draws: int,
    precision: Precision,
    device: str,
    repeats: int,
) -> None:
    on = pick(device)
    caching = project.caching(precision, draws)
    with project.folder() as folder:
        context = Context(str(on), folder / "scratch")
        small, large = graph.project(folder / "small"), graph.project(folder / "large")
        project.write_images(small, rows)
        project.write_erm(small, architecture)
        with small.open("images", "erm") as given:
            online = Online(given, precision, on)
        # The online way is first: malloc is then as it is by default.
        times = medians({"online": lambda: online.run(batches)}, on, repeats)
        keep_freed_memory()

        def cache() -> None:
            project.make_maps(small, precision, context)
            project.make_masks(small, context)
            project.make_originals(small, precision, context)
            project.make_features(small, caching, context)

        times |= medians({"cache": cache}, on, repeats)
        project.write_head(large, online.model.head.in_features)
        project.write_features(large, ROWS, draws, held_out=(1199, 1199))

        def answer() -> None:
            with large.open("erm", "features") as given:
                retrain(given, large.path("retrained"), ONE, SELECTION, context)

        def sweep() -> None:
            with large.open("erm", "features") as given:
                fit_grid(
                    given.file("features"), given.model("erm").head(), MANY, SWEEP, SELECTION.criterion, on
                )

        times |= medians({"next": answer, "sweep": sweep}, on, repeats)
    online_seconds = times["online"] / (batches * BATCH) * ROWS * EPOCHS
    first = times["cache"] / rows * ROWS + times["next"]
    fits = SEEDS * len(GRID)
    tell(
        "online",
        on,
        [
            ("network", f"{architecture}, {SIZE} px, {precision}, R = {draws}"),
            (f"online, {EPOCHS} epochs of {ROWS} images (from {batches} batches)", f"{online_seconds:.0f} s"),
            (f"first answer: saliency to features (from {rows} images), retrain", f"{first:.0f} s"),
            ("next answer: retrain, features.h5 to retrained/", f"{times['next']:.2f} s"),
            (f"the sweep: {fits} heads", f"{times['sweep']:.2f} s"),
            (f"online, {fits} times", f"{online_seconds * fits:.0f} s"),
        ],
        ratio=online_seconds / first,
        ratio_next=online_seconds / times["next"],
        ratio_sweep=online_seconds * fits / times["sweep"],
        architecture=architecture,
        precision=precision,
    )


class Online:
    """Section 3.2 of the paper as it is written, in plain PyTorch.

    Args:
        given: images and erm.
        precision: of the forward passes.
        on: the device.
    """

    def __init__(self, given: Opened, precision: Precision, on: torch.device) -> None:
        erm, images = given.model("erm"), given.file("images")
        self.on, self.precision, self.spec = on, precision, erm.spec
        self.model = classifier.load(erm.spec, erm.read(), on)
        self.model.head.requires_grad_()
        self.optimizer = torch.optim.Adam(self.model.head.parameters(), lr=RETRAIN.lr)
        self.k = pixel_count(MASKS.top_k, erm.spec.input_size)
        training = images["split"][:] == 0
        self.pixels, self.label = images["image"][:][training], images["label"][:][training]
        self.draw = pairing.draw(self.label, BATCH, 0, 0)

    def run(self, batches: int) -> None:
        """Train on a number of batches of one epoch."""
        for number in range(batches):
            members = np.flatnonzero(self.draw.batch == number % (int(self.draw.batch.max()) + 1))
            # The batch has both classes, so that all partners are in it.
            place = np.searchsorted(members, self.draw.partner[members])
            stored = torch.from_numpy(self.pixels[members]).to(self.on)
            self.step(stored, torch.from_numpy(self.label[members]).to(self.on), place)

    def step(self, stored: Tensor, label: Tensor, partner: NDArray[np.int64]) -> None:
        """One step of retraining.

        Args:
            stored: (B, H, W, 3) uint8, stored images.
            label: (B,) int64.
            partner: (B,), place of each partner in the batch.
        """
        x = to_input_grid(stored, self.spec).float() / 255
        m = self._core(x, label)[:, None].float()
        b = x.mean((0, 2, 3)).view(1, 3, 1, 1)
        masked = interventions.masked(x, m, b)
        combined = interventions.combined(x, m, x[partner], m[partner], b)
        loss = torch.zeros((), device=self.on)
        for view, weight in ((x, 1.0), (masked, RETRAIN.alpha), (combined, RETRAIN.beta)):
            with torch.no_grad(), autocast(self.on, self.precision):
                phi = self.model.features(self.model.input(view))
            loss = loss + weight * F.cross_entropy(self.model.head(phi), label)
        self.optimizer.zero_grad()
        loss.backward()
        self.optimizer.step()

    def _core(self, x: Tensor, label: Tensor) -> Tensor:
        """The masks (B, S, S) bool of pixels x (B, 3, S, S) in [0, 1]."""
        with torch.no_grad(), autocast(self.on, self.precision):
            state = self.model.encode(self.model.input(x))
        state.requires_grad_()  # no graph of the trunk: the cheapest way to the gradient
        score = self.model.head(self.model.trunk.pool(state)).gather(1, label[:, None]).sum()
        (gradient,) = torch.autograd.grad(score, state)
        maps, gradient = state.detach().float(), gradient.float()
        weight = (gradient * maps).sum((2, 3)) / (maps.sum((2, 3)) + 1e-7)
        cam = torch.einsum("bc,bchw->bhw", weight, maps)
        return top_k_mask(upsample(cam, self.spec.input_size), self.k)


if __name__ == "__main__":
    main()
