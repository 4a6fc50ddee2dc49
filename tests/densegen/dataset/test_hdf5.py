"""Rows of position maps: packed here, read by every HDF5 library, the same bytes whatever was packed before."""

from __future__ import annotations

import io
from typing import Any

import h5py
import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from densegen.dataset.hdf5 import append_row, read_row
from densegen.dataset.lzf import pack_lzf, unpack_lzf

SHAPE = (16, 16, 3)


def _row(kind: str) -> npt.NDArray[np.uint16]:
    generator = np.random.default_rng(7)
    if kind == "noise":
        return generator.integers(0, 1 << 16, SHAPE, dtype=np.uint16)
    if kind == "flat":
        return np.full(SHAPE, 16384, np.uint16)
    steps = generator.integers(0, 3, SHAPE)
    return (20_000 + steps.cumsum(0) + steps.cumsum(1)).astype(np.uint16)


def _written(rows: list[npt.NDArray[np.uint16]]) -> bytes:
    buffer = io.BytesIO()
    with h5py.File(buffer, "w") as file:
        maps: Any = file.create_dataset(
            "maps", shape=(0, *SHAPE), dtype=np.uint16, chunks=(1, *SHAPE), maxshape=(None, *SHAPE), shuffle=True,
            compression="lzf", track_times=False,
        )  # fmt: skip
        for row in rows:
            append_row(maps, row)
    return buffer.getvalue()


@pytest.mark.parametrize("kind", ["smooth", "flat", "noise"])
def test_hdf5s_own_filter_and_ours_read_what_was_packed(kind: str) -> None:
    row = _row(kind)
    with h5py.File(io.BytesIO(_written([row, row])), "r") as file:
        maps: Any = file["maps"]
        assert np.array_equal(maps[1], row)
        assert np.array_equal(read_row(maps, 1), row)
        assert (maps.id.get_chunk_info(1).size < row.nbytes) == (kind != "noise")


def test_the_bytes_of_a_row_do_not_depend_on_the_rows_before() -> None:
    stored = []
    for before in ("smooth", "flat", "noise"):
        with h5py.File(io.BytesIO(_written([_row(before), _row("smooth")])), "r") as file:
            maps: Any = file["maps"]
            stored.append(maps.id.read_direct_chunk((1, 0, 0, 0)))
    assert stored[0] == stored[1] == stored[2]


@settings(deadline=None)  # the first example compiles
@given(st.lists(st.integers(0, 3), max_size=700), st.integers(1, 400))
def test_whatever_is_packed_comes_out_again(few: list[int], repeats: int) -> None:
    raw = np.array(few * repeats, np.uint8)[:20_000]
    packed = np.empty(len(raw), np.uint8)
    size = pack_lzf(raw, packed)
    assert size < max(len(raw), 1)
    if size >= 0:
        out = np.zeros(len(raw), np.uint8)
        assert unpack_lzf(packed[:size], out) == len(raw)
        assert np.array_equal(out, raw)
