"""The morphable model: mean surface, linear components, topology, UV layout and mirror, in one file."""

from __future__ import annotations

import hashlib
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, fields
from functools import cached_property, lru_cache
from pathlib import Path
from typing import Any, Literal

import numpy as np
from pydantic import BaseModel, ConfigDict, ValidationError

from densegen.arrays import Float32, Float64, Int32
from densegen.conventions import UV_LAYOUT
from densegen.errors import ConfigurationError, FormatError
from densegen.face.components import combine
from densegen.files import file_size, write_bytes
from densegen.geometry.kernels import warm_up
from densegen.geometry.uv import mirror_from_uv, uv_pixels
from densegen.ibug68 import KEYPOINTS
from densegen.records import first_problem
from densegen.tensors import map_tensors

__all__ = [
    "BASEL_RAW_VERTICES",
    "BASEL_VERTICES",
    "MODEL_SCHEMA_VERSION",
    "MorphableModel",
    "count_words",
    "read_model",
    "write_model",
]

MODEL_SCHEMA_VERSION = 2

MAX_MODEL_BYTES = 4 << 30
MAX_HEADER_BYTES = 1 << 20

BASEL_RAW_VERTICES, BASEL_VERTICES = 53_490, 53_215
"""Of the Basel Face Model 2009, raw and after 3DDFA's ``trimIndex``."""

VERTEX_COUNTS = {
    BASEL_RAW_VERTICES: "the raw Basel Face Model 2009",
    BASEL_VERTICES: "the Basel model after 3DDFA's trimIndex",
    43867: "the valid pixels of PRNet's 256x256 UV map",
    38365: "3DDFA V2's 'no neck' model",
    35709: "Deep3DFaceRecon's cut of the Basel model",
}
"""Vertex counts that users meet, so that an error can name the one at hand."""


