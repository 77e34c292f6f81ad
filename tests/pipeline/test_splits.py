import numpy as np
import pytest

from pipeline.splits import draw_splits, sort_names, unseen_by_erm

KEYS = ["b"] * 20 + ["a"] * 40 + ["c"] * 2


def test_every_key_gives_its_share_to_every_split() -> None:
    drawn = np.array(draw_splits(KEYS, [0.2, 0.1], 0))
    counts = [np.bincount(drawn[[key == each for each in KEYS]], minlength=3).tolist() for key in ("a", "b")]
    assert counts == [[28, 8, 4], [14, 4, 2]]
    assert draw_splits(KEYS, [0.2, 0.1], 0) == drawn.tolist()
    assert draw_splits(KEYS, [0.2, 0.1], 1) != drawn.tolist()


def test_a_key_with_rows_enough_is_in_every_split() -> None:
    assert sorted(draw_splits(["a"] * 3, [0.01, 0.01], 0)) == [0, 1, 2]
    assert draw_splits(["a"] * 2, [0.01, 0.01], 0) == [0, 0]


def test_a_key_s_draw_does_not_depend_on_the_other_rows() -> None:
    mixed = ["a" if row % 2 else "z" for row in range(40)]
    alone = draw_splits(["a"] * 20, [0.3], 7)
    assert draw_splits(mixed, [0.3], 7)[1::2] == alone


@pytest.mark.parametrize(
    ("names", "expected"),
    [(["10", "9", "9"], ("9", "10")), (["b", "10", "9"], ("10", "9", "b")), (["07", "7"], ("07", "7"))],
)
def test_names_are_sorted_by_size_if_all_are_whole_numbers(
    names: list[str], expected: tuple[str, ...]
) -> None:
    assert sort_names(names) == expected


def test_the_same_share_of_each_class_is_kept_from_erm() -> None:
    label = np.array([0] * 30 + [1] * 10)
    assert not unseen_by_erm(label, 0, 0).any()
    kept_back = unseen_by_erm(label, 0.2, 3)
    assert kept_back.dtype == np.bool_
    assert [kept_back[label == c].sum() for c in (0, 1)] == [6, 2]
    assert np.array_equal(kept_back, unseen_by_erm(label, 0.2, 3))
    assert not np.array_equal(kept_back, unseen_by_erm(label, 0.2, 4))
