"""The morphable model: mean surface, linear components, topology, UV layout and mirror."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, fields
from functools import cached_property
from typing import Any

import numpy as np

from densegen.arrays import Float32, Float64, Int32
from densegen.conventions import UV_LAYOUT
from densegen.errors import ConfigurationError, FormatError
from densegen.face.components import combine
from densegen.geometry.uv import mirror_from_uv, uv_pixels
from densegen.ibug68 import KEYPOINTS

__all__ = [
    "BASEL_RAW_VERTICES",
    "BASEL_VERTICES",
    "STORED_AS",
    "MorphableModel",
    "count_words",
]

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
        vertices, (shapes, expressions) = len(self.uv), self.component_counts
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
        for name in STORED_AS:
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

    @property
    def component_counts(self) -> tuple[int, int]:
        """How many components of shape, and of expression."""
        return len(self.shape_basis), len(self.expression_basis)

    def coefficients(self, shape: Float32, expression: Float32) -> Float32:
        """(Ks + Ke,) float32 of both, as :attr:`basis` has its rows; raises :class:`ConfigurationError` if they are not
        as many as the components."""
        shapes, expressions = self.component_counts
        if (len(shape), len(expression)) != (shapes, expressions):
            raise ConfigurationError(
                f"{len(shape)} shape and {len(expression)} expression coefficients, but {self.name} has "
                f"{shapes} and {expressions} components"
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
        at = np.empty((sum(self.component_counts) + 1, len(vertices), 3), np.float32)
        for row, component in enumerate((*self.shape_basis, *self.expression_basis, self.mean)):
            at[row] = component[vertices]
        return at.reshape(len(at), -1)


STORED_AS = {
    "shape_mean": "F32", "expression_mean": "F32", "shape_basis": "F32", "expression_basis": "F32", "shape_std": "F32",
    "expression_std": "F32", "triangles": "I32", "keypoints68": "I32", "uv": "F64",
}  # fmt: skip
"""The arrays of a model, in the order in which its fingerprint counts them, by safetensors' names of their types."""


def count_words(vertices: int) -> str:
    """The vertex count with what it usually means: ``53490 (the raw Basel Face Model 2009)``."""
    meaning = VERTEX_COUNTS.get(vertices)
    return f"{vertices} ({meaning})" if meaning else str(vertices)
