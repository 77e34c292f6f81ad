from dataclasses import replace

import numpy as np
import pytest
import torch

from pipeline.last_layer import group_dro, llr
from pipeline.last_layer.method import Cached
from tests.cached import fit_params


def test_with_one_group_it_is_plain_retraining(cached: Cached) -> None:
    one = replace(cached, group=torch.zeros(60, dtype=torch.int64))
    plain, robust = llr.fit(one, "none"), group_dro.fit(one)
    torch.testing.assert_close(robust.heads.weight, plain.heads.weight)
    torch.testing.assert_close(robust.heads.bias, plain.heads.bias)


def test_it_is_fitted_by_adam_whatever_the_solver(cached: Cached) -> None:
    solved = replace(cached, params=fit_params(solver="lbfgs"))
    assert torch.equal(group_dro.fit(solved).heads.weight, group_dro.fit(cached).heads.weight)


def test_the_weight_of_a_group_grows_with_its_loss() -> None:
    """Against the update written out for one batch."""
    group = torch.tensor([0, 0, 1, 2])
    loss = torch.tensor([1.0, 3.0, 0.5, 9.0])
    rows = torch.tensor([[0, 1, 2, -1]])
    weights = group_dro.GroupWeights(group, eta=0.1)
    found = weights(loss.view(1, 1, 4, 1), torch.empty(0), torch.ones(1, 1), rows)
    q = np.exp(0.1 * np.array([2.0, 0.5, 0.0]))
    q /= q.sum()
    assert (found.flatten() * loss).sum().item() == pytest.approx(q[0] * 2.0 + q[1] * 0.5)
    assert found.flatten().tolist() == pytest.approx([q[0] / 2, q[0] / 2, q[1], 0.0])
    assert weights.weight is not None
    np.testing.assert_allclose(weights.weight[0, 0].numpy(), q, rtol=1e-6)
