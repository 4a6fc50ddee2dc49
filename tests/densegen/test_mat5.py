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
