import torch

from pipeline.last_layer.heads import Heads
from pipeline.last_layer.scale import Scale
from pipeline.last_layer.views import Views
from tests.cached import originals


def test_a_head_means_the_same_on_raw_and_on_standardised_features(views: Views, start: Heads) -> None:
    scale = Scale.of(views.originals())
    x, scaled = originals(views), originals(scale.views(views))
    width = views.table.width
    assert torch.allclose(scaled.mean(0), torch.zeros(width), atol=1e-6)
    assert torch.allclose(scaled.std(0, correction=0), torch.ones(width), atol=1e-6)
    there = scale.into(start)
    assert torch.allclose(there.logits(scaled), start.logits(x), atol=1e-5)
    assert torch.allclose(scale.out_of(there).weight, start.weight, atol=1e-6)
    assert torch.allclose(scale.out_of(there).bias, start.bias, atol=1e-6)


def test_a_constant_feature_is_left_alone() -> None:
    assert Scale.of([torch.ones(5, 2)]).deviation.tolist() == [1, 1]
