import numpy as np
import torch

from pipeline.last_layer import class_scaling
from pipeline.last_layer.heads import Heads
from pipeline.last_layer.method import Cached


def scores(cached: Cached, *shifts: float) -> tuple[float, float]:
    """Worst group and mean on the validation split, with numbers added to ERM's logits."""
    x, label = cached.validation.features.numpy(), cached.validation.label.numpy()
    logits = x @ cached.erm.weight[0, 0].numpy().T + cached.erm.bias[0, 0].numpy() + np.array(shifts)
    correct = logits.argmax(1) == label
    index = cached.validation.grouping.index
    return min(correct[index == g].mean() for g in np.unique(index)), correct.mean()


def scores_of(cached: Cached, heads: Heads) -> tuple[float, float]:
    worst, mean = cached.validation.scores(heads)
    return worst.item(), mean.item()


def test_two_classes_get_the_best_scale_there_is(cached: Cached) -> None:
    found = class_scaling.fit(cached)
    best = max(scores(cached, 0, shift) for shift in np.linspace(-6, 6, 3001))
    assert scores_of(cached, found.heads) == best > scores(cached, 0, 0)


def test_it_is_erm_with_the_scales_that_it_states(cached: Cached) -> None:
    found = class_scaling.fit(cached)
    assert torch.equal(found.heads.weight, cached.erm.weight)
    (scale,) = found.chosen["scale"]  # type: ignore[misc]
    assert scale[0] == 1
    shift = (found.heads.bias - cached.erm.bias)[0, 0]
    np.testing.assert_allclose(shift.exp() / shift[0].exp(), scale, rtol=1e-3)
    probability = cached.erm.logits(cached.validation.features)[0, 0].softmax(1) * torch.tensor(scale)
    logits = found.heads.logits(cached.validation.features)[0, 0]
    assert torch.equal(logits.argmax(1), probability.argmax(1))


def test_three_classes_end_where_no_single_scale_gains(three: Cached) -> None:
    found = class_scaling.fit(three)
    shift = (found.heads.bias - three.erm.bias)[0, 0].double().numpy()
    reached = scores_of(three, found.heads)
    assert reached > scores(three, 0, 0, 0)
    for moved in range(3):
        for by in np.linspace(-4, 4, 401):
            assert scores(three, *(shift + by * np.eye(3)[moved])) <= reached


def test_a_scale_that_gains_nothing_stays(cached: Cached) -> None:
    one = class_scaling.fit(cached)
    again = class_scaling.fit(Cached(**{**vars(cached), "erm": one.heads}))
    assert again.chosen == {"scale": [[1.0, 1.0]]}


def test_candidates_are_between_the_thresholds_the_present_one_first() -> None:
    logits = torch.tensor([[0.0, 1.0], [0.0, -2.0], [3.0, 3.0], [0.0, 1.0]]).double()
    found = class_scaling.candidates(logits, torch.tensor([0.0, 0.75]).double(), 1)
    assert found.tolist() == [0.75, 1.0, -0.5, 3.0, -2.0]  # thresholds -1, 0 and 2
    many = class_scaling.candidates(torch.randn(900, 2).double(), torch.zeros(2).double(), 1)
    assert len(many) == class_scaling.CANDIDATES
