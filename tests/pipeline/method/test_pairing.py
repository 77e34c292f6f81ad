import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from pipeline.errors import MacError
from pipeline.method import pairing

several = st.lists(st.integers(0, 2), min_size=2, max_size=60).filter(lambda labels: len(set(labels)) > 1)


@given(several, st.integers(2, 9))
def test_a_draw_cuts_all_rows_into_batches_and_pairs_across_labels(
    labels: list[int], batch_size: int
) -> None:
    y = np.array(labels)
    draw = pairing.draw(y, batch_size, seed=3, r=1)
    sizes = np.bincount(draw.batch)
    assert sizes.sum() == len(y)
    assert (sizes[:-1] == batch_size).all()
    assert (y[draw.partner] != y).all()
    for i, j in enumerate(draw.partner):
        has_other = (y[draw.batch == draw.batch[i]] != y[i]).any()
        assert not has_other or draw.batch[j] == draw.batch[i]


def test_partners_are_uniform_over_the_candidates() -> None:
    y = np.array([0, 1, 1, 1])
    partners = [pairing.draw(y, 4, seed=0, r=r).partner[0] for r in range(3000)]
    assert np.abs(np.bincount(partners)[1:] / 3000 - 1 / 3).max() < 0.04


def test_a_draw_depends_on_seed_and_number_alone() -> None:
    y = np.arange(50) % 2
    first, again, other = (pairing.draw(y, 8, 0, r) for r in (2, 2, 3))
    assert (first.batch == again.batch).all()
    assert (first.partner == again.partner).all()
    assert (first.batch != other.batch).any()


def test_the_draws_of_the_retraining_set_are_those_of_its_seed_and_number() -> None:
    """They are in every features.h5: another stream, or a change of the code, must not move them."""
    y = np.array([0, 0, 0, 1, 1, 2, 0])
    draw = pairing.draw(y, 3, seed=5, r=2)
    assert draw.batch.tolist() == [0, 1, 1, 1, 0, 0, 2]
    assert draw.partner.tolist() == [5, 3, 3, 2, 0, 0, 4]
    assert pairing.batches(7, 3, seed=5, r=2, stream=0).tolist() == draw.batch.tolist()
    assert pairing.batches(7, 3, seed=5, r=2, stream=1).tolist() != draw.batch.tolist()


@given(
    st.lists(st.integers(0, 3), min_size=1, max_size=20), st.permutations([0, 0, 1, 2, 2, 3]), st.booleans()
)
def test_a_partner_among_others_is_of_the_wanted_kind(
    labels: list[int], theirs: list[int], same_class: bool
) -> None:
    own, others = np.array(labels), np.array(theirs)
    partner = pairing.partners(own, others, seed=3, r=1, stream=2, same_class=same_class)
    assert partner.dtype == np.int32
    assert ((others[partner] == own) == same_class).all()


@pytest.mark.parametrize(
    ("label", "same_class", "wanted"),
    [(0, True, [0, 2, 5]), (0, False, [1, 3, 4]), (1, False, [0, 2, 3, 5]), (9, False, [0, 1, 2, 3, 4, 5])],
)
def test_partners_among_others_are_uniform_and_differ_by_draw_and_stream(
    label: int, same_class: bool, wanted: list[int]
) -> None:
    own, others = np.full(3000, label), np.array([0, 1, 0, 2, 1, 0])
    draws = [(0, 2), (1, 2), (0, 3)]
    found = [pairing.partners(own, others, 0, r, stream, same_class) for r, stream in draws]
    for each in found:
        share = np.bincount(each, minlength=6) / 3000
        assert np.abs(share - np.isin(np.arange(6), wanted) / len(wanted)).max() < 0.04
    assert (found[0] != found[1]).any()
    assert (found[0] != found[2]).any()
    assert (found[0] == pairing.partners(own, others, 0, 0, 2, same_class)).all()


def test_one_class_alone_cannot_be_paired() -> None:
    with pytest.raises(MacError, match="same label"):
        pairing.draw(np.zeros(4, int), 2, 0, 0)


def test_fill_is_the_mean_over_the_batch() -> None:
    mean = np.random.default_rng(0).random((5, 3)).astype(np.float32)
    batch = np.array([0, 1, 0, 1, 1], np.int32)
    fill = pairing.fills(mean, batch)
    np.testing.assert_allclose(fill[0], mean[[0, 2]].mean(0), rtol=1e-6)
    np.testing.assert_allclose(fill[4], mean[[1, 3, 4]].mean(0), rtol=1e-6)
    assert fill.dtype == np.float32


@pytest.mark.parametrize("side", [3, 64, 300])
def test_channel_means_are_exact_whatever_the_layout(side: int) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (3, side, side, 3), dtype=np.uint8)
    pixels[0] = 255
    total = pixels.sum((1, 2), dtype=np.uint64)
    expected = (total / (255 * side * side)).astype(np.float32)
    grid = torch.from_numpy(pixels).permute(0, 3, 1, 2)
    np.testing.assert_array_equal(pairing.channel_mean(grid), expected)
    np.testing.assert_array_equal(pairing.channel_mean(grid.contiguous()), expected)
    assert expected[0].tolist() == [1, 1, 1]
