"""Make the weights that the demo's backbone starts from: python -m pipeline.demo.pretrain OUT.safetensors

These weights are for the demo what ImageNet weights are for Waterbirds. They are learnt from 40 classes: ten
silhouettes, none of them a bird, each in four textures. The scenes say nothing about the class. This takes
about five minutes on two cores.
"""

import argparse
import logging
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from safetensors.torch import save_file
from torch import Tensor

from pipeline import store
from pipeline.compute import device
from pipeline.compute.progress import log, track
from pipeline.demo import scenes, silhouettes
from pipeline.demo.painting import TEXTURES, Look, paint
from pipeline.machine import usable_cores
from pipeline.network import classifier
from pipeline.network.inputs import random_resized_crop_and_flip

ARCHITECTURE = "shufflenet_v2_x0_5"
SIZE, INPUT_SIZE = 176, 160
LOOK = Look(visibility=(0.65, 1.0), extent=(0.75, 1.0))
IMAGES, EPOCHS, BATCH_SIZE = 6000, 10, 64
PEAK_LR, WEIGHT_DECAY = 6e-3, 0.02  # AdamW, one cycle
CLASSES = len(silhouettes.OTHERS) * len(TEXTURES)
SEED = 7


def paint_image(number: int) -> NDArray[np.uint8]:
    """Image `number`, whose class is `number` modulo CLASSES: (SIZE, SIZE, 3) uint8."""
    rng = np.random.default_rng([SEED, number])
    texture, silhouette = divmod(number % CLASSES, len(silhouettes.OTHERS))
    figure = silhouettes.OTHERS[silhouette]
    image, _ = paint(figure, scenes.collage, TEXTURES[texture], SIZE, LOOK, rng)
    return image


def pretrain(out: Path, on: torch.device) -> None:
    """Train ARCHITECTURE on the painted images, and write its trunk with torchvision's names to `out`."""
    images = _painted()
    label = torch.arange(IMAGES) % CLASSES
    model = classifier.build(ARCHITECTURE, CLASSES, seed=SEED).to(on).train()
    steps = IMAGES // BATCH_SIZE
    optimizer = torch.optim.AdamW(model.parameters(), weight_decay=WEIGHT_DECAY)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, PEAK_LR, total_steps=steps * EPOCHS)
    generator = torch.Generator().manual_seed(SEED)
    for epoch in range(1, EPOCHS + 1):
        order = torch.randperm(IMAGES, generator=generator)
        batches = order[: steps * BATCH_SIZE].split(BATCH_SIZE)
        correct = torch.zeros((), dtype=torch.int64, device=on)
        for rows in track(batches, f"epoch {epoch} of {EPOCHS}", steps, "batches"):
            stored = images[rows].to(on)
            x = model.input(random_resized_crop_and_flip(stored, INPUT_SIZE, (0.7, 1.0), True, generator))
            y = label[rows].to(on)
            with device.autocast(on, "auto"):
                logits = model(x)
            optimizer.zero_grad()
            F.cross_entropy(logits.float(), y).backward()
            optimizer.step()
            schedule.step()
            correct += (logits.argmax(1) == y).sum()
        accuracy = correct.item() / (steps * BATCH_SIZE)
        log.info("epoch %d of %d: accuracy %.3f over %d classes", epoch, EPOCHS, accuracy, CLASSES)
    trunk = {name: tensor.cpu().contiguous() for name, tensor in model.trunk.state_dict().items()}
    with store.replacing(out) as temporary:
        save_file(trunk, temporary)


def _painted() -> Tensor:
    """All images, (IMAGES, SIZE, SIZE, 3) uint8."""
    with ProcessPoolExecutor(usable_cores()) as pool:
        painted = pool.map(paint_image, range(IMAGES), chunksize=100)
        return torch.from_numpy(np.stack(list(track(painted, "painting", IMAGES, "images"))))


if __name__ == "__main__":
    logging.basicConfig(format="%(message)s", level=logging.INFO)
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("out", type=Path)
    parser.add_argument("--device", default="auto")
    arguments = parser.parse_args()
    pretrain(arguments.out, device.pick(arguments.device))
