import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from pipeline.errors import MacError
from pipeline.method.masks import coverage, highest, top_k_mask, upsample
from pipeline.method.pixels import pixel_count


def by_sort(scores: np.ndarray, k: int) -> np.ndarray:
    """The definition: a stable sort by falling score; equal scores stay in index order."""
    mask = np.zeros(scores.size, bool)
    mask[np.argsort(-scores.ravel(), kind="stable")[:k]] = True
    return mask.reshape(scores.shape)


@given(st.integers(0, 2**32 - 1), st.integers(1, 48), st.sampled_from([2, 5, 1000]))
def test_top_k_mask_equals_a_stable_sort_with_ties(seed: int, k: int, levels: int) -> None:
    scores = np.random.default_rng(seed).integers(-levels, levels, (3, 6, 8)).astype(np.float32)
    found = top_k_mask(torch.from_numpy(scores), k).numpy()
    np.testing.assert_array_equal(found, np.stack([by_sort(s, k) for s in scores]))
    assert (found.sum((1, 2)) == k).all()


def test_every_map_can_have_its_own_k() -> None:
    scores = np.random.default_rng(0).integers(0, 9, (5, 4, 4)).astype(np.float32)
    pixels = np.array([3, 16, 3, 1, 7])
    found = highest(torch.from_numpy(scores), pixels).numpy()
    for mask, score, k in zip(found, scores, pixels, strict=True):
        assert set(np.flatnonzero(mask)) == set(np.argsort(-score, axis=None, kind="stable")[:k])


def test_top_k_mask_of_a_constant_map_takes_the_first_pixels() -> None:
    mask = top_k_mask(torch.full((1, 4, 4), -3.0), 5)[0].flatten()
    assert mask.tolist() == [True] * 5 + [False] * 11


def test_top_k_mask_keeps_low_pixels_apart_that_rectifying_would_tie() -> None:
    scores = torch.tensor([[[-3.0, -1.0], [-2.0, 5.0]]])
    assert top_k_mask(scores, 2)[0].tolist() == [[False, True], [False, True]]


@pytest.mark.parametrize(("top_k", "expected"), [(15000, 15000), (0.3, 15053), (1e-9, 1), (1, 1)])
def test_pixel_count_takes_pixels_or_a_fraction(top_k: float, expected: int) -> None:
    assert pixel_count(top_k, 224) == expected


@pytest.mark.parametrize("top_k", [0, -1, 1.5, float("nan"), float("inf")])
def test_pixel_count_refuses_what_is_no_number_of_pixels(top_k: float) -> None:
    with pytest.raises(MacError, match="^top_k: .* should be a whole number of pixels, or a fraction in"):
        pixel_count(top_k, 224)


def test_pixel_count_is_at_most_the_grid() -> None:
    assert pixel_count(64 * 64, 64) == 64 * 64
    with pytest.raises(MacError, match="^top_k: 4097 pixels, but the input grid has only 64² = 4096$"):
        pixel_count(64 * 64 + 1, 64)


def test_upsample_agrees_with_bilinear_interpolation_by_hand() -> None:
    row = upsample(torch.tensor([[[0.0, 4.0], [0.0, 4.0]]]), 4)[0, 0]
    assert row.tolist() == [0.0, 1.0, 3.0, 4.0]  # half-pixel centres: align_corners=False


def test_coverage_counts_shares_of_foreground_and_background() -> None:
    mask = torch.tensor([[[True, True], [False, False]]])
    foreground = torch.tensor([[[True, False], [False, False]]])
    inside, outside = coverage(mask, foreground)
    assert inside.tolist() == [1.0]
    assert outside.tolist() == pytest.approx([1 / 3])
