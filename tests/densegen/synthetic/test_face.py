"""The procedural face."""

from __future__ import annotations

import numpy as np

from densegen.face.morphable_model import MorphableModel
from densegen.geometry.uv import uv_pixels
from densegen.synthetic.face import keypoint_pixels


def test_the_face_and_every_component_are_symmetric_to_the_last_bit(model: MorphableModel) -> None:
    for field in (model.mean, *model.shape_basis, *model.expression_basis):
        assert (field[model.mirror] * [-1, 1, 1] == field).all()


def test_the_keypoints_lie_on_the_layouts_keypoints(model: MorphableModel) -> None:
    np.testing.assert_allclose(uv_pixels(model.uv[model.keypoints68]), keypoint_pixels(), atol=1e-9)


def test_the_face_has_a_humans_proportions(model: MorphableModel) -> None:
    mm = model.mean[model.keypoints68] * model.unit_mm
    assert 120 < mm[16, 0] - mm[0, 0] < 160  # from ear to ear
    assert 80 < np.linalg.norm(mm[45] - mm[36]) < 100  # outer corners of the eyes
    assert 40 < mm[54, 0] - mm[48, 0] < 60  # width of the mouth
    assert mm[30, 2] == mm[:, 2].max()  # the tip of the nose is in front
    assert mm[27, 1] > mm[30, 1] > mm[51, 1] > mm[57, 1] > mm[8, 1]  # bridge, tip, lips, chin from top to bottom


def test_no_triangle_of_the_mean_is_degenerate(model: MorphableModel) -> None:
    corners = model.mean[model.triangles] * model.unit_mm
    area = np.linalg.norm(np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0]), axis=1) / 2
    assert area.min() > 1e-3
