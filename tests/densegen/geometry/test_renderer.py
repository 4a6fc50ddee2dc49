"""The z-buffer renderer."""

from __future__ import annotations

import numpy as np

from densegen.geometry.renderer import rasterise, vertex_normals


def test_the_nearest_surface_wins() -> None:
    square = np.array([[1, 1, 0], [8, 1, 0], [8, 8, 0], [1, 8, 0]], np.float32)
    points = np.concatenate([square, square + [2, 2, 5]]).astype(np.float32)
    triangles = np.array([[0, 1, 2], [0, 2, 3], [4, 5, 6], [4, 6, 7]], np.int32)
    colours = np.repeat([[1.0], [2.0]], 4, axis=0).astype(np.float32)
    for order in ([0, 1, 2, 3], [2, 3, 0, 1]):
        values, depth = rasterise(points, triangles[order], colours, 12, 12)
        assert values[2, 2, 0] == 1
        assert values[5, 5, 0] == 2
        assert depth[5, 5] == 5
        assert np.isneginf(depth[0, 0])


def test_normals_of_a_flat_square_are_unit_and_equal() -> None:
    square = np.array([[0, 0, 0], [1, 0, 0], [1, 1, 0], [0, 1, 0]], np.float32)
    normals = vertex_normals(square, np.array([[0, 1, 2], [0, 2, 3]], np.int32))
    np.testing.assert_allclose(normals, [[0, 0, 1]] * 4)
