"""The ray of a click, and where it meets a mesh."""

from __future__ import annotations

from typing import Any

import numpy as np

from densegen.arrays import Float64, Int32

__all__ = ["camera_ray", "hit_vertex"]


def hit_vertex(vertices: Float64, triangles: Int32, origin: Float64, direction: Float64) -> tuple[int, Float64] | None:
    """Where a ray first meets a mesh (Moeller and Trumbore, 1997, for all triangles at once).

    vertices : (V, 3) float64, any frame and unit
    triangles : (F, 3) int32
    origin : (3,) float64, start of the ray, frame of ``vertices``
    direction : (3,) float64, of any length
    returns : the corner of the triangle that is nearest to the point of contact, and that point, (3,) float64; None if
        the ray misses
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


def camera_ray(camera: Any, x: float, y: float) -> tuple[Float64, Float64]:
    """The ray from a camera through a place of its picture: its start and its direction, (3,) float64.

    camera : with ``position``, ``look_at``, ``up_direction``, ``fov`` (vertical, radians) and ``aspect``
    x, y : shares of the picture's width and height, from its upper left corner
    """
    position = np.array(camera.position)
    forward = np.array(camera.look_at) - position
    forward /= np.linalg.norm(forward)
    right = np.cross(forward, camera.up_direction)
    right /= np.linalg.norm(right)
    up = np.cross(right, forward)
    half = np.tan(camera.fov / 2)
    direction: Float64 = forward + (2 * x - 1) * half * camera.aspect * right + (1 - 2 * y) * half * up
    return position, direction
