import numpy as np
import pytest

from pipeline.metrics import (
    UNKNOWN,
    Groups,
    as_dict,
    better,
    group_accuracy,
    over_seeds,
    prefer,
    weighted_mean,
    worst_group,
)

GROUPS = Groups(("landbird", "waterbird"), ("land", "water"))


def test_groups_are_label_times_attributes_plus_attribute() -> None:
    assert GROUPS.names == ["landbird_land", "landbird_water", "waterbird_land", "waterbird_water"]
    grouping = GROUPS.grouping(np.array([0, 1, 1]), np.array([1, 0, 1]))
    assert (grouping.kind, grouping.names, grouping.index.tolist()) == ("group", GROUPS.names, [1, 2, 3])
    assert GROUPS.grouping(np.array([0, 1, 1]), np.array([1, 1, 1])).count.tolist() == [0, 1, 0, 2]


def test_one_unknown_attribute_groups_a_split_by_class() -> None:
    grouping = GROUPS.grouping(np.array([0, 1, 1]), np.array([1, UNKNOWN, 1]))
    assert (grouping.kind, grouping.names, grouping.index.tolist()) == (
        "class",
        ["landbird", "waterbird"],
        [0, 1, 1],
    )
    assert Groups(("a", "b"), ()).grouping(np.array([1]), np.array([UNKNOWN])).kind == "class"


def test_a_description_says_the_most_that_is_known_of_each_row() -> None:
    described = GROUPS.described(np.array([0, 1, 1]), np.array([1, UNKNOWN, 1]))
    assert [described.names[g] for g in described.index] == [
        "landbird_water",
        "waterbird_unknown",
        "waterbird_water",
    ]
    assert GROUPS.described(np.array([0]), np.array([0])).names == GROUPS.names
    assert Groups(("a", "b"), ()).described(np.array([1]), np.array([UNKNOWN])).names == ["a", "b"]


def test_means_and_worst_are_named_for_what_is_known() -> None:
    known = GROUPS.grouping(np.array([0, 1]), np.array([0, 1]))
    unknown = GROUPS.grouping(np.array([0, 1]), np.array([0, UNKNOWN]))
    accuracy = np.array([0.5, float("nan"), float("nan"), 1.0])
    assert as_dict(accuracy, known, unknown) == {
        "worst_group": 0.5,
        "raw_mean": 0.75,
        "groups": {"landbird_land": 0.5, "waterbird_water": 1.0},
    }
    assert as_dict(np.array([0.5, 1.0]), unknown, known) == {
        "worst_class": 0.5, "raw_mean": 0.75, "classes": {"landbird": 0.5, "waterbird": 1.0}
    }  # fmt: skip


def test_accuracy_of_each_group_against_counting() -> None:
    correct = np.array([[True, False, True, True], [False, False, True, True]])
    group = np.array([0, 0, 1, 3])
    accuracy = group_accuracy(correct, group, 4)
    assert np.nan_to_num(accuracy[0], nan=-1).tolist() == [0.5, 1.0, -1.0, 1.0]
    assert worst_group(accuracy).tolist() == [0.5, 0.0]  # the empty group does not count


def test_weighted_accuracy_is_the_same_however_many_heads_are_measured_at_once() -> None:
    rng = np.random.default_rng(0)
    correct, group, weight = rng.random((2, 30, 500)) < 0.7, rng.integers(0, 4, 500), rng.random(500)
    correct[1, 3] = True
    found = group_accuracy(correct, group, 5, weight)
    assert found.shape == (2, 30, 5)
    assert np.isnan(found[..., 4]).all()
    assert found[1, 3, :4].tolist() == [1, 1, 1, 1]
    alone = [[group_accuracy(head, group, 5, weight) for head in heads] for heads in correct]
    np.testing.assert_array_equal(found, alone)
    for g in range(4):
        expected = np.average(correct[..., group == g], axis=-1, weights=weight[group == g])
        np.testing.assert_allclose(found[..., g], expected)


def test_a_grouping_measures_its_own_rows() -> None:
    grouping = GROUPS.grouping(np.array([0, 0, 1, 1]), np.array([0, 0, 0, 1]))
    correct = np.array([[True, False, True, True], [False, False, True, False]])
    accuracy = grouping.accuracy(correct)
    np.testing.assert_array_equal(accuracy, group_accuracy(correct, grouping.index, 4))
    worst, mean = grouping.scores(accuracy)
    assert worst.tolist() == [0.5, 0.0]
    assert mean.tolist() == [0.75, 0.25]


def test_the_best_has_the_best_worst_group_then_the_best_mean_then_comes_first() -> None:
    assert prefer([0.5, 0.7, 0.6], [0.9, 0.7, 0.8]) == 1
    assert prefer([0.5, 0.6, 0.6], [0.9, 0.7, 0.8]) == 2
    assert prefer([0.5, 0.6, 0.6], [0.9, 0.8, 0.8]) == 1
    assert prefer([0.5], [0.5]) == 0
    rng = np.random.default_rng(0)
    for _ in range(50):
        worst, mean = rng.integers(0, 3, (2, 7)) / 3
        assert prefer(worst, mean) == max(range(7), key=lambda k: (worst[k], mean[k], -k))


def test_better_compares_element_by_element_and_equal_is_not_better() -> None:
    worst, mean = np.array([0.5, 0.5, 0.5, 0.4]), np.array([0.8, 0.9, 0.7, 1.0])
    assert better(worst, mean, np.float64(0.5), np.float64(0.8)).tolist() == [False, True, False, False]


def test_raw_mean_weighs_by_the_split_and_adjusted_mean_by_training() -> None:
    accuracy = np.array([0.5, 1.0])
    assert weighted_mean(accuracy, np.array([1, 1])) == 0.75
    assert weighted_mean(accuracy, np.array([9, 1])) == 0.55
    assert weighted_mean(np.array([0.5, float("nan")]), np.array([1, 9])) == 0.5


def test_a_mean_without_any_weight_is_not_a_number() -> None:
    assert np.isnan(weighted_mean(np.array([0.5, float("nan")]), np.array([0, 9])))


def test_metrics_over_seeds_give_mean_and_sample_deviation() -> None:
    split = GROUPS.grouping(np.array([0, 0, 1, 1]), np.array([0, 1, 0, 1]))
    heads = [as_dict(np.array(a), split, split) for a in ([0.5, 1, 1, 1], [0.7, 1, 1, 1])]
    merged = over_seeds(heads)
    assert merged["worst_group"] == {
        "mean": pytest.approx(0.6),
        "std": pytest.approx(np.std([0.5, 0.7], ddof=1)),
    }
    assert merged["groups"]["landbird_land"]["mean"] == pytest.approx(0.6)  # type: ignore[index]
    assert over_seeds(heads[:1])["worst_group"] == {"mean": 0.5, "std": 0.0}


def test_without_a_group_of_the_training_split_there_is_no_adjusted_mean() -> None:
    groups = Groups(("a", "b"), ("c", "d"))
    split, training = (groups.grouping(np.array([label]), np.array([label])) for label in (0, 1))
    found = as_dict(np.array([0.5, np.nan, np.nan, np.nan]), split, training)
    assert found == {"worst_group": 0.5, "raw_mean": 0.5, "groups": {"a_c": 0.5}}
