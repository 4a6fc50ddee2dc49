"""The smallest depth of a posed mesh, without posing all of it.

A crop's depths count from the rearmost vertex of the whole mesh, and which vertex that is depends on the face and on
its pose. The mesh is cut into groups of vertices, and these into patches; a bound of each one's depths, from one vertex
in its middle, tells which patches are worth a look. The result is that of the whole mesh, to the last bit.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np

from densegen.arrays import Float32, Float64, Int32
from densegen.face.components import smallest_depths
from densegen.face.morphable_model import MorphableModel
from densegen.geometry.kernels import kernel, loose_kernel
from densegen.geometry.pose import image_transform

__all__ = ["DepthSearch", "make_depth_search"]

PATCH = 16
"""Vertices in a patch."""

SIBLINGS = 16
"""Patches in a group."""


@dataclass(frozen=True, eq=False)
class _Sets:
    """S sets of vertices, and what bounds the depths of each.

    components : (S, 4, K) float32, model units: x, y and z of each component at the vertex in the middle of the set,
        and the most by which a component of coefficient 1 moves one of its vertices against that
    mean : (S, 3, 3) float32, model units: the mean face at the middle, and smallest and largest offset from there
    """

    components: Float32
    mean: Float32


@dataclass(eq=False)
class _Seen:
    """The basis of the patches that were looked at, kept: the same few hold the rearmost vertex of most faces.

    basis : (n, K + 1, 3 PATCH) float32, with room for more
    slot : (G * SIBLINGS,) int32, where a patch's is; -1 if it was not looked at
    """

    basis: Float32 = field(default_factory=lambda: np.empty((0, 0, 0), np.float32))
    slot: Int32 = field(default_factory=lambda: np.empty(0, np.int32))
    count: int = 0

    def slots(self, wanted: Int32, patches: Int32, model: MorphableModel) -> Int32:
        """Where all of the (P, PATCH) patches' are, after those that are wanted have theirs."""
        components = sum(model.component_counts) + 1
        if not len(self.slot):
            self.slot = np.full(len(patches), -1, np.int32)
            self.basis = np.empty((64, components, 3 * PATCH), np.float32)
        new = wanted[self.slot[wanted] < 0]
        if self.count + len(new) > len(self.basis):
            more = np.empty((max(len(self.basis), len(new)), *self.basis.shape[1:]), np.float32)
            self.basis = np.concatenate([self.basis, more])
        if len(new):
            at = model.basis_at(patches[new].ravel()).reshape(components, len(new), 3 * PATCH)
            self.basis[self.count : self.count + len(new)] = at.transpose(1, 0, 2)
            self.slot[new] = np.arange(self.count, self.count + len(new))
            self.count += len(new)
        return self.slot


@dataclass(frozen=True, eq=False)
class DepthSearch:
    """G groups of patches of a model's mesh; see :func:`make_depth_search`. One thread may use it at a time.

    patches : (G, SIBLINGS, PATCH) int32 vertices, the last one repeated at the end
    of_groups : G sets
    of_patches : G * SIBLINGS sets
    size : (K + 1,) float64, the most by which a component of coefficient 1 moves any vertex; last, the mean's size
    """

    model: MorphableModel
    patches: Int32
    of_groups: _Sets
    of_patches: _Sets
    size: Float64
    _seen: _Seen = field(default_factory=_Seen)

    def smallest_z(self, coefficients: Float32, poses: Float32) -> Float64:
        """The smallest z of B posed meshes: ``pose_vertices(model.vertices(…), pose, …)[:, 2].min()``, image frame.

        coefficients : (B, K) float32, raw shape and expression coefficients, see :meth:`MorphableModel.coefficients`
        poses : (B, 7) float32, see ``conventions.POSE_FIELDS``
        returns : (B,) float64, pixels
        """
        towards = np.empty((len(poses), 4), np.float32)  # z = x a + y b + z c + d
        for face, pose in enumerate(poses):
            matrix, offset = image_transform(pose, 0)
            towards[face, :3], towards[face, 3] = matrix[:, 2], offset[2]
        with np.errstate(all="ignore"):  # a fit that is beyond all sense has no depth, and its neighbours have theirs
            faces, patches = self._promising(coefficients, towards)
            slots = self._seen.slots(np.unique(patches), self.patches.reshape(-1, PATCH), self.model)[patches]
            smallest: Float64 = smallest_depths(coefficients, towards, self._seen.basis, faces, slots)
        return smallest

    def _promising(self, coefficients: Float32, towards: Float32) -> tuple[Int32, Int32]:
        """Pairs of a face and a patch that may hold its rearmost vertex.

        With c the coefficients, b the components and d the direction of depth, a vertex v differs from the middle m of
        its set by ``d (mean_v - mean_m) + sum_k c_k d (b_kv - b_km)``, and the sum is at most
        ``|d| sum_k |c_k| reach_k``. A set whose bound lies above any middle's depth is not worth a look.

        Bounds are float32 sums, as depths are. The error of a sum of n terms, added in any order, is below
        ``n eps / 2`` times the sum of the terms' sizes (Higham, Accuracy and Stability of Numerical Algorithms, 2002,
        section 4.2). With L for ``largest``, a bound has 4 K terms of sizes up to 3 L together, the middle that it is
        compared with 3 K of L, and what they stand for, the depths of two vertices, K of L each: ``8.5 K eps L`` and
        some single products. ``5 (K + 1) eps L`` are taken off the bound, and as much is added to what it is compared
        with.
        """
        directions, amounts = towards[:, :3].astype(np.float64), np.abs(coefficients.astype(np.float64))
        length = np.sqrt((directions**2).sum(axis=1))
        largest = length * ((amounts * self.size[:-1]).sum(axis=1) + self.size[-1]) + np.abs(towards[:, 3])
        rounding = (5 * len(self.size) + 32) * float(np.finfo(np.float32).eps) * largest
        sets = (self.of_groups.components, self.of_groups.mean, self.of_patches.components, self.of_patches.mean)
        faces, patches = _promising(coefficients, towards, length.astype(np.float32), rounding, *sets)
        return faces, patches


