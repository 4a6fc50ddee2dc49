"""The outline of a turned face: annotators of pictures mark the jaw that they see, not the one that is there.

On the far side of a turned face the jaw is hidden behind the cheek, and 2D annotations follow the cheek. The marks of
the jaw then slide along the face, each on its own line to the middle of the face, to where the face's outline is (Zhu,
Yan, Yi, Lei and Li, FG 2015: landmark marching).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from densegen.arrays import Float64, Int64, Mask
from densegen.errors import ConfigurationError
from densegen.face.morphable_model import MorphableModel
from densegen.fitting.model_points import ModelPoints, surface_points
from densegen.geometry.surface import SurfacePoints, locate
from densegen.ibug68 import JAW, KEYPOINTS

__all__ = ["JawLines", "jaw_lines"]

STEP_PX = 2.0
"""Distance of places on a line, in pixels of the UV map."""

REACH = 0.75
"""A line ends after this share of the way to the face's middle."""

CHIN = 2
"""Keypoints to either side of the jaw's middle that stay: the chin has no other side."""


@dataclass(frozen=True, eq=False)
class JawLines:
    """For each keypoint of the jaw, places along a line of the face to which it may slide.

    rows : (J,) int64, rows of those keypoints among the observed points
    right : (J,) bool, whether a keypoint lies on the subject's right, on the left of a picture
    length : (J,) int64, how many places each line has
    places : ModelPoints, the places of all lines, one line after the other, each from the jaw on
    """

    rows: Int64
    right: Mask
    length: Int64
    places: ModelPoints

    def on_outline(self, coefficients: Float64, rotation: Float64) -> ModelPoints:
        """For each of the J keypoints the place of its line that lies outermost in the picture of a face.

        coefficients : (K,) float64, raw
        rotation : (3, 3) float64, of the face's pose
        """
        points = self.places.at(coefficients)
        # Outwards in the picture is across the picture of the face's own upward axis.
        across = np.array([rotation[1, 1], -rotation[0, 1]])
        # Written out: BLAS adds in another order on each processor.
        x, y, z = (rotation[0, c] * across[0] + rotation[1, c] * across[1] for c in range(3))
        outwards = points[:, 0] * x + points[:, 1] * y + points[:, 2] * z
        chosen = []
        for first, count, right in zip(np.cumsum(self.length) - self.length, self.length, self.right, strict=True):
            line = outwards[first : first + count]
            chosen.append(first + int(np.argmin(line) if right else np.argmax(line)))
        return self.places.rows(chosen)


def jaw_lines(model: MorphableModel, rows: Int64 | None = None) -> JawLines:
    """The lines of a model: along rows of its UV layout, from each keypoint of the jaw to the middle of the face.

    rows : (68,) int64, where each of the iBUG 68 stands among the observed points, -1 if it is not among them; None if
        they are the 68

    Raises :class:`ConfigurationError` if none of them has anywhere to slide.
    """
    rows = np.arange(KEYPOINTS) if rows is None else rows
    jaw = np.arange(KEYPOINTS)[JAW]
    middle = int(jaw[len(jaw) // 2])
    pixels = model.keypoint_pixels
    lines, kept = [], []
    for keypoint in jaw:
        if rows[keypoint] < 0 or abs(keypoint - middle) <= CHIN:
            continue
        column, row = pixels[keypoint]
        way = REACH * (pixels[middle, 0] - column)
        columns = column + np.sign(way) * np.arange(0, abs(way), STEP_PX)
        found, on_mesh = locate(np.stack([columns, np.full(len(columns), row)], axis=1), model)
        if on_mesh.any():
            lines.append(found[np.flatnonzero(on_mesh)])
            kept.append(int(keypoint))
    if not lines:
        raise ConfigurationError(
            "--jaw outline moves the points 0-5 and 11-16 of the 68, and none of them is among the points"
        )
    together = SurfacePoints(
        np.concatenate([line.vertices for line in lines]), np.concatenate([line.weights for line in lines])
    )
    names = [str(k) for k, line in zip(kept, lines, strict=True) for _ in range(len(line))]
    return JawLines(
        rows=rows[kept],
        right=np.array(kept) < middle,
        length=np.array([len(line) for line in lines]),
        places=surface_points(model, together, names),
    )
