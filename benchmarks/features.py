"""Measure features: all views through the stages, against bare forward passes of a batch on the device.

The stages are originals and features, from images.h5 and masks.h5 to features.h5. The bare forward pass is
torchvision's network in eval mode, channels-last, under autocast where the precision is bfloat16. Its batch
size is the fastest of 16, 32 and 64 (CPU), or of 128 and 256 (GPU). `own` is the same for the network as the
stages run it.
"""

from collections.abc import Callable
from functools import partial

import click
import torch

from benchmarks import project
from benchmarks.measure import device_option, medians, precision_option, repeats_option, tell
from benchmarks.project import SIZE
from pipeline import graph
from pipeline.compute.context import Context
from pipeline.compute.device import autocast, dtype, keep_freed_memory, pick
from pipeline.network import classifier
from pipeline.params.block import Precision


@click.command(help=__doc__)
@click.option("--architecture", default="resnet50", show_default=True)
@click.option("--rows", default=256, show_default=True, help="Training images; each makes 1 + 2 R views.")
@click.option("--draws", default=4, show_default=True, help="R.")
@precision_option
@device_option
@repeats_option
def main(architecture: str, rows: int, draws: int, precision: Precision, device: str, repeats: int) -> None:
    on = pick(device)
    keep_freed_memory()
    params = project.caching(precision, draws)
    sizes = (128, 256) if on.type == "cuda" else (16, 32, 64)
    with project.folder() as folder:
        noise, context = graph.project(folder), Context(str(on), folder / "scratch")
        project.write_images(noise, rows)
        project.write_erm(noise, architecture)
        with noise.open("images", "erm") as given:
            erm = given.model("erm")
        project.make_maps(noise, precision, context)
        project.make_masks(noise, context)
        bare = classifier.load(erm.spec, erm.read(), on)
        loaded = classifier.load(erm.spec, erm.read(), on)
        own = classifier.for_inference(loaded, dtype(on, params.precision))

        def stages() -> None:
            project.make_originals(noise, precision, context)
            project.make_features(noise, params, context)

        @torch.no_grad()
        def bare_forward(x: torch.Tensor) -> None:
            for _ in range(max(1, 128 // len(x))):
                with autocast(on, params.precision):
                    bare.features(x)

        @torch.no_grad()
        def own_forward(x: torch.Tensor) -> None:
            for _ in range(max(1, 128 // len(x))):
                own.features(x.to(own.dtype))

        sides: dict[str, Callable[[], None]] = {"stages": stages}
        for size in sizes:
            x = torch.randn(size, 3, SIZE, SIZE).to(on).contiguous(memory_format=torch.channels_last)
            sides[f"bare {size}"] = partial(bare_forward, x)
            sides[f"own {size}"] = partial(own_forward, x)
        times = medians(sides, on, repeats)
    rate = (rows * (1 + 2 * draws) + 8) / times["stages"]
    bare_rate, own_rate = _fastest("bare", times, sizes), _fastest("own", times, sizes)
    tell(
        "features",
        on,
        [
            ("network", f"{architecture}, {SIZE} px, {precision}"),
            ("stages originals and features", f"{rate:.0f} views/s"),
            ("bare forward of the network", f"{bare_rate:.0f} images/s"),
            ("bare forward of the folded network", f"{own_rate:.0f} images/s"),
        ],
        ratio=rate / bare_rate,
        ratio_to_own=rate / own_rate,
        views_per_second=rate,
        architecture=architecture,
        precision=precision,
    )


def _fastest(side: str, times: dict[str, float], sizes: tuple[int, ...]) -> float:
    """Images a second with the fastest batch size."""
    return max(max(size, 128) / times[f"{side} {size}"] for size in sizes)


if __name__ == "__main__":
    main()
