"""Measure saliency: maps and masks of n images, against the grad-cam package and NumPy's argpartition.

Both sides start from the same normalised images on the device. The package computes in float32 only.
`stages` is both stages, from images.h5 to masks.h5.
"""

import click
import numpy as np
import torch
from pytorch_grad_cam import XGradCAM
from pytorch_grad_cam.utils.model_targets import ClassifierOutputTarget

from benchmarks import project
from benchmarks.measure import device_option, medians, precision_option, repeats_option, tell
from benchmarks.project import MASKS, SIZE
from pipeline import graph
from pipeline.compute.context import Context
from pipeline.compute.device import dtype, forward_batch, keep_freed_memory, pick
from pipeline.method.maps import MAPS, Batch
from pipeline.method.masks import top_k_mask, upsample
from pipeline.method.pixels import pixel_count
from pipeline.network import classifier
from pipeline.params.block import Precision


@click.command(help=__doc__)
@click.option("--architecture", default="resnet50", show_default=True)
@click.option("--images", "count", default=96, show_default=True, help="Number of images.")
@click.option(
    "--package-batch", default=32, show_default=True, help="How many images the package takes at once."
)
@precision_option
@device_option
@repeats_option
def main(
    architecture: str, count: int, package_batch: int, precision: Precision, device: str, repeats: int
) -> None:
    on = pick(device)
    params = project.masking(precision)
    with project.folder() as folder:
        noise = graph.project(folder)
        project.write_images(noise, count)
        project.write_erm(noise, architecture)
        context = Context(str(on), folder / "scratch")
        with noise.open("erm") as given:
            erm = given.model("erm")
        k = pixel_count(MASKS.top_k, SIZE)
        x = torch.randn(count, 3, SIZE, SIZE, generator=torch.Generator().manual_seed(0))
        x = x.to(on).contiguous(memory_format=torch.channels_last)
        label = torch.arange(count) % 2
        loaded = classifier.load(erm.spec, erm.read(), on)
        fast = classifier.for_inference(loaded, dtype(on, params.precision))
        # The package wants a graph, and its own examples take it from the parameters.
        model = classifier.load(erm.spec, erm.read(), on).requires_grad_()

        @torch.no_grad()
        def ours() -> None:
            for rows in torch.arange(count).split(forward_batch(on)):
                batch = Batch(x[rows].to(fast.dtype), label[rows].to(on))
                cam = MAPS["xgradcam"](fast, batch, params).cam
                top_k_mask(upsample(cam, SIZE), k).cpu().numpy()

        def package() -> None:
            with XGradCAM(model, [model.trunk]) as cam:
                for rows in torch.arange(count).split(package_batch):
                    targets = [ClassifierOutputTarget(int(c)) for c in label[rows]]
                    maps = cam(x[rows], targets).reshape(len(rows), -1)
                    mask = np.zeros(maps.shape, bool)
                    np.put_along_axis(mask, np.argpartition(-maps, k, axis=1)[:, :k], True, axis=1)

        def stages() -> None:
            project.make_maps(noise, precision, context)
            project.make_masks(noise, context)

        times = medians({"package": package}, on, repeats)  # first: malloc is as it is by default
        keep_freed_memory()
        sides = {"ours": ours, "package, our malloc": package, "stages": stages}
        times |= medians(sides, on, repeats)
    tell(
        "saliency",
        on,
        [
            ("network", f"{architecture}, {SIZE} px, {precision}"),
            ("maps and masks", f"{count / times['ours']:.1f} images/s"),
            ("the stages saliency and masks", f"{count / times['stages']:.1f} images/s"),
            ("grad-cam XGradCAM and argpartition, float32", f"{count / times['package']:.1f} images/s"),
            (
                "the same with this project's setting of malloc",
                f"{count / times['package, our malloc']:.1f} images/s",
            ),
        ],
        ratio=times["package"] / times["ours"],
        stages_ratio=times["package"] / times["stages"],
        images_per_second=count / times["ours"],
        ratio_with_our_malloc=times["package, our malloc"] / times["ours"],
        architecture=architecture,
        precision=precision,
    )


if __name__ == "__main__":
    main()
