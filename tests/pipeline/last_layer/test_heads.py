import numpy as np
import torch

from pipeline.last_layer.heads import Heads
from pipeline.store import FittedHeads


def test_heads_go_to_numpy_and_back() -> None:
    rng = np.random.default_rng(0)
    fitted = FittedHeads(rng.random((2, 3, 5), np.float32), rng.random((2, 3), np.float32))
    heads = Heads.of(fitted)
    assert heads.weight.shape == (2, 1, 3, 5)
    assert heads.bias.shape == (2, 1, 3)
    again = heads.fitted()
    np.testing.assert_array_equal(again.weight, fitted.weight)
    np.testing.assert_array_equal(again.bias, fitted.bias)
    x = rng.random((7, 5), np.float32)
    np.testing.assert_allclose(heads.logits(torch.from_numpy(x))[:, 0], fitted.logits(x), rtol=1e-5)


def test_one_setting_is_taken_from_many() -> None:
    heads = Heads(torch.arange(24.0).view(2, 3, 2, 2), torch.arange(12.0).view(2, 3, 2))
    assert torch.equal(heads.of_setting(1).weight, heads.weight[:, 1:2])
    np.testing.assert_array_equal(heads.fitted(2).bias, heads.bias[:, 2])
    joined = Heads.joined([heads.of_setting(k) for k in range(3)], axis=1)
    assert torch.equal(joined.weight, heads.weight)
    assert torch.equal(joined.bias, heads.bias)


def test_the_mean_is_of_heads_that_follow_each_other() -> None:
    heads = Heads(torch.arange(4.0).view(4, 1, 1, 1), torch.arange(4.0).view(4, 1, 1))
    assert heads.averaged(2).weight.flatten().tolist() == [0.5, 2.5]
    assert heads.averaged(1).bias.flatten().tolist() == [0, 1, 2, 3]
