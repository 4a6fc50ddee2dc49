"""The iBUG 68."""

from __future__ import annotations

import numpy as np

from densegen.ibug68 import KEYPOINT_MIRROR


def test_the_keypoint_mirror_is_ibugs() -> None:
    assert (KEYPOINT_MIRROR[KEYPOINT_MIRROR] == np.arange(68)).all()
    # On the midline: chin, bridge and base of the nose, and the middles of the four lip lines.
    assert np.flatnonzero(np.arange(68) == KEYPOINT_MIRROR).tolist() == [
        8,
        27,
        28,
        29,
        30,
        33,
        51,
        57,
        62,
        66,
    ]
    assert KEYPOINT_MIRROR[[0, 17, 31, 36, 41, 48, 60, 67]].tolist() == [16, 26, 35, 45, 46, 54, 64, 65]
