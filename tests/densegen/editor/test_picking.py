"""Which triangle a click meets."""

from __future__ import annotations

import numpy as np

from densegen.editor.picking import hit_vertex


def test_a_ray_meets_the_nearest_triangle() -> None:
    square = np.array([[0, 0, 0], [4, 0, 0], [4, 4, 0], [0, 4, 0]], np.float64)
    vertices = np.concatenate([square, square + [0, 0, 2]])
    triangles = np.array([[0, 1, 2], [0, 2, 3], [4, 5, 6], [4, 6, 7]], np.int32)
    hit = hit_vertex(vertices, triangles, np.array([3.5, 0.4, 9.0]), np.array([0.0, 0.0, -1.0]))
    assert hit is not None
    vertex, point = hit
    assert vertex == 5
    np.testing.assert_allclose(point, [3.5, 0.4, 2])
    assert hit_vertex(vertices, triangles, np.array([9.0, 9.0, 9.0]), np.array([0.0, 0.0, -1.0])) is None
