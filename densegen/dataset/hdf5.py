"""HDF5 as shards use it: written the same at every time and by every library, and looked through before it is opened.

The HDF5 library trusts a file: bytes that were damaged, or made to harm, can end the process, keep it busy for ever,
open other files, or take all memory. So a shard is written in the plainest form that HDF5 has (its earliest format:
one level of groups, hard links, text of fixed length, data in one piece), and :func:`check_structure` walks that form,
and no other, before the library sees the file. Field names and sizes are those of the HDF5 File Format Specification,
version 3.0, The HDF Group.
"""

from __future__ import annotations

import io
import math
import struct
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

from densegen.errors import FormatError, in_short
from densegen.files import file_size

__all__ = ["check_structure", "create_group", "new_file", "open_checked"]

_UNDEFINED = 2**64 - 1
_MAX_OBJECTS = 64
_MAX_READ = 1 << 20
"""Bytes of structure that are read at most."""

_GROUP_MESSAGES = {0x00, 0x0C, 0x10, 0x11}
_DATASET_MESSAGES = {0x00, 0x01, 0x03, 0x04, 0x05, 0x08, 0x0B, 0x0C, 0x10}
# Sign and size of an integer are free, all else about numbers is as every processor of today has it.
_FLOATS = {
    4: struct.pack("<3BI2H4BI", 0x20, 31, 0, 4, 0, 32, 23, 8, 0, 23, 127),
    8: struct.pack("<3BI2H4BI", 0x20, 63, 0, 8, 0, 64, 52, 11, 0, 52, 1023),
}


@contextmanager
def new_file(buffer: io.BytesIO) -> Iterator[Any]:
    """An ``h5py.File`` that is written into ``buffer``; the same contents give the same bytes.

    Libraries up to 1.14 note the time in each group unless they are told not to, and h5py has no option for that.
    """
    import h5py

    access = h5py.h5p.create(h5py.h5p.FILE_ACCESS)
    access.set_fileobj_driver(h5py.h5fd.fileobj_driver, buffer)
    access.set_libver_bounds(h5py.h5f.LIBVER_EARLIEST, h5py.h5f.LIBVER_V18)
    access.set_fclose_degree(h5py.h5f.CLOSE_STRONG)
    made = h5py.h5f.create(b"densegen", h5py.h5f.ACC_TRUNC, fcpl=_without_times(h5py.h5p.FILE_CREATE), fapl=access)
    with h5py.File(made) as file:
        yield file


def create_group(file: Any, name: str) -> None:
    """A group that does not note the time."""
    import h5py

    h5py.h5g.create(file.id, name.encode(), gcpl=_without_times(h5py.h5p.GROUP_CREATE))


def _without_times(kind: Any) -> Any:
    import h5py

    properties = h5py.h5p.create(kind)
    properties.set_obj_track_times(False)
    return properties


def open_checked(path: Path) -> Any:
    """An ``h5py.File`` to read from, after :func:`check_structure`; without a lock, which network disks refuse.

    Raises :class:`FormatError` if the file is none of this form, ``OSError`` if it cannot be read.
    """
    import h5py

    check_structure(path)
    try:
        return h5py.File(path, "r", locking=False)
    except OSError as error:
        raise FormatError(f"{path.name} is not a readable HDF5 file: {in_short(error)}") from error


def check_structure(path: Path) -> None:
    """Walk the groups, attributes and datasets of a file, and refuse whatever :func:`new_file` does not write.

    Raises :class:`FormatError`, naming the first place, and ``OSError`` if the file cannot be read or is none.
    """
    size = file_size(path)
    with path.open("rb") as file:
        try:
            _Walk(file, size).file()
        except (_RefusedError, struct.error, IndexError, UnicodeDecodeError) as error:
            raise FormatError(
                f"{path.name} is damaged, or no shard of this densegen ({error}): rebuild it with 'densegen build'"
            ) from error


class _RefusedError(Exception):
    """Why a file is refused."""


@dataclass(frozen=True, slots=True)
class _Type:
    """A type of numbers or text: its size in bytes, and the length of its description."""

    size: int
    length: int