def make_depth_search(model: MorphableModel) -> DepthSearch:
    """Cut a model's mesh into groups and patches, halving along the longest side of their boxes, and measure them."""
    patches = _cut(model.mean).reshape(-1, SIBLINGS, PATCH)
    groups = patches.reshape(len(patches), -1)
    mean = model.mean.astype(np.float64)
    group_middles, patch_middles = _middles(mean, groups), _middles(mean, patches)
    basis = (*model.shape_basis, *model.expression_basis)
    of_groups, of_patches = (
        np.empty((middles.size, 4, len(basis)), np.float32) for middles in (group_middles, patch_middles)
    )
    size = np.empty(len(basis) + 1)
    for k, component in enumerate(basis):
        row = np.ascontiguousarray(component)
        size[k] = _farthest(row, k, patches, group_middles, patch_middles, of_groups, of_patches)
    size[-1] = np.sqrt((mean**2).sum(axis=1).max())
    return DepthSearch(
        model,
        patches,
        _Sets(of_groups, _mean_of_sets(mean, groups, group_middles)),
        _Sets(of_patches, _mean_of_sets(mean, patches.reshape(-1, PATCH), patch_middles.ravel())),
        size,
    )


def _middles(mean: Float64, sets: Int32) -> Int32:
    """(...) int32: of each of (..., M) sets of vertices the one next to the centre."""
    away = ((mean[sets] - mean[sets].mean(axis=-2, keepdims=True)) ** 2).sum(axis=-1)
    return np.take_along_axis(sets, away.argmin(axis=-1)[..., None], axis=-1)[..., 0]


def _mean_of_sets(mean: Float64, sets: Int32, middles: Int32) -> Float32:
    """``mean`` of :class:`_Sets`, of (S, M) sets of vertices and their (S,) middles."""
    offsets = mean[sets] - mean[middles][:, None]
    return np.stack([mean[middles], offsets.min(axis=1), offsets.max(axis=1)], axis=1).astype(np.float32)


def _cut(points: Float32) -> Int32:
    """(N,) int32: all points so that those near each other follow one another, in whole groups of whole patches; the
    last one is repeated until they are.
    """
    rows = np.pad(np.arange(len(points), dtype=np.int32), (0, -len(points) % (SIBLINGS * PATCH)), mode="edge")
    _halve(points, rows)
    return rows


