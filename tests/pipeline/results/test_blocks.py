from pathlib import Path

import h5py
import numpy as np
import pytest

from pipeline.results import blocks
from pipeline.results.blocks import READ_ROWS, in_blocks


def test_positions_stay_in_order_and_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    positions = np.random.default_rng(0).permutation(2 * READ_ROWS + 3)
    with h5py.File(tmp_path / "x.h5", "w") as file:
        small, large = (file.create_dataset(f"{n}", (1, n, n), "f4") for n in (2, 5))
        found = list(in_blocks(positions, small, large))
        assert [len(block) for block in found] == [READ_ROWS, READ_ROWS, 3]
        assert np.array_equal(np.concatenate(found), positions)
        assert list(in_blocks(positions[:0], small)) == []
        monkeypatch.setattr(blocks, "READ_BYTES", 420)  # four rows of 100 bytes
        found = list(in_blocks(positions, small, large))
        assert {len(block) for block in found[:-1]} == {4}
        assert np.array_equal(np.concatenate(found), positions)
        monkeypatch.setattr(blocks, "READ_BYTES", 1)
        assert len(list(in_blocks(positions, large))) == len(positions)