@dataclass(frozen=True, eq=False)
class MorphableModel:
    """A linear 3D morphable model: V vertices, F triangles, Ks shape and Ke expression components.

    shape_mean, expression_mean : (V, 3) float32, model frame and units; their sum is the mean face
    shape_basis : (Ks, V, 3) float32, model units per unit of a raw shape coefficient
    expression_basis : (Ke, V, 3) float32, model units per unit of a raw expression coefficient
    shape_std, expression_std : (Ks,), (Ke,) float32, standard deviations of the raw coefficients
    triangles : (F, 3) int32, 0-based
    keypoints68 : (68,) int32, vertices of the iBUG 68
    uv : (V, 2) float64 in [0, 1], v up
    unit_mm : float, millimetres in one model unit (0.001 for the Basel model)
    uv_layout : name of the UV unwrapping, see ``conventions.UV_LAYOUT``
    name, shape_names, expression_names : for people

    Vertices are ``shape_mean + expression_mean + shape @ shape_basis + expression @ expression_basis``
    (Paysan et al., AVSS 2009; expressions as in Zhu et al., CVPR 2016), with raw coefficients.
    """

    shape_mean: Float32
    expression_mean: Float32
    shape_basis: Float32
    expression_basis: Float32
    shape_std: Float32
    expression_std: Float32
    triangles: Int32
    keypoints68: Int32
    uv: Float64
    unit_mm: float
    name: str
    uv_layout: str = UV_LAYOUT
    shape_names: tuple[str, ...] = ()
    expression_names: tuple[str, ...] = ()

    def __getstate__(self) -> dict[str, Any]:
        """What is kept because it was computed once is not sent to another process: it computes it again."""
        return {field.name: getattr(self, field.name) for field in fields(self)}

    def __post_init__(self) -> None:
        vertices, shapes, expressions = len(self.uv), len(self.shape_basis), len(self.expression_basis)
        expected = {
            "shape_mean": (vertices, 3),
            "expression_mean": (vertices, 3),
            "shape_basis": (shapes, vertices, 3),
            "expression_basis": (expressions, vertices, 3),
            "shape_std": (shapes,),
            "expression_std": (expressions,),
            "triangles": (len(self.triangles), 3),
            "keypoints68": (KEYPOINTS,),
            "uv": (vertices, 2),
        }
        for name, shape in expected.items():
            array = getattr(self, name)
            if array.shape != shape:
                raise FormatError(f"{self.name}: {name} has shape {array.shape}, expected {shape}")
            if array.dtype.kind == "f" and not np.isfinite(array).all():
                raise FormatError(f"{self.name}: {name} holds values that are not finite")
        for name in ("triangles", "keypoints68"):
            indices = getattr(self, name)
            if indices.size and (indices.min() < 0 or indices.max() >= vertices):
                bad = indices.min() if indices.min() < 0 else indices.max()
                raise FormatError(f"{self.name}: {name} refers to vertex {bad} of {count_words(vertices)}")
        if min(self.shape_std.min(initial=0), self.expression_std.min(initial=0)) < 0:
            raise FormatError(f"{self.name}: a standard deviation is below 0")
        if not (np.isfinite(self.unit_mm) and self.unit_mm > 0):
            raise FormatError(f"{self.name}: a model unit has {self.unit_mm} mm, expected more than 0")
        if self.uv.size and (self.uv.min() < 0 or self.uv.max() > 1):
            raise FormatError(f"{self.name}: uv leaves [0, 1]")

    @property
    def vertex_count(self) -> int:
        """V."""
        return len(self.uv)

    @cached_property
    def mean(self) -> Float32:
        """(V, 3) float32, model frame: the mean face, neutral as the model means it."""
        return self.shape_mean + self.expression_mean

    @cached_property
    def basis(self) -> Float32:
        """(Ks + Ke + 1, 3 V) float32: both bases and the mean, for a product with ``[shape, expression, 1]``."""
        stacked = np.concatenate([self.shape_basis, self.expression_basis, self.mean[None]])
        # The components are kept once: 140 MiB of the Basel model.
        shapes = len(self.shape_basis)
        object.__setattr__(self, "shape_basis", stacked[:shapes])
        object.__setattr__(self, "expression_basis", stacked[shapes:-1])
        return stacked.reshape(len(stacked), -1)

    @cached_property
    def mirror(self) -> Int32:
        """(V,) int32: the vertex on the other half of the face, from the UV layout; an involution."""
        return mirror_from_uv(self.uv)

    @cached_property
    def mean_mm(self) -> Float64:
        """(V, 3) float64, the mean face in millimetres, model frame."""
        return self.mean.astype(np.float64) * self.unit_mm

    @cached_property
    def keypoint_pixels(self) -> Float64:
        """(68, 2) float64, (column, row) of the iBUG 68 in the 256x256 UV map."""
        return uv_pixels(self.uv[self.keypoints68])

    @cached_property
    def outward_triangles(self) -> Int32:
        """(F, 3) int32: the triangles, wound as viewers expect: counter-clockwise seen from outside.

        The Basel model's are wound the other way; ``triangles`` keeps their order, on which the position map depends.
        """
        a, b, c = (self.mean[self.triangles[:, corner]] for corner in range(3))
        facing = np.cross(b - a, c - a)[:, 2].sum()
        return self.triangles if facing >= 0 else np.ascontiguousarray(self.triangles[:, ::-1])

    @cached_property
    def fingerprint(self) -> str:
        """SHA-256 over every array, as hexadecimal: the same numbers give the same text, whatever the file."""
        digest = hashlib.sha256()
        for name in _STORED_AS:
            array = getattr(self, name)
            digest.update(f"{name} {array.dtype.str} {array.shape}\n".encode())
            digest.update(np.ascontiguousarray(array).data)
        digest.update(f"{self.uv_layout} {self.unit_mm!r}".encode())
        return digest.hexdigest()

    @cached_property
    def topology(self) -> str:
        """SHA-256 over triangles and uv alone: equal for the same mesh with other or fewer components."""
        digest = hashlib.sha256(self.uv_layout.encode())
        for array in (self.triangles, self.uv):
            digest.update(np.ascontiguousarray(array).data)
        return digest.hexdigest()

    def coefficients(self, shape: Float32, expression: Float32) -> Float32:
        """(Ks + Ke,) float32 of both, as :attr:`basis` has its rows; raises :class:`ConfigurationError` if they are not
        as many as the components."""
        if (len(shape), len(expression)) != (len(self.shape_basis), len(self.expression_basis)):
            raise ConfigurationError(
                f"{len(shape)} shape and {len(expression)} expression coefficients, but {self.name} has "
                f"{len(self.shape_basis)} and {len(self.expression_basis)} components"
            )
        both: Float32 = np.concatenate([shape, expression], dtype=np.float32)
        return both

    def vertices(self, shape: Float32, expression: Float32) -> Float32:
        """The vertices of one face, each the sum of its components in a fixed order, on every processor.

        shape : (Ks,) float32, raw coefficients
        expression : (Ke,) float32, raw coefficients
        returns : (V, 3) float32, model frame and units
        """
        vertices: Float32 = combine(self.coefficients(shape, expression)[None], self.basis)[0]
        return vertices

    def basis_at(self, vertices: Int32) -> Float32:
        """(Ks + Ke + 1, 3 n) float32: the columns of :attr:`basis` that belong to n vertices; without making it."""
        at = np.empty((len(self.shape_basis) + len(self.expression_basis) + 1, len(vertices), 3), np.float32)
        for row, component in enumerate((*self.shape_basis, *self.expression_basis, self.mean)):
            at[row] = component[vertices]
        return at.reshape(len(at), -1)


_STORED_AS = {
    "shape_mean": "F32", "expression_mean": "F32", "shape_basis": "F32", "expression_basis": "F32", "shape_std": "F32",
    "expression_std": "F32", "triangles": "I32", "keypoints68": "I32", "uv": "F64",
}  # fmt: skip
"""The arrays of a model, in the order in which its fingerprint counts them, by safetensors' names of their types."""

_BASES = ("shape_basis", "expression_basis")
"""Nearly all of a model's bytes: 140 MiB of the Basel model."""

_ABOUT = "densegen"


def count_words(vertices: int) -> str:
    """The vertex count with what it usually means: ``53490 (the raw Basel Face Model 2009)``."""
    meaning = VERTEX_COUNTS.get(vertices)
    return f"{vertices} ({meaning})" if meaning else str(vertices)


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
    arrays = {name: np.ascontiguousarray(getattr(model, name)) for name in _STORED_AS}
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
            if lacking := sorted(set(_STORED_AS) - set(file.keys())):
                raise FormatError(f"{path.name} is damaged: it lacks {', '.join(lacking)}; make it again")
            for name, stored_as in _STORED_AS.items():  # before memory is taken for them
                if (dtype := file.get_slice(name).get_dtype()) != stored_as:
                    raise FormatError(f"{path.name} is damaged: {name} is {dtype}; make it again")
            arrays: dict[str, Any] = {name: file.get_tensor(name) for name in _STORED_AS if name not in in_file}
            arrays |= map_tensors(path, dict.fromkeys(in_file, "F32"))[0]
    except (OSError, SafetensorError) as error:
        raise FormatError(f"{path.name} is not a readable model file: {' '.join(str(error).split())}") from error
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
