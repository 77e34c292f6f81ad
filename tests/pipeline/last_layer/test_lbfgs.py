from dataclasses import replace

import numpy as np
import pytest
import torch
from sklearn.linear_model import LogisticRegression

from pipeline.last_layer import lbfgs
from pipeline.last_layer.lbfgs import fit_lbfgs
from pipeline.last_layer.table import Resident
from pipeline.last_layer.views import Views
from tests.cached import interventions, originals


@pytest.mark.parametrize(("share", "block"), [(1, 1 << 20), (0.4, 1 << 20), (0.4, 200)])
def test_it_equals_scikit_learn(
    views: Views, monkeypatch: pytest.MonkeyPatch, share: float, block: int
) -> None:
    """Also if some rows alone are masked and combined: as if the others had no such views.

    And if there are many blocks.
    """
    monkeypatch.setattr(lbfgs, "BLOCK", block)
    l2, alpha, beta = 0.02, 2.0, 3.0
    draws, count = views.order.shape
    among = np.random.default_rng(4).random(count) < share
    views = replace(views, intervention_weight=torch.from_numpy(among / among.mean()).float())
    found, loss = fit_lbfgs(views, alpha, beta, 3, l2)
    x = np.concatenate([originals(views), *interventions(views)[:, :, among].flatten(1, 2)])
    y = np.concatenate([views.label, np.tile(views.label[among], 2 * draws)])
    many = draws * among.sum()
    each = [np.full(count, 1 / count), np.full(many, alpha / many), np.full(many, beta / many)]
    # scikit-learn minimises C Σ weight · CE + ½ Σ W²
    model = LogisticRegression(C=1 / (2 * l2), tol=1e-7, max_iter=5000, solver="newton-cg")
    expected = model.fit(x, y, sample_weight=np.concatenate(each))
    np.testing.assert_allclose(found.weight[0, 0], expected.coef_, atol=2e-4)
    # Softmax leaves a common shift of the biases free.
    shift = found.bias[0, 0] - torch.from_numpy(expected.intercept_)
    assert (shift - shift.mean()).abs().max() < 5e-4
    assert loss > 0


def test_without_interventions_it_needs_none(views: Views) -> None:
    alone = replace(views, table=Resident(originals(views)))
    found, loss = fit_lbfgs(alone, 0.0, 0.0, 3, 0.02)
    expected, expected_loss = fit_lbfgs(views, 0.0, 0.0, 3, 0.02)
    assert torch.equal(found.weight, expected.weight)
    assert loss == expected_loss
