from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from densegen.geometry.pose import pose_vertices, proper_pose, rotation_matrix, yaw_degrees


@pytest.mark.parametrize(
    ("angles", "point", "expected"),
    [
        # R = Rx Ry Rz of 300W-LP, by hand: a quarter turn about each axis.
        ((np.pi / 2, 0, 0), (0, 1, 0), (0, 0, -1)),
        ((0, np.pi / 2, 0), (0, 0, 1), (-1, 0, 0)),
        ((0, 0, np.pi / 2), (1, 0, 0), (0, -1, 0)),
    ],
)
def test_quarter_turns_are_as_computed_by_hand(
    angles: tuple[float, float, float], point: object, expected: object
) -> None:
    np.testing.assert_allclose(rotation_matrix(*angles) @ np.array(point), expected, atol=1e-12)


def test_the_image_frame_counts_from_zero_and_down() -> None:
    # Camera frame (MATLAB): x = 2 * 10 + 5 = 25, y = 2 * 20 + 7 = 47, z = 2 * 30 + 9 = 69.
    vertex = np.array([[10, 20, 30]], np.float32)
    pose = np.array([0, 0, 0, 5, 7, 9, 2], np.float32)
    np.testing.assert_array_equal(pose_vertices(vertex, pose, image_height=100), [[24, 53, 69]])


def test_rotation_leaves_the_depth_scale_alone() -> None:
    generator = np.random.default_rng(0)
    vertices = generator.normal(size=(50, 3)).astype(np.float32)
    straight = pose_vertices(vertices, np.array([0, 0, 0, 0, 0, 0, 3], np.float32), 200)
    turned = pose_vertices(vertices, np.array([0.5, -1.2, 0.9, 4, 5, 6, 3], np.float32), 200)
    np.testing.assert_allclose(
        np.linalg.norm(np.diff(straight, axis=0), axis=1),
        np.linalg.norm(np.diff(turned, axis=0), axis=1),
        rtol=1e-4,
    )


def test_yaw_is_the_second_number_in_degrees() -> None:
    assert yaw_degrees(np.array([[0, np.pi / 6, 0, 0, 0, 0, 1]], np.float32))[0] == pytest.approx(30, abs=1e-5)


def test_a_proper_pose_stays_as_it_is_to_the_last_bit() -> None:
    for angles in ([0.3, -1.1, 2.0], [1.5, 1.5, np.pi], [-1.5, -np.pi, -np.pi], [0, 0, 0]):
        pose = np.array([*angles, 4, 5, 6, 1e-3], np.float32)
        assert (proper_pose(pose) == pose).all()


@pytest.mark.parametrize("turns", [(0, 1, 0), (-2, 1, 3), (5, -5, 5)])
@pytest.mark.parametrize("scale", [2e-3, -2e-3])
def test_a_proper_pose_shows_the_same_picture_from_the_front(turns: tuple[int, int, int], scale: float) -> None:
    generator = np.random.default_rng(1)
    vertices = generator.normal(0, 1e5, (60, 3)).astype(np.float32)
    for _ in range(20):
        angles = generator.uniform([-1.4, -3.1, -3.1], [1.4, 3.1, 3.1]) + 2 * np.pi * np.array(turns)
        pose = np.array([*angles, 210, 190, -40, scale])
        proper = proper_pose(pose)
        assert proper[6] > 0
        assert (np.abs(proper[:3]) <= np.float32(np.pi)).all()
        assert abs(proper[0]) <= np.pi / 2 + 1e-6
        before, after = pose_vertices(vertices, pose, 450), pose_vertices(vertices, proper, 450)
        np.testing.assert_allclose(after[:, :2], before[:, :2], atol=2e-3)
        # A negative scale is a picture of the face turned inside out; the proper pose turns it back.
        depth, sign = before[:, 2] + 40, np.sign(scale)
        np.testing.assert_allclose(after[:, 2] + 40, sign * depth, atol=2e-3)


def test_a_head_in_front_of_the_camera_with_a_negative_scale() -> None:
    """diag(-1, -1, 1) R as angles, by hand: (a, b, c) with -s is (-a, -b, c + pi) with s, and (pi - a, pi + b, c)."""
    pose = np.array([np.pi - 0.1, np.pi - 0.2, 0.3, 1, 2, 3, -0.5])
    np.testing.assert_allclose(proper_pose(pose), [0.1, -0.2, 0.3, 1, 2, 3, 0.5], atol=1e-6)


def test_the_yaw_of_a_mirrored_sample_is_that_of_its_picture() -> None:
    poses = np.array([[0, 0.5, 0, 0, 0, 0, 1]] * 2, np.float32)
    left, right = yaw_degrees(poses, np.array([False, True]))
    assert left == -right == pytest.approx(np.rad2deg(0.5))


angles = st.floats(-50, 50)


@given(angles, angles, angles)
def test_a_rotation_keeps_lengths_and_handedness(pitch: float, yaw: float, roll: float) -> None:
    rotation = rotation_matrix(pitch, yaw, roll)
    np.testing.assert_allclose(rotation @ rotation.T, np.eye(3), atol=1e-14)
    assert np.linalg.det(rotation) == pytest.approx(1)


quarters = st.integers(-30, 30).map(lambda quarter: quarter * np.pi / 2)


@given(angles | quarters, angles | quarters, angles, st.sampled_from([1e-3, -1e-3]))
def test_a_proper_pose_shows_the_same_picture(pitch: float, yaw: float, roll: float, scale: float) -> None:
    vertices = np.random.default_rng(0).normal(0, 6e4, (30, 3)).astype(np.float32)
    pose = np.array([pitch, yaw, roll, 200, 220, 0, scale])
    proper = proper_pose(pose)
    assert proper[6] > 0
    assert (np.abs(proper[:3]) <= np.float32(np.pi)).all()
    before, after = pose_vertices(vertices, pose, 450), pose_vertices(vertices, proper, 450)
    np.testing.assert_allclose(before[:, :2], after[:, :2], atol=5e-3)
    assert (proper_pose(proper) == proper).all()
