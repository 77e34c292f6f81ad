from pathlib import Path

import numpy as np
import pytest

from pipeline.engine import Arrays, Block, Shards, blocks


def squares(block: Block) -> Arrays:
    return {"square": np.arange(block.start, block.stop) ** 2}


@pytest.mark.parametrize(("size", "workers"), [(3, 1), (3, 4), (100, 2)])
def test_blocks_come_in_row_order_whatever_the_cut(tmp_path: Path, size: int, workers: int) -> None:
    found = list(Shards(tmp_path, "squares", 1).map_blocks(squares, blocks(10, size), workers))
    assert [i for block, _ in found for i in range(block.start, block.stop)] == list(range(10))
    np.testing.assert_array_equal(np.concatenate([arrays["square"] for _, arrays in found]), np.arange(10) ** 2)


def test_work_goes_on_after_a_failure_and_a_damaged_shard_is_made_again(tmp_path: Path) -> None:
    shards, computed = Shards(tmp_path, "squares", 1), []

    def failing(block: Block) -> Arrays:
        if len(computed) == 2:  # Dask chooses the order
            raise RuntimeError("killed")
        computed.append(block.start)
        return squares(block)

    with pytest.raises(RuntimeError, match="killed"):
        shards.map_blocks(failing, blocks(9, 3), workers=1)
    done = sorted(shards.folder.glob("*.safetensors"))
    done[0].write_bytes(done[0].read_bytes()[:-1])
    again = []

    def counting(block: Block) -> Arrays:
        again.append(block.start)
        return squares(block)

    found = list(shards.map_blocks(counting, blocks(9, 3), workers=1))
    assert len(found) == 3
    assert set(again) == {0, 3, 6} - set(computed) | {int(done[0].name[:9])}
    assert len(again) == 2
    shards.remove()
    assert not shards.folder.exists()


def test_another_fingerprint_is_another_folder(tmp_path: Path) -> None:
    assert Shards(tmp_path, "a", {"k": 1}).folder != Shards(tmp_path, "a", {"k": 2}).folder
    assert Shards(tmp_path, "a", {"k": 1}).folder == Shards(tmp_path, "a", {"k": 1}).folder


def test_what_is_computed_can_be_read_again_whole_or_one_array_alone(tmp_path: Path) -> None:
    computed = Shards(tmp_path, "squares", 1).map_blocks(squares, blocks(10, 4), 1)
    first, second = list(computed), list(computed)
    assert [block for block, _ in first] == [block for block, _ in second] == blocks(10, 4)
    name = next(iter(first[0][1]))
    assert all(np.array_equal(array, arrays[name]) for array, (_, arrays) in zip(computed.each(name), second, strict=True))
