"""LibLZF's format, packed and unpacked by kernels of our own: the same bytes at every time, and no read beyond them."""

from __future__ import annotations

from typing import Any

import numpy as np

from densegen.geometry.kernels import kernel

__all__ = ["pack_lzf", "unpack_lzf"]


@kernel
def pack_lzf(raw: Any, out: Any) -> int:
    """The bytes of ``raw`` in the format that :func:`unpack_lzf` reads: at every byte the nearest earlier place with
    the same three bytes (by their hash) is copied from. The number of bytes written, or -1 if ``out`` is too short.
    """
    places = np.full(1 << 16, -1, np.int64)
    at, to, run = 0, 0, 0  # run: bytes since the last copy, that go out as they are
    while at < len(raw):
        length, distance = 0, 0
        if at + 2 < len(raw):
            three = (int(raw[at]) << 16) | (int(raw[at + 1]) << 8) | int(raw[at + 2])
            place = ((three * 2654435761) >> 13) & 0xFFFF
            source, places[place] = places[place], at
            distance = at - source
            if source >= 0 and distance <= 8192:
                longest = min(264, len(raw) - at)
                while length < longest and raw[source + length] == raw[at + length]:
                    length += 1
        if length < 3:
            run, at = run + 1, at + 1
            if run < 32 and at < len(raw):
                continue
        if run > 0:
            if to + 1 + run > len(out):
                return -1
            start = at - run
            out[to] = run - 1
            for k in range(run):
                out[to + 1 + k] = raw[start + k]
            to, run = to + 1 + run, 0
        if length >= 3:
            if to + 3 > len(out):
                return -1
            code, back = length - 2, distance - 1
            out[to] = (min(code, 7) << 5) | (back >> 8)
            to += 1
            if code >= 7:
                out[to] = code - 7
                to += 1
            out[to] = back & 255
            to, at = to + 1, at + length
    return to if to < len(raw) else -1


@kernel
def unpack_lzf(packed: Any, out: Any) -> int:
    """LibLZF's format: runs of up to 32 bytes as they are, and copies of up to 264 bytes from up to 8 KiB before. The
    number of bytes that came out; -1 if they do not fit, or the input is damaged.
    """
    at, to = 0, 0
    while at < len(packed):
        control = int(packed[at])
        at += 1
        if control < 32:
            count = control + 1
            if at + count > len(packed) or to + count > len(out):
                return -1
            for _ in range(count):
                out[to] = packed[at]
                at, to = at + 1, to + 1
            continue
        count = (control >> 5) + 2
        if count == 9:
            if at >= len(packed):
                return -1
            count += int(packed[at])
            at += 1
        if at >= len(packed):
            return -1
        source = to - ((control & 31) << 8) - int(packed[at]) - 1
        at += 1
        if source < 0 or to + count > len(out):
            return -1
        for _ in range(count):
            out[to] = out[source]
            source, to = source + 1, to + 1
    return to
