"""How far the face lies from its landmarks, and where they are missing most."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from densegen.arrays import Float64, Int64
from densegen.face.morphable_model import MorphableModel
from densegen.index.quality import face_surface

__all__ = ["Coverage"]

NEAR_MM = 10.0
"""How far the next gap has to lie from those that were shown before."""


class Coverage:
    """Distances on a model's mean face, millimetres."""

    def __init__(self, model: MorphableModel) -> None:
        self.model = model
        self.mean_mm = model.mean_mm.astype(np.float32)
        self.face_mm = face_surface(model)[0].gather(self.mean_mm)

    def of(self, vertices: Int64) -> tuple[tuple[float, float, float], Float64]:
        """Largest, 99th percentile and mean distance from a point of the face to its nearest landmark, and (V,) each
        vertex's own.

        vertices : (N,) of the landmarks
        """
        from scipy.spatial import cKDTree

        tree = cKDTree(self.mean_mm[vertices])
        face = tree.query(self.face_mm)[0]
        return (float(face.max()), float(np.percentile(face, 99)), float(face.mean())), tree.query(self.mean_mm)[0]

    def next_gap(self, vertices: Int64, seen: Sequence[int], among: Int64) -> tuple[int, float]:
        """The vertex farthest from every landmark, and how far it is; not near a gap seen before or its mirror image.

        seen : vertices of the gaps so far
        among : the vertices that are looked at
        """
        distance = self.of(vertices)[1]
        for gap in seen:
            for place in (gap, int(self.model.mirror[gap])):
                distance[np.linalg.norm(self.mean_mm - self.mean_mm[place], axis=1) < NEAR_MM] = 0
        vertex = int(among[np.argmax(distance[among])])
        return vertex, float(distance[vertex])
