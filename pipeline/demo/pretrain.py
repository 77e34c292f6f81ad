"""Make the weights that the demo's backbone starts from: python -m pipeline.demo.pretrain OUT.safetensors

They stand to the demo as ImageNet weights stand to Waterbirds: learnt from other things (ten silhouettes, none a bird, in
four textures: 40 classes) on scenes that tell nothing about the class. About five minutes on two cores.
"""

import argparse
import logging
import os
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from safetensors.torch import save_file

from pipeline import store
from pipeline.compute import device
from pipeline.compute.progress import log, track
from pipeline.demo import scenes, silhouettes
from pipeline.demo.painting import TEXTURES, paint
from pipeline.network import backbone
from pipeline.network.inputs import normalize, random_resized_crop_and_flip

ARCHITECTURE = "shufflenet_v2_x0_5"
SIZE, INPUT_SIZE = 176, 160
VISIBILITY = (0.65, 1.0)
IMAGES, EPOCHS, BATCH_SIZE = 6000, 10, 64
PEAK_LR, WEIGHT_DECAY = 6e-3, 0.02  # AdamW, one cycle
CLASSES = len(silhouettes.OTHERS) * len(TEXTURES)
SEED = 7


def paint_image(number: int) -> NDArray[np.uint8]:
    """Image `number`, of class `number` modulo CLASSES: (SIZE, SIZE, 3) uint8."""
    rng = np.random.default_rng([SEED, number])
    texture, silhouette = divmod(number % CLASSES, len(silhouettes.OTHERS))
    return paint(silhouettes.OTHERS[silhouette], scenes.collage, TEXTURES[texture], SIZE, VISIBILITY, rng)[0]


def pretrain(out: Path, on: torch.device) -> None:
    """Train ARCHITECTURE on the painted images and write its trunk in torchvision's layout."""
    with ProcessPoolExecutor(os.cpu_count()) as pool:
        painted = track(pool.map(paint_image, range(IMAGES), chunksize=100), "painting", IMAGES, "images")
        images = torch.from_numpy(np.stack(list(painted)))
    label = torch.arange(IMAGES) % CLASSES
    model = backbone.build(ARCHITECTURE, CLASSES, seed=SEED).to(on).train()
    steps = IMAGES // BATCH_SIZE
    optimizer = torch.optim.AdamW(model.parameters(), weight_decay=WEIGHT_DECAY)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, PEAK_LR, total_steps=steps * EPOCHS)
    generator = torch.Generator().manual_seed(SEED)
    for epoch in range(EPOCHS):
        order = torch.randperm(IMAGES, generator=generator)
        correct = torch.zeros((), dtype=torch.int64, device=on)
        for rows in track(order[: steps * BATCH_SIZE].split(BATCH_SIZE), f"epoch {epoch + 1} of {EPOCHS}", steps, "batches"):
            x = normalize(random_resized_crop_and_flip(images[rows].to(on), INPUT_SIZE, (0.7, 1.0), True, generator))
            y = label[rows].to(on)
            with device.autocast(on, "auto"):
                logits = model(x)
            optimizer.zero_grad()
            F.cross_entropy(logits.float(), y).backward()
            optimizer.step()
            schedule.step()
            correct += (logits.argmax(1) == y).sum()
        log.info("epoch %d of %d: accuracy %.3f over %d classes", epoch + 1, EPOCHS, correct.item() / (steps * BATCH_SIZE), CLASSES)
    with store.replacing(out) as temporary:
        save_file({name: tensor.cpu().contiguous() for name, tensor in model.trunk.state_dict().items()}, temporary)


if __name__ == "__main__":
    logging.basicConfig(format="%(message)s", level=logging.INFO)
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=Path)
    parser.add_argument("--device", default="auto")
    arguments = parser.parse_args()
    pretrain(arguments.out, device.pick(arguments.device))
