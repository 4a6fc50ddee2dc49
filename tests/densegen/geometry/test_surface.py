from __future__ import annotations

import numpy as np
import pytest

from densegen.face.morphable_model import MorphableModel
from densegen.geometry.surface import SurfacePoints, locate
from densegen.geometry.uv import uv_pixels
from densegen.index.vertex_index import VertexIndex


def test_a_gathered_point_is_the_weighted_mean_of_its_vertices() -> None:
    mesh = np.array([[0, 0, 0], [4, 0, 8], [0, 8, 16]], np.float32)
    points = SurfacePoints(
        np.array([[0, 1, 2], [1, 1, 1]], np.int32), np.array([[0.5, 0.25, 0.25], [1, 0, 0]], np.float32)
    )
    np.testing.assert_array_equal(points.gather(mesh), [[1, 2, 6], [4, 0, 8]])
    assert len(points[np.array([1])]) == 1


def test_a_vertex_is_located_at_itself(model: MorphableModel) -> None:
    some = np.arange(0, model.vertex_count, 97)
    points, found = locate(uv_pixels(model.uv)[some], model)
    assert found.all()
    np.testing.assert_allclose(points.gather(model.mean), model.mean[some], atol=0.5)  # half a micrometre


def test_a_point_beyond_the_mesh_is_not_found(model: MorphableModel) -> None:
    points, found = locate(np.array([[127.5, 100.0], [5.0, 250.0]]), model)
    assert found.tolist() == [True, False]
    assert points.weights[1].tolist() == [0, 0, 0]


def test_a_mesh_of_another_shape_is_refused(model: MorphableModel, index: VertexIndex) -> None:
    """The kernel looks at no bounds."""
    points = index.resolve(model)
    for mesh in (model.mean.T.copy(), model.mean[:10].copy(), model.mean[:, :2].copy(), np.stack([model.mean] * 2)):
        with pytest.raises(ValueError, match=r"a mesh of shape .*, expected \(V, 3\) with V at least \d+"):
            points.gather(mesh)
