"""Training: an epoch with reading and augmentation, against the bare training step on a batch that lies on the device."""

import click
import torch
import torch.nn.functional as F

from benchmarks import project
from benchmarks.measure import device_option, medians, precision_option, repeats_option, tell
from pipeline import store
from pipeline.compute.device import autocast, keep_freed_memory, pick
from pipeline.network import backbone
from pipeline.network.training import Run
from pipeline.params import ModelParams


@click.command(help=__doc__)
@click.option("--architecture", default="resnet50", show_default=True)
@click.option("--rows", default=192, show_default=True, help="Training images.")
@precision_option
@device_option
@repeats_option
def main(architecture: str, rows: int, precision: str, device: str, repeats: int) -> None:
    on = pick(device)
    keep_freed_memory()
    params = project.settle(precision)[2]
    with project.folder() as folder:
        project.write_images(folder / "images.h5", rows)
        with store.open_artefact(folder / "images.h5", "images") as images:
            run = Run(images, ModelParams(architecture=architecture, weights="none"), params, on)
            model = backbone.build(architecture, 2).to(on).train()
            optimizer = torch.optim.SGD(model.parameters(), lr=params.lr, momentum=params.momentum, weight_decay=params.weight_decay)
            x = torch.randn(params.batch_size, 3, 224, 224).to(on).contiguous(memory_format=torch.channels_last)
            y = (torch.arange(params.batch_size) % 2).to(on)

            def bare() -> None:
                for _ in range(rows // params.batch_size):
                    with autocast(on, params.precision):
                        logits = model(x)
                    loss = F.cross_entropy(logits.float(), y)
                    optimizer.zero_grad()
                    loss.backward()
                    optimizer.step()

            times = medians({"epoch": run.train_batches, "bare": bare}, on, repeats)
    tell(
        "train",
        on,
        [
            ("network", f"{architecture}, 224 px, {precision}, batches of {params.batch_size}"),
            ("an epoch, images.h5 to weights", f"{rows / times['epoch']:.1f} images/s"),
            ("bare training step", f"{rows / times['bare']:.1f} images/s"),
        ],
        ratio=times["bare"] / times["epoch"],
        images_per_second=rows / times["epoch"],
        architecture=architecture,
        precision=precision,
    )


if __name__ == "__main__":
    main()
