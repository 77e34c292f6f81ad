from pathlib import Path

import numpy as np
import pytest
import torch

from pipeline.last_layer.heads import Heads
from pipeline.last_layer.held_out_split import HeldOutSplit
from pipeline.last_layer.method import Cached
from pipeline.results.scores import scores
from tests import cached as made

CPU = torch.device("cpu")


def test_accuracy_is_what_counting_gives(cached: Cached) -> None:
    split = cached.validation
    heads = Heads.joined([cached.erm, Heads(-cached.erm.weight, cached.erm.bias)], axis=1)
    found, (worst, mean) = split.accuracy(heads), split.scores(heads)
    for k in range(2):
        logits = split.features @ heads.weight[0, k].T + heads.bias[0, k]
        correct = (logits.argmax(1) == split.label).numpy()
        by_group = [correct[split.grouping.index == g].mean() for g in range(4)]
        np.testing.assert_allclose(found[0, k], by_group)
        assert worst[0, k] == pytest.approx(min(by_group))
        assert mean[0, k] == pytest.approx(correct.mean())


def test_it_says_the_same_as_what_the_report_is_made_of(cached: Cached) -> None:
    split, heads = cached.validation, cached.erm
    logits = heads.fitted().logits(split.features.numpy())
    told = scores(logits, split.label.numpy(), split.grouping, split.grouping)
    worst, mean = split.scores(heads)
    assert told["worst_group"]["mean"] == worst.item()
    assert told["raw_mean"]["mean"] == mean.item()


def test_the_criterion_chooses_and_groups_are_reported(tmp_path: Path) -> None:
    project = made.write(tmp_path)
    with project.open("features", "erm") as given:
        features, erm = given.file("features"), given.model("erm").head()
        split = HeldOutSplit.to_choose(features, CPU, erm, "error_groups")
        x, label = features["val/original"][:], features["val/label"][:]
    heads = Heads(-Heads.of(erm).weight, Heads.of(erm).bias)
    right, erm_right = ((h.logits(x)[0].argmax(1) == label) for h in (heads.fitted(), erm))
    parts = [right[(label == c) & (erm_right == by)].mean() for c in (0, 1) for by in (False, True)]
    worst, mean = split.scores(heads)
    assert (worst.item(), mean.item()) == (min(parts), pytest.approx(right.mean()))
    assert split.accuracy(heads).shape == (1, 1, len(made.GROUPS))
    assert split.grouping.names == list(made.GROUPS)


def test_a_split_of_the_file_goes_by_class_where_an_attribute_is_unknown(tmp_path: Path) -> None:
    project = made.write(tmp_path, unknown=("val",))
    with project.open("features") as given:
        features = given.file("features")
        val, test = (HeldOutSplit.to_measure(features, split, CPU) for split in ("val", "test"))
        np.testing.assert_array_equal(test.features, features["test/original"][:])
        np.testing.assert_array_equal(val.label, features["val/label"][:])
    assert (val.grouping.kind, val.grouping.names) == ("class", list(made.CLASSES))
    assert (test.grouping.kind, test.grouping.names) == ("group", list(made.GROUPS))


def test_a_head_that_is_not_finite_is_right_about_nothing(cached: Cached) -> None:
    weight, bias = cached.erm.weight.clone(), cached.erm.bias.clone()
    weight[..., 0, 3], bias[..., 0] = torch.nan, torch.inf
    heads = Heads.joined([cached.erm, Heads(weight, cached.erm.bias), Heads(cached.erm.weight, bias)], axis=1)
    right = cached.validation.correct(heads).sum(-1)
    assert right.tolist() == [[int(cached.validation.correct(cached.erm).sum()), 0, 0]]
    assert heads.finite().tolist() == [[True, False, False]]


def test_an_error_group_without_images_is_told(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    project = made.write_signed(tmp_path, erm=1, original=1, masked=1, combined=1)  # ERM is always right
    with project.open("features", "erm") as given:
        erm = given.model("erm").head()
        HeldOutSplit.to_choose(given.file("features"), CPU, erm, "error_groups")
        empty = "landbird_wrong, waterbird_wrong"
        message = f"selection.criterion: no validation image is in {empty}; the others choose"
        assert caplog.messages == [message]
        HeldOutSplit.to_choose(given.file("features"), CPU, erm, "worst_class")
    assert caplog.messages == [message]
