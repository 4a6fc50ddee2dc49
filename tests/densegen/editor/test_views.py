"""Where the camera is put."""

from __future__ import annotations

import numpy as np
import pytest

from densegen.editor.views import FIELD_OF_VIEW, VIEWS, View, camera_of, plane_offset

FACE = np.array([[x, y, z] for x in (-8.0, 8.0) for y in (-12.0, 10.0) for z in (0.0, 14.0)])
PLANE = np.array([[x, y, 0.0] for x in (-8.5, 8.5) for y in (-8.5, 8.5)])


@pytest.mark.parametrize("aspect", [0.5, 0.79, 1.2, 1.7, 3.0])
@pytest.mark.parametrize("view", VIEWS)
def test_nothing_is_cut_off_in_any_window(view: View, aspect: float) -> None:
    plane = PLANE + np.array(plane_offset(aspect, FACE))
    camera = camera_of(view, aspect, FACE, plane)
    shown = {"both": np.concatenate([FACE, plane]), "UV": plane}.get(view, FACE)
    forward = np.subtract(camera.look_at, camera.position)
    forward /= np.linalg.norm(forward)
    right = np.cross(forward, [0, 1, 0])
    offset = shown - camera.position
    half = np.tan(FIELD_OF_VIEW / 2) * (offset @ forward)
    x, y = offset @ right / (half * aspect), offset @ [0, 1, 0] / half
    assert max(abs(x).max(), abs(y).max()) <= 1
    assert max(abs(x).max(), abs(y).max()) > 0.85  # and the window is used


def test_the_plane_stands_beside_the_face_and_below_it_in_a_narrow_window() -> None:
    assert plane_offset(1.6, FACE)[0] - 8.5 > 8
    assert plane_offset(0.7, FACE)[1] + 8.5 < -12
