"""The order of an epoch and its batches."""

from __future__ import annotations

import numpy as np
import pytest

from densegen.errors import ConfigurationError
from densetrain.data.order import BatchSampler, Windows, epoch_order


def keys(sampler: BatchSampler, epoch: int = 0) -> list[tuple[int, list[int], float]]:
    sampler.epoch = lambda: epoch
    return [(number, rows.tolist(), weight) for _, number, rows, weight in sampler]


def test_an_epochs_order_is_a_function_of_seed_and_epoch() -> None:
    rows = np.arange(50)
    one = keys(BatchSampler(rows, 8, seed=3, shuffle=True), 5)
    assert one == keys(BatchSampler(rows, 8, seed=3, shuffle=True), 5)
    assert one != keys(BatchSampler(rows, 8, seed=3, shuffle=True), 6)
    assert one != keys(BatchSampler(rows, 8, seed=4, shuffle=True), 5)
    assert len(one) == 6
    seen = [row for _, batch, _ in one for row in batch]
    assert len(set(seen)) == len(seen) == 48


def test_shards_are_shuffled_and_samples_within_a_window_of_them() -> None:
    firsts = np.arange(0, 100, 5)
    rows = np.setdiff1d(np.arange(100), np.arange(40, 45))  # of one shard nothing is trained on
    windows = Windows(firsts, size=4)
    order = epoch_order(rows, windows, seed=3, epoch=7)
    assert np.array_equal(np.sort(order), rows)
    for start in range(0, len(order), 20):
        window = order[start : start + 20]
        assert len(set(window // 5)) == (4 if len(window) == 20 else 3)
        assert not np.array_equal(np.sort(window), window)
    assert np.array_equal(order, epoch_order(rows, windows, seed=3, epoch=7))
    for seed, epoch in ((4, 7), (3, 8)):
        assert not np.array_equal(order, epoch_order(rows, windows, seed, epoch))


def test_a_sampler_goes_on_within_an_epoch() -> None:
    rows = np.arange(50)
    for rank in range(2):
        whole = BatchSampler(rows, 4, seed=3, shuffle=True, rank=rank, world=2)
        rest = BatchSampler(rows, 4, seed=3, shuffle=True, rank=rank, world=2, skip=(5, 2))
        assert keys(rest, 5) == keys(whole, 5)[2:]
        assert keys(rest, 6) == keys(whole, 6)
        assert len(rest) == len(whole)


def test_processes_share_the_batches_that_one_process_would_see() -> None:
    rows = np.arange(50)
    whole = keys(BatchSampler(rows, 8, seed=3, shuffle=True))
    parts = [keys(BatchSampler(rows, 8, seed=3, shuffle=True, rank=rank, world=2)) for rank in range(2)]
    assert [batch for pair in zip(*parts, strict=True) for batch in pair] == whole
    checked = [keys(BatchSampler(rows, 8, seed=0, shuffle=False, rank=rank, world=2)) for rank in range(2)]
    assert [len(part) for part in checked] == [4, 4]
    counted = [row for part in checked for _, batch, weight in part if weight for row in batch]
    assert sorted(counted) == list(range(50))


def test_a_step_that_would_see_fewer_batches_than_the_others_is_left_out() -> None:
    """Of 11 batches, three at a time: the last two would make a step of two thirds, which several processes drop."""
    rows = np.arange(115, dtype=np.int64)
    one = BatchSampler(rows, 10, 0, shuffle=True, accumulate=3)
    three = [BatchSampler(rows, 10, 0, shuffle=True, rank=rank, world=3) for rank in range(3)]
    assert len(one) == 9
    assert keys(one) == [key for step in zip(*map(keys, three), strict=True) for key in step]
    with pytest.raises(ConfigurationError, match="make 1 batches of 10, fewer than a step's 3: .*trainer.accumulate"):
        BatchSampler(rows[:15], 10, 0, shuffle=True, accumulate=3)


def test_a_batch_size_that_leaves_a_process_without_work_is_refused() -> None:
    with pytest.raises(ConfigurationError, match="fewer than the 4 processes"):
        BatchSampler(np.arange(20), 8, seed=0, shuffle=True, world=4)
