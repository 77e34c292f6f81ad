from dataclasses import replace

import torch

from pipeline.last_layer import llr, mac
from pipeline.last_layer.method import Cached
from pipeline.last_layer.views import class_weights


def test_it_is_mac_without_interventions(cached: Cached) -> None:
    found = llr.fit(cached, "none").heads
    expected = mac.fit(cached.views, cached.validation, cached.erm, cached.params, [0.0], [0.0]).heads
    assert torch.equal(found.weight, expected.weight)
    assert found.bias.shape[0] == 2


def test_classes_weigh_alike_whatever_retraining_does(cached: Cached) -> None:
    weight = class_weights(cached.views.label, 2, "balanced")
    assert not torch.equal(weight, cached.views.weight)
    balanced = replace(cached, views=replace(cached.views, weight=weight))
    assert torch.equal(llr.fit(cached, "balanced").heads.weight, llr.fit(balanced, "balanced").heads.weight)
    assert torch.equal(llr.fit(balanced, "none").heads.weight, llr.fit(cached, "none").heads.weight)
    assert not torch.equal(llr.fit(cached, "balanced").heads.weight, llr.fit(cached, "none").heads.weight)
