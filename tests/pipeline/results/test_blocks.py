import numpy as np

from pipeline.results.blocks import READ_ROWS, in_blocks


def test_positions_stay_in_order_and_whole() -> None:
    positions = np.random.default_rng(0).permutation(2 * READ_ROWS + 3)
    blocks = list(in_blocks(positions))
    assert [len(block) for block in blocks] == [READ_ROWS, READ_ROWS, 3]
    assert np.array_equal(np.concatenate(blocks), positions)
    assert list(in_blocks(positions[:0])) == []
