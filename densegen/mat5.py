"""MATLAB 5 files, read with care: what is damaged is refused before a parser in C can trip over it."""

from __future__ import annotations

import io
import math
import struct
import warnings
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from densegen.errors import FormatError, in_short
from densegen.files import file_size

__all__ = ["read_mat"]

_HEADER = 128
_MOST_DIMENSIONS = 32
_MOST_FIELDS = 256
"""Of a struct. Both are far beyond what fits and models have; time and memory grow with their squares."""

_LONGEST_HEAD = 1024
_MATRIX, _COMPRESSED = 14, 15
_SIZES = {1: 1, 2: 1, 3: 2, 4: 2, 5: 4, 6: 4, 7: 4, 9: 8, 12: 8, 13: 8, 16: 1, 17: 2, 18: 4}
"""Bytes of one number of each data type."""

_TYPES = {1: "<i1", 2: "<u1", 3: "<i2", 4: "<u2", 5: "<i4", 6: "<u4", 7: "<f4", 9: "<f8", 12: "<i8", 13: "<u8"}
"""Numbers of each data type, as NumPy has them."""

_STRUCT, _TEXT, _OPAQUE, _NUMERIC = 2, 4, 17, range(6, 16)
"""Classes of arrays."""


def read_mat(path: Path, names: tuple[str, ...], max_bytes: int) -> dict[str, Any]:
    """Those of the variables ``names`` that a MATLAB 5 file holds, as ``scipy.io.loadmat`` gives them.

    Raises :class:`FormatError` if the file, or what it unpacks to, is larger than ``max_bytes``, cut off or damaged;
    ``OSError`` if it cannot be read at all.
    """
    if (size := file_size(path)) > max_bytes:
        raise FormatError(f"{path.name} has {size} bytes, at most {max_bytes} are expected")
    data, contents = path.read_bytes(), dict[str, Any]()
    try:
        for head, element in _variables(data, names, max_bytes):
            array = _numbers(head, element)
            contents[head.name] = _with_scipy(data[:_HEADER], element) if array is None else array
    # A damaged file surfaces as almost anything: zlib, struct, index and type errors, unknown versions.
    except Exception as error:
        detail = "".join(character if character.isprintable() else "?" for character in in_short(error))
        raise FormatError(f"{path.name} is not a readable MATLAB 5 file: {detail}") from error
    return contents


def _variables(data: bytes, names: tuple[str, ...], limit: int) -> Iterator[tuple[_Head, bytes]]:
    """The variables ``names`` of a file, each with its head, unpacked and walked tag by tag.

    scipy's reader believes the tags, and one wrong number in them can end the process, or take all memory.
    """
    if data[512:520] == b"\x89HDF\r\n\x1a\n" or data[:19] == b"MATLAB 7.3 MAT-file":
        raise ValueError("it is a MATLAB 7.3 file: save it again with save(..., '-v7')")
    if data.startswith((b"# Created by Octave", b"Octave-1")):
        raise ValueError("it is an Octave file: save it again with save -mat7-binary")
    if len(data) < _HEADER or data[126:128] != b"IM":
        raise ValueError("no little-endian MATLAB 5 header")
    at, found = _HEADER, set[str]()
    while at < len(data):
        kind, start, end, following = _tag(data, at, len(data))
        if kind not in (_MATRIX, _COMPRESSED):
            raise ValueError(f"an element of type {kind} at byte {at}")
        # A name lies within the first bytes: what nobody asked for is not unpacked.
        unpacker = None if kind == _MATRIX else zlib.decompressobj()
        element = data[at:following] if unpacker is None else unpacker.decompress(data[start:end], _LONGEST_HEAD)
        head = _read_head(element, 8, len(element))
        if head.name in names:
            if unpacker is not None:
                element = _unpacked(unpacker, element, limit)
            kind, _, end, behind = _tag(element, 0, len(element))
            if kind != _MATRIX:
                raise ValueError(f"a compressed element of type {kind} at byte {at}")
            if head.name in found:
                raise ValueError(f"{head.name} stands in it twice")
            found.add(head.name)
            limit -= len(element)
            _check_array(element, head, end)
            yield head, element[:behind]  # what may follow in the same piece is not checked
        at = following


def _unpacked(unpacker: zlib._Decompress, begun: bytes, limit: int) -> bytes:
    """The whole of what is begun, at most ``limit`` bytes: a few may ask for gigabytes."""
    data = begun + unpacker.decompress(unpacker.unconsumed_tail, max(limit - len(begun), 1))  # 0 would be no limit
    if len(data) > limit or (unpacker.unconsumed_tail and not unpacker.eof):
        raise ValueError(f"it unpacks to more than {max(limit, 0)} bytes")
    if not unpacker.eof:
        raise ValueError("a compressed element is cut off")
    return data


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


