"""The horizontal flip of a sample: of its image, its position map, its keypoints and its landmarks."""

from __future__ import annotations

from typing import TypeVar

import numpy as np
import numpy.typing as npt

from densegen.arrays import Float32, Mask
from densegen.conventions import CROP_SIZE
from densegen.ibug68 import KEYPOINT_MIRROR

__all__ = ["flip_image", "flip_keypoints", "flip_points", "flip_position_map"]

Pixel = TypeVar("Pixel", bound=np.generic)


def flip_image(image: npt.NDArray[Pixel]) -> npt.NDArray[Pixel]:
    """(H, W, ...) image with its columns in reverse: x -> W - 1 - x."""
    return np.ascontiguousarray(image[:, ::-1])


def flip_points(points_crop: Float32, size: int = CROP_SIZE) -> Float32:
    """(..., 3) float32 points, pixels, crop frame: x -> size - 1 - x. Which point is which is the caller's matter.

    >>> flip_points(np.array([[0, 10, 20]], np.float32)).tolist()
    [[255.0, 10.0, 20.0]]
    """
    flipped = points_crop.copy()
    flipped[..., 0] = np.float32(size - 1) - flipped[..., 0]
    return flipped


def flip_keypoints(keypoints_crop: Float32, size: int = CROP_SIZE) -> Float32:
    """(68, 3) keypoints of the mirrored face, iBUG order: moved, then renamed (its left eye was the right one)."""
    return flip_points(keypoints_crop, size)[KEYPOINT_MIRROR]


def flip_position_map(position_map: Float32, valid: Mask, size: int = CROP_SIZE) -> tuple[Float32, Mask]:
    """The position map of the mirrored face: ``P'[r, c] = (size - 1 - X, Y, Z)`` of ``P[r, W - 1 - c]``.

    position_map : (S, S, 3) float32, pixels, crop frame
    valid : (S, S) bool
    size : of the crop, pixels
    returns : the flipped map, (S, S, 3) float32, pixels, crop frame, 0 if not valid; and (S, S) bool, its valid pixels
    """
    flipped_valid = flip_image(valid)
    flipped = flip_points(flip_image(position_map), size)
    flipped[~flipped_valid] = 0
    return flipped, flipped_valid
