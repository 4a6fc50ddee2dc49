"""Packed position maps: lossless, small if smooth, unpacked by NumPy and Zstandard alone."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pytest
import zstandard
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from densegen.dataset.map_codec import pack_map, unpack_map
from densegen.dataset.pipeline import Recipe, mesh_in_image
from densegen.geometry.position_map import encode_fixed_point
from densegen.sources.fits import Fit

SHAPE = (16, 8, 3)
maps = arrays(np.uint16, SHAPE, elements=st.integers(0, 65535))


@pytest.fixture(scope="module")
def rendered(recipe: Recipe, fit: Fit) -> npt.NDArray[np.uint16]:
    """A position map as a build stores it."""
    table = recipe.uv_table
    return encode_fixed_point(table.position_map(mesh_in_image(recipe.model, fit, 450) / 2), table.valid)


@given(maps)
def test_what_was_packed_comes_out_again(numbers: npt.NDArray[np.uint16]) -> None:
    assert np.array_equal(unpack_map(pack_map(numbers), SHAPE), numbers)


def test_a_position_map_takes_less_than_a_third(rendered: npt.NDArray[np.uint16]) -> None:
    packed = pack_map(rendered)
    assert np.array_equal(unpack_map(packed, (256, 256, 3)), rendered)
    assert len(packed) < rendered.nbytes / 3


@given(maps)
def test_numpy_and_zstandard_alone_unpack_it(numbers: npt.NDArray[np.uint16]) -> None:
    planes = np.frombuffer(zstandard.decompress(pack_map(numbers)), np.uint8).reshape(16, -1)
    bits = np.unpackbits(planes, axis=1, bitorder="little")
    folded = np.packbits(bits.T, axis=1, bitorder="little").reshape(-1).view("<u2").astype(np.int64).reshape(SHAPE)
    differences = (folded >> 1) ^ -(folded & 1)
    assert np.array_equal(differences.cumsum(0).cumsum(1) % 65536, numbers)


@pytest.mark.parametrize(
    ("packed", "problem"),
    [
        (b"", "content size"),
        (b"no Zstandard", "content size"),
        (zstandard.compress(bytes(100)), "100 bytes, expected 768"),
        (pack_map(np.zeros(SHAPE, np.uint16))[:-1], "."),
        (pack_map(np.zeros(SHAPE, np.uint16)) + b"more", "."),
        (zstandard.ZstdCompressor(write_content_size=False).compress(bytes(768)), "expected 768"),
    ],
)
def test_other_bytes_are_refused(packed: bytes, problem: str) -> None:
    with pytest.raises(ValueError, match=problem):
        unpack_map(packed, SHAPE)


def test_a_frame_that_promises_gigabytes_takes_no_memory() -> None:
    head = b"\x28\xb5\x2f\xfd" + b"\xe0" + (8 << 30).to_bytes(8, "little")  # a single segment of 8 GiB
    with pytest.raises(ValueError, match="8,589,934,592 bytes"):
        unpack_map(head + bytes(20), SHAPE)
