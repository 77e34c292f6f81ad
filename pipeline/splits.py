"""Seeded draws of rows: for splits that are not published, and for the images that ERM does not see."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray


def draw_splits(keys: Sequence[str], fractions: Sequence[float], seed: int) -> list[int]:
    """Draw disjoint splits; each gets the same share of the rows of every key.

    The draw for a key depends only on the seed, its place among the sorted keys, and its number of rows. A
    key that has more rows than there are fractions has at least one row in every split.

    Args:
        keys: the key of each row, such as its class.
        fractions: the share of each split, in [0, 1].

    Returns:
        For each row the number of its split: i + 1 for `fractions[i]`, or 0 if it is in none of them.
    """
    splits = np.zeros(len(keys), np.int64)
    array = np.array(keys)
    for number, key in enumerate(sort_names(keys)):
        rows = np.random.default_rng([seed, number]).permutation(np.flatnonzero(array == key))
        at_least = int(len(rows) > len(fractions))
        start = 0
        for split, fraction in enumerate(fractions, 1):
            stop = start + max(round(fraction * len(rows)), at_least)
            splits[rows[start:stop]] = split
            start = stop
    return [int(split) for split in splits]


def sort_names(names: Sequence[str]) -> tuple[str, ...]:
    """The distinct names, sorted: by value if all are whole numbers, else alphabetically."""
    distinct = set(names)
    if all(name.isdecimal() for name in distinct):
        return tuple(sorted(distinct, key=lambda name: (int(name), name)))
    return tuple(sorted(distinct))


def unseen_by_erm(label: NDArray[np.integer], fraction: float, seed: int) -> NDArray[np.bool_]:
    """Which training images ERM does not see: a seeded `fraction` of each class.

    Args:
        label: (M,) classes of the training images.

    Returns:
        (M,) bool.
    """
    if fraction == 0:
        return np.zeros(len(label), np.bool_)
    return np.array(draw_splits([str(c) for c in label], [fraction], seed), np.bool_)
