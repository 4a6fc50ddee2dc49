"""Pose: from the model frame to the image frame. The y flip of the image lives here and nowhere else."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from densegen.kernels import kernel

__all__ = ["pose_vertices", "rotation_matrix", "yaw_degrees"]

FloatArray = npt.NDArray[np.float32]


def rotation_matrix(pitch_rad: float, yaw_rad: float, roll_rad: float) -> npt.NDArray[np.float64]:
    """The (3, 3) float64 rotation ``R = Rx @ Ry @ Rz`` of 300W-LP (Zhu et al., CVPR 2016), from radians."""
    ca, sa = np.cos(pitch_rad), np.sin(pitch_rad)
    cb, sb = np.cos(yaw_rad), np.sin(yaw_rad)
    cc, sc = np.cos(roll_rad), np.sin(roll_rad)
    rx = np.array([[1, 0, 0], [0, ca, sa], [0, -sa, ca]])
    ry = np.array([[cb, 0, -sb], [0, 1, 0], [sb, 0, cb]])
    rz = np.array([[cc, sc, 0], [-sc, cc, 0], [0, 0, 1]])
    rotation: npt.NDArray[np.float64] = rx @ ry @ rz
    return rotation


def pose_vertices(vertices: FloatArray, pose: FloatArray, image_height: int) -> FloatArray:
    """Pose vertices into the image: ``p = s * v @ R.T + t`` (weak perspective), then the image frame.

    The pose speaks MATLAB's pixels (1-based, y up from the bottom), so ``x = p_x - 1``, ``y = h - p_y``, ``z = p_z``.

    vertices : (V, 3) float32, model frame
    pose : (7,) float32, pitch, yaw, roll [rad], tx, ty, tz [px, camera frame], scale [px per model unit]
    image_height : h in pixels
    returns : (V, 3) float32, pixels, image frame
    """
    pitch, yaw, roll, tx, ty, tz, scale = pose.astype(np.float64)
    linear = scale * rotation_matrix(pitch, yaw, roll).T * [1, -1, 1]
    offset = np.array([tx - 1, image_height - ty, tz])
    posed: FloatArray = _transform(vertices, linear.astype(np.float32), offset.astype(np.float32))
    return posed


def yaw_degrees(poses: FloatArray) -> npt.NDArray[np.float64]:
    """Yaw in degrees of (..., 7) poses."""
    return np.rad2deg(poses[..., 1].astype(np.float64))


@kernel
def _transform(points: Any, linear: Any, offset: Any) -> Any:
    """``points @ linear + offset`` in one pass over memory; BLAS is slow at products this thin."""
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
