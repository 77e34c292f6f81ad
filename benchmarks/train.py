"""Measure training: an epoch with reading and augmentation, against bare training steps.

The bare step is of a batch that is on the device already.
"""

import click
import torch
import torch.nn.functional as F

from benchmarks import project
from benchmarks.measure import device_option, medians, precision_option, repeats_option, tell
from benchmarks.project import INPUTS, SIZE
from pipeline import graph
from pipeline.compute.device import autocast, keep_freed_memory, pick
from pipeline.network import classifier
from pipeline.network.training import Training
from pipeline.params.block import Precision


@click.command(help=__doc__)
@click.option("--architecture", default="resnet50", show_default=True)
@click.option("--rows", default=192, show_default=True, help="Training images.")
@precision_option
@device_option
@repeats_option
def main(architecture: str, rows: int, precision: Precision, device: str, repeats: int) -> None:
    on = pick(device)
    keep_freed_memory()
    params = project.training(precision)
    with project.folder() as folder:
        noise = graph.project(folder)
        project.write_images(noise, rows)
        with noise.open("images") as given:
            training = Training(given, project.network(architecture), INPUTS, params, on)
            model = classifier.build(architecture, 2).to(on).train()
            optimizer = torch.optim.SGD(
                model.parameters(), lr=params.lr, momentum=params.momentum, weight_decay=params.weight_decay
            )
            x = torch.randn(params.batch_size, 3, SIZE, SIZE)
            x = x.to(on).contiguous(memory_format=torch.channels_last)
            y = (torch.arange(params.batch_size) % 2).to(on)

            def bare() -> None:
                for _ in range(rows // params.batch_size):
                    with autocast(on, params.precision):
                        logits = model(x)
                    loss = F.cross_entropy(logits.float(), y)
                    optimizer.zero_grad()
                    loss.backward()
                    optimizer.step()

            times = medians({"epoch": training.train_batches, "bare": bare}, on, repeats)
    tell(
        "train",
        on,
        [
            ("network", f"{architecture}, {SIZE} px, {precision}, batches of {params.batch_size}"),
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
