"""The right half of a model's UV plane, where landmarks are placed: the left half follows from the mirror."""

from __future__ import annotations

import numpy as np

from densegen.errors import ConfigurationError
from densegen.face.morphable_model import MorphableModel
from densegen.face.regions import MIDLINE, valid_uv_region
from densegen.geometry.uv import mirror_pixels, uv_pixels
from densegen.index.candidates import Position

__all__ = ["FacePlane"]


class FacePlane:
    """A model's UV plane, to find the vertex of the right half or of the midline that is nearest to a position.

    pixels : (V, 2) float64, (column, row) of each vertex in the 256x256 UV map
    points_mm : (V, 3) float64, the mean face in millimetres, model frame
    valid : (256, 256) bool, the pixels of the face on both halves, symmetric
    right : (n,) int64, vertices of the face on the right half
    middle : (m,) int64, vertices of the face on the midline
    """

    def __init__(self, model: MorphableModel) -> None:
        from scipy.spatial import cKDTree

        self.model = model
        self.pixels = uv_pixels(model.uv)
        self.points_mm = model.mean_mm
        region = valid_uv_region()
        self.valid = region & region[:, ::-1]  # PRNet's outline differs by a pixel between left and right
        columns, rows = np.rint(self.pixels).astype(np.int64).T
        vertices = np.arange(model.vertex_count)
        midline = model.mirror == vertices
        inside = self.valid[rows, columns]
        self.right = vertices[inside & ~midline & (self.pixels[:, 0] < MIDLINE)]
        self.middle = vertices[inside & midline]
        self.right_tree, self.middle_tree = (
            cKDTree(self.pixels[self.right]),
            cKDTree(self.pixels[self.middle]),
        )

    def nearest_on_midline(self, row: float, name: str) -> int:
        """The midline's vertex nearest to a row; raises :class:`ConfigurationError` outside the face."""
        return self.nearest((MIDLINE, row), name)

    def nearest(self, uv: Position, name: str) -> int:
        """The vertex for a UV position on either half, as the one on the right half or on the midline.

        Raises :class:`ConfigurationError`, which names ``name``, if the position lies outside the face.
        """
        pixel = np.array(uv)
        if pixel[0] > MIDLINE:
            pixel = mirror_pixels(pixel[None])[0]
        if not self.valid[round(pixel[1]), round(pixel[0])]:
            raise ConfigurationError(f"{name} at ({uv[0]:g}, {uv[1]:g}) lies outside the face's part of the UV plane")
        if MIDLINE - pixel[0] <= 1:
            return int(self.middle[self.middle_tree.query(pixel)[1]])
        return int(self.right[self.right_tree.query(pixel)[1]])
