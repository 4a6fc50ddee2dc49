"""A face that was found: its landmarks and what is known of it."""

from __future__ import annotations

from dataclasses import dataclass

from densegen.arrays import Float32, Float64

__all__ = ["Face"]


@dataclass(frozen=True, eq=False)
class Face:
    """One face in one image.

    box : (4,) left, top, right, bottom that the crop was laid around, pixels
    landmarks : (N, 3) float32, pixels, image frame, z without an origin
    keypoints68 : (68, 3) float32, in the same frame, or None if the index has no iBUG 68
    pose_deg : (3,) pitch, yaw, roll in degrees, or None if the model knows no reference face
    flip_distance : see :class:`~densetrain.network.regressor.Answer`, percent; None without a flip test
    expected_nme : percent, by the flip distance, see :class:`~densetrain.network.description.Description`; None without
        a flip test
    sigma_px : (N,) float64, standard deviation of each landmark's coordinates as the network sees it, pixels; None if
        the network does not say it
    score : the detector's confidence, 0 to 1; None if it states none, or the box was given
    """

    box: Float64
    landmarks: Float32
    keypoints68: Float32 | None
    pose_deg: Float64 | None
    flip_distance: float | None = None
    sigma_px: Float64 | None = None
    score: float | None = None
    expected_nme: float | None = None
