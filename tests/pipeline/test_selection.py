"""The criteria on logits whose groups are known: what each recovers without reading them."""

from typing import get_args

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from scipy.special import softmax

from pipeline.errors import MacError
from pipeline.metrics import UNKNOWN, Groups, seen, seen_by_erm
from pipeline.params.selection import Criterion
from pipeline.selection import criterion, criterion_of, environment, resolved, soft_weight

GROUPS = Groups(("landbird", "waterbird"), ("land", "water"))
NO_ATTRIBUTES = Groups(("landbird", "waterbird"), ())
# Each class has 190 images on its own background, of whose label ERM is sure, and 10 on the other one.
LABEL = np.repeat([0, 1], 200)
MINORITY = np.tile(np.arange(200) >= 190, 2)
ATTRIBUTE = np.where(MINORITY, 1 - LABEL, LABEL)
ERASED = np.full_like(LABEL, UNKNOWN)


def logits_of(probability: NDArray[np.float64], label: NDArray[np.int64] = LABEL) -> NDArray[np.float64]:
    """Logits (N, 2) with this probability of each label."""
    of_label = np.log(probability / (1 - probability))
    return np.stack([np.where(label == c, of_label, 0) for c in (0, 1)], 1) - 3.0  # the same for both


ERM = logits_of(np.where(MINORITY, 0.1, 0.95))


def test_soft_errors_are_right_about_the_mix_of_groups_on_average() -> None:
    """Many heads with known accuracies in each group: the mean of what is measured is the analytic mix."""
    accuracy = {("landbird", False): 0.9, ("landbird", True): 0.6}
    accuracy |= {("waterbird", False): 0.8, ("waterbird", True): 0.3}
    rate = np.empty(len(LABEL))
    for (name, minority), each in accuracy.items():
        rate[(GROUPS.classes.index(name) == LABEL) & (minority == MINORITY)] = each
    correct = np.random.default_rng(0).random((20000, len(LABEL))) < rate
    found = criterion("soft_errors", GROUPS, LABEL, ERASED, ERM)
    assert (found.kind, found.names) == ("weighted class", list(GROUPS.classes))
    major, minor = 190 * np.exp(-4 * 0.95), 10 * np.exp(-4 * 0.1)
    expected = []
    for name in GROUPS.classes:
        share = minor / (major + minor)
        expected.append((1 - share) * accuracy[name, False] + share * accuracy[name, True])
    assert share == pytest.approx(0.61, abs=0.01)  # of 5 % of the images
    measured = found.accuracy(correct)
    np.testing.assert_allclose(measured.mean(0), expected, atol=4 * 0.15 / np.sqrt(20000))
    np.testing.assert_allclose(found.scores(np.array(expected))[1], np.mean(expected))


def test_weights_are_as_afr_has_them_and_sums_of_them_are_exact() -> None:
    rng = np.random.default_rng(0)
    logits, label = rng.normal(size=(1000, 5)) * 4, rng.integers(0, 5, 1000)
    weight = soft_weight(label, logits)
    expected = np.exp(-4 * softmax(logits, 1)[np.arange(1000), label])
    np.testing.assert_allclose(weight, expected, atol=2.0**-33)
    orders = [rng.permutation(1000) for _ in range(20)]
    assert len({float(np.cumsum(weight[order])[-1]) for order in orders}) == 1


def test_where_erm_separates_the_groups_its_errors_are_the_groups() -> None:
    correct = np.random.default_rng(1).random((50, len(LABEL))) < 0.7
    known = GROUPS.grouping(LABEL, ATTRIBUTE)
    by_group = known.accuracy(correct)
    cases: list[tuple[Criterion, list[str]]] = [
        ("error_groups", ["landbird_wrong", "landbird_right", "waterbird_wrong", "waterbird_right"]),
        ("eiil", ["landbird_1", "landbird_2", "waterbird_1", "waterbird_2"]),
    ]
    for name, names in cases:
        found = criterion(name, GROUPS, LABEL, ERASED, ERM)
        assert found.names == names
        for measured, expected in zip(found.accuracy(correct), by_group, strict=True):
            assert sorted(measured[:2]) == sorted(expected[:2])
            assert sorted(measured[2:]) == sorted(expected[2:])
        worst, mean = found.scores(found.accuracy(correct))
        np.testing.assert_array_equal(worst, known.scores(by_group)[0])
        np.testing.assert_allclose(mean, correct.mean(1))


