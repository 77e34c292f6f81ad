"""Saliency: maps and masks of n images, against the grad-cam package's XGradCAM and NumPy's argpartition.

Both sides start from the same normalised images on the device. The package computes in float32 only. `stage` is the whole stage,
from images.h5 to masks.h5.
"""

import click
import numpy as np
import torch
from pytorch_grad_cam import XGradCAM
from pytorch_grad_cam.utils.model_targets import ClassifierOutputTarget

from benchmarks import project
from benchmarks.measure import device_option, medians, precision_option, repeats_option, tell
from pipeline import store
from pipeline.compute.device import dtype, forward_batch, keep_freed_memory, pick
from pipeline.method.masks import pixel_count, top_k_mask, upsample
from pipeline.network import backbone
from pipeline.saliency import METHODS, Batch, saliency


@click.command(help=__doc__)
@click.option("--architecture", default="resnet50", show_default=True)
@click.option("--images", "count", default=96, show_default=True)
@click.option("--package-batch", default=32, show_default=True, help="Images that the package takes at once; ours takes as many.")
@precision_option
@device_option
@repeats_option
def main(architecture: str, count: int, package_batch: int, precision: str, device: str, repeats: int) -> None:
    on = pick(device)
    with project.folder() as folder:
        images, erm_path = folder / "images.h5", folder / "erm"
        project.write_images(images, count)
        project.write_erm(erm_path, images, architecture)
        params = project.settle(precision)[0]
        erm = store.open_model(erm_path, "erm")
        k = pixel_count(params.top_k, 224)
        x = torch.randn(count, 3, 224, 224, generator=torch.Generator().manual_seed(0)).to(on).contiguous(memory_format=torch.channels_last)
        label = torch.arange(count) % 2
        fast = backbone.for_inference(backbone.load(erm, on), dtype(on, params.precision))
        model = backbone.load(erm, on).requires_grad_()  # the package wants a graph; this is how its own examples have it

        @torch.no_grad()
        def ours() -> None:
            for part in torch.arange(count).split(forward_batch(on)):
                batch = Batch(part.numpy(), x[part].to(fast.dtype), label[part].to(on), None)
                top_k_mask(upsample(METHODS["xgradcam"](fast, batch, params).cam, 224), k).cpu().numpy()

        def package() -> None:
            with XGradCAM(model, [model.trunk]) as cam:
                for part in torch.arange(count).split(package_batch):
                    maps = cam(x[part], [ClassifierOutputTarget(int(c)) for c in label[part]]).reshape(len(part), -1)
                    mask = np.zeros(maps.shape, bool)
                    np.put_along_axis(mask, np.argpartition(-maps, k, axis=1)[:, :k], True, axis=1)

        def stage() -> None:
            saliency(images, erm_path, folder / "masks.h5", params, on, folder / "scratch")

        times = medians({"package": package}, on, repeats)  # first: as it is where malloc is left alone
        keep_freed_memory()
        times |= medians({"ours": ours, "package, our malloc": package, "stage": stage}, on, repeats)
    tell(
        "saliency",
        on,
        [
            ("network", f"{architecture}, 224 px, {precision}"),
            ("maps and masks", f"{count / times['ours']:.1f} images/s"),
            ("the whole stage", f"{count / times['stage']:.1f} images/s"),
            ("grad-cam XGradCAM and argpartition, float32", f"{count / times['package']:.1f} images/s"),
            ("the same with this project's setting of malloc", f"{count / times['package, our malloc']:.1f} images/s"),
        ],
        ratio=times["package"] / times["ours"],
        stage_ratio=times["package"] / times["stage"],
        images_per_second=count / times["ours"],
        ratio_with_our_malloc=times["package, our malloc"] / times["ours"],
        architecture=architecture,
        precision=precision,
    )


if __name__ == "__main__":
    main()
