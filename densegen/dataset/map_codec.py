"""Position maps in a quarter of their bytes, without loss: differences of neighbours, bits put together, Zstandard.

A position map is smooth, so a pixel minus its left and upper neighbours is a few steps, of either sign. Zigzag folds
the signs, and with all lowest bits side by side, then all second ones, and so on, the upper half of the bits is zeros.
(The order of the bits is bitshuffle's: Masui et al., Astronomy and Computing 12, 2015.) Ten lines of NumPy unpack a map
without densegen: ``docs/shards.md`` has them.
"""

from __future__ import annotations

import hashlib
import math
import threading
from functools import cache
from typing import Any

import numpy as np
import numpy.typing as npt
import zstandard

from densegen.geometry.kernels import kernel

__all__ = ["pack_map", "unpack_map", "zstd_codec"]

_FAST = zstandard.ZstdCompressionParameters(
    strategy=zstandard.STRATEGY_FAST, window_log=19, hash_log=8, chain_log=6, search_log=1, min_match=7, target_length=0
)
"""Zstandard's level 1 with a table of 256 places that matches of 7 bytes are looked up in: planes of bits are noise or
zeros, so a larger table, shorter matches or a higher level take longer and gain nothing."""


class _Own(threading.local):
    """A compressor for each thread: no two may use one, and to make one takes a fifth as long as its work."""

    def __init__(self) -> None:
        self.compressor = zstandard.ZstdCompressor(compression_params=_FAST)


_own = _Own()


