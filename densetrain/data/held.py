"""Samples that are decoded once and held: in memory, which the processes of a machine share, or on a device."""

from __future__ import annotations

import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from densegen.arrays import Int64
from densegen.dataset.shard_set import ShardSet
from densegen.errors import ConfigurationError, DensegenError
from densegen.ibug68 import KEYPOINTS
from densetrain.errors import TrainingError

__all__ = ["SHARED_MEMORY", "Held", "Together", "hold"]

SHARED_MEMORY = Path("/dev/shm")
DECODED_TOGETHER = 64
"""Images that a thread decodes before it asks for more."""


@dataclass(frozen=True, slots=True, eq=False)
class Held:
    """Samples in memory, or on a device, with what a batch takes from them.

    rows : (R,) int64, of the shard set, ascending
    images : (R, S, S, 3) uint8
    landmarks : (R, N, 3) float32
    keypoints68 : (R, 68, 3) float32
    """

    rows: Int64
    images: Tensor
    landmarks: Tensor
    keypoints68: Tensor

    def to(self, device: torch.device) -> Held:
        return Held(self.rows, *(part.to(device) for part in (self.images, self.landmarks, self.keypoints68)))

    def places(self, rows: Int64) -> Int64:
        """(B,) int64: where these rows are held."""
        places: Int64 = np.searchsorted(self.rows, rows)
        return places


@dataclass(frozen=True, slots=True)
class Together:
    """The processes of a training run on this machine, which need the same samples.

    first : whether this is the one that decodes
    name : the same in all of them, and no other's
    count : of these processes
    agree : waits for all processes of the run, and says whether each has given True
    """

    first: bool
    name: str
    count: int
    agree: Callable[[bool], bool]


def hold(shards: ShardSet, rows: Int64, together: Together | None = None) -> Held:
    """Samples, their images decoded once: by the first process of several, if the machine has room for what they share.

    Raises :class:`ConfigurationError` before anything is decoded if they do not fit into the free memory; with others,
    :class:`TrainingError` in all but the process that has the error.
    """
    order, shapes = np.sort(rows), _shapes(shards, len(rows))
    size = sum(_bytes(shape, dtype) for shape, dtype in shapes)
    whole = None if together is None else _shared(size, together)
    error: Exception | None = None
    is_mine = whole is None or together is None or together.first
    if whole is None:
        whole = _own(size, together)
    try:
        parts = torch.split(whole, [_bytes(shape, dtype) for shape, dtype in shapes])
        held = [part.view(dtype).view(shape) for part, (shape, dtype) in zip(parts, shapes, strict=True)]
        if is_mine:
            _fill(shards, order, *held)
    except DensegenError as problem:
        error = problem
    _raise_in_all(error, together)
    landmarks, keypoints, images = held
    return Held(order, images, landmarks, keypoints)


def _own(size: int, together: Together | None) -> Tensor:
    """Bytes of this process alone. Nobody fills them before all have asked whether they fit: each needs its own."""
    error: Exception | None = None
    try:
        _check_free(size, 1 if together is None else together.count)
    except ConfigurationError as problem:
        error = problem
    _raise_in_all(error, together)
    return torch.empty(size, dtype=torch.uint8)


def _raise_in_all(error: Exception | None, together: Together | None) -> None:
    """Wait for the other processes, and raise if one of them has an error: none waits for one that has ended."""
    alright = error is None if together is None else together.agree(error is None)
    if error is not None:
        raise error
    if not alright:
        raise TrainingError("another process stopped: its own error says why")


def _shapes(shards: ShardSet, count: int) -> list[tuple[tuple[int, ...], torch.dtype]]:
    """Landmarks, keypoints and images; what needs to begin at whole numbers first."""
    size = shards.crop_size
    return [
        ((count, len(shards.index), 3), torch.float32),
        ((count, KEYPOINTS, 3), torch.float32),
        ((count, size, size, 3), torch.uint8),
    ]


def _bytes(shape: tuple[int, ...], dtype: torch.dtype) -> int:
    return int(np.prod(shape)) * dtype.itemsize


def _shared(size: int, together: Together) -> Tensor | None:
    """Bytes that all processes of this machine see; None if it has no room for them.

    The file has no name any more when the first byte is written: nothing is left of it when the last process ends.
    """
    path = SHARED_MEMORY / f"densetrain-{together.name}"
    error: Exception | None = None
    if together.first:
        try:
            _check_free(size)  # what is shared is memory of this machine, and of its container
            _reserve(path, size)
        except ConfigurationError as problem:
            error = problem
    _raise_in_all(error, together)
    try:
        shared = torch.from_file(str(path), shared=True, size=size, dtype=torch.uint8) if path.exists() else None
    except (OSError, RuntimeError):
        shared = None
    everywhere = together.agree(shared is not None)
    if together.first:
        path.unlink(missing_ok=True)
    return shared if everywhere else None


def _reserve(path: Path, size: int) -> None:
    """Make a file that has its memory already (a full disk would end the process that writes), or none."""
    with suppress(OSError), path.open("xb") as file:
        try:
            os.posix_fallocate(file.fileno(), 0, size)
        except OSError:
            path.unlink()


def _fill(shards: ShardSet, rows: Int64, landmarks: Tensor, keypoints: Tensor, images: Tensor) -> None:
    reader = shards.open()
    for place, row in enumerate(rows):
        landmarks.numpy()[place] = reader.landmarks(int(row))
        keypoints.numpy()[place] = reader.keypoints68(int(row))
    reader.close()
    _decode(shards, rows, images)


def _decode(shards: ShardSet, rows: Int64, images: Tensor) -> None:
    reader = shards.open()
    target = images.numpy()

    def decode(first: int) -> None:
        for number in range(first, min(first + DECODED_TOGETHER, len(rows))):
            reader.image(int(rows[number]), target[number])

    with ThreadPoolExecutor() as threads:  # the decoder works outside the interpreter's lock
        list(threads.map(decode, range(0, len(rows), DECODED_TOGETHER)))
    reader.close()


def _check_free(needed: int, processes: int = 1) -> None:
    free = _free_memory()
    if free is not None and processes * needed > 0.9 * free:
        each = f" for each of {processes} processes, which can share none here" if processes > 1 else ""
        raise ConfigurationError(
            f"data.cache needs {needed / 1e9:.1f} GB{each}, {free / 1e9:.1f} GB are free: choose data.cache=none"
        )


def _free_memory() -> int | None:
    """Bytes that this process can still take, if the system says so: of the machine, or of its container."""
    free = [int(line.split()[1]) * 1024 for line in _lines(Path("/proc/meminfo")) if line.startswith("MemAvailable:")]
    group = Path("/sys/fs/cgroup")
    limits, used = _lines(group / "memory.max"), _lines(group / "memory.current")
    if limits and used and limits[0].isdigit():
        # Files that were read count as used, and are dropped when memory is asked for.
        cached = [int(line.split()[1]) for line in _lines(group / "memory.stat") if line.startswith("inactive_file ")]
        free.append(int(limits[0]) - int(used[0]) + sum(cached))
    return min(free, default=None)


def _lines(path: Path) -> list[str]:
    try:
        return path.read_text(encoding="ascii").splitlines()
    except OSError:
        return []
