"""The smallest depth of a posed mesh, without posing all of it.

A crop's depths count from the rearmost vertex of the whole mesh, and which vertex that is depends on the face and on
its pose. The mesh is cut into patches; a bound of each patch's depths, from one vertex in its middle, tells which
patches are worth a look. The result is that of the whole mesh, to the last bit.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np

from densegen.arrays import Float32, Float64, Int32
from densegen.face.morphable_model import MorphableModel, combine
from densegen.geometry.kernels import kernel
from densegen.geometry.pose import image_transform, transform

__all__ = ["DepthSearch", "make_depth_search"]

PATCH = 96
"""Vertices in a patch; the fastest of 48, 64, 96 and 128 on the Basel model."""


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

    def smallest_z(self, coefficients: Float32, pose: Float32) -> float:
        """The smallest z of the posed mesh: ``pose_vertices(model.vertices(…), pose, …)[:, 2].min()``, image frame.

        coefficients : (K,) float32, raw shape and expression coefficients, see :meth:`MorphableModel.coefficients`
        pose : (7,) float32, see ``conventions.POSE_FIELDS``
        returns : pixels
        """
        matrix, offset = image_transform(pose, 0)
        direction = matrix[:, 2].astype(np.float64)
        middles = transform(combine(coefficients[None], self.middle_basis)[0], matrix, offset)[:, 2]
        amounts = np.abs(coefficients.astype(np.float64))
        bounds = middles - _depths_below(self.offsets, self.reach, direction, amounts)
        bounds -= self._rounding(direction, float(offset[2]), amounts)
        smallest = np.inf
        for patch in np.argsort(bounds, kind="stable"):
            if bounds[patch] > smallest:
                break
            vertices = combine(coefficients[None], self._patch_basis(int(patch)))[0]
            smallest = min(smallest, float(transform(vertices, matrix, offset)[:, 2].min()))
        return smallest

    def _rounding(self, direction: Float64, offset: float, amounts: Float64) -> float:
        """An upper bound on the rounding errors of two depths together.

        Each depth is a float32 sum of K + 4 terms. Its error is below ``(K + 4) eps`` times the sum of the terms' sizes
        (Higham, Accuracy and Stability of Numerical Algorithms, 2002, section 4.2).
        """
        terms = (amounts * self.size[:-1]).sum() + self.size[-1]
        largest = float(np.sqrt((direction**2).sum())) * terms + abs(offset)
        return float(2 * (len(self.size) + 8) * np.finfo(np.float32).eps * largest)

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
    basis = model.basis[:-1].reshape(-1, model.vertex_count, 3)
    reach, size = np.empty((len(basis), len(patches))), np.empty(len(basis) + 1)
    for k, component in enumerate(basis):
        component = component.astype(np.float64)
        away = component[patches] - component[middles][:, None]
        reach[k] = np.sqrt((away**2).sum(axis=2)).max(axis=1)
        size[k] = np.sqrt((component**2).sum(axis=1).max(initial=0))
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
def _depths_below(offsets: Any, reach: Any, direction: Any, amounts: Any) -> Any:
    """(P,) how far a patch's vertices can lie below its middle one.

    With c the coefficients, b the components and d the direction of depth, a vertex v differs from the middle m of its
    patch by ``d (mean_v - mean_m) + sum_k c_k d (b_kv - b_km)``, and the sum is at most ``|d| sum_k |c_k| reach_k``.
    """
    patches, size, _ = offsets.shape
    length = np.sqrt(direction[0] ** 2 + direction[1] ** 2 + direction[2] ** 2)
    below = np.zeros(patches)
    for k in range(len(amounts)):
        for patch in range(patches):
            below[patch] += amounts[k] * reach[k, patch]
    for patch in range(patches):
        deepest = 0.0
        for n in range(size):
            away = offsets[patch, n]
            deepest = min(deepest, away[0] * direction[0] + away[1] * direction[1] + away[2] * direction[2])
        below[patch] = below[patch] * length - deepest
    return below
