"""Samples that are decoded once."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
import torch

from densegen.dataset.shard_set import ShardSet
from densegen.errors import FormatError
from densetrain.data import held
from densetrain.data.held import Together, hold
from densetrain.errors import TrainingError


def by_two(shards: ShardSet) -> list[Any]:
    barrier, said = threading.Barrier(2, timeout=60), list[bool]()

    def agree(mine: bool) -> bool:
        said.append(mine)
        barrier.wait()
        both = all(said)
        barrier.wait()
        said.clear()
        barrier.wait()
        return both

    rows = shards.rows("train")
    with ThreadPoolExecutor(2) as threads:
        asked = [threads.submit(hold, shards, rows, Together(n == 0, "test-held", 2, agree)) for n in range(2)]
        return [future.exception() or future.result() for future in asked]


@pytest.mark.skipif(not held.SHARED_MEMORY.is_dir(), reason="needs shared memory")
def test_two_processes_decode_once_and_leave_nothing(shards: ShardSet, monkeypatch: pytest.MonkeyPatch) -> None:
    calls, fill = [], held._fill
    monkeypatch.setattr(held, "_fill", lambda *arguments: (calls.append(1), fill(*arguments)))
    alone = hold(shards, shards.rows("train"))
    assert calls.pop() == 1
    one, two = by_two(shards)
    assert calls == [1]
    for name in ("images", "landmarks", "keypoints68"):
        assert torch.equal(getattr(one, name), getattr(alone, name))
        assert torch.equal(getattr(two, name), getattr(alone, name))
    one.images[0] += 1  # the same memory
    assert torch.equal(two.images[0], one.images[0])
    assert not list(held.SHARED_MEMORY.glob("densetrain-test-held*"))


def test_without_room_to_share_each_process_decodes(
    shards: ShardSet, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    def refuse(*_: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(held, "SHARED_MEMORY", tmp_path)
    monkeypatch.setattr(held.os, "posix_fallocate", refuse)
    one, two = by_two(shards)
    assert torch.equal(one.images, two.images)
    assert one.images.data_ptr() != two.images.data_ptr()
    assert not list(tmp_path.iterdir())


def test_processes_that_can_share_nothing_need_room_for_each(
    shards: ShardSet, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    alone = hold(shards, shards.rows("train"))
    needed = sum(part.numel() * part.element_size() for part in (alone.images, alone.landmarks, alone.keypoints68))
    monkeypatch.setattr(held, "SHARED_MEMORY", tmp_path / "not there")
    monkeypatch.setattr(held, "_free_memory", lambda: int(1.5 * needed))
    for outcome in by_two(shards):
        assert "for each of 2 processes, which can share none here" in str(outcome)
    monkeypatch.setattr(held, "_free_memory", lambda: int(2.5 * needed))
    one, two = by_two(shards)
    assert torch.equal(one.images, two.images)


def test_an_error_in_one_process_ends_all(shards: ShardSet, monkeypatch: pytest.MonkeyPatch) -> None:
    def damaged(*_: Any) -> None:
        raise FormatError("a sample is damaged")

    monkeypatch.setattr(held, "_fill", damaged)
    one, two = by_two(shards)
    assert isinstance(one, FormatError)
    assert isinstance(two, TrainingError | FormatError)
    monkeypatch.setattr(held, "_free_memory", lambda: 1000)
    one, two = by_two(shards)
    assert "data.cache needs" in str(one)
    assert isinstance(two, TrainingError)
    assert not list(held.SHARED_MEMORY.glob("densetrain-test-held*"))
