"""A morphable model's file: safetensors, with what it says beside its arrays."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from functools import lru_cache
from pathlib import Path
from typing import Any, Literal

import numpy as np
from pydantic import BaseModel, ConfigDict, ValidationError

from densegen.errors import ConfigurationError, FormatError, in_short
from densegen.face.morphable_model import STORED_AS, MorphableModel
from densegen.files import file_size, write_bytes
from densegen.geometry.kernels import warm_up
from densegen.records import first_problem
from densegen.tensors import MAX_HEADER_BYTES, map_tensors

__all__ = ["MODEL_SCHEMA_VERSION", "read_model", "write_model"]

MODEL_SCHEMA_VERSION = 2


MAX_MODEL_BYTES = 4 << 30

_BASES = ("shape_basis", "expression_basis")
"""Nearly all of a model's bytes: 140 MiB of the Basel model."""

_ABOUT = "densegen"


class _Description(BaseModel):
    """What a model file says beside its arrays."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    format: Literal["densegen morphable model"] = "densegen morphable model"
    schema_version: int = MODEL_SCHEMA_VERSION
    name: str
    uv_layout: str
    unit_mm: float
    fingerprint: str
    shape_names: tuple[str, ...]
    expression_names: tuple[str, ...]


def write_model(model: MorphableModel, path: Path) -> None:
    """Write a model file (safetensors), atomically; the same model gives the same bytes."""
    from safetensors.numpy import save

    about = _Description(
        name=model.name,
        uv_layout=model.uv_layout,
        unit_mm=model.unit_mm,
        fingerprint=model.fingerprint,
        shape_names=model.shape_names,
        expression_names=model.expression_names,
    )
    arrays = {name: np.ascontiguousarray(getattr(model, name)) for name in STORED_AS}
    # One entry: the library writes several in an order that changes from run to run.
    write_bytes(path, save(arrays, metadata={_ABOUT: about.model_dump_json()}))


def read_model(path: str | Path, *, mapped: bool = False) -> MorphableModel:
    """Read a model file that ``densegen model build``, ``model convert`` or ``synth`` wrote.

    mapped : leave both bases in the file, for processes that need few of their numbers and share what they read; the
        file must not be written to meanwhile, see :func:`~densegen.tensors.map_tensors`. Asked again for a file that
        did not change, the same process gets the same model: to check its fingerprint takes half a second

    Raises :class:`ConfigurationError` if it does not exist, :class:`FormatError` if it is none, has another schema
    version, or its arrays contradict each other.
    """
    path = Path(path)
    if not path.exists():
        raise ConfigurationError(f"the model {path} does not exist: make it with 'densegen model build' or 'convert'")
    _refuse_others(path)
    if not mapped:
        return _read(path)
    found = path.stat()
    return _read_mapped(path, (found.st_mtime_ns, found.st_size, found.st_ino))


@lru_cache(maxsize=1)
def _read_mapped(path: Path, state: tuple[int, int, int]) -> MorphableModel:
    """The model in a file, which was in this state."""
    return _read(path, _BASES)


def _read(path: Path, in_file: tuple[str, ...] = ()) -> MorphableModel:
    """The model in a file, with the arrays ``in_file`` left there."""
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, framework="numpy") as file:
            about = _read_description(path.name, file.metadata() or {})
            if lacking := sorted(set(STORED_AS) - set(file.keys())):
                raise FormatError(f"{path.name} is damaged: it lacks {', '.join(lacking)}; make it again")
            for name, stored_as in STORED_AS.items():  # before memory is taken for them
                if (dtype := file.get_slice(name).get_dtype()) != stored_as:
                    raise FormatError(f"{path.name} is damaged: {name} is {dtype}; make it again")
            arrays: dict[str, Any] = {name: file.get_tensor(name) for name in STORED_AS if name not in in_file}
            arrays |= map_tensors(path, dict.fromkeys(in_file, "F32"))[0]
    except (OSError, SafetensorError) as error:
        raise FormatError(f"{path.name} is not a readable model file: {in_short(error)}") from error
    model = MorphableModel(
        **arrays,
        unit_mm=about.unit_mm,
        name=about.name,
        uv_layout=about.uv_layout,
        shape_names=about.shape_names,
        expression_names=about.expression_names,
    )
    if (_fingerprint_meanwhile(model) if in_file else model.fingerprint) != about.fingerprint:
        raise FormatError(f"{path.name} is damaged: its numbers do not match its fingerprint; make it again")
    return model


def _fingerprint_meanwhile(model: MorphableModel) -> str:
    """A large model takes half a second of hashing in C; numba, which its reader needs next, prepares itself then."""
    with ThreadPoolExecutor(1) as pool:
        found = pool.submit(lambda: model.fingerprint)
        warm_up()
        return found.result()


def _refuse_others(path: Path) -> None:
    """Refuse what is no safetensors file; the common mistakes by name."""
    try:
        size = file_size(path)
        with path.open("rb") as file:
            begin = file.read(8)
    except OSError as error:
        raise FormatError(f"{path.name} is not a readable model file: {error.strerror}") from error
    if size > MAX_MODEL_BYTES:
        raise FormatError(f"{path.name} has {size >> 20} MiB, at most {MAX_MODEL_BYTES >> 20} are read")
    if begin.startswith(b"MATLAB"):
        raise FormatError(f"{path.name} is a MATLAB file: make a model of it with 'densegen model convert'")
    if begin == b"\x89HDF\r\n\x1a\n":
        raise FormatError(f"{path.name} is an HDF5 file, as an earlier densegen wrote: make the model again")
    if begin.startswith((b"format", b"# ", b"{")):
        raise FormatError(f"{path.name} is a text file, not a model: models are .safetensors files")
    # A safetensors file begins with the length of its header, which it holds.
    if len(begin) < 8 or int.from_bytes(begin, "little") > min(size - 8, MAX_HEADER_BYTES):
        raise FormatError(f"{path.name} is not a readable model file: make one with 'densegen model build'")


def _read_description(name: str, metadata: dict[str, str]) -> _Description:
    if _ABOUT not in metadata:
        raise FormatError(f"{name} is not a densegen model: make one with 'densegen model build'")
    try:
        about = _Description.model_validate_json(metadata[_ABOUT])
    except ValidationError as error:
        raise FormatError(f"{name} is not a densegen model: {first_problem(error)}") from error
    if about.schema_version != MODEL_SCHEMA_VERSION:
        raise FormatError(
            f"{name} has model schema {about.schema_version}, expected {MODEL_SCHEMA_VERSION}: make it again with "
            "'densegen model build'"
        )
    return about
