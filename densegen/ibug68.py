"""The iBUG 68: the keypoints of 300-W and of most benchmarks, in their order; what belongs to which part of the face,
which mirrors which, and AFLW's 21 points from them.

Right and left are the subject's own: a right eye lies on the left of a picture.
"""

from __future__ import annotations

from typing import Final

import numpy as np

from densegen.arrays import Int64

__all__ = [
    "AFLW21",
    "BROWS",
    "INNER_LIPS",
    "JAW",
    "KEYPOINTS",
    "KEYPOINT_MIRROR",
    "NAMES",
    "NOSE_TIP",
    "OUTER_LIPS",
    "REGIONS_OF_KEYPOINTS",
    "RIGHT_BROW",
    "RIGHT_EYE",
    "ids_of",
]

KEYPOINTS: Final = 68

JAW: Final = slice(0, 17)
RIGHT_BROW: Final = slice(17, 22)
BROWS: Final = slice(17, 27)
NOSE_TIP: Final = 30
RIGHT_EYE: Final = slice(36, 42)
OUTER_LIPS: Final = slice(48, 60)
INNER_LIPS: Final = slice(60, 68)

NAMES: Final = ("jaw",) * 17 + ("brow",) * 10 + ("nose",) * 9 + ("eye",) * 12 + ("lip-outer",) * 12 + ("lip-inner",) * 8
"""The part of the face that each keypoint is named for."""

REGIONS_OF_KEYPOINTS: Final = tuple("chin" if k in (7, 8, 9) else name for k, name in enumerate(NAMES))
"""The region (``face.regions.REGIONS``) of each keypoint."""

AFLW21: Final[tuple[int | tuple[int, ...], ...]] = (
    17, 19, 21, 22, 24, 26, 36, (36, 37, 38, 39, 40, 41), 39, 42, (42, 43, 44, 45, 46, 47), 45, 2, 31, 30, 35, 14, 48,
    (60, 61, 62, 63, 64, 65, 66, 67), 54, 8,
)  # fmt: skip
"""AFLW's 21 points: each a keypoint, or the mean of several (the centres of eyes and mouth)."""


def ids_of(point: int | tuple[int, ...]) -> list[int]:
    """The points whose mean a subset's point is."""
    return [point] if isinstance(point, int) else list(point)


def _mirror() -> Int64:
    mirror = np.arange(KEYPOINTS)
    pairs = [(i, 16 - i) for i in range(8)] + [(17 + i, 26 - i) for i in range(5)]
    pairs += [(31, 35), (32, 34)]
    pairs += [(36, 45), (37, 44), (38, 43), (39, 42), (40, 47), (41, 46)]
    pairs += [(48, 54), (49, 53), (50, 52), (55, 59), (56, 58), (60, 64), (61, 63), (65, 67)]
    for a, b in pairs:
        mirror[a], mirror[b] = b, a
    mirror.flags.writeable = False
    return mirror


KEYPOINT_MIRROR: Final[Int64] = _mirror()
"""(68,) int64, read-only: the keypoint on the other half of the face; an involution."""
