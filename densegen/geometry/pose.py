"""Pose: from the model frame to the image frame. The y flip of the image lives here and nowhere else."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import numpy.typing as npt

from densegen.arrays import Float32, Float64, Mask
from densegen.geometry.elementary import arctangent, sine_cosine_array
from densegen.geometry.kernels import kernel

__all__ = [
    "camera_points",
    "image_transform",
    "pose_from",
    "pose_vertices",
    "proper_angles",
    "proper_pose",
    "rotation_matrix",
    "transform",
    "yaw_degrees",
]


def rotation_matrix(pitch_rad: float, yaw_rad: float, roll_rad: float) -> Float64:
    """The (3, 3) float64 rotation ``R = Rx @ Ry @ Rz`` of 300W-LP (Zhu et al., CVPR 2016), from radians.

    Written out, not multiplied by BLAS: the same bits on every processor.
    """
    sines, cosines = sine_cosine_array(np.array([pitch_rad, yaw_rad, roll_rad]))
    (sa, sb, sc), (ca, cb, cc) = sines.tolist(), cosines.tolist()
    return np.array(
        [
            [cb * cc, cb * sc, -sb],
            [sa * (sb * cc) - ca * sc, sa * (sb * sc) + ca * cc, sa * cb],
            [ca * (sb * cc) + sa * sc, ca * (sb * sc) - sa * cc, ca * cb],
        ]
    )


def pose_from(rotation: Float64, translation: Float64, scale: float) -> Float32:
    """The pose of a rotation, the reverse of :func:`rotation_matrix`: of the two triples of angles that name it, that
    with the smaller pitch; at a yaw of exactly 90 degrees, that without roll.

    rotation : (3, 3) float64
    translation : (3,) float64, px, camera frame
    scale : px per model unit, above 0
    returns : (7,) float32, see ``conventions.POSE_FIELDS``
    """
    sine = min(max(-float(rotation[0, 2]), -1.0), 1.0)
    cosine = math.sqrt((1 - sine) * (1 + sine))
    yaw = arctangent(sine, cosine)
    if cosine > 1e-6:
        pitch = arctangent(float(rotation[1, 2]), float(rotation[2, 2]))
        roll = arctangent(float(rotation[0, 1]), float(rotation[0, 0]))
    else:  # pitch and roll turn about the same axis
        pitch, roll = arctangent(-float(rotation[2, 1]), float(rotation[1, 1])), 0.0
    return proper_pose(np.array([pitch, yaw, roll, *map(float, translation), scale]))


def camera_points(points_image: npt.NDArray[np.floating], image_height: int) -> Float64:
    """(..., 2 or 3) points in the image frame -> float64 in the camera frame; the reverse of :func:`pose_vertices`."""
    points = np.array(points_image, np.float64)
    points[..., 0] += 1
    points[..., 1] = image_height - points[..., 1]
    return points


def proper_pose(pose: npt.NDArray[np.floating]) -> Float32:
    """The pose that shows the same picture with a positive scale and angles within one turn.

    Under weak perspective ``-|s| R v`` and ``|s| diag(-1, -1, 1) R v`` have the same x and y; the second is a rotation
    of the face, and its z points to the viewer: that is what a fit with a negative scale (AFLW2000-3D's image04157)
    stands for. As angles, ``diag(-1, -1, 1) Rx(a) Ry(b) Rz(c) = Rx(-a) Ry(-b) Rz(c + pi)``. Angles are then wrapped
    into [-pi, pi]; of the two triples that name one rotation, (a, b, c) and (a + pi, pi - b, c + pi), the one with the
    smaller pitch is taken. A pose that is proper already stays as it is, to the last bit.

    pose : (7,) pitch, yaw, roll [rad], tx, ty, tz [px, camera frame], scale [px per model unit], as a file has it
    returns : (7,) float32, the same units

    >>> proper_pose(np.array([0.25, 0.5, math.pi, 10, 20, 30, -0.125])).round(6).tolist()
    [-0.25, -0.5, 0.0, 10.0, 20.0, 30.0, 0.125]
    """
    pitch, yaw, roll, tx, ty, tz, scale = map(float, pose)
    if scale < 0:
        pitch, yaw, roll, scale = -pitch, -yaw, roll + math.pi, -scale
    return np.array([*proper_angles(pitch, yaw, roll), tx, ty, tz, scale], np.float32)


def proper_angles(pitch: float, yaw: float, roll: float) -> tuple[float, float, float]:
    """The same rotation by angles within one turn, the pitch within a quarter; radians, see :func:`proper_pose`."""
    first = (_wrap(pitch), _wrap(yaw), _wrap(roll))
    # A quarter turn as float32 is a little more than one, and stays as it is when it is read again.
    if abs(np.float32(first[0])) <= np.float32(math.pi / 2):
        return first
    return _wrap(pitch + math.pi), _wrap(math.pi - yaw), _wrap(roll + math.pi)


def _wrap(angle_rad: float) -> float:
    """The same direction within [-pi, pi]; an angle that lies there stays as it is."""
    # pi as float32, a little more than pi: what was stored stays as it is.
    return angle_rad if abs(angle_rad) <= float(np.float32(math.pi)) else math.remainder(angle_rad, 2 * math.pi)


def pose_vertices(vertices: Float32, pose: Float32, image_height: int) -> Float32:
    """Pose vertices into the image: ``p = s * v @ R.T + t`` (weak perspective), then the image frame.

    The pose speaks MATLAB's pixels (1-based, y up from the bottom), so ``x = p_x - 1``, ``y = h - p_y``, ``z = p_z``.

    vertices : (V, 3) float32, model frame
    pose : (7,) float32, pitch, yaw, roll [rad], tx, ty, tz [px, camera frame], scale [px per model unit]
    image_height : h in pixels
    returns : (V, 3) float32, pixels, image frame
    """
    linear, offset = image_transform(pose, image_height)
    return transform(vertices, linear, offset)


def image_transform(pose: Float32, image_height: int) -> tuple[Float32, Float32]:
    """The (3, 3) matrix and (3,) offset, float32, by which :func:`pose_vertices` is ``v @ matrix + offset``."""
    pitch, yaw, roll, tx, ty, tz, scale = map(float, pose)
    linear = scale * rotation_matrix(pitch, yaw, roll).T * [1, -1, 1]
    offset = np.array([tx - 1, image_height - ty, tz])
    return linear.astype(np.float32), offset.astype(np.float32)


def transform(points: Float32, matrix: Float32, offset: Float32) -> Float32:
    """``points @ matrix + offset``: (n, 3), (3, 3) and (3,) float32 -> (n, 3) float32; BLAS is slow at these."""
    transformed: Float32 = _transform(points, matrix, offset)
    return transformed


def yaw_degrees(poses: Float32, mirrored: Mask | None = None) -> Float64:
    """Yaw in degrees of (..., 7) poses, as the pictures show it.

    mirrored : (...) bool, samples that were mirrored after their fit: their pose is that of the fit as it was

    >>> yaw_degrees(np.array([[0, math.pi / 2, 0, 0, 0, 0, 1]]), np.array([True])).round(6).tolist()
    [-90.0]
    """
    yaw: Float64 = np.rad2deg(poses[..., 1].astype(np.float64))
    return yaw if mirrored is None else np.where(mirrored, -yaw, yaw)


@kernel
def _transform(points: Any, linear: Any, offset: Any) -> Any:
    out = np.empty_like(points)
    a, b, c = linear[0]
    d, e, f = linear[1]
    g, h, i = linear[2]
    p, q, r = offset
    for n in range(len(points)):
        x, y, z = points[n, 0], points[n, 1], points[n, 2]
        out[n, 0] = x * a + y * d + z * g + p
        out[n, 1] = x * b + y * e + z * h + q
        out[n, 2] = x * c + y * f + z * i + r
    return out
