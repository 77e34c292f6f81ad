from pathlib import Path

import numpy as np
import pytest

from pipeline.errors import MacError
from pipeline.method.retraining_set import balanced, draw_rows, rows_to_draw, with_foreground
from pipeline.params.retraining_set import RetrainingSetParams

ALL = RetrainingSetParams(balance="none", seed=0)
TRAINING = np.arange(6)  # rows of images.h5


class Images(dict):  # type: ignore[type-arg]
    """Stands for an images.h5 that is open."""

    path = Path("images.h5")


@pytest.fixture
def images() -> Images:
    known = np.array([1, 0, 1, 1, 1, 0, 1, 1], bool)
    return Images(label=np.arange(8) % 3 // 2, has_foreground=known)


def test_it_is_the_training_split_or_what_of_it_has_true_masks(images: Images) -> None:
    assert draw_rows(images, TRAINING, ALL, known_only=False).tolist() == [0, 1, 2, 3, 4, 5]
    assert draw_rows(images, TRAINING, ALL, known_only=True).tolist() == [0, 2, 3, 4]
    images["has_foreground"][:6] = False
    with pytest.raises(MacError, match="images.h5: no training image has a true mask"):
        draw_rows(images, TRAINING, ALL, known_only=True)


def test_classes_are_balanced_among_what_is_known(images: Images) -> None:
    rows = draw_rows(images, TRAINING, RetrainingSetParams(balance="class", seed=0), known_only=True)
    assert images["label"][rows].tolist().count(1) == 1
    assert len(rows) == 2
    assert images["has_foreground"][rows].all()


def test_where_few_true_masks_are_known_as_many_images_of_each_class_are_taken_as_there_can_be() -> None:
    """100 masks of the one class, 400 of the other: the 400 need not be among 100 that are drawn without."""
    label, known = np.repeat([0, 1], [100, 4000]), np.ones(4100, bool)
    known[100:] = np.arange(4000) % 10 == 3
    images, every = Images(label=label, has_foreground=known), np.arange(4100)
    params = RetrainingSetParams(balance="class", seed=0)
    drawn = draw_rows(images, every, params, known_only=True)
    assert known[drawn].all()
    assert np.bincount(label[drawn]).tolist() == [100, 100]
    others = draw_rows(images, every, params, known_only=False)
    assert np.bincount(label[others]).tolist() == [100, 100]
    assert rows_to_draw(images, every, params).tolist() == sorted({*drawn.tolist(), *others.tolist()})
    assert rows_to_draw(images, every, ALL).tolist() == every.tolist()
    del images["has_foreground"]
    assert rows_to_draw(images, every, params).tolist() == others.tolist()


def test_without_true_masks_no_row_has_one(images: Images) -> None:
    assert with_foreground(images, np.array([1, 2, 5, 7])).tolist() == [2, 7]
    del images["has_foreground"]
    assert with_foreground(images, np.arange(8)).tolist() == []


def test_rows_of_the_smallest_class_are_all_kept_and_the_others_drawn_by_seed() -> None:
    rows, label = np.arange(100, 200), np.repeat([0, 1, 2], [60, 10, 30])
    found = balanced(rows, label, seed=3)
    assert np.bincount(label[found - 100]).tolist() == [10, 10, 10]
    assert set(range(160, 170)) <= set(found.tolist())
    assert (np.diff(found) > 0).all()
    assert np.array_equal(found, balanced(rows, label, seed=3))
    assert not np.array_equal(found, balanced(rows, label, seed=4))
