"""Points of a morphable model at which landmarks are observed, each a weighted mean of its vertices."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from densegen.arrays import Float32, Float64, Int64
from densegen.face.morphable_model import MorphableModel
from densegen.geometry.renderer import vertex_normals
from densegen.geometry.surface import SurfacePoints
from densegen.ibug68 import AFLW21, KEYPOINT_MIRROR, KEYPOINTS, ids_of
from densegen.index.vertex_index import VertexIndex

__all__ = ["ModelPoints", "aflw21_points", "ibug68_points", "landmark_points", "surface_points"]


@dataclass(frozen=True, eq=False)
class ModelPoints:
    """N points of a model.

    names : of the points, for reports
    mean : (N, 3) float64, model frame: where they lie on the mean face
    components : (K, N, 3) float64, model units per unit of a raw coefficient, shape before expression
    normals : (N, 3) float64, unit length, model frame: outwards on the mean face
    mirror : (N,) int64, the point on the other half of the face; None if a point has none
    """

    names: tuple[str, ...]
    mean: Float64
    components: Float64
    normals: Float64
    mirror: Int64 | None = None

    def __len__(self) -> int:
        return len(self.mean)

    @cached_property
    def mirrored(self) -> ModelPoints:
        """The points under each other's names, as somebody has them who takes the face's left for its right."""
        assert self.mirror is not None
        return ModelPoints(
            self.names, self.mean[self.mirror], self.components[:, self.mirror], self.normals[self.mirror], self.mirror
        )

    def at(self, coefficients: Float64) -> Float64:
        """(N, 3) float64, model frame: the points of the face with (K,) raw coefficients.

        Components are added one after the other: BLAS has another order on each processor.
        """
        places = self.mean.copy()
        for amount, component in zip(coefficients, self.components, strict=True):
            if amount:
                places += amount * component
        return places

    def rows(self, rows: Sequence[int] | Int64) -> ModelPoints:
        """Some of the points, in the order of ``rows``."""
        chosen = np.asarray(rows, np.int64)
        mirror = None
        if self.mirror is not None and set(self.mirror[chosen]) == set(chosen.tolist()):
            place = np.full(len(self), -1)
            place[chosen] = np.arange(len(chosen))
            mirror = place[self.mirror[chosen]]
        names = tuple(self.names[r] for r in chosen)
        return ModelPoints(names, self.mean[chosen], self.components[:, chosen], self.normals[chosen], mirror)

    def __add__(self, others: ModelPoints) -> ModelPoints:
        """These points, and others after them."""
        mirror = None
        if self.mirror is not None and others.mirror is not None:
            mirror = np.concatenate([self.mirror, others.mirror + len(self)])
        return ModelPoints(
            self.names + others.names,
            np.concatenate([self.mean, others.mean]),
            np.concatenate([self.components, others.components], axis=1),
            np.concatenate([self.normals, others.normals]),
            mirror,
        )

    def means_of(self, groups: Sequence[Sequence[int]], names: Sequence[str], mirror: Int64) -> ModelPoints:
        """Points that are means of some of these."""
        normals = np.stack([self.normals[list(group)].mean(axis=0) for group in groups])
        return ModelPoints(
            names=tuple(names),
            mean=np.stack([self.mean[list(group)].mean(axis=0) for group in groups]),
            components=np.stack([self.components[:, list(group)].mean(axis=1) for group in groups], axis=1),
            normals=normals / np.linalg.norm(normals, axis=1, keepdims=True),
            mirror=mirror,
        )


def surface_points(
    model: MorphableModel, places: SurfacePoints, names: Sequence[str], mirror: Int64 | None = None
) -> ModelPoints:
    """Points anywhere on a model's surface."""
    used = np.unique(places.vertices).astype(np.int32)
    among = places.among(used)
    basis = model.basis_at(used).reshape(-1, len(used), 3)
    gathered = np.stack([among.gather(field) for field in basis]).astype(np.float64)
    normals = places.gather(_outward_normals(model)).astype(np.float64)
    normals /= np.maximum(np.linalg.norm(normals, axis=1, keepdims=True), 1e-9)
    return ModelPoints(tuple(names), gathered[-1], gathered[:-1], normals, mirror)


def _outward_normals(model: MorphableModel) -> Float32:
    """(V, 3) float32: the vertex normals of the mean face, outwards."""
    normals: Float32 = vertex_normals(model.mean, model.outward_triangles)
    return normals


def ibug68_points(model: MorphableModel) -> ModelPoints:
    """The iBUG 68, each a vertex."""
    vertices = np.repeat(model.keypoints68[:, None], 3, axis=1)
    places = SurfacePoints(vertices, np.tile(np.array([1, 0, 0], np.float32), (KEYPOINTS, 1)))
    return surface_points(model, places, [str(k) for k in range(KEYPOINTS)], KEYPOINT_MIRROR)


def aflw21_points(model: MorphableModel) -> ModelPoints:
    """AFLW's 21 points: keypoints of the 68, or means of them (the centres of eyes and mouth)."""
    points = ibug68_points(model)
    groups = [ids_of(point) for point in AFLW21]
    row_of = {tuple(group): row for row, group in enumerate(groups)}
    across = [row_of[tuple(sorted(int(KEYPOINT_MIRROR[k]) for k in group))] for group in groups]
    return points.means_of(groups, list(map(str, range(len(groups)))), np.array(across))


def landmark_points(model: MorphableModel, index: VertexIndex) -> ModelPoints:
    """The landmarks of an index; raises :class:`ConfigurationError` if they are not of this model's layout."""
    names = [landmark.name for landmark in index.landmarks]
    return surface_points(model, index.resolve(model), names, index.mirror if index.mirror_closed else None)
