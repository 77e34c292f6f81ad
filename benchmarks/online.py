"""The pipeline against the online way, which computes masks and interventions anew in every batch of every epoch, as the paper writes it.

The online way, a batch: xGradCAM by autograd, top K, masked and combined images, forward passes of original, masked and combined, a step
of Adam on the head. It does for one (α, β) and one seed what the pipeline's cache serves all of them. Both sides start from images.h5.

Measured are so many batches of the online way, and the stages saliency and features on so many images; both are told for an epoch of
4,795 images (Waterbirds) times 10, in proportion. Retraining is measured at that size as it is: from features.h5 to retrained/.
"""

from pathlib import Path

import click
import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from benchmarks import project
from benchmarks.measure import device_option, medians, precision_option, repeats_option, tell
from benchmarks.project import GRID, RETRAIN, SEEDS
from pipeline import store
from pipeline.compute.device import autocast, keep_freed_memory, pick
from pipeline.features import features
from pipeline.last_layer import mac
from pipeline.last_layer.heads import Heads
from pipeline.last_layer.validation import Validation
from pipeline.method import interventions, pairing
from pipeline.method.masks import pixel_count, top_k_mask, upsample
from pipeline.network import backbone
from pipeline.network.inputs import normalize, to_input_grid
from pipeline.params import Precision
from pipeline.retrain import retrain
from pipeline.saliency import saliency

ROWS, EPOCHS = 4795, 10  # Waterbirds; the paper's epochs


@click.command(help=__doc__)
@click.option("--architecture", default="resnet50", show_default=True)
@click.option("--rows", default=256, show_default=True, help="Images that pass through saliency and features.")
@click.option("--batches", default=4, show_default=True, help="Batches of 32 of the online way.")
@click.option("--draws", default=4, show_default=True, help="R.")
@precision_option
@device_option
@repeats_option
def main(architecture: str, rows: int, batches: int, draws: int, precision: str, device: str, repeats: int) -> None:
    on = pick(device)
    with project.folder() as folder:
        images, erm, masks, cached = (folder / name for name in ("images.h5", "erm", "masks.h5", "features.h5"))
        project.write_images(images, rows)
        project.write_erm(erm, images, architecture)
        cores, views, _ = project.settle(precision, draws)
        online = Online(images, erm, cores.precision, on)
        times = medians({"online": lambda: online.run(batches)}, on, repeats)  # first: malloc as one finds it
        keep_freed_memory()

        def cache() -> None:
            saliency(images, erm, masks, cores, on, folder / "scratch")
            features(images, erm, masks, cached, views, on, folder / "scratch")

        times |= medians({"cache": cache}, on, repeats)
        width = online.model.head.in_features
        project.write_head(folder / "head", width)
        project.write_features(cached, folder / "head", ROWS, draws, held_out=(1199, 1199))
        params = RETRAIN.model_copy(update={"epochs": EPOCHS})

        def sweep() -> None:
            with store.open_artefact(cached, "features") as opened:
                loaded, validation = mac.load_views(opened, params, on), Validation.of(opened, on)
            start = Heads.of(*store.open_model(folder / "head", "erm").head()).to(on)
            mac.fit(loaded, validation, start, params, [a for a, _ in GRID], [b for _, b in GRID], list(range(SEEDS)))

        times |= medians(
            {"next": lambda: retrain(cached, folder / "head", folder / "none.h5", folder / "retrained", params, on), "sweep": sweep},
            on,
            repeats,
        )
    online_seconds = times["online"] / (batches * 32) * ROWS * EPOCHS
    first = times["cache"] / rows * ROWS + times["next"]
    fits = SEEDS * len(GRID)
    tell(
        "online",
        on,
        [
            ("network", f"{architecture}, 224 px, {precision}, R = {draws}"),
            (f"online, {EPOCHS} epochs of {ROWS} images (from {batches} batches)", f"{online_seconds:.0f} s"),
            (f"first answer: saliency, features (from {rows} images), retrain", f"{first:.0f} s"),
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
    """The paper's section 3.2 as it is written, in plain PyTorch."""

    def __init__(self, images: Path, erm: Path, precision: Precision, on: torch.device) -> None:
        self.on, self.precision = on, precision
        self.model = backbone.load(store.open_model(erm, "erm"), on)
        self.model.head.requires_grad_()
        self.optimizer = torch.optim.Adam(self.model.head.parameters(), lr=RETRAIN.lr)
        self.k = pixel_count(project.SALIENCY.top_k, 224)
        with store.open_artefact(images, "images") as opened:
            training = opened["split"][:] == 0
            self.pixels, self.label = opened["image"][:][training], opened["label"][:][training]
        self.draw = pairing.draw(self.label, 32, 0, 0)

    def run(self, batches: int) -> None:
        """So many batches of one epoch."""
        for number in range(batches):
            members = np.flatnonzero(self.draw.batch == number % (int(self.draw.batch.max()) + 1))
            place = np.searchsorted(members, self.draw.partner[members])  # partners are in the batch, which has both classes
            self.step(torch.from_numpy(self.pixels[members]).to(self.on), torch.from_numpy(self.label[members]).to(self.on), place)

    def step(self, stored: Tensor, label: Tensor, partner: "np.ndarray[tuple[int], np.dtype[np.int64]]") -> None:
        """One step of retraining."""
        x = to_input_grid(stored, 224, "center_crop").float() / 255
        with torch.no_grad(), autocast(self.on, self.precision):
            activations = self.model.activations(normalize(x))
        activations.requires_grad_()  # no graph of the trunk: the cheapest way to have the gradient
        score = self.model.head(self.model.pool(activations)).gather(1, label[:, None]).sum()
        (gradient,) = torch.autograd.grad(score, activations)
        maps, gradient = activations.detach().float(), gradient.float()
        weight = (gradient * maps).sum((2, 3)) / (maps.sum((2, 3)) + 1e-7)
        m = top_k_mask(upsample(torch.einsum("bc,bchw->bhw", weight, maps), 224), self.k)[:, None].float()
        b = x.mean((0, 2, 3)).view(1, 3, 1, 1)
        views = (x, interventions.masked(x, m, b), interventions.combined(x, m, x[partner], m[partner], b))
        loss = torch.zeros((), device=self.on)
        for view, term in zip(views, (1.0, RETRAIN.alpha, RETRAIN.beta), strict=True):
            with torch.no_grad(), autocast(self.on, self.precision):
                phi = self.model.features(normalize(view))
            loss = loss + term * F.cross_entropy(self.model.head(phi), label)
        self.optimizer.zero_grad()
        loss.backward()
        self.optimizer.step()


if __name__ == "__main__":
    main()