@cache
def zstd_codec() -> str:
    """Twelve digits that two releases of Zstandard share if they pack a fixed map into the same bytes."""
    places = np.arange(256 * 256 * 3).reshape(256, 256, 3)
    noise = (places * 2654435761 >> 13) & 7
    numbers = (places.sum(axis=2, keepdims=True) // 9000 + 16384 + noise).astype(np.uint16)
    return hashlib.sha256(pack_map(numbers)).hexdigest()[:12]


def pack_map(numbers: npt.NDArray[np.uint16]) -> bytes:
    """The bytes of an (H, W, C) uint16 map; H * W * C is a multiple of 8."""
    planes = _shuffle_bits(_differences(np.ascontiguousarray(numbers)).reshape(-1))
    packed: bytes = _own.compressor.compress(planes.data)
    return packed


def unpack_map(packed: bytes, shape: tuple[int, int, int]) -> npt.NDArray[np.uint16]:
    """The reverse of :func:`pack_map`: (H, W, C) uint16.

    Raises ``ValueError`` if the bytes are no map of this shape, before memory is taken.
    """
    size = 2 * math.prod(shape)
    try:
        if (found := zstandard.frame_content_size(packed)) != size:
            raise ValueError(f"{found:,} bytes, expected {size:,}")
        planes = zstandard.ZstdDecompressor().decompress(packed, max_output_size=size, allow_extra_data=False)
    except zstandard.ZstdError as error:
        raise ValueError(str(error)) from error
    numbers: npt.NDArray[np.uint16] = _sums(_unshuffle_bits(np.frombuffer(planes, np.uint8)).reshape(shape))
    return numbers


@kernel
def _differences(numbers: Any) -> Any:
    """Each number minus its left and upper neighbours plus the one between them, modulo 2^16, signs folded."""
    height, width, channels = numbers.shape
    lines = numbers.reshape(height, width * channels)
    out = np.empty(lines.shape, np.uint16)
    down = np.zeros(channels + width * channels, np.uint16)
    # Two views: an index of n - channels would be tested for being negative, and the loop would stay a loop.
    here, before = down[channels:], down[: width * channels]
    above = np.zeros(width * channels, np.uint16)
    for r in range(height):
        line, folded = lines[r], out[r]
        for n in range(len(line)):
            here[n] = line[n] - above[n]
        for n in range(len(line)):
            # Zigzag: 0, -1, 1, -2, … of 16 bits become 0, 1, 2, 3, …
            signed = np.int16(np.uint16(here[n] - before[n]))
            folded[n] = np.uint16(np.int16(signed << 1) ^ np.int16(signed >> 15))
        above = line
    return out.reshape(numbers.shape)


@kernel
def _sums(differences: Any) -> Any:
    """The reverse of :func:`_differences`."""
    height, width, channels = differences.shape
    lines = differences.reshape(height, width * channels)
    out = np.empty(lines.shape, np.uint16)
    down = np.empty(width * channels, np.uint16)
    above = np.zeros(width * channels, np.uint16)
    for r in range(height):
        line, result = lines[r], out[r]
        for n in range(len(line)):
            down[n] = (line[n] >> np.uint16(1)) ^ np.uint16(-(line[n] & np.uint16(1)))
        for n in range(channels, len(line)):
            down[n] += down[n - channels]
        for n in range(len(line)):
            result[n] = down[n] + above[n]
        above = result
    return out.reshape(differences.shape)


@kernel
def _transposed(square: Any) -> Any:
    """The 8x8 bits of a uint64, rows to columns (Warren, Hacker's Delight, section 7-3)."""
    mask = np.uint64(0x00AA00AA00AA00AA)
    swap = (square ^ (square >> np.uint64(7))) & mask
    square = square ^ swap ^ (swap << np.uint64(7))
    mask = np.uint64(0x0000CCCC0000CCCC)
    swap = (square ^ (square >> np.uint64(14))) & mask
    square = square ^ swap ^ (swap << np.uint64(14))
    mask = np.uint64(0x00000000F0F0F0F0)
    swap = (square ^ (square >> np.uint64(28))) & mask
    return square ^ swap ^ (swap << np.uint64(28))


def _shuffle_bits(numbers: npt.NDArray[np.uint16]) -> npt.NDArray[np.uint8]:
    """(16, n / 8) uint8 planes of the bits of n numbers, lowest first: byte i of a plane holds those of numbers 8 i to
    8 i + 7, lowest first.
    """
    planes: npt.NDArray[np.uint8] = _planes(_halves(numbers).view("<u8"))
    return planes


def _unshuffle_bits(planes: npt.NDArray[np.uint8]) -> npt.NDArray[np.uint16]:
    """The reverse of :func:`_shuffle_bits`."""
    low, high = _unplanes(planes.reshape(2, 8, -1)).view(np.uint8)
    numbers: npt.NDArray[np.uint16] = low.astype(np.uint16)
    numbers |= high.astype(np.uint16) << np.uint16(8)
    return numbers


@kernel
def _halves(numbers: Any) -> Any:
    """(2, n) uint8: the lower and the upper halves of n uint16."""
    out = np.empty((2, len(numbers)), np.uint8)
    lower, upper = out[0], out[1]
    for n in range(len(numbers)):
        lower[n], upper[n] = np.uint8(numbers[n]), np.uint8(numbers[n] >> np.uint16(8))
    return out


@kernel
def _planes(squares: Any) -> Any:
    """Some squares at a time, which stay in the first cache, in loops that the compiler turns into vector instructions;
    most of the upper halves are zeros.
    """
    halves, groups = squares.shape
    out = np.zeros((8 * halves, groups), np.uint8)
    turned = np.empty(128, np.uint64)
    for half in range(halves):
        for start in range(0, groups, len(turned)):
            some, bits = squares[half, start : start + len(turned)], np.uint64(0)
            for n in range(len(some)):
                bits |= some[n]
            if bits == 0:
                continue
            for n in range(len(some)):
                turned[n] = _transposed(some[n])
            for plane in range(8):
                row, shift = out[8 * half + plane, start : start + len(some)], np.uint64(8 * plane)
                for n in range(len(some)):
                    row[n] = np.uint8(turned[n] >> shift)
    return out


@kernel
def _unplanes(planes: Any) -> Any:
    halves, _, groups = planes.shape
    out = np.empty((halves, groups), np.uint64)
    for half in range(halves):
        for group in range(groups):
            square = np.uint64(0)
            for plane in range(8):
                square |= np.uint64(planes[half, plane, group]) << np.uint64(8 * plane)
            out[half, group] = _transposed(square)
    return out
