"""Where a click's ray meets a mesh."""

from __future__ import annotations

import numpy as np

from densegen.arrays import Float64, Int32

__all__ = ["hit_vertex"]


def hit_vertex(vertices: Float64, triangles: Int32, origin: Float64, direction: Float64) -> tuple[int, Float64] | None:
    """Where a ray first meets a mesh: the nearest corner of the triangle, and the point; None if it misses.

    vertices : (V, 3), triangles : (F, 3); Moeller and Trumbore (1997), all triangles at once.
    """
    a, b, c = (vertices[triangles[:, corner]] for corner in range(3))
    edge_1, edge_2 = b - a, c - a
    p = np.cross(direction, edge_2)
    determinant = (edge_1 * p).sum(axis=1)
    with np.errstate(divide="ignore", invalid="ignore"):
        inverse = 1 / determinant
        to_origin = origin - a
        u = (to_origin * p).sum(axis=1) * inverse
        q = np.cross(to_origin, edge_1)
        v = (q @ direction) * inverse
        along = (edge_2 * q).sum(axis=1) * inverse
        hit = (u >= 0) & (v >= 0) & (u + v <= 1) & (along > 0)
    if not hit.any():
        return None
    face = int(np.flatnonzero(hit)[np.argmin(along[hit])])
    point = origin + along[face] * direction
    corners = triangles[face]
    return int(corners[np.argmin(np.linalg.norm(vertices[corners] - point, axis=1))]), point
