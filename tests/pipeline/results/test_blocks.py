from pathlib import Path

import h5py
import numpy as np
import pytest

from pipeline.results import blocks
from pipeline.results.blocks import READ_ROWS, in_blocks
from tests import cached


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


def test_heads_judge_a_file_in_blocks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(blocks, "READ_ROWS", 7)
    with cached.write(tmp_path).open("erm", "features") as given:
        heads, features = given.model("erm").head(), given.file("features")["train/original"]
        read = []
        plain = type(features).__getitem__
        monkeypatch.setattr(
            type(features), "__getitem__", lambda self, key: read.append(len(out := plain(self, key))) or out
        )
        found = blocks.logits(heads, features)
        monkeypatch.undo()
        np.testing.assert_allclose(found, heads.logits(features[:]), rtol=1e-5)
    assert read == [7] * 8 + [4]
