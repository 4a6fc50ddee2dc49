"""The horizontal flip of a sample: of its image, its position map, its keypoints and its landmarks."""

from __future__ import annotations

from typing import TypeVar

import numpy as np
import numpy.typing as npt

from densegen.arrays import Float32, Int64, Mask
from densegen.conventions import CROP_SIZE

__all__ = ["KEYPOINT_MIRROR", "flip_image", "flip_keypoints", "flip_points", "flip_position_map"]

Pixel = TypeVar("Pixel", bound=np.generic)


def _keypoint_mirror() -> Int64:
    mirror = np.arange(68)
    pairs = [(i, 16 - i) for i in range(8)] + [(17 + i, 26 - i) for i in range(5)]
    pairs += [(31, 35), (32, 34)]
    pairs += [(36, 45), (37, 44), (38, 43), (39, 42), (40, 47), (41, 46)]
    pairs += [(48, 54), (49, 53), (50, 52), (55, 59), (56, 58), (60, 64), (61, 63), (65, 67)]
    for a, b in pairs:
        mirror[a], mirror[b] = b, a
    return mirror


KEYPOINT_MIRROR = _keypoint_mirror()
"""(68,) int64: the keypoint on the other half of the face, iBUG order; an involution."""


def flip_image(image: npt.NDArray[Pixel]) -> npt.NDArray[Pixel]:
    """(H, W, ...) image with its columns in reverse: x -> W - 1 - x."""
    return np.ascontiguousarray(image[:, ::-1])


def flip_points(points_crop: Float32, size: int = CROP_SIZE) -> Float32:
    """(..., 3) float32 points, pixels, crop frame: x -> size - 1 - x. Which point is which is the caller's matter."""
    flipped = points_crop.copy()
    flipped[..., 0] = np.float32(size - 1) - flipped[..., 0]
    return flipped


def flip_keypoints(keypoints_crop: Float32, size: int = CROP_SIZE) -> Float32:
    """(68, 3) keypoints of the mirrored face, iBUG order: moved, then renamed (its left eye was the right one)."""
    return flip_points(keypoints_crop, size)[KEYPOINT_MIRROR]


def flip_position_map(position_map: Float32, valid: Mask, size: int = CROP_SIZE) -> tuple[Float32, Mask]:
    """The position map of the mirrored face: ``P'[r, c] = (size - 1 - X, Y, Z)`` of ``P[r, W - 1 - c]``.

    position_map : (S, S, 3) float32, pixels, crop frame; valid : (S, S) bool
    returns : the flipped map, 0 where not valid, and its valid pixels
    """
    flipped_valid = flip_image(valid)
    flipped = flip_points(flip_image(position_map), size)
    flipped[~flipped_valid] = 0
    return flipped, flipped_valid