class _Head(NamedTuple):
    """What an array says of itself, and where its contents begin.

    name : empty of an object of MATLAB's own classes, a string among them, which has another layout and which nobody
        asks for
    """

    name: str
    array_class: int
    is_complex: bool
    dimensions: tuple[int, ...]
    at: int

    @property
    def size(self) -> int:
        """How many numbers, characters or structs it has."""
        return math.prod(self.dimensions)


def _read_head(data: bytes, at: int, end: int) -> _Head:
    kind, start, stop, at = _tag(data, at, end)
    if kind != 6 or stop - start != 8:
        raise ValueError(f"no array flags at byte {start}")
    flags = struct.unpack_from("<I", data, start)[0]
    if flags & 0xFF == _OPAQUE:
        return _Head("", _OPAQUE, False, (), at)
    kind, start, stop, at = _tag(data, at, end)
    # Some writers call dimensions unsigned, and names UTF-8.
    if kind not in (5, 6) or (stop - start) % 4 or not 0 < stop - start <= 4 * _MOST_DIMENSIONS:
        raise ValueError(f"no dimensions at byte {start}")
    dimensions = struct.unpack_from(f"<{(stop - start) // 4}i", data, start)
    if min(dimensions) < 0:
        raise ValueError(f"a dimension of {min(dimensions)}")
    kind, start, stop, at = _tag(data, at, end)
    if kind not in (1, 16):
        raise ValueError(f"no name at byte {start}")
    return _Head(data[start:stop].decode("utf-8"), flags & 0xFF, bool(flags & 0x800), dimensions, at)


def _numbers(head: _Head, element: bytes) -> npt.NDArray[Any] | None:
    """The contents of a checked array of real numbers, as they are stored; None for all else.

    This is what fits are made of. scipy would take three times as long for the same.
    """
    if head.array_class not in _NUMERIC or head.is_complex:
        return None
    kind, start, _, _ = _tag(element, head.at, len(element))
    return np.ndarray(head.dimensions, _TYPES[kind], element, start, order="F") if kind in _TYPES else None


def _with_scipy(header: bytes, element: bytes) -> Any:
    """The contents of any other checked element."""
    from scipy.io import loadmat

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # about oddities of a header that do not matter here
        contents = loadmat(io.BytesIO(header + element))
    return next(value for name, value in contents.items() if not name.startswith("__"))


def _check_array(data: bytes, head: _Head, end: int) -> None:
    """Raise ``ValueError`` unless the array that ends at ``end`` holds as much as its head says."""
    if head.array_class == _STRUCT:
        _check_struct(data, head.at, end, head.size)
    elif head.array_class == _TEXT or head.array_class in _NUMERIC:
        at = head.at
        for _ in range(2 if head.is_complex else 1):  # real and imaginary part
            kind, start, stop, at = _tag(data, at, end)
            if kind not in _SIZES or (stop - start) != head.size * _SIZES[kind]:
                raise ValueError(f"the numbers at byte {start} are not {head.size} of a known type")
    else:
        raise ValueError(f"an array of class {head.array_class}, neither numbers, text nor a struct")


def _check_struct(data: bytes, at: int, end: int, count: int) -> None:
    """Field names of one length, then every field of every one of ``count`` structs."""
    kind, start, stop, at = _tag(data, at, end)
    if kind != 5 or stop - start != 4 or (length := struct.unpack_from("<i", data, start)[0]) <= 0:
        raise ValueError(f"no length of field names at byte {start}")
    kind, start, stop, at = _tag(data, at, end)
    if kind != 1 or start == stop or (stop - start) % length:
        raise ValueError(f"no field names at byte {start}")
    if (fields := (stop - start) // length) > _MOST_FIELDS:
        raise ValueError(f"a struct of {fields} fields, at most {_MOST_FIELDS} are read")
    names = {data[name : name + length].split(b"\0")[0] for name in range(start, stop, length)}
    if len(names) < fields:
        raise ValueError(f"two fields of one name at byte {start}")
    for _ in range(count * fields):
        kind, start, stop, at = _tag(data, at, end)  # ends if there are fewer
        if kind != _MATRIX or start == stop:
            raise ValueError(f"no field at byte {start}")
        _check_array(data, _read_head(data, start, stop), stop)
