"""Random features on the CPU, as every method of the last layer starts from them."""

import numpy as np
import pytest
import torch

from pipeline.last_layer.heads import Heads
from pipeline.last_layer.held_out_split import HeldOutSplit
from pipeline.last_layer.method import Cached
from pipeline.last_layer.views import Views
from pipeline.method import pairing
from pipeline.metrics import Grouping
from tests.cached import BATCH, FIT, GROUPS, WIDTH, retraining_set, rows

M, D, R, CLASSES = 46, 7, 3, 3  # of `views`; M is no multiple of the batch


@pytest.fixture
def views() -> Views:
    """A retraining set of three classes, with all its views."""
    rng = np.random.default_rng(0)
    label = rng.integers(0, CLASSES, M)
    tables = []
    for shape in ((M, D), (R, M, D), (R, M, D)):
        table = rng.normal(size=shape).astype(np.float32) + label[:, None] * 0.3
        tables.append(table.astype(np.float32))
    batch = np.stack([pairing.draw(label, BATCH, 0, r).batch for r in range(R)])
    return retraining_set(tables[0], label, batch, *tables[1:])


@pytest.fixture
def start(sample) -> Heads:  # type: ignore[no-untyped-def]
    """A head for `views`."""
    return Heads(sample(1, 1, CLASSES, D) - 0.5, sample(1, 1, CLASSES) - 0.5)


@pytest.fixture
def cached() -> Cached:
    """Two classes and two attributes, which agree in 80 % of the rows."""
    x, label, attribute = rows(60, 0)
    features, val_label, val_attribute = rows(80, 1)
    rng = np.random.default_rng(2)
    batch = np.stack([rng.permutation(60) // BATCH for _ in range(2)])
    generator = torch.Generator().manual_seed(0)
    grouping = Grouping("group", list(GROUPS), 2 * val_label + val_attribute)
    return Cached(
        views=retraining_set(x, label, batch),
        group=torch.from_numpy(2 * label + attribute),
        unseen=torch.arange(60) % 3 == 0,
        early={},
        validation=HeldOutSplit(torch.from_numpy(features), torch.from_numpy(val_label), grouping, grouping),
        erm=Heads(torch.randn(1, 1, 2, WIDTH, generator=generator) / 4, torch.zeros(1, 1, 2)),
        erm_labels="none",
        params=FIT,
        l2s=[0.0],
    )


@pytest.fixture
def three(views: Views, start: Heads) -> Cached:
    """Three classes, no attributes, and an ERM that was trained on all rows."""
    rng = np.random.default_rng(3)
    label = rng.integers(0, CLASSES, 50)
    features = rng.normal(size=(50, D)).astype(np.float32) + label[:, None].astype(np.float32) * 0.3
    grouping = Grouping("class", [str(c) for c in range(CLASSES)], label)
    return Cached(
        views=views,
        group=None,
        unseen=torch.zeros(M, dtype=torch.bool),
        early={},
        validation=HeldOutSplit(torch.from_numpy(features), torch.from_numpy(label), grouping, grouping),
        erm=start,
        erm_labels="none",
        params=FIT,
        l2s=[0.0],
    )
