"""K at the knee, against a loop over images and quantiles."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from kneed import KneeLocator
from torch import Tensor, nn

from pipeline.method.knee import FALLBACK, QUANTILES, at_knee, knee_of
from pipeline.method.masks import upsample

SIZE, COUNT, CLASSES = 10, 40, 3


class Toy(nn.Module):
    """Logits are linear in the pixels, which are normalised by 0.5 and 2."""

    def __init__(self) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(0)
        self.weight = torch.randn(3 * SIZE * SIZE, CLASSES, generator=generator) / 4

    def input(self, grid: Tensor) -> Tensor:
        pixels = grid / 255 if grid.dtype == torch.uint8 else grid
        return (pixels - 0.5) * 2

    def forward(self, x: Tensor) -> Tensor:
        return x.flatten(1) @ self.weight


def test_it_equals_a_loop_over_images_and_quantiles() -> None:
    rng, model = np.random.default_rng(0), Toy()
    grid = torch.from_numpy(rng.integers(0, 256, (COUNT, 3, SIZE, SIZE), np.uint8))
    grid[:3] = 0  # their loss is that of any mask
    maps = torch.from_numpy(rng.normal(size=(COUNT, 3, 3)).astype(np.float32))
    target = torch.from_numpy(rng.integers(0, CLASSES, COUNT))
    found = at_knee(model, grid, maps, target)  # type: ignore[arg-type]
    scores = upsample(maps, SIZE).flatten(1).numpy()
    for i in range(COUNT):
        order = np.argsort(-scores[i], kind="stable")
        pixels = grid[i].numpy().reshape(3, -1) / 255
        masks, losses = [], []
        for q in QUANTILES:
            mask = np.isin(np.arange(SIZE * SIZE), order[: round((1 - q) * SIZE * SIZE)])
            seen = np.where(mask, pixels, pixels.mean(1, keepdims=True)).astype(np.float32)
            logits = model((torch.from_numpy(seen)[None] - 0.5) * 2)
            losses.append(F.cross_entropy(logits, target[i : i + 1]).item())
            masks.append(mask)
        knee = None
        if i >= 3:
            located = KneeLocator(QUANTILES, losses, curve="convex", direction="increasing", online=True)
            knee = located.elbow
        assert found.found[i] == (knee is not None)
        q = 0.8 if knee is None else knee
        assert found.quantile[i] == np.float32(q)
        np.testing.assert_array_equal(found.mask[i].flatten(), masks[QUANTILES.index(q)])
    assert found.found[3:].any()
    assert len(set(found.quantile)) > 3


@pytest.mark.parametrize(
    ("losses", "knee"),
    [
        ([0.1, 0.1, 0.1, 0.1, 1.0, 2.0], 0.6),
        ([0.1, 0.1, 0.1, 2.0, 4.0, 6.0], 0.5),
        ([0.5] * 6, None),
        ([1.0, 2.0, 3.0, 4.0, 5.0, 6.0], None),
    ],
)
def test_the_knee_is_where_the_loss_begins_to_rise(losses: list[float], knee: float | None) -> None:
    assert knee_of(np.array(losses)) == knee
    assert FALLBACK in QUANTILES
