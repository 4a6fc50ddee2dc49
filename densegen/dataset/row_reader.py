"""Samples read where they lie in the files, past HDF5: its cost per access is many times that of a read."""

from __future__ import annotations

import bisect
import math
import os
import threading
from collections import OrderedDict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from densegen.arrays import Float32, Float64, Image, Int64, Mask
from densegen.conventions import UV_SIZE
from densegen.dataset.shards import decode_crop, decode_map
from densegen.errors import FormatError
from densegen.ibug68 import KEYPOINTS

__all__ = ["RowReader", "ShardPlace"]


@dataclass(frozen=True, slots=True, eq=False)
class ShardPlace:
    """Where a shard's samples lie.

    bytes : of the file, as the build's manifest has it
    first : the number of its first sample in the set
    counts : landmarks, shape components, expression components
    position_map_offsets : None if it holds no position maps
    at : where its datasets begin, in bytes
    """

    path: Path
    bytes: int
    first: int
    sample_ids: Sequence[str]
    crop_size: int
    counts: tuple[int, int, int]
    image_offsets: Int64
    position_map_offsets: Int64 | None
    at: Mapping[str, int]

    def name(self, row: int) -> str:
        return f"{self.path.name}: sample {self.sample_ids[row]}"


MAX_OPEN = 128
"""Files that a reader keeps open; many systems allow a process no more than 256."""


class _Descriptor:
    """An open file, closed when nobody holds it any more: a thread may still read what another one has let go."""

    def __init__(self, path: Path) -> None:
        self.number = os.open(path, os.O_RDONLY)

    def __del__(self, close: Callable[[int], None] = os.close) -> None:  # at the end of a process, os is gone
        if hasattr(self, "number"):
            close(self.number)


class RowReader:
    """Reads samples by their number in the set, from 0; of the shards' files those that were read last are kept open.

    Threads may share one. A number that the set has not raises ``IndexError``.
    """

    def __init__(self, shards: Sequence[ShardPlace]) -> None:
        self.shards = shards
        self._firsts = [shard.first for shard in shards]
        self._last = shards[-1].first + len(shards[-1].sample_ids) - 1
        self._files: OrderedDict[int, _Descriptor] = OrderedDict()
        self._lock = threading.Lock()

    def jpeg(self, number: int) -> bytes:
        """The JPEG file of a sample."""
        shard, row = self._place(number)
        return self._blob(shard, row, "image/bytes", shard.image_offsets)

    def image(self, number: int, out: Image | None = None) -> Image:
        """(S, S, 3) uint8, RGB; raises :class:`FormatError`, naming shard and sample, if it is damaged.

        out : where it is decoded to, (S, S, 3) uint8, in one piece; by default into an array of its own
        """
        shard, row = self._place(number)
        jpeg = self._blob(shard, row, "image/bytes", shard.image_offsets)
        return decode_crop(jpeg, shard.crop_size, lambda: shard.name(row), out)

    def images(self, numbers: Iterable[int]) -> Image:
        """(n, S, S, 3) uint8, RGB: each is decoded into its place."""
        chosen = [int(number) for number in numbers]
        size = self.shards[0].crop_size
        images: Image = np.empty((len(chosen), size, size, 3), np.uint8)
        for number, image in zip(chosen, images, strict=True):
            self.image(number, image)
        return images

    def landmarks(self, number: int) -> Float32:
        """(N, 3) float32, pixels, crop frame."""
        shard, row = self._place(number)
        return self._finite(shard, row, "landmarks", "<f4", (shard.counts[0], 3))

    def keypoints68(self, number: int) -> Float32:
        """(68, 3) float32, pixels, crop frame, iBUG order."""
        shard, row = self._place(number)
        return self._finite(shard, row, "keypoints68", "<f4", (KEYPOINTS, 3))

    def expression(self, number: int) -> Float32:
        """(Ke,) float32, raw coefficients."""
        shard, row = self._place(number)
        return self._finite(shard, row, "expression", "<f4", (shard.counts[2],))

    def fit(self, number: int) -> tuple[Float32, Float64, tuple[int, int]]:
        """Shape (Ks,) float32, crop (4,) float64, and (height, width) of the photograph."""
        shard, row = self._place(number)
        shape = self._finite(shard, row, "shape", "<f4", (shard.counts[1],))
        crop = self._finite(shard, row, "crop", "<f8", (4,))
        height, width = self._row(shard, row, "image_size", "<i4", (2,)).tolist()
        return shape, crop, (height, width)

    def position_map(self, number: int) -> tuple[npt.NDArray[np.uint16], Mask]:
        """(256, 256, 3) uint16 fixed-point map, and (256, 256) bool, the pixels that unmirrored maps cover."""
        shard, row = self._place(number)
        assert shard.position_map_offsets is not None
        packed = self._blob(shard, row, "position_map/bytes", shard.position_map_offsets)
        valid = np.frombuffer(self._read(shard, row, shard.at["valid_uv"], UV_SIZE * UV_SIZE), bool)
        return decode_map(packed, f"{shard.name(row)}: the position map"), valid.reshape(UV_SIZE, UV_SIZE)

    def _place(self, number: int) -> tuple[ShardPlace, int]:
        shard = self.shards[bisect.bisect_right(self._firsts, number) - 1]
        if not 0 <= (row := number - shard.first) < len(shard.sample_ids):
            raise IndexError(f"there is no sample {number}: the last of this set is {self._last}")
        return shard, row

    def _finite(self, shard: ShardPlace, row: int, name: str, dtype: str, shape: tuple[int, ...]) -> npt.NDArray[Any]:
        values = self._row(shard, row, name, dtype, shape)
        if not np.isfinite(values).all():
            raise FormatError(f"{shard.name(row)} has {name} that are not finite: run 'densegen verify'")
        return values

    def _row(self, shard: ShardPlace, row: int, name: str, dtype: str, shape: tuple[int, ...]) -> npt.NDArray[Any]:
        size = np.dtype(dtype).itemsize * math.prod(shape)
        return np.frombuffer(self._read(shard, row, shard.at[name] + row * size, size), dtype).reshape(shape)

    def _blob(self, shard: ShardPlace, row: int, name: str, offsets: Int64) -> bytes:
        start, stop = int(offsets[row]), int(offsets[row + 1])
        return self._read(shard, row, shard.at[name] + start, stop - start)

    def _read(self, shard: ShardPlace, row: int, offset: int, size: int) -> bytes:
        try:
            file = self._file(shard)
            data = os.pread(file.number, size, offset)
        except OSError as error:
            raise FormatError(f"{shard.name(row)} cannot be read: {error.strerror}") from error
        if len(data) < size:
            raise FormatError(f"{shard.name(row)} lies behind the end of its file: run 'densegen verify'")
        return data

    def _file(self, shard: ShardPlace) -> _Descriptor:
        with self._lock:
            file = self._files.get(shard.first) or self._opened(shard)
            self._files[shard.first] = file
            self._files.move_to_end(shard.first)
            if len(self._files) > MAX_OPEN:
                self._files.popitem(last=False)
        return file

    def _opened(self, shard: ShardPlace) -> _Descriptor:
        file = _Descriptor(shard.path)
        if (size := os.fstat(file.number).st_size) != shard.bytes:
            raise FormatError(f"{shard.path} has {size:,} bytes, its manifest says {shard.bytes:,}")
        return file

    def close(self) -> None:
        with self._lock:
            self._files.clear()
