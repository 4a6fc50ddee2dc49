"""The smallest depth of a posed mesh, without posing all of it.

A crop's depths count from the rearmost vertex of the whole mesh, and which vertex that is depends on the face and on
its pose. The mesh is cut into patches; a bound of each patch's depths, from one vertex in its middle, tells which
patches are worth a look. The result is that of the whole mesh, to the last bit.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from densegen.arrays import Float32, Float64, Int32
from densegen.face.morphable_model import MorphableModel, combine
from densegen.geometry.kernels import kernel
from densegen.geometry.pose import image_transform

__all__ = ["DepthSearch", "make_depth_search"]

PATCH = 64
"""Vertices in a patch; on the Basel model as fast as 48 and 96."""


@dataclass(frozen=True, eq=False)
class DepthSearch:
    """P patches of M vertices, the last ones repeated, and what bounds their depths; see :func:`make_depth_search`.

    patches : (P, M) int32 vertices
    middle_basis : (K + 1, 3 P) float32, the model's basis at the vertex in the middle of each patch
    offsets : (P, M, 3) float64, of the mean face, from the middle vertex, model units
    reach : (K, P) float64, the most by which a component of coefficient 1 moves a vertex of a patch against its middle
    size : (K + 1,) float64, the most by which a component of coefficient 1 moves any vertex; last, the mean's size
    """

    model: MorphableModel
    patches: Int32
    middle_basis: Float32
    offsets: Float64
    reach: Float64
    size: Float64
    _basis_of: dict[int, Float32] = field(default_factory=dict)

    def smallest_z(self, coefficients: Float32, poses: Float32) -> Float64:
        """The smallest z of B posed meshes: ``pose_vertices(model.vertices(…), pose, …)[:, 2].min()``, image frame.

        A face's most promising patch is looked at first; after it, all whose bound lies below what that one has.

        coefficients : (B, K) float32, raw shape and expression coefficients, see :meth:`MorphableModel.coefficients`
        poses : (B, 7) float32, see ``conventions.POSE_FIELDS``
        returns : (B,) float64, pixels
        """
        towards = np.empty((len(poses), 4), np.float32)  # z = x a + y b + z c + d
        for face, pose in enumerate(poses):
            matrix, offset = image_transform(pose, 0)
            towards[face, :3], towards[face, 3] = matrix[:, 2], offset[2]
        with np.errstate(all="ignore"):  # a fit that is beyond all sense has no depth, and its neighbours have theirs
            return self._search(coefficients, towards)

    def _search(self, coefficients: Float32, towards: Float32) -> Float64:
        bounds = self._bounds(coefficients, towards)
        smallest = np.full(len(towards), np.inf)
        first = bounds.argmin(axis=1)
        for patch in np.unique(first):
            self._look(patch, np.flatnonzero(first == patch), coefficients, towards, smallest)
        bounds[np.arange(len(towards)), first] = np.inf
        closest = np.fmin.reduce(bounds - smallest[:, None], axis=0)
        for patch in np.argsort(closest, kind="stable")[: np.count_nonzero(closest <= 0)]:
            self._look(patch, np.flatnonzero(bounds[:, patch] <= smallest), coefficients, towards, smallest)
        return smallest

    def _bounds(self, coefficients: Float32, towards: Float32) -> Float64:
        """(B, P): no vertex of a patch has a smaller depth; pixels.

        With c the coefficients, b the components and d the direction of depth, a vertex v differs from the middle m of
        its patch by ``d (mean_v - mean_m) + sum_k c_k d (b_kv - b_km)``, and the sum is at most
        ``|d| sum_k |c_k| reach_k``.

        The last term bounds the rounding errors of two depths together. Each depth is a float32 sum of K + 4 terms. Its
        error is below ``(K + 4) eps`` times the sum of the terms' sizes (Higham, Accuracy and Stability of Numerical
        Algorithms, 2002, section 4.2).
        """
        directions, amounts = towards[:, :3].astype(np.float64), np.abs(coefficients.astype(np.float64))
        length = np.sqrt((directions**2).sum(axis=1))
        largest = length * ((amounts * self.size[:-1]).sum(axis=1) + self.size[-1]) + np.abs(towards[:, 3])
        rounding = 2 * (len(self.size) + 8) * np.finfo(np.float32).eps * largest
        middles = _depths(combine(coefficients, self.middle_basis), towards)
        below = _added(amounts, self.reach) * length[:, None] - _deepest(self.offsets, directions)
        bounds: Float64 = middles - below - rounding[:, None]
        return bounds

    def _look(
        self, patch: int, faces: npt.NDArray[np.int64], coefficients: Float32, towards: Float32, smallest: Float64
    ) -> None:
        """Lower ``smallest`` of some faces to what a patch of theirs has."""
        if len(faces):
            depths = _depths(combine(coefficients[faces], self._patch_basis(int(patch))), towards[faces])
            smallest[faces] = np.minimum(smallest[faces], depths.min(axis=1))

    def _patch_basis(self, patch: int) -> Float32:
        """The basis of a patch, kept: the same few patches hold the rearmost vertex of most faces."""
        if patch not in self._basis_of:
            self._basis_of[patch] = self.model.basis_at(self.patches[patch])
        return self._basis_of[patch]


def make_depth_search(model: MorphableModel) -> DepthSearch:
    """Cut a model's mesh into patches, halving along the longest side of their boxes, and measure them."""
    patches = _cut(model.mean)
    mean = model.mean.astype(np.float64)
    centres = mean[patches].mean(axis=1, keepdims=True)
    nearest = ((mean[patches] - centres) ** 2).sum(axis=2).argmin(axis=1)
    middles = patches[np.arange(len(patches)), nearest]
    basis = (*model.shape_basis, *model.expression_basis)
    reach, size = np.empty((len(basis), len(patches))), np.empty(len(basis) + 1)
    for k, component in enumerate(basis):
        size[k] = _farthest(np.ascontiguousarray(component), patches, middles, reach[k])
    size[-1] = np.sqrt((mean**2).sum(axis=1).max())
    return DepthSearch(
        model=model,
        patches=patches,
        middle_basis=model.basis_at(middles),
        offsets=mean[patches] - mean[middles][:, None],
        reach=reach,
        size=size,
    )


