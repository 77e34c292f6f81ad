import numpy as np
import torch
from sklearn.linear_model import LogisticRegression

from pipeline.last_layer.lbfgs import fit_lbfgs
from pipeline.last_layer.views import Views


def test_it_equals_scikit_learn(views: Views) -> None:
    l2, alpha, beta = 0.02, 2.0, 3.0
    draws, count = views.batch.shape
    found, loss = fit_lbfgs(views, alpha, beta, 3, l2)
    x = np.concatenate([views.original, *views.interventions.flatten(1, 2)])
    y = np.tile(views.label, 1 + 2 * draws)
    many = draws * count
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
    alone = Views(views.original, views.label, views.batch, views.weight)
    found, loss = fit_lbfgs(alone, 0.0, 0.0, 3, 0.02)
    expected, expected_loss = fit_lbfgs(views, 0.0, 0.0, 3, 0.02)
    assert torch.equal(found.weight, expected.weight)
    assert loss == expected_loss
