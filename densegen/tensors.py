"""Arrays of a safetensors file, mapped into memory: processes on one machine share what they read of them."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from densegen.errors import FormatError

__all__ = ["map_tensors"]

MAX_HEADER_BYTES = 1 << 20

_TYPES = {"U8": "u1", "BOOL": "?", "I32": "<i4", "I64": "<i8", "F32": "<f4", "F64": "<f8"}


def map_tensors(path: Path, wanted: Mapping[str, str]) -> tuple[dict[str, npt.NDArray[Any]], dict[str, str]]:
    """Those arrays of a file, read-only, and its metadata. The file must not be written to meanwhile; densegen puts
    new files in the place of old ones.

    wanted : safetensors' name of the type of each array

    Raises :class:`FormatError` if the file is none of this kind, is cut off, lacks one of the arrays, or one has
    another type.
    """
    try:
        with path.open("rb") as file:  # opened once: a new file may take its place meanwhile
            length = int.from_bytes(file.read(8), "little")
            header = json.loads(file.read(min(length, MAX_HEADER_BYTES)))
            data = np.memmap(file, np.uint8, "r").view(np.ndarray)[8 + length :]  # each mapping keeps a file open
        return {name: _part(data, header[name], stored_as) for name, stored_as in wanted.items()}, dict(
            header.get("__metadata__", {})
        )
    except (OSError, ValueError, KeyError, TypeError, AttributeError, OverflowError, RecursionError) as error:
        raise FormatError(f"{path.name} is damaged, or no file of these arrays ({error}); make it again") from error


def _part(data: npt.NDArray[np.uint8], about: Mapping[str, Any], stored_as: str) -> npt.NDArray[Any]:
    dtype, shape, (start, stop) = np.dtype(_TYPES[stored_as]), tuple(map(int, about["shape"])), about["data_offsets"]
    if about["dtype"] != stored_as or not 0 <= start <= stop <= len(data) or min(shape, default=0) < 0:
        raise ValueError(f"an array of {about['dtype']} at {start} to {stop} of {len(data):,} bytes")
    if math.prod(shape) * dtype.itemsize != stop - start:
        raise ValueError(f"an array of shape {shape} in {stop - start:,} bytes")
    return data[start:stop].view(dtype).reshape(shape)
