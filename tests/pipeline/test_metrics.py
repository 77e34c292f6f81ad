import numpy as np
import pytest
import torch

from pipeline.metrics import Groups, as_dict, group_accuracy, over_seeds, weighted_mean, worst_group

GROUPS = Groups(("landbird", "waterbird"), ("land", "water"))


def test_groups_are_label_times_attributes_plus_attribute() -> None:
    assert GROUPS.names == ["landbird_land", "landbird_water", "waterbird_land", "waterbird_water"]
    assert GROUPS.index(np.array([0, 1, 1]), np.array([1, 0, 1])).tolist() == [1, 2, 3]
    assert GROUPS.count(np.array([0, 1, 1]), np.array([1, 1, 1])).tolist() == [0, 1, 0, 2]


def test_accuracy_of_each_group_against_counting() -> None:
    correct = torch.tensor([[True, False, True, True], [False, False, True, True]])
    group = torch.tensor([0, 0, 1, 3])
    accuracy = group_accuracy(correct, group, 4)
    assert accuracy[0].nan_to_num(nan=-1).tolist() == [0.5, 1.0, -1.0, 1.0]
    assert worst_group(accuracy).tolist() == [0.5, 0.0]  # the empty group does not count


def test_raw_mean_weighs_by_the_split_and_adjusted_mean_by_training() -> None:
    accuracy = torch.tensor([0.5, 1.0], dtype=torch.float64)
    assert weighted_mean(accuracy, torch.tensor([1, 1])) == 0.75
    assert weighted_mean(accuracy, torch.tensor([9, 1])) == 0.55
    assert weighted_mean(torch.tensor([0.5, float("nan")]), torch.tensor([1, 9])) == 0.5


def test_metrics_over_seeds_give_mean_and_sample_deviation() -> None:
    heads = [as_dict(torch.tensor(a, dtype=torch.float64), GROUPS, torch.ones(4), torch.ones(4)) for a in ([0.5, 1, 1, 1], [0.7, 1, 1, 1])]
    merged = over_seeds(heads)
    assert merged["worst_group"] == {"mean": pytest.approx(0.6), "std": pytest.approx(np.std([0.5, 0.7], ddof=1))}
    assert merged["groups"]["landbird_land"]["mean"] == pytest.approx(0.6)  # type: ignore[index]
    assert over_seeds(heads[:1])["worst_group"] == {"mean": 0.5, "std": 0.0}
