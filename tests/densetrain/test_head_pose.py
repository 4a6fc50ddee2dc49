from __future__ import annotations

import numpy as np
import pytest

from densegen.face.morphable_model import MorphableModel
from densegen.geometry.pose import pose_vertices, rotation_matrix
from densegen.index.vertex_index import VertexIndex
from densetrain.head_pose import angles_of, head_pose, reference_face


@pytest.mark.parametrize(
    "angles", [(0.0, 0.0, 0.0), (0.3, -1.2, 0.5), (-0.6, 1.5, -2.0), (0.1, 1.7, 0.05), (-0.9, -2.1, 0.6)]
)
def test_angles_come_back_from_their_rotation(angles: tuple[float, float, float]) -> None:
    assert angles_of(rotation_matrix(*angles)) == pytest.approx(angles)


def test_the_pose_of_posed_landmarks_is_found(model: MorphableModel, index: VertexIndex) -> None:
    generator = np.random.default_rng(0)
    face = index.resolve(model).gather(model.mean)
    poses = np.concatenate([generator.uniform(-0.5, 0.5, (40, 3)), np.tile([200, 200, 0, 1e-3], (40, 1))], axis=1)
    poses[:, 1] *= 3
    posed = np.stack([pose_vertices(face, pose.astype(np.float32), 450) for pose in poses])
    reference = reference_face(posed, poses)
    np.testing.assert_allclose(head_pose(posed, reference), np.rad2deg(poses[:, :3]), atol=1e-2)
