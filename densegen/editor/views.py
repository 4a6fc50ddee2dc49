"""Where the face and the UV plane stand on the page, and where the camera is put so that a window shows them whole."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np

from densegen.arrays import Float64

__all__ = ["FIELD_OF_VIEW", "PLANE_WIDTH", "VIEWS", "Camera", "View", "camera_of", "plane_offset"]

View = Literal["both", "front", "right", "left", "UV"]
VIEWS: tuple[View, ...] = ("both", "front", "right", "left", "UV")

FIELD_OF_VIEW = 0.29
"""Vertical angle, radians: a long lens, through which both cheeks are seen, as in a passport photograph."""

PLANE_WIDTH = 17.0
"""Of the UV plane, units of the scene."""

GAP = 3.0
MARGIN = 1.06
BESIDE_FROM = 0.95
"""The plane lies beside the face if the window is so much wider than high, else below it."""


@dataclass(frozen=True)
class Camera:
    """A camera's place and the point that it looks at, units of the scene; y is up."""

    position: tuple[float, float, float]
    look_at: tuple[float, float, float]


def plane_offset(aspect: float, face: Float64) -> tuple[float, float, float]:
    """Where the middle of the UV plane stands: beside the face, or below it in a narrow window.

    aspect : width by height of the window
    face : (V, 3) the face's vertices, units of the scene
    """
    low, high = face.min(axis=0), face.max(axis=0)
    if aspect >= BESIDE_FROM:
        return (float(high[0]) + GAP + PLANE_WIDTH / 2, float(low[1] + high[1]) / 2, 0.0)
    return (float(low[0] + high[0]) / 2, float(low[1]) - GAP - PLANE_WIDTH / 2, 0.0)


def camera_of(view: View, aspect: float, face: Float64, plane: Float64) -> Camera:
    """The camera from which ``view`` fills a window and nothing of it is cut off.

    face, plane : (V, 3) vertices, units of the scene
    """
    shown = {"both": np.concatenate([face, plane]), "UV": plane}.get(view, face)
    low, high = shown.min(axis=0), shown.max(axis=0)
    middle = (low + high) / 2
    turned = view in ("right", "left")
    width, height = float(high[2 if turned else 0] - low[2 if turned else 0]), float(high[1] - low[1])
    depth = float(high[0] - low[0]) if turned else float(high[2] - low[2])
    half = np.tan(FIELD_OF_VIEW / 2)
    # The nearest part of what is shown fills the picture: what is behind it is smaller.
    distance = MARGIN * max(height / 2 / half, width / 2 / (half * aspect)) + depth / 2
    along = {"right": (-1.0, 0.0, 0.0), "left": (1.0, 0.0, 0.0)}.get(view, (0.0, 0.0, 1.0))
    x, y, z = middle + distance * np.array(along)
    return Camera((float(x), float(y), float(z)), (float(middle[0]), float(middle[1]), float(middle[2])))