@kernel
def _halve(points: Any, rows: Any) -> None:
    """Sort rows along the longest side of their points' box, then each half of them, until they are patches."""
    group = SIBLINGS * PATCH
    waiting = [(0, len(rows))]
    while len(waiting) > 0:
        start, stop = waiting.pop()
        if stop - start <= PATCH:
            continue
        some = points[rows[start:stop]]
        sides = np.array([some[:, axis].max() - some[:, axis].min() for axis in range(3)])
        order = np.argsort(some[:, sides.argmax()], kind="mergesort")  # a stable one
        rows[start:stop] = rows[start:stop][order]
        unit = group if stop - start > group else PATCH
        middle = start + unit * ((stop - start) // unit // 2)
        waiting.append((start, middle))
        waiting.append((middle, stop))


@kernel
def _promising(
    coefficients: Any, towards: Any, length: Any, rounding: Any,
    group_components: Any, group_mean: Any, patch_components: Any, patch_mean: Any,
) -> Any:  # fmt: skip
    """The (n,) faces and (n,) patches of :meth:`DepthSearch._promising`."""
    groups, siblings = len(group_mean), len(patch_mean) // len(group_mean)
    found_faces, found_patches = [], []
    group_middles, group_below = np.empty(groups, np.float32), np.empty(groups, np.float32)
    middles, below = np.empty(siblings, np.float32), np.empty(groups * siblings, np.float32)
    amounts = np.empty((4, coefficients.shape[1]), np.float32)
    for face in range(len(towards)):
        dx, dy, dz, _ = towards[face]
        for k in range(coefficients.shape[1]):
            c = coefficients[face, k]
            amounts[0, k], amounts[1, k], amounts[2, k] = c * dx, c * dy, c * dz
            amounts[3, k] = abs(c) * length[face]
        _bound(amounts, towards[face], group_components, group_mean, group_middles, group_below)
        highest, slack = group_middles.min() + rounding[face], rounding[face]
        if not np.isfinite(highest):
            continue
        below[:] = np.inf
        for group in np.argsort(group_below):
            if group_below[group] - slack <= highest:
                first, last = group * siblings, (group + 1) * siblings
                lot, mean = patch_components[first:last], patch_mean[first:last]
                _bound(amounts, towards[face], lot, mean, middles, below[first:last])
                highest = min(highest, middles.min() + slack)
        for patch in range(len(below)):
            if below[patch] - slack <= highest:
                found_faces.append(face)
                found_patches.append(patch)
    return np.array(found_faces, np.int32), np.array(found_patches, np.int32)


@loose_kernel
def _bound(amounts: Any, towards: Any, components: Any, mean: Any, middles: Any, below: Any) -> None:
    """Fill the depths of the sets' middles, and what none of a set's depths is below; both but for rounding.

    amounts : (4, K) float32, coefficients times the direction, and their sizes times its length
    """
    dx, dy, dz, offset = towards
    for n in range(len(mean)):
        depth, reach = np.float32(0), np.float32(0)
        for k in range(amounts.shape[1]):
            depth += components[n, 0, k] * amounts[0, k] + components[n, 1, k] * amounts[1, k]
            depth += components[n, 2, k] * amounts[2, k]
            reach += components[n, 3, k] * amounts[3, k]
        middles[n] = depth + mean[n, 0, 0] * dx + mean[n, 0, 1] * dy + mean[n, 0, 2] * dz + offset
        deepest = min(mean[n, 1, 0] * dx, mean[n, 2, 0] * dx) + min(mean[n, 1, 1] * dy, mean[n, 2, 1] * dy)
        below[n] = middles[n] - reach + deepest + min(mean[n, 1, 2] * dz, mean[n, 2, 2] * dz)


@kernel
def _farthest(
    component: Any, k: int, patches: Any, group_middles: Any, patch_middles: Any, of_groups: Any, of_patches: Any
) -> Any:
    """The most by which component k moves a vertex. Filled are its columns of the sets' components, see :class:`_Sets`;
    the last row, the most against a middle, is rounded up.

    group_middles : (G,); patch_middles : (G, SIBLINGS); of_groups, of_patches : (G, 4, K), (G * SIBLINGS, 4, K)
    """
    largest, up = 0.0, 1 + 2.0**-22
    for group in range(len(patches)):
        x, y, z = component[group_middles[group]]
        farthest = 0.0
        for sibling in range(patches.shape[1]):
            p, q, r = component[patch_middles[group, sibling]]
            within = 0.0
            for vertex in patches[group, sibling]:
                a, b, c = component[vertex]
                farthest = max(farthest, (np.float64(a) - x) ** 2 + (np.float64(b) - y) ** 2 + (np.float64(c) - z) ** 2)
                within = max(within, (np.float64(a) - p) ** 2 + (np.float64(b) - q) ** 2 + (np.float64(c) - r) ** 2)
                largest = max(largest, np.float64(a) ** 2 + np.float64(b) ** 2 + np.float64(c) ** 2)
            of_patch = of_patches[group * patches.shape[1] + sibling]
            of_patch[0, k], of_patch[1, k], of_patch[2, k] = p, q, r
            of_patch[3, k] = np.float32(np.sqrt(within) * up)
        of_group = of_groups[group]
        of_group[0, k], of_group[1, k], of_group[2, k] = x, y, z
        of_group[3, k] = np.float32(np.sqrt(farthest) * up)
    return np.sqrt(largest)
