from __future__ import annotations

import contextlib
import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
from scipy.io import savemat

from densegen.errors import FormatError
from densegen.mat5 import read_mat

NAMES = ("numbers", "nested")
CONTENTS = {
    "numbers": np.arange(12.0).reshape(3, 4),
    "nested": {"text": "abc", "inner": {"small": np.uint8([1, 2])}},
    "cells": np.array([1, "two"], object),
}
LIMIT = 1 << 20


def written(path: Path, *, compressed: bool = False) -> Path:
    savemat(path, CONTENTS, do_compression=compressed)
    return path


@pytest.mark.parametrize("compressed", [False, True])
def test_the_variables_that_were_asked_for_are_read(tmp_path: Path, compressed: bool) -> None:
    contents = read_mat(written(tmp_path / "a.mat", compressed=compressed), (*NAMES, "absent"), LIMIT)
    assert set(contents) == set(NAMES)
    assert (contents["numbers"] == CONTENTS["numbers"]).all()
    nested = contents["nested"][0, 0]
    assert nested["text"][0] == "abc"
    assert nested["inner"][0, 0]["small"].tolist() == [[1, 2]]


def packed(element: bytes) -> bytes:
    data = zlib.compress(element)
    return struct.pack("<II", 15, len(data)) + data


def elements(path: Path) -> list[bytes]:
    """The unpacked elements of a compressed file."""
    data, found, at = path.read_bytes(), list[bytes](), 128
    while at < len(data):
        size = struct.unpack_from("<I", data, at + 4)[0]
        found.append(zlib.decompress(data[at + 8 : at + 8 + size]))
        at += 8 + size
    return found


@pytest.mark.parametrize("compressed", [False, True])
def test_what_is_wrong_in_the_tags_never_reaches_the_parser(tmp_path: Path, compressed: bool) -> None:
    """scipy's parser believes them: some of these bytes would end the process."""
    path = tmp_path / "b.mat"
    head = written(tmp_path / "a.mat", compressed=True).read_bytes()[:128]
    whole = elements(tmp_path / "a.mat")
    generator = np.random.default_rng(0)
    for _ in range(600):
        damaged = [bytearray(element) for element in whole]
        chosen = damaged[generator.integers(len(NAMES))]
        chosen[generator.integers(len(chosen))] = generator.integers(256)
        path.write_bytes(head + b"".join(packed(bytes(e)) if compressed else bytes(e) for e in damaged))
        with contextlib.suppress(FormatError):  # a changed number may pass
            read_mat(path, NAMES, LIMIT)


def test_a_few_bytes_that_unpack_to_gigabytes_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "bomb.mat"
    savemat(path, {"numbers": np.zeros(1 << 20)}, do_compression=True)
    assert path.stat().st_size < 20_000
    with pytest.raises(FormatError, match="unpacks to more than 1048576 bytes"):
        read_mat(path, NAMES, LIMIT)


@pytest.mark.parametrize("count", [4, 400])
def test_bytes_behind_a_compressed_variable_are_padding(tmp_path: Path, count: int) -> None:
    """A short one is unpacked at once, a long one in two steps."""
    path, whole = tmp_path / "a.mat", np.random.default_rng(0).normal(size=(count, 1))
    savemat(path, {"numbers": whole}, do_compression=True)
    data = path.read_bytes()
    path.write_bytes(data[:128] + struct.pack("<II", 15, len(data) - 136 + 5) + data[136:] + bytes(5))
    assert (read_mat(path, NAMES, LIMIT)["numbers"] == whole).all()


def tag(kind: int, data: bytes) -> bytes:
    return struct.pack("<II", kind, len(data)) + data + bytes(-len(data) % 8)


def array(kind: int, dimensions: tuple[int, ...], name: bytes, body: bytes) -> bytes:
    size = struct.pack(f"<{len(dimensions)}i", *dimensions)
    return tag(14, tag(6, struct.pack("<II", kind, 0)) + tag(5, size) + tag(1, name) + body)


