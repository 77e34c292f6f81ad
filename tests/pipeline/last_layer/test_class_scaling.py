from dataclasses import replace

import numpy as np
import pytest
import torch

from pipeline.last_layer import class_scaling
from pipeline.last_layer.heads import Heads
from pipeline.last_layer.held_out_split import HeldOutSplit
from pipeline.last_layer.method import Cached
from pipeline.metrics import Grouping


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
    scale = [float(each) for each in str(found.chosen["scale"]).split(", ")]
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
    assert again.chosen == {"scale": "1, 1"}


def test_candidates_are_between_the_thresholds_the_present_one_first() -> None:
    logits = torch.tensor([[0.0, 1.0], [0.0, -2.0], [3.0, 3.0], [0.0, 1.0]]).double()
    found = class_scaling.candidates(logits, torch.tensor([0.0, 0.75]).double(), 1)
    assert found.tolist() == [0.75, 1.0, -0.5, 3.0, -2.0]  # thresholds -1, 0 and 2
    many = class_scaling.candidates(torch.randn(900, 2).double(), torch.zeros(2).double(), 1)
    assert len(many) == class_scaling.CANDIDATES


@pytest.fixture
def many(cached: Cached) -> Cached:
    """Fourteen classes, whose features are the logits themselves."""
    rng = np.random.default_rng(4)
    label = np.arange(140) % 14
    logits = (rng.normal(size=(140, 14)) + 2 * np.eye(14)[label]).astype(np.float32)
    by_class = Grouping("class", [str(c) for c in range(14)], label)
    split = HeldOutSplit(torch.from_numpy(logits), torch.from_numpy(label), by_class, by_class)
    erm = Heads(torch.eye(14)[None, None], torch.zeros(1, 1, 14))
    return replace(cached, validation=split, erm=erm)


@pytest.mark.parametrize("block", [1, 300, 2**22])
def test_right_and_wrong_are_those_of_the_shifted_logits(
    many: Cached, monkeypatch: pytest.MonkeyPatch, block: int
) -> None:
    monkeypatch.setattr(class_scaling, "BLOCK", block)
    logits, label = many.validation.features.double().round(), many.validation.label  # so there are ties
    searched = [7, 5, 12]
    near, code = class_scaling.rivals(logits, searched)
    assert near.shape == code.shape == (140, 4)
    shift, found = torch.tensor([1.0, 0.0, -1.0, 0.0]).double(), torch.arange(-3, 4).double()
    blocks = [*class_scaling.right(near, code, label, shift, 1, found)]
    expected = []
    for each in found:
        moved = torch.zeros(14).double()
        moved[searched] = torch.tensor([1.0, each, -1.0]).double()
        expected.append(((logits + moved).numpy().argmax(1) == label.numpy()).tolist())
    assert np.concatenate(blocks).tolist() == expected
    assert max(len(each) for each in blocks) == {1: 1, 300: 2, 2**22: 7}[block]


def test_of_many_classes_the_ten_worst_are_scaled(many: Cached) -> None:
    found = class_scaling.fit(many)
    shift = (found.heads.bias - many.erm.bias)[0, 0]
    accuracy = many.validation.criterion.accuracy(many.validation.correct(many.erm))[0, 0]
    best = np.argsort(accuracy, kind="stable")[10:]
    assert not shift[torch.from_numpy(best)].any()
    assert scores_of(many, found.heads) > scores_of(many, many.erm)
    count = int((shift != 0).sum())
    low, high = shift.exp().min(), shift.exp().max()
    assert found.chosen == {"scale": f"{low:.4g} to {high:.4g}, not 1 for {count} of 14 classes"}
