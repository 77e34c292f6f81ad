import numpy as np
import pytest
import torch
from torch.optim.lr_scheduler import CosineAnnealingLR, OneCycleLR

from pipeline.compute.ranks import ALONE, Ranks
from pipeline.network.schedule import Schedule, batches_of_epoch, learning_rate, seed_of_epoch


@pytest.mark.parametrize("schedule", ["constant", "cosine", "one_cycle"])
def test_learning_rates_are_pytorch_s(schedule: Schedule) -> None:
    parameter, steps = torch.nn.Parameter(torch.zeros(1)), 50
    optimizer = torch.optim.SGD([parameter], lr=0.1)
    reference: torch.optim.lr_scheduler.LRScheduler | None = None
    if schedule == "cosine":
        reference = CosineAnnealingLR(optimizer, steps)
    if schedule == "one_cycle":
        # PyTorch's cycle ends on its last step, ours one after, as its cosine does.
        rising = (0.3 * steps + 1) / (steps + 1)
        reference = OneCycleLR(optimizer, 0.1, total_steps=steps + 1, pct_start=rising, final_div_factor=1e9)
    for step in range(steps):
        expected = optimizer.param_groups[0]["lr"]
        assert learning_rate(schedule, 0.1, step / steps) == pytest.approx(expected, rel=1e-6, abs=1e-9)
        optimizer.step()
        if reference:
            reference.step()


def test_an_epoch_has_every_row_as_often_as_it_is_given_in_an_order_of_its_own() -> None:
    rows = np.array([3, 3, 3, 8, 1, 9, 4])
    first, second = (batches_of_epoch(rows, 3, 0, epoch, ALONE) for epoch in (1, 2))
    assert [len(batch) for batch in first[:2]] == [3, 3]
    whole = np.concatenate(batches_of_epoch(rows, 7, 0, 1, ALONE))
    assert sorted(whole) == sorted(rows)
    assert np.concatenate(first).tolist() == whole[:6].tolist()
    assert np.concatenate(second).tolist() != whole[:6].tolist()
    again = batches_of_epoch(rows, 3, 0, 1, ALONE)
    assert all(np.array_equal(one, other) for one, other in zip(first, again, strict=True))


@pytest.mark.parametrize(("rows", "sizes"), [(9, [4, 4]), (10, [4, 4, 2]), (1, [1])])
def test_a_last_batch_of_one_image_is_left_out_unless_it_is_all_there_is(rows: int, sizes: list[int]) -> None:
    assert [len(batch) for batch in batches_of_epoch(np.arange(rows), 4, 0, 1, ALONE)] == sizes


def test_processes_share_every_batch_in_equal_parts() -> None:
    rows = np.arange(23)
    alone = batches_of_epoch(rows, 9, 5, 2, ALONE)
    shares = [batches_of_epoch(rows, 9, 5, 2, Ranks(rank, 2)) for rank in range(2)]
    assert [len(batch) for batch in alone] == [9, 9, 5]
    assert [[len(batch) for batch in share] for share in shares] == [[4, 4, 2]] * 2
    for whole, first, second in zip(alone, *shares, strict=True):
        assert np.stack([first, second], 1).ravel().tolist() == whole[: len(whole) // 2 * 2].tolist()
    assert (
        len(batches_of_epoch(np.arange(12), 9, 5, 2, Ranks(0, 2))) == 1
    )  # three are too few for two processes


def test_each_epoch_and_each_process_has_a_seed_of_its_own() -> None:
    seeds = [seed_of_epoch(seed, epoch, rank) for seed in (0, 1) for epoch, rank in ((1, 0), (2, 0), (1, 1))]
    assert len(set(seeds)) == 6
    assert all(0 <= seed < 2**63 for seed in seeds)
    assert seed_of_epoch(1, 2, 0) == seed_of_epoch(1, 2, 0)
