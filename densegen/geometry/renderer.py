"""A small z-buffer renderer: per-pixel attributes of the nearest triangle."""

from __future__ import annotations

from typing import Any

import numpy as np

from densegen.arrays import Float32, Int32
from densegen.geometry.kernels import kernel

__all__ = ["interpolate", "nearest_triangles", "rasterise", "vertex_normals"]


def rasterise(
    points_image: Float32,
    triangles: Int32,
    attributes: Float32,
    height: int,
    width: int,
) -> tuple[Float32, Float32]:
    """Draw a mesh in orthographic projection, nearest surface first (largest z).

    points_image : (V, 3) float32, pixels, image frame
    triangles : (F, 3) int32
    attributes : (V, K) float32
    height, width : H and W in pixels
    returns : (H, W, K) float32 attributes interpolated over the visible triangles, and (H, W) float32 depth (z in
        pixels, image frame), -inf if nothing was drawn
    """
    nearest, depth = nearest_triangles(points_image, triangles, height, width)
    values = np.zeros((height, width, attributes.shape[1]), np.float32)
    values[nearest >= 0] = interpolate(points_image, triangles, attributes, nearest)
    return values, depth


def nearest_triangles(points_image: Float32, triangles: Int32, height: int, width: int) -> tuple[Int32, Float32]:
    """Which triangle each pixel shows, of a mesh as in :func:`rasterise`.

    returns : (H, W) int32, -1 if nothing was drawn, and (H, W) float32 depth, see there
    """
    nearest, depth = _nearest(points_image.astype(np.float32), triangles, height, width)
    return nearest, depth


def interpolate(points_image: Float32, triangles: Int32, attributes: Float32, nearest: Int32) -> Float32:
    """The attributes of the n pixels that show a triangle, in row-major order: (n, K) float32.

    attributes : (V, K) float32
    nearest : (H, W) int32, of :func:`nearest_triangles` for the same mesh
    """
    values: Float32 = _interpolate(points_image.astype(np.float32), triangles, attributes.astype(np.float32), nearest)
    return values


def vertex_normals(points: Float32, triangles: Int32) -> Float32:
    """(V, 3) float32 unit normals, area-weighted means of the triangles around each vertex."""
    corners = points[triangles]
    normals = np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0])
    sums = _sums_around(normals.astype(np.float32), triangles, len(points))
    unit: Float32 = sums / np.maximum(np.linalg.norm(sums, axis=1, keepdims=True), 1e-9)
    return unit


@kernel
def _sums_around(of_triangles: Any, triangles: Any, count: int) -> Any:
    """(count, 3) float32: of each vertex the sum over its triangles, as ``np.add.at`` adds, corner by corner."""
    sums = np.zeros((count, 3), np.float32)
    for corner in range(3):
        for f in range(len(triangles)):
            for axis in range(3):
                sums[triangles[f, corner], axis] += of_triangles[f, axis]
    return sums


@kernel
def _shares(x0: Any, y0: Any, x1: Any, y1: Any, x2: Any, y2: Any, area: Any, column: Any, row: Any) -> Any:
    """The barycentric weights of the first two corners of a triangle at a pixel; ``area`` is twice the triangle's."""
    a = ((x1 - column) * (y2 - row) - (x2 - column) * (y1 - row)) / area
    b = ((x2 - column) * (y0 - row) - (x0 - column) * (y2 - row)) / area
    return a, b


@kernel
def _nearest(points: Any, triangles: Any, height: int, width: int) -> Any:
    nearest = np.full((height, width), -1, np.int32)
    depth = np.full((height, width), -np.inf, np.float32)
    for f in range(len(triangles)):
        i, j, k = triangles[f]
        x0, y0, z0 = points[i]
        x1, y1, z1 = points[j]
        x2, y2, z2 = points[k]
        area = (x1 - x0) * (y2 - y0) - (x2 - x0) * (y1 - y0)
        if area == 0:
            continue
        first_column = max(int(np.ceil(min(x0, x1, x2))), 0)
        last_column = min(int(np.floor(max(x0, x1, x2))), width - 1)
        first_row = max(int(np.ceil(min(y0, y1, y2))), 0)
        last_row = min(int(np.floor(max(y0, y1, y2))), height - 1)
        for row in range(first_row, last_row + 1):
            for column in range(first_column, last_column + 1):
                a, b = _shares(x0, y0, x1, y1, x2, y2, area, column, row)
                c = 1 - a - b
                if a < 0 or b < 0 or c < 0:
                    continue
                z = a * z0 + b * z1 + c * z2
                if z > depth[row, column]:
                    depth[row, column] = z
                    nearest[row, column] = f
    return nearest, depth


@kernel
def _interpolate(points: Any, triangles: Any, attributes: Any, nearest: Any) -> Any:
    height, width = nearest.shape
    values, n = np.empty((np.count_nonzero(nearest >= 0), attributes.shape[1]), np.float32), 0
    for row in range(height):
        for column in range(width):
            if nearest[row, column] < 0:
                continue
            i, j, k = triangles[nearest[row, column]]
            x0, y0, _ = points[i]
            x1, y1, _ = points[j]
            x2, y2, _ = points[k]
            area = (x1 - x0) * (y2 - y0) - (x2 - x0) * (y1 - y0)
            a, b = _shares(x0, y0, x1, y1, x2, y2, area, column, row)
            c = 1 - a - b
            for m in range(attributes.shape[1]):
                values[n, m] = a * attributes[i, m] + b * attributes[j, m] + c * attributes[k, m]
            n += 1
    return values
