"""Faces drawn into their image."""

from __future__ import annotations

import numpy as np

from densegen.arrays import Image, Int64, UInt8
from densegen.drawing import KEYPOINT_COLOUR, depth_colours, draw_points, sigma_colours
from densetrain.prediction.face import Face

__all__ = ["draw_faces"]

MAX_DRAWN = 100_000_000
"""Bytes; a picture that would be larger is drawn at its own size."""
MESH_COLOUR = (165, 165, 165)


def draw_faces(image: Image, faces: list[Face], triangles: Int64 | None, *, scale: int = 2) -> Image:
    """The image with the landmark mesh, the landmarks by depth, and the 68 in white; ``scale`` times as large if it is
    not large itself. The landmarks of a network that says how unsure it is are coloured by that: see
    ``drawing.sigma_colours``.
    """
    from PIL import Image, ImageDraw

    scale = scale if image.size * scale**2 <= MAX_DRAWN else 1
    canvas = Image.fromarray(image).resize((image.shape[1] * scale, image.shape[0] * scale))
    pen = ImageDraw.Draw(canvas)
    for face in faces:
        points = (face.landmarks[:, :2].astype(np.float64) + 0.5) * scale - 0.5
        if triangles is not None:
            edges = np.unique(np.sort(triangles[:, [0, 1, 1, 2, 2, 0]].reshape(-1, 2), axis=1), axis=0)
            for a, b in edges:
                pen.line([tuple(points[a]), tuple(points[b])], fill=MESH_COLOUR, width=1)
        if face.expected_nme is not None:
            corner = tuple((face.box[:2] * scale).clip(2).tolist())
            pen.text(
                corner, f"{face.expected_nme:.1f} %", fill="white", stroke_fill="black", stroke_width=2, font_size=16
            )
    drawn = np.asarray(canvas, np.uint8)
    for face in faces:
        places = (face.landmarks + 0.5) * scale - 0.5
        drawn = draw_points(drawn, places, _colours(face), scale=1, radius=1.9, rim=0.8)
        if face.keypoints68 is not None:
            drawn = draw_points(
                drawn, (face.keypoints68 + 0.5) * scale - 0.5, KEYPOINT_COLOUR, scale=1, radius=2.2, rim=0.9
            )
    return drawn


def _colours(face: Face) -> UInt8:
    """By depth, or by how unsure the network is of a landmark, if it says that."""
    if face.sigma_px is None:
        return depth_colours(face.landmarks)
    return sigma_colours(face.sigma_px / np.sqrt(np.prod(face.box[2:] - face.box[:2])))
