"""Points on the surface of a triangle mesh, and where a UV position lies on it."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from densegen.arrays import Float32, Float64, Int32, Mask
from densegen.conventions import UV_SIZE
from densegen.geometry.kernels import kernel
from densegen.geometry.uv import uv_pixels

__all__ = ["SurfacePoints", "UvMesh", "locate", "used_vertices"]


class UvMesh(Protocol):
    """What a mesh must know for points to be placed on it through its UV layout; a morphable model is one."""

    @property
    def name(self) -> str: ...
    @property
    def uv_layout(self) -> str: ...
    @property
    def topology(self) -> str: ...
    @property
    def uv(self) -> Float64: ...
    @property
    def triangles(self) -> Int32: ...
    @property
    def mirror(self) -> Int32: ...


@dataclass(frozen=True, eq=False)
class SurfacePoints:
    """N points on the surface of a mesh, each the weighted mean of three vertices.

    vertices : (N, 3) int32
    weights : (N, 3) float32, each row adds up to 1, or is 0 for a point off the mesh (see :func:`locate`)
    """

    vertices: Int32
    weights: Float32

    def __len__(self) -> int:
        return len(self.vertices)

    def __getitem__(self, rows: npt.NDArray[Any]) -> SurfacePoints:
        return SurfacePoints(self.vertices[rows], self.weights[rows])

    def among(self, vertices: Int32) -> SurfacePoints:
        """The same points of a mesh of which only these vertices are there, (n,) in any order."""
        order = np.argsort(vertices)
        rows = order[np.searchsorted(vertices, self.vertices, sorter=order)]
        return SurfacePoints(rows.astype(np.int32), self.weights)

    @cached_property
    def least(self) -> int:
        """How many vertices a mesh has at least that has these points."""
        return int(self.vertices.max(initial=-1)) + 1

    def gather(self, mesh: Float32) -> Float32:
        """The points on a posed mesh: (V, 3) float32 -> (N, 3) float32, in the mesh's frame and unit.

        Raises ``ValueError`` if the mesh has another shape, or too few vertices.
        """
        if mesh.ndim != 2 or mesh.shape[1] != 3 or len(mesh) < self.least:
            raise ValueError(f"a mesh of shape {mesh.shape}, expected (V, 3) with V at least {self.least}")
        points: Float32 = _gather(np.ascontiguousarray(mesh, np.float32), self.vertices, self.weights)
        return points


def used_vertices(*points: SurfacePoints) -> Int32:
    """(n,) int32: the vertices that points are made of, in the order in which they are first used: a pass over the
    points finds each near the one before.
    """
    vertices, first = np.unique(np.concatenate([one.vertices.ravel() for one in points]), return_index=True)
    return vertices[np.argsort(first)]


def locate(pixels: Float64, mesh: UvMesh) -> tuple[SurfacePoints, Mask]:
    """The surface points under sub-pixel positions of the UV map.

    pixels : (N, 2) float64 (column, row), UV frame
    returns : the N surface points, and (N,) bool: which of them lie on the mesh at all (an edge counts as on it,
        to 1e-6; the others carry weight 0)
    """
    corners = uv_pixels(mesh.uv, UV_SIZE)
    downwards = np.argsort(pixels[:, 1], kind="stable")
    back = np.argsort(downwards, kind="stable")
    found = _locate(np.asarray(pixels, np.float64)[downwards], corners, mesh.triangles)
    vertices, weights, on_mesh = (part[back] for part in found)
    return SurfacePoints(vertices, weights.astype(np.float32)), on_mesh


@kernel
def _gather(mesh: Any, vertices: Any, weights: Any) -> Any:
    out = np.empty((len(vertices), 3), np.float32)
    for n in range(len(vertices)):
        # Unsigned indices are not tested for negative ones.
        i, j, k = np.uint32(vertices[n, 0]), np.uint32(vertices[n, 1]), np.uint32(vertices[n, 2])
        a, b, c = weights[n]
        out[n, 0] = a * mesh[i, 0] + b * mesh[j, 0] + c * mesh[k, 0]
        out[n, 1] = a * mesh[i, 1] + b * mesh[j, 1] + c * mesh[k, 1]
        out[n, 2] = a * mesh[i, 2] + b * mesh[j, 2] + c * mesh[k, 2]
    return out


@kernel
def _locate(pixels: Any, corners: Any, triangles: Any) -> Any:
    """For each point the triangle in which its smallest barycentric weight is largest, if that is not negative.

    pixels : sorted by row: a triangle looks at those in its rows alone
    """
    count = len(pixels)
    rows = np.ascontiguousarray(pixels[:, 1])
    vertices = np.zeros((count, 3), np.int32)
    weights = np.zeros((count, 3), np.float64)
    best = np.full(count, -np.inf)
    for f in range(len(triangles)):
        x0, y0 = corners[triangles[f, 0]]
        x1, y1 = corners[triangles[f, 1]]
        x2, y2 = corners[triangles[f, 2]]
        area = (x1 - x0) * (y2 - y0) - (x2 - x0) * (y1 - y0)
        if area == 0:
            continue
        left, right = min(x0, x1, x2), max(x0, x1, x2)
        top, bottom = min(y0, y1, y2), max(y0, y1, y2)
        for n in range(np.searchsorted(rows, top - 1e-6), count):
            px, py = pixels[n]
            if py > bottom + 1e-6:
                break
            if px < left - 1e-6 or px > right + 1e-6:
                continue
            a = ((x1 - px) * (y2 - py) - (x2 - px) * (y1 - py)) / area
            b = ((x2 - px) * (y0 - py) - (x0 - px) * (y2 - py)) / area
            smallest = min(a, b, 1 - a - b)
            if smallest > best[n]:
                best[n] = smallest
                vertices[n] = triangles[f]
                weights[n, 0], weights[n, 1], weights[n, 2] = a, b, 1 - a - b
    found = best >= -1e-6
    for n in range(count):
        if not found[n]:
            weights[n] = 0
    return vertices, weights, found