def test_no_soft_assignment_violates_invariance_more_than_the_environments() -> None:
    rng = np.random.default_rng(2)
    logits, label = rng.normal(size=(60, 3)) * 2, rng.integers(0, 3, 60)

    def penalty(assigned: NDArray[np.float64]) -> float:
        """EIIL's: the squared gradient, at a scale of 1, of the loss of each environment; by autograd."""
        total = 0.0
        for weight in (assigned, 1 - assigned):
            scale = torch.ones((), dtype=torch.float64, requires_grad=True)
            each = torch.nn.functional.cross_entropy(
                scale * torch.from_numpy(logits), torch.from_numpy(label), reduction="none"
            )
            (slope,) = torch.autograd.grad((torch.from_numpy(weight) * each).mean(), scale)
            total += slope.item() ** 2
        return total

    best = penalty(environment(label, logits).astype(np.float64))
    soft = [penalty(rng.random(60)) for _ in range(200)]
    hard = [penalty(rng.integers(0, 2, 60).astype(np.float64)) for _ in range(200)]
    near = environment(label, logits).astype(np.float64)
    near[rng.integers(60)] = 0.5
    assert best > max(*soft, *hard, penalty(near))


def test_with_two_classes_the_environments_are_the_errors() -> None:
    rng = np.random.default_rng(3)
    two, three = rng.normal(size=(500, 2)) * 3, rng.normal(size=(500, 3)) * 3
    label = rng.integers(0, 2, 500)
    np.testing.assert_array_equal(environment(label, two) == 1, two.argmax(1) != label)
    slope, wrong = environment(label, three) == 1, three.argmax(1) != label
    assert not (slope & ~wrong).any()
    assert (wrong & ~slope).any()  # the label is a close second


def test_classes_and_groups_are_those_of_the_split() -> None:
    assert criterion("worst_class", GROUPS, LABEL, ERASED, ERM).index.tolist() == LABEL.tolist()
    known = criterion("groups", GROUPS, LABEL, ATTRIBUTE, ERM)
    assert (known.names, known.index.tolist()) == (GROUPS.names, (2 * LABEL + ATTRIBUTE).tolist())


def test_auto_takes_groups_where_all_are_known() -> None:
    one_unknown = ATTRIBUTE.copy()
    one_unknown[7] = UNKNOWN
    assert resolved("auto", GROUPS, ATTRIBUTE) == "groups"
    assert resolved("auto", GROUPS, one_unknown) == "soft_errors"
    assert resolved("auto", NO_ATTRIBUTES, ATTRIBUTE) == "soft_errors"
    with pytest.raises(MacError, match=r"selection.criterion: groups needs .* 1 of 400 are unknown; set it"):
        resolved("groups", GROUPS, one_unknown)
    with pytest.raises(MacError, match="400 of 400 are unknown"):
        resolved("groups", NO_ATTRIBUTES, ATTRIBUTE)


@pytest.mark.parametrize("name", get_args(Criterion))
def test_a_grouping_tells_its_criterion_and_only_groups_read_attributes(name: Criterion) -> None:
    found = criterion(name, GROUPS, LABEL, ATTRIBUTE, ERM)
    assert criterion_of(found) == name
    if name != "groups":
        erased = criterion(name, GROUPS, LABEL, ERASED, ERM)
        np.testing.assert_array_equal(found.index, erased.index)
        assert resolved(name, GROUPS, ATTRIBUTE) == name
    assert seen("validation, to choose", name) == ("validation, to choose" if name == "groups" else "none")


def test_labels_seen_are_those_of_the_criterion_and_of_erm() -> None:
    assert seen("validation, to train", "soft_errors") == "validation, to train"
    assert seen("none", "groups") == "none"
    assert (
        seen("validation, to choose", "soft_errors", erm="validation, to choose") == "validation, to choose"
    )
    assert seen_by_erm("best", "groups") == "validation, to choose"
    assert seen_by_erm("last", "groups") == "none"
    assert seen_by_erm("best", "eiil") == "none"