def _cut(points: Float32) -> Int32:
    """(P, PATCH) int32: all points in patches; one that has fewer repeats its last."""
    patches: list[Int32] = []
    waiting = [np.arange(len(points), dtype=np.int32)]
    while waiting:
        rows = waiting.pop()
        if len(rows) <= PATCH:
            patches.append(np.pad(rows, (0, PATCH - len(rows)), mode="edge"))
            continue
        axis = int(np.ptp(points[rows], axis=0).argmax())
        rows = rows[np.argsort(points[rows, axis], kind="stable")]
        middle = PATCH * max(1, round(len(rows) / PATCH / 2))
        waiting += [rows[:middle], rows[middle:]]
    return np.stack(patches)


@kernel
def _depths(vertices: Any, towards: Any) -> Any:
    """(B, n) float32 depths of (B, n, 3) vertices, as :func:`~densegen.geometry.pose.transform` computes them."""
    faces, count, _ = vertices.shape
    out = np.empty((faces, count), np.float32)
    for face in range(faces):
        c, f, i, r = towards[face]
        for n in range(count):
            out[face, n] = vertices[face, n, 0] * c + vertices[face, n, 1] * f + vertices[face, n, 2] * i + r
    return out


@kernel
def _farthest(component: Any, patches: Any, middles: Any, reach: Any) -> Any:
    """The most by which a component moves a vertex; ``reach`` is filled with the most against its patch's middle."""
    largest = 0.0
    for patch in range(len(patches)):
        x, y, z = component[middles[patch]]
        farthest = 0.0
        for vertex in patches[patch]:
            a, b, c = component[vertex]
            away = (np.float64(a) - x) ** 2 + (np.float64(b) - y) ** 2 + (np.float64(c) - z) ** 2
            farthest = max(farthest, away)
            largest = max(largest, np.float64(a) ** 2 + np.float64(b) ** 2 + np.float64(c) ** 2)
        reach[patch] = np.sqrt(farthest)
    return np.sqrt(largest)


@kernel
def _added(amounts: Any, reach: Any) -> Any:
    """``amounts @ reach``, on one thread: BLAS would take the cores that other workers need."""
    out = np.zeros((len(amounts), reach.shape[1]))
    for face in range(len(amounts)):
        line = out[face]
        for k in range(len(reach)):
            amount, row = amounts[face, k], reach[k]
            for patch in range(len(line)):
                line[patch] += amount * row[patch]
    return out


@kernel
def _deepest(offsets: Any, directions: Any) -> Any:
    """(B, P) the smallest product of a direction and the offsets of a patch, at most 0: the middle's own."""
    patches, size, _ = offsets.shape
    deepest = np.zeros((len(directions), patches))
    for patch in range(patches):
        for face in range(len(directions)):
            x, y, z = directions[face]
            lowest = 0.0
            for n in range(size):
                away = offsets[patch, n, 0] * x + offsets[patch, n, 1] * y + offsets[patch, n, 2] * z
                lowest = away if away < lowest else lowest
            deepest[face, patch] = lowest
    return deepest
