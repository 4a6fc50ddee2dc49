"""MATLAB 5 files, read with care: what is damaged is refused before a parser in C can trip over it."""

from __future__ import annotations

import io
import struct
from pathlib import Path
from typing import Any

from densegen.errors import FormatError

__all__ = ["read_mat"]

_HEADER = 128
_MATRIX, _COMPRESSED = 14, 15
_SIZES = {1: 1, 2: 1, 3: 2, 4: 2, 5: 4, 6: 4, 7: 4, 9: 8, 12: 8, 13: 8, 16: 1, 17: 2, 18: 4}
"""Bytes of one number of each data type."""

_NUMERIC_CLASSES = range(6, 16)


def read_mat(path: Path, names: tuple[str, ...], max_bytes: int) -> dict[str, Any]:
    """Those of the variables ``names`` that a MATLAB 5 file holds, as scipy gives them.

    Raises :class:`FormatError` where the file is larger than ``max_bytes``, cut off or damaged; ``OSError`` where it
    cannot be read at all.
    """
    from scipy.io import loadmat

    if (size := path.stat().st_size) > max_bytes:
        raise FormatError(f"{path.name} has {size} bytes, at most {max_bytes} are expected")
    data = path.read_bytes()
    try:
        _check_elements(data)
        contents: dict[str, Any] = loadmat(io.BytesIO(data), variable_names=list(names))
    # A damaged file surfaces as almost anything: zlib, struct, index and type errors, unknown versions.
    except Exception as error:
        detail = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise FormatError(f"{path.name} is not a readable MATLAB 5 file: {detail}") from error
    return {name: contents[name] for name in names if name in contents}


def _check_elements(data: bytes) -> None:
    """Walk the tags of the file: every element within its parent, numbers as many as their array says.

    scipy's reader believes the tags, and one wrong byte in an uncompressed file can end the process. Compressed
    elements carry a checksum of their own.
    """
    if len(data) < _HEADER or data[126:128] != b"IM":
        raise ValueError("no little-endian MATLAB 5 header")
    at = _HEADER
    while at < len(data):
        kind, start, end, at = _tag(data, at, len(data))
        if kind == _MATRIX:
            _check_matrix(data, start, end)
        elif kind != _COMPRESSED:
            raise ValueError(f"an element of type {kind} at byte {start}")


def _tag(data: bytes, at: int, limit: int) -> tuple[int, int, int, int]:
    """Type, first byte, last byte and the next element's place of the element at ``at``."""
    if at + 8 > limit:
        raise ValueError(f"cut off at byte {at}")
    kind, size = struct.unpack_from("<II", data, at)
    if kind >> 16:  # a small element: size and type in one word, data in the next
        kind, size, start, following = kind & 0xFFFF, kind >> 16, at + 4, at + 8
        if size > 4:
            raise ValueError(f"a small element of {size} bytes at byte {at}")
    else:
        start = at + 8
        following = start + size + (-size % 8 if kind != _COMPRESSED else 0)
    if start + size > limit:
        raise ValueError(f"an element at byte {at} is longer than what holds it")
    return kind, start, start + size, min(following, limit)


def _check_matrix(data: bytes, at: int, end: int) -> None:
    kind, start, stop, at = _tag(data, at, end)
    if kind != 6 or stop - start != 8:
        raise ValueError(f"no array flags at byte {start}")
    flags = struct.unpack_from("<I", data, start)[0]
    if flags & 0xFF not in _NUMERIC_CLASSES:
        return _check_nested(data, at, end)
    kind, start, stop, at = _tag(data, at, end)
    if kind != 5 or (stop - start) % 4 or stop == start:
        raise ValueError(f"no dimensions at byte {start}")
    count = 1
    for dimension in struct.unpack_from(f"<{(stop - start) // 4}i", data, start):
        if dimension < 0:
            raise ValueError(f"a dimension of {dimension}")
        count *= dimension
    kind, start, _, at = _tag(data, at, end)
    if kind != 1:
        raise ValueError(f"no name at byte {start}")
    for _ in range(2 if flags & 0x800 else 1):  # real and, where flagged, imaginary part
        kind, start, stop, at = _tag(data, at, end)
        if kind not in _SIZES or (stop - start) != count * _SIZES[kind]:
            raise ValueError(f"the numbers at byte {start} are not {count} of a known type")
    return None


def _check_nested(data: bytes, at: int, end: int) -> None:
    """Structs, cells and text: their elements must lie within them, too."""
    while at < end:
        kind, start, stop, at = _tag(data, at, end)
        if kind == _MATRIX and stop > start:
            _check_matrix(data, start, stop)
        elif kind not in _SIZES and kind != _MATRIX:
            raise ValueError(f"an element of type {kind} at byte {start}")
