"""Seeded parts of a dataset: a validation split where none is published, training images that ERM does not see."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray


def draw_parts(keys: Sequence[str], fractions: Sequence[float], seed: int) -> list[int]:
    """Draw seeded parts within the rows of each key: 0 for what is left, i + 1 for the part of `fractions[i]`.

    A key's draw depends on the seed, its place among the sorted keys and its number of rows alone. Where it has rows enough,
    every part has at least one.
    """
    parts = np.zeros(len(keys), np.int64)
    array = np.array(keys)
    for number, key in enumerate(sort_names(keys)):
        rows = np.random.default_rng([seed, number]).permutation(np.flatnonzero(array == key))
        start = 0
        for part, fraction in enumerate(fractions, 1):
            stop = start + max(round(fraction * len(rows)), int(len(rows) > len(fractions)))
            parts[rows[start:stop]] = part
            start = stop
    return [int(part) for part in parts]


def sort_names(names: Sequence[str]) -> tuple[str, ...]:
    """The distinct names, sorted; whole numbers by size."""
    distinct = set(names)
    if all(name.isdecimal() for name in distinct):
        return tuple(sorted(distinct, key=lambda name: (int(name), name)))
    return tuple(sorted(distinct))


def held_out(label: NDArray[np.integer], fraction: float, seed: int) -> NDArray[np.bool_]:
    """Which training rows ERM is not trained on: `fraction` of each class, (M,) labels to (M,) bool."""
    if fraction == 0:
        return np.zeros(len(label), np.bool_)
    return np.array(draw_parts([str(c) for c in label], [fraction], seed), np.bool_)