def fields(*names: bytes) -> bytes:
    return tag(5, struct.pack("<i", 8)) + tag(1, b"".join(name.ljust(8, b"\0") for name in names))


TEXT = array(4, (1, 2), b"numbers", tag(16, b"ab"))
HOSTILE = {
    "no dimensions": array(6, (2**31 - 1,) * 100_000, b"numbers", tag(9, bytes(8))),
    "a struct of 5000 fields": array(2, (0, 0), b"numbers", fields(*(b"f%d" % n for n in range(5000)))),
    "two fields of one name": array(2, (0, 0), b"numbers", fields(b"a", b"b", b"a")),
    "numbers stands in it twice": TEXT + TEXT,
}


@pytest.mark.parametrize("message", HOSTILE)
def test_what_would_take_minutes_or_gigabytes_is_refused(tmp_path: Path, message: str) -> None:
    path = tmp_path / "a.mat"
    head = written(tmp_path / "b.mat").read_bytes()[:128]
    path.write_bytes(head + HOSTILE[message])
    with pytest.raises(FormatError, match=message):
        read_mat(path, NAMES, LIMIT)


def test_what_follows_an_array_in_its_own_piece_is_not_read(tmp_path: Path) -> None:
    """It is not checked, and scipy would take what it asks for."""
    path = tmp_path / "a.mat"
    head = written(tmp_path / "b.mat").read_bytes()[:128]
    path.write_bytes(head + packed(TEXT + array(1, (10_000, 10_000), b"x", b"")))
    assert read_mat(path, NAMES, LIMIT)["numbers"] == "ab"


def test_a_struct_without_fields_takes_no_memory(tmp_path: Path) -> None:
    path = written(tmp_path / "a.mat")
    head = path.read_bytes()[:128]
    flags, size = struct.pack("<IIII", 6, 8, 2, 0), struct.pack("<IIii", 5, 8, 400_000_000, 1)
    name, fields = struct.pack("<II8s", 1, 7, b"numbers"), struct.pack("<HHiII", 5, 4, 8, 1, 0)
    body = flags + size + name + fields
    path.write_bytes(head + struct.pack("<II", 14, len(body)) + body)
    with pytest.raises(FormatError, match="no field names"):
        read_mat(path, NAMES, LIMIT)


def test_an_array_of_another_kind_is_refused(tmp_path: Path) -> None:
    with pytest.raises(FormatError, match="class 1, neither numbers, text nor a struct"):
        read_mat(written(tmp_path / "a.mat"), ("cells",), LIMIT)


def test_what_other_programs_write_is_read_or_named(tmp_path: Path) -> None:
    from scipy.io import savemat

    savemat(tmp_path / "a.mat", {"x": np.arange(3.0)})
    plain = (tmp_path / "a.mat").read_bytes()

    def element(kind: int, data: bytes) -> bytes:
        return struct.pack("<II", kind, len(data)) + data + bytes(-len(data) % 8)

    # A MATLAB string beside the numbers: class 17 has no dimensions.
    opaque = element(14, element(6, struct.pack("<II", 17, 0)) + element(1, b"note") + element(1, b"MCOS"))
    (tmp_path / "string.mat").write_bytes(plain + opaque)
    unsigned = bytearray(plain)
    struct.pack_into("<I", unsigned, 128 + 24, 6)  # dimensions as uint32
    (tmp_path / "unsigned.mat").write_bytes(unsigned)
    for name in ("string.mat", "unsigned.mat"):
        assert read_mat(tmp_path / name, ("x",), 1 << 20)["x"].ravel().tolist() == [0, 1, 2]
    (tmp_path / "v73.mat").write_bytes(b"MATLAB 7.3 MAT-file".ljust(512) + b"\x89HDF\r\n\x1a\n")
    (tmp_path / "octave.mat").write_bytes(b"# Created by Octave 6.4.0\n# name: x\n")
    for name, words in (("v73.mat", "'-v7'"), ("octave.mat", "-mat7-binary")):
        with pytest.raises(FormatError, match=words):
            read_mat(tmp_path / name, ("x",), 1 << 20)