class _Walk:
    """One look through a file; every read is bounded, and all of them together."""

    def __init__(self, file: BinaryIO, size: int) -> None:
        self.opened, self.size = file, size
        self.left, self.objects = _MAX_READ, 0

    def read(self, at: int, count: int) -> bytes:
        self.left -= count
        if not 0 <= at <= self.size - count or self.left < 0:
            raise _RefusedError(f"{count} bytes at {at} are beyond its end, or too many")
        self.opened.seek(at)
        return self.opened.read(count)

    def file(self) -> None:
        if self.read(0, min(8, self.size)) != b"\x89HDF\r\n\x1a\n":
            raise _RefusedError("no HDF5 file")
        head = self.read(8, 88)
        if head[:8] != bytes([0, 0, 0, 0, 0, 8, 8, 0]):
            raise _RefusedError("an HDF5 file of another format version")
        base, extension, end, driver = struct.unpack_from("<4Q", head, 16)
        if base != 0 or end != self.size or driver != _UNDEFINED or extension != _UNDEFINED:
            raise _RefusedError(f"{self.size} bytes, its header says {end}")
        _, root, cached = struct.unpack_from("<2QI", head, 48)
        self.group(root, head[72:88] if cached == 1 else b"", depth=0)

    def group(self, at: int, cached: bytes, depth: int) -> None:
        tables = []
        for kind, body in self.messages(at, _GROUP_MESSAGES):
            if kind == 0x0C:
                self.attribute(body)
            elif kind == 0x11:
                tables.append(body[:16])
        if len(tables) != 1 or cached not in (b"", tables[0]):
            raise _RefusedError(f"no group at {at}")
        tree, heap = struct.unpack("<2Q", tables[0])
        names = self.heap(heap)
        seen: set[str] = set()
        for node in self.group_nodes(tree, len(names)):
            for offset, child, kind, scratch in self.symbols(node):
                end = names.find(b"\0", offset) if 0 < offset < len(names) else -1
                name = names[offset:end].decode() if end > offset else ""
                if not name or name in seen or kind > 1 or (kind == 1 and depth):
                    raise _RefusedError(f"a link {name[:40]!r} that is not plain")
                seen.add(name)
                is_group = any(k == 0x11 for k, _ in self.messages(child, _GROUP_MESSAGES | _DATASET_MESSAGES))
                if is_group and depth:
                    raise _RefusedError(f"the group {name[:40]!r} in a group")
                if is_group:
                    self.group(child, scratch if kind == 1 else b"", depth + 1)
                else:
                    self.dataset(child, name)

    def heap(self, at: int) -> bytes:
        """The names of a group: a local heap whose free blocks lead forward and end."""
        head = self.read(at, 32)
        length, free, data = struct.unpack_from("<3Q", head, 8)
        if head[:8] != b"HEAP\0\0\0\0" or length > 65536:
            raise _RefusedError(f"no names at {at}")
        names = self.read(data, length)
        while free != 1:
            if not 0 <= free <= length - 16:
                raise _RefusedError(f"names at {at} with a hole beyond their end")
            following, room = struct.unpack_from("<2Q", names, free)
            if room < 16 or free + room > length or (following != 1 and following < free + room):
                raise _RefusedError(f"names at {at} with a hole that leads back")
            free = following
        return names

    def group_nodes(self, at: int, names: int) -> list[int]:
        head = self.read(at, 24)
        used = struct.unpack_from("<H", head, 6)[0]
        if head[:6] != b"TREE\0\0" or head[8:] != b"\xff" * 16 or used > 32:
            raise _RefusedError(f"no list of links at {at}")
        entries = struct.unpack(f"<{2 * used + 1}Q", self.read(at + 24, 8 * (2 * used + 1)))
        if max(entries[::2]) >= names:
            raise _RefusedError(f"a list of links at {at} beyond the names")
        return list(entries[1::2])

    def symbols(self, at: int) -> Iterator[tuple[int, int, int, bytes]]:
        head = self.read(at, 8)
        count = struct.unpack_from("<H", head, 6)[0]
        if head[:6] != b"SNOD\1\0" or count > 8:
            raise _RefusedError(f"no links at {at}")
        body = self.read(at + 8, 40 * count)
        for number in range(count):
            offset, child, kind = struct.unpack_from("<2QI", body, 40 * number)
            yield offset, child, kind, body[40 * number + 24 : 40 * number + 40]

    def messages(self, at: int, allowed: set[int]) -> list[tuple[int, bytes]]:
        """What an object's header says, message by message."""
        self.objects += 1
        version, total, _, length = struct.unpack("<BxHII4x", self.read(at, 16))
        if version != 1 or total > 256 or self.objects > 4 * _MAX_OBJECTS:
            raise _RefusedError(f"no object at {at}")
        found: list[tuple[int, bytes]] = []
        blocks = [(at + 16, length)]
        for start, length in blocks:
            block, place = self.read(start, length), 0
            # To the block's end, whatever the header's count says: some libraries read all of it.
            while place + 8 <= length:
                kind, size, flags = struct.unpack_from("<HHB", block, place)
                body = block[place + 8 : place + 8 + size]
                if kind not in allowed or flags & ~0x05 or len(body) < size:
                    raise _RefusedError(f"a message of kind {kind} at {start + place}")
                if kind == 0x10:
                    if len(blocks) > 8:
                        raise _RefusedError(f"an object in too many pieces at {at}")
                    blocks.append(struct.unpack_from("<2Q", body))
                found.append((kind, body))
                place += 8 + size
        if len(found) != total:
            raise _RefusedError(f"an object that is cut off at {at}")
        return found

    def attribute(self, body: bytes) -> None:
        version, name, kind, space = struct.unpack_from("<Bx3H", body)
        padded = [-(-length // 8) * 8 for length in (name, kind, space)]
        type_at, space_at, data_at = 8 + padded[0], 8 + sum(padded[:2]), 8 + sum(padded)
        stored = self.type(body[type_at : type_at + kind])
        shape = self.shape(body[space_at : space_at + space])
        text = body[8 : 8 + name]
        if version != 1 or not text.endswith(b"\0") or shape or len(body) - data_at < stored.size:
            raise _RefusedError(f"the attribute {text[:40]!r}")
        text.decode()

    def dataset(self, at: int, name: str) -> None:
        parts: dict[int, bytes] = {}
        for kind, body in self.messages(at, _DATASET_MESSAGES):
            if kind == 0x0C:
                self.attribute(body)
            elif kind in parts and kind not in (0x00, 0x10):
                raise _RefusedError(f"{name}: two messages of kind {kind}")
            parts[kind] = body
        if not {0x01, 0x03, 0x08} <= set(parts) or any(len(parts.get(kind, b"")) > 64 for kind in (0x04, 0x05)):
            raise _RefusedError(f"{name} is no dataset")
        stored, shape = self.type(parts[0x03]), self.shape(parts[0x01])
        version, layout = struct.unpack_from("<2B", parts[0x08])
        if version != 3 or layout != 1 or 0x0B in parts:
            raise _RefusedError(f"{name} is not stored in one piece as it is")
        place, length = struct.unpack_from("<2Q", parts[0x08], 2)
        if length != math.prod(shape) * stored.size or (length and place + length > self.size):
            raise _RefusedError(f"{name} claims {math.prod(shape) * stored.size:,} bytes of a file of {self.size:,}")

    def type(self, body: bytes) -> _Type:
        """Little-endian numbers, text of fixed length, and names for numbers of one byte."""
        kind, sign = body[0], body[1]
        size = struct.unpack_from("<I", body, 4)[0]
        if kind == 0x10 and body[1:4] in (b"\0\0\0", b"\x08\0\0") and size in (1, 2, 4, 8):
            if struct.unpack_from("<2H", body, 8) == (0, 8 * size):
                return _Type(size, 12)
        elif kind == 0x11 and size in _FLOATS and body[1:20] == _FLOATS[size]:
            return _Type(size, 20)
        elif kind == 0x13 and sign in (0x00, 0x01, 0x10, 0x11) and body[2:4] == b"\0\0" and 0 < size <= self.size:
            return _Type(size, 8)
        elif kind in (0x18, 0x28) and size == 1 and 0 < sign <= 8 and body[2:4] == b"\0\0":
            base = self.type(body[8:20])
            at = 8 + base.length
            for _ in range(sign):
                end = body.find(b"\0", at)
                if end < 0:
                    break
                at += -(-(end + 1 - at) // 8) * 8
            else:
                if base.length == 12 and len(body) >= at + sign:
                    return _Type(1, at + sign)
        raise _RefusedError(f"a type of kind {kind:#x}")

    def shape(self, body: bytes) -> tuple[int, ...]:
        version, rank, flags = struct.unpack_from("<3B", body)
        if version != 1 or rank > 4 or flags > 1:
            raise _RefusedError("a shape of another kind")
        return struct.unpack_from(f"<{rank}Q", body, 8)
