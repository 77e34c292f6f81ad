"""Features: all views through the stage, from images.h5 to features.h5, against bare forward passes of a batch that lies there.

The bare forward is torchvision's network in eval mode, channels-last, under autocast where the precision is bfloat16, with its best
batch size of 16, 32 and 64 (CPU) or 128 and 256 (GPU); `own` is the same for the network as the stage runs it.
"""

import click
import torch

from benchmarks import project
from benchmarks.measure import device_option, medians, precision_option, repeats_option, tell
from pipeline import store
from pipeline.compute.device import autocast, dtype, keep_freed_memory, pick
from pipeline.features import features
from pipeline.network import backbone
from pipeline.saliency import saliency


@click.command(help=__doc__)
@click.option("--architecture", default="resnet50", show_default=True)
@click.option("--rows", default=256, show_default=True, help="Training images; each makes 1 + 2 R views.")
@click.option("--draws", default=4, show_default=True, help="R.")
@precision_option
@device_option
@repeats_option
def main(architecture: str, rows: int, draws: int, precision: str, device: str, repeats: int) -> None:
    on = pick(device)
    keep_freed_memory()
    with project.folder() as folder:
        images, erm_path, masks = folder / "images.h5", folder / "erm", folder / "masks.h5"
        project.write_images(images, rows)
        project.write_erm(erm_path, images, architecture)
        cores, params, _ = project.settle(precision, draws)
        saliency(images, erm_path, masks, cores, on, folder / "scratch")
        erm = store.open_model(erm_path, "erm")
        bare = backbone.load(erm, on)
        own = backbone.for_inference(backbone.load(erm, on), dtype(on, params.precision))
        sizes = (128, 256) if on.type == "cuda" else (16, 32, 64)
        batches = {size: torch.randn(size, 3, 224, 224).to(on).contiguous(memory_format=torch.channels_last) for size in sizes}

        @torch.no_grad()
        def bare_forward(size: int) -> None:
            for _ in range(max(1, 128 // size)):
                with autocast(on, params.precision):
                    bare.features(batches[size])

        @torch.no_grad()
        def own_forward(size: int) -> None:
            for _ in range(max(1, 128 // size)):
                own.features(batches[size].to(own.dtype))

        def stage() -> None:
            features(images, erm_path, masks, folder / "features.h5", params, on, folder / "scratch")

        sides = {"stage": stage}
        sides |= {f"bare {size}": lambda size=size: bare_forward(size) for size in sizes}  # type: ignore[misc]
        sides |= {f"own {size}": lambda size=size: own_forward(size) for size in sizes}  # type: ignore[misc]
        times = medians(sides, on, repeats)
    views = rows * (1 + 2 * draws) + 8
    rate = {"stage": views / times["stage"]}
    rate |= {kind: max(max(size, 128) / times[f"{kind} {size}"] for size in sizes) for kind in ("bare", "own")}
    tell(
        "features",
        on,
        [
            ("network", f"{architecture}, 224 px, {precision}"),
            ("stage, images.h5 to features.h5", f"{rate['stage']:.0f} views/s"),
            ("bare forward of the network", f"{rate['bare']:.0f} images/s"),
            ("bare forward of the folded network", f"{rate['own']:.0f} images/s"),
        ],
        ratio=rate["stage"] / rate["bare"],
        ratio_to_own=rate["stage"] / rate["own"],
        views_per_second=rate["stage"],
        architecture=architecture,
        precision=precision,
    )


if __name__ == "__main__":
    main()
