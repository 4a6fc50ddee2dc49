"""Head pose from landmarks: the rotation that takes a frontal reference face to them. NumPy alone."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from densegen.arrays import Float64
from densegen.geometry.pose import proper_angles, rotation_matrix

__all__ = ["angles_of", "head_pose", "reference_face"]

IMAGE_FROM_MODEL = np.array([1.0, -1.0, 1.0])
"""The image's y points down, the model's up."""


def reference_face(landmarks: npt.NDArray[np.floating], poses: npt.NDArray[np.floating]) -> Float64:
    """(N, 3) mean frontal face of (S, N, 3) landmarks, crop frame, whose (S, 7) poses are known.

    Each face is turned back by its own rotation, centred, and scaled to a root mean square distance of 1; the result
    is in the model frame's directions.
    """
    faces = landmarks.astype(np.float64) * IMAGE_FROM_MODEL
    turned = np.stack(
        [face @ rotation_matrix(*pose[:3]) for face, pose in zip(faces, poses.astype(np.float64), strict=True)]
    )
    turned -= turned.mean(axis=1, keepdims=True)
    turned /= np.sqrt((turned**2).sum(axis=2).mean(axis=1))[:, None, None]
    mean: Float64 = turned.mean(axis=0)
    return mean


def head_pose(landmarks: npt.NDArray[np.floating], reference: Float64) -> Float64:
    """Head poses: pitch, yaw and roll, with the signs of ``Pose_Para``.

    landmarks : (n, N, 3) float, pixels, image or crop frame
    reference : (N, 3) float64, no unit, directions of the model frame, as :func:`reference_face` gives it
    returns : (n, 3) float64, degrees

    The rotation is the least-squares one between centred point sets (Umeyama, PAMI 1991, eq. 40).
    """
    centred = reference - reference.mean(axis=0)
    result = []
    for face in landmarks.astype(np.float64) * IMAGE_FROM_MODEL:
        u, _, vt = np.linalg.svd((face - face.mean(axis=0)).T @ centred)
        turn = np.diag([1.0, 1.0, np.sign(np.linalg.det(u @ vt))])
        result.append(angles_of(u @ turn @ vt))
    degrees: Float64 = np.rad2deg(np.array(result, np.float64).reshape(-1, 3))
    return degrees


def angles_of(rotation: Float64) -> tuple[float, float, float]:
    """Pitch, yaw, roll in radians of a (3, 3) rotation ``R = Rx Ry Rz``, as in :mod:`densegen.geometry.pose`.

    Of the two triples that name it, it is the one with the smaller pitch: a head beyond 90 degrees of yaw is upright.
    """
    pitch = np.arctan2(rotation[1, 2], rotation[2, 2])
    yaw = np.arctan2(-rotation[0, 2], np.hypot(rotation[0, 0], rotation[0, 1]))
    roll = np.arctan2(rotation[0, 1], rotation[0, 0])
    return proper_angles(float(pitch), float(yaw), float(roll))
