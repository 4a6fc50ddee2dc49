"""Arrays of a safetensors file, mapped into memory: processes on one machine share what they read of them."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from densegen.errors import FormatError

__all__ = ["map_tensors"]

_TYPES = {"U8": "u1", "BOOL": "?", "I32": "<i4", "I64": "<i8", "F32": "<f4", "F64": "<f8"}


def map_tensors(path: Path, wanted: Mapping[str, str]) -> tuple[dict[str, npt.NDArray[Any]], dict[str, str]]:
    """Those arrays of a file, read-only, and its metadata. The file must not be written to meanwhile; densegen puts
    new files in the place of old ones.

    wanted : safetensors' name of the type of each array

    Raises :class:`FormatError` if the file is none of this kind, is cut off, lacks one of the arrays, or one has
    another type.
    """
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, framework="numpy") as file:  # which checks sizes and places
            metadata = dict(file.metadata() or {})
            if lacking := sorted(set(wanted) - set(file.keys())):
                raise FormatError(f"{path.name} is damaged: it lacks {', '.join(lacking)}; make it again")
            for name, stored_as in wanted.items():
                if (dtype := file.get_slice(name).get_dtype()) != stored_as:
                    raise FormatError(f"{path.name} is damaged: {name} is {dtype}; make it again")
        with path.open("rb") as file:
            length = int.from_bytes(file.read(8), "little")
            header = json.loads(file.read(length))
    except (OSError, SafetensorError, ValueError) as error:
        raise FormatError(f"{path.name} is not a readable file of arrays: {' '.join(str(error).split())}") from error
    whole = np.memmap(path, np.uint8, "r").view(np.ndarray)  # mapped once: each mapping keeps a file open
    return {name: _part(whole[8 + length :], header[name]) for name in wanted}, metadata


def _part(data: npt.NDArray[np.uint8], about: Mapping[str, Any]) -> npt.NDArray[Any]:
    start, stop = about["data_offsets"]
    return data[start:stop].view(_TYPES[about["dtype"]]).reshape(about["shape"])
