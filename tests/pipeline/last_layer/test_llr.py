from dataclasses import replace

import numpy as np
import torch

from pipeline.last_layer import llr, mac
from pipeline.last_layer.method import Cached
from pipeline.last_layer.views import class_weights
from pipeline.setting import Setting
from tests.cached import originals, retraining_set


def test_it_is_mac_without_interventions(cached: Cached) -> None:
    found = llr.fit(cached, "none").heads
    expected = mac.fit(cached.views, cached.validation, cached.erm, cached.params, [Setting(0.0, 0.0)]).heads
    assert torch.equal(found.weight, expected.weight)
    assert found.bias.shape[0] == 2


def test_classes_weigh_alike_whatever_retraining_does(cached: Cached) -> None:
    weight = class_weights(cached.views.label, "balanced")
    assert not torch.equal(weight, cached.views.weight)
    balanced = replace(cached, views=replace(cached.views, weight=weight))
    assert torch.equal(llr.fit(cached, "balanced").heads.weight, llr.fit(balanced, "balanced").heads.weight)
    assert torch.equal(llr.fit(balanced, "none").heads.weight, llr.fit(cached, "none").heads.weight)
    assert not torch.equal(llr.fit(cached, "balanced").heads.weight, llr.fit(cached, "none").heads.weight)


def test_training_groups_weigh_alike(cached: Cached) -> None:
    assert cached.group is not None
    keep = cached.group != 1  # a group that no row is in is not waited for
    count = torch.bincount(cached.group[keep])
    weight = torch.tensor([int(keep.sum()) / (3 * int(count[g])) for g in cached.group[keep]])
    x, label = (each[keep].numpy() for each in (originals(cached.views), cached.views.label))
    batch = np.tile(np.arange(len(label)) // 8, (2, 1))
    views = replace(retraining_set(x, label, batch), weight=weight)
    expected = mac.fit(views, cached.validation, cached.erm, cached.params, [Setting(0.0, 0.0)]).heads
    found = llr.fit_groups(replace(cached, views=views, group=cached.group[keep])).heads
    torch.testing.assert_close(found.weight, expected.weight)
    totals = torch.zeros(4).index_add(0, cached.group[keep], weight)
    torch.testing.assert_close(totals[count > 0], torch.full((3,), len(weight) / 3))
