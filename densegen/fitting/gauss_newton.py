"""The arithmetic of the solver: one face's Gauss-Newton steps, in a fixed order of additions on every processor.

The unknowns are a rotation R, the logarithm of a scale s, a translation t and whitened coefficients x; a point i of the
model, mean m_i with components B_i, is seen at ``p_i = s R (m_i + B_i x) + t``. What is minimised is

    E = sum_i rho(w_i |p_i - q_i|^2) + |x|^2 + pose prior

over observed points q_i with weights ``w_i = 1 / sigma_i^2``, the distance counted along the axes that were observed.
It is the maximum a posteriori estimate of Gaussian noise and a Gaussian prior (Blanz, Mehl, Vetter and Seidel, 3DPVT
2004). rho is the identity, or Huber's loss for points that may be wrong (Huber, 1964).

A step solves ``(J^T W J + prior + mu diag) d = -g`` (Levenberg, 1944; Marquardt, 1963). The rotation is turned by the
Cayley transform of its step: a rotation made of divisions alone, with the same bits everywhere. With weights that all
faces share, the components' own block of ``J^T W J`` is a combination of six matrices that are made once (see
:func:`gram_matrices`): ``sum_cd M_cd sum_i w_i B_ic^T B_id`` with ``M = s^2 R^T D R``, D the observed axes. Points of
another weight than most, hidden ones among them, add their own rows by what they differ.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from densegen.geometry.kernels import kernel

__all__ = ["POSE_UNKNOWNS", "gram_matrices", "minimise", "points_of_face"]

POSE_UNKNOWNS = 7
"""Rotation, logarithm of the scale, translation."""

_PAIRS = ((0, 0), (1, 1), (2, 2), (0, 1), (0, 2), (1, 2))
"""Pairs of model axes, in the order of :func:`gram_matrices`."""

LEAST_GAIN = 1e-7
"""A step that promises less, as a share of E, is not taken."""

RESIDUAL = 7
"""The residual's row, beside those of the Jacobian."""

CROSSED = (0, 1, 2, 3, RESIDUAL)
"""Rows of the Jacobian that are multiplied with every component: the turns, the scale, the residual."""

MAX_TURN = 0.5
"""A step changes rotation (radians) and log scale by at most this much."""


@kernel
def gram_matrices(basis: Any, weight: Any) -> Any:
    """(6, K, K) float64: for each pair of axes ``sum_i w_i B_ic^T B_id``, of different axes both orders added; lower
    triangles.

    basis : (3 N, K) float64, row 3 i + c : axis c of point i
    weight : (N,) float64
    """
    count = basis.shape[1]
    grams = np.zeros((6, count, count))
    for pair in range(6):
        c, d = _PAIRS[pair]
        for i in range(len(weight)):
            one, two, w = basis[3 * i + c], basis[3 * i + d], weight[i]
            for k in range(count):
                row = grams[pair, k]
                a, b = w * one[k], w * two[k]
                if c == d:
                    for m in range(k + 1):
                        row[m] += a * two[m]
                else:
                    for m in range(k + 1):
                        row[m] += a * two[m] + b * one[m]
    return grams


@kernel
def minimise(
    mean: Any, basis: Any, across: Any, target: Any, weight: Any, axes: Any,
    grams: Any, gram_factor: float, counted: Any, huber: float, rotation: Any, scale: float, shift: Any, x: Any,
    prior_rotation: Any, prior_scale: float, prior_shift: Any, precision: Any, steps: int,
) -> Any:  # fmt: skip
    """Gauss-Newton from a start to where a step changes nothing that counts.

    mean : (N, 3) float64, model frame
    basis : (3 N, K) float64, model units per whitened coefficient
    across : (K, 3 N) float64, the same, transposed
    target : (N, 3) float64, camera frame, around the origin
    weight : (N,) float64, 1 / sigma^2, 0 for a point that was not observed
    axes : (3,) float64, 1 for an axis of the camera frame that was observed, else 0
    grams : :func:`gram_matrices` of some points, or (0, K, K) if there are none
    gram_factor : what they are multiplied with
    counted : (N,) float64, the weights that each point has in the matrices then, 0 for points that are not in them
    huber : how many sigma a point may be off before it counts less, 0 if it always counts in full
    rotation, scale, shift, x : the start; (3, 3), number, (3,), (K,) float64
    prior_rotation, prior_scale, prior_shift : the earlier pose
    precision : (4,) float64, 1 / sigma^2 of rotation (radians), log scale, shift in x and y, shift in z
    steps : at most so many
    returns : rotation, scale, shift, x, E, and how many steps were taken
    """
    unknowns = POSE_UNKNOWNS + basis.shape[1]
    normal, gradient = np.zeros((unknowns, unknowns)), np.zeros(unknowns)
    factor, solved = np.empty((unknowns, unknowns)), np.empty(unknowns)
    share = np.ones(len(weight))
    rotation, shift, x = rotation.copy(), shift.copy(), x.copy()
    energy, points = _energy(
        mean, across, target, weight, axes, huber, rotation, scale, shift, x,
        prior_rotation, prior_scale, prior_shift, precision, share,
    )  # fmt: skip
    damping, taken = 1e-4, 0
    while taken < steps:
        _normal_equations(points, basis, target, weight * share, axes, grams, gram_factor, counted,
                          rotation, scale, shift, x, prior_rotation, prior_scale, prior_shift, precision,
                          normal, gradient)  # fmt: skip
        better = False
        for _ in range(12):
            if not _solve(normal, gradient, damping, factor, solved):
                damping = max(damping, 1e-8) * 10
                continue
            promised = 0.0
            for n in range(unknowns):
                promised -= gradient[n] * solved[n]
            if promised < LEAST_GAIN * energy:  # what is left is rounding
                return rotation, scale, shift, x, energy, taken
            longest = max(abs(solved[0]), abs(solved[1]), abs(solved[2]), abs(solved[3]))
            if longest > MAX_TURN:
                for n in range(unknowns):
                    solved[n] *= MAX_TURN / longest
            new_rotation = _turned(rotation, solved[0], solved[1], solved[2])
            new_scale = scale * (1 + solved[3] / 2) / (1 - solved[3] / 2)
            new_shift, new_x = shift + solved[4:POSE_UNKNOWNS], x + solved[POSE_UNKNOWNS:]
            new_energy, new_points = _energy(
                mean, across, target, weight, axes, huber, new_rotation, new_scale, new_shift, new_x,
                prior_rotation, prior_scale, prior_shift, precision, share,
            )  # fmt: skip
            if new_energy <= energy:
                better = True
                break
            damping = max(damping, 1e-8) * 10
        if not better:
            break
        rotation, scale, shift, x = new_rotation, new_scale, new_shift, new_x
        energy, points = new_energy, new_points
        damping /= 10
        taken += 1
    return rotation, scale, shift, x, energy, taken


@kernel
def points_of_face(mean: Any, across: Any, x: Any) -> Any:
    """(N, 3) float64, model frame: the points of the face with whitened coefficients x."""
    flat = mean.copy().reshape(-1)
    for k in range(len(x)):
        row, amount = across[k], x[k]
        for n in range(len(flat)):
            flat[n] += amount * row[n]
    return flat.reshape(-1, 3)


@kernel
def _energy(
    mean: Any, across: Any, target: Any, weight: Any, axes: Any, huber: float, rotation: Any, scale: float, shift: Any,
    x: Any, prior_rotation: Any, prior_scale: float, prior_shift: Any, precision: Any, share: Any,
) -> Any:  # fmt: skip
    """E and the points in the model frame; in ``share`` the share with which Huber's loss counts each point."""
    points = points_of_face(mean, across, x)
    energy = 0.0
    for k in range(len(x)):
        energy += x[k] * x[k]
    for i in range(len(weight)):
        if weight[i] == 0:
            continue
        square = 0.0
        for d in range(3):
            turned = rotation[d, 0] * points[i, 0] + rotation[d, 1] * points[i, 1] + rotation[d, 2] * points[i, 2]
            off = scale * turned + shift[d] - target[i, d]
            square += axes[d] * off * off
        square *= weight[i]
        if huber > 0 and square > huber * huber:
            length = math.sqrt(square)
            share[i] = huber / length
            energy += 2 * huber * length - huber * huber
        else:
            share[i] = 1.0
            energy += square
    if precision[0] > 0:
        a, b, c = _turn_between(_product(rotation, prior_rotation))
        energy += precision[0] * (a * a + b * b + c * c)
    if precision[1] > 0:
        # log(s / s0), to third order: what the scale's step adds up
        ratio = 2 * (scale - prior_scale) / (scale + prior_scale)
        energy += precision[1] * ratio * ratio
    for d in range(3):
        off = shift[d] - prior_shift[d]
        energy += precision[2 if d < 2 else 3] * off * off
    return energy, points


@kernel
def _product(one: Any, two: Any) -> Any:
    """``one @ two.T`` of 3 x 3 matrices, without BLAS."""
    out = np.zeros((3, 3))
    for a in range(3):
        for b in range(3):
            out[a, b] = one[a, 0] * two[b, 0] + one[a, 1] * two[b, 1] + one[a, 2] * two[b, 2]
    return out


@kernel
def _turn_between(m: Any) -> Any:
    """The axis of a rotation times the sine of its angle."""
    return (m[2, 1] - m[1, 2]) / 2, (m[0, 2] - m[2, 0]) / 2, (m[1, 0] - m[0, 1]) / 2


@kernel
def _turned(rotation: Any, a: float, b: float, c: float) -> Any:
    """``C R`` with the Cayley transform C of the step (a, b, c) / 2: a rotation by about its length."""
    a, b, c = a / 2, b / 2, c / 2
    n = 1 + a * a + b * b + c * c
    cayley = np.empty((3, 3))
    cayley[0, 0], cayley[0, 1], cayley[0, 2] = 1 + a * a - b * b - c * c, 2 * (a * b - c), 2 * (a * c + b)
    cayley[1, 0], cayley[1, 1], cayley[1, 2] = 2 * (a * b + c), 1 - a * a + b * b - c * c, 2 * (b * c - a)
    cayley[2, 0], cayley[2, 1], cayley[2, 2] = 2 * (a * c - b), 2 * (b * c + a), 1 - a * a - b * b + c * c
    out = np.empty((3, 3))
    for d in range(3):
        for e in range(3):
            out[d, e] = (
                cayley[d, 0] * rotation[0, e] + cayley[d, 1] * rotation[1, e] + cayley[d, 2] * rotation[2, e]
            ) / n
    return out


@kernel
def _normal_equations(
    points: Any, basis: Any, target: Any, weight: Any, axes: Any, grams: Any, gram_factor: float, counted: Any,
    rotation: Any, scale: float, shift: Any, x: Any, prior_rotation: Any, prior_scale: float, prior_shift: Any,
    precision: Any, normal: Any, gradient: Any,
) -> None:  # fmt: skip
    """``J^T W J`` with the prior (lower triangle), and ``J^T W r``, for the face with these points, model frame."""
    count = len(x)
    normal[:] = 0.0
    gradient[:] = 0.0
    jacobian, row, u, turned = np.zeros((8, 3)), np.empty((8, 3)), np.empty(3), np.empty(3)
    # Of the components with the turns, the scale and the residual; and alone, of which those with the shift are made.
    crossed, alone = np.zeros((8, count)), np.zeros((3, count))
    for i in range(len(weight)):
        if weight[i] == 0:
            continue
        for d in range(3):
            u[d] = scale * (
                rotation[d, 0] * points[i, 0] + rotation[d, 1] * points[i, 1] + rotation[d, 2] * points[i, 2]
            )
        # Columns of the Jacobian: the three turns, the scale, the shift; and the residual beside them.
        jacobian[0, 1], jacobian[0, 2] = -u[2], u[1]
        jacobian[1, 0], jacobian[1, 2] = u[2], -u[0]
        jacobian[2, 0], jacobian[2, 1] = -u[1], u[0]
        for d in range(3):
            jacobian[3, d] = u[d]
            jacobian[4 + d, d] = 1.0
            jacobian[RESIDUAL, d] = u[d] + shift[d] - target[i, d]
        for j in range(8):
            for d in range(3):
                row[j, d] = weight[i] * axes[d] * jacobian[j, d]
        for j in range(POSE_UNKNOWNS):
            for k in range(j + 1):
                normal[j, k] += row[j, 0] * jacobian[k, 0] + row[j, 1] * jacobian[k, 1] + row[j, 2] * jacobian[k, 2]
            rest = jacobian[RESIDUAL]
            gradient[j] += row[j, 0] * rest[0] + row[j, 1] * rest[1] + row[j, 2] * rest[2]
        if count:
            x_row, y_row, z_row = basis[3 * i], basis[3 * i + 1], basis[3 * i + 2]
            for j in CROSSED:
                for c in range(3):
                    turned[c] = scale * (
                        rotation[0, c] * row[j, 0] + rotation[1, c] * row[j, 1] + rotation[2, c] * row[j, 2]
                    )
                _add_three(crossed[j], turned[0], turned[1], turned[2], x_row, y_row, z_row)
            for c in range(3):
                component, share, own = basis[3 * i + c], weight[i], alone[c]
                for k in range(count):
                    own[k] += share * component[k]
    for d in range(3):
        for k in range(count):
            crossed[4 + d, k] = axes[d] * scale * (
                rotation[d, 0] * alone[0, k] + rotation[d, 1] * alone[1, k] + rotation[d, 2] * alone[2, k]
            )  # fmt: skip
    for k in range(count):
        for j in range(POSE_UNKNOWNS):
            normal[POSE_UNKNOWNS + k, j] = crossed[j, k]
        gradient[POSE_UNKNOWNS + k] = crossed[RESIDUAL, k] + x[k]
    if len(grams) > 0 and (weight != counted).sum() < (weight != 0).sum():
        _block_of_grams(axes, grams, gram_factor, rotation, scale, normal)
        _block_of_rows(basis, weight - counted, axes, rotation, scale, normal)
    elif count:
        _block_of_rows(basis, weight, axes, rotation, scale, normal)
    for k in range(count):
        normal[POSE_UNKNOWNS + k, POSE_UNKNOWNS + k] += 1.0
    if precision[0] > 0:
        # d (axis sin angle) of exp(w) M is (trace(M) 1 - M) / 2 w
        m = _product(rotation, prior_rotation)
        trace = m[0, 0] + m[1, 1] + m[2, 2]
        off = _turn_between(m)
        for a in range(3):
            for b in range(a + 1):
                for c in range(3):
                    one = ((trace if a == c else 0.0) - m[c, a]) / 2
                    two = ((trace if b == c else 0.0) - m[c, b]) / 2
                    normal[a, b] += precision[0] * one * two
            for c in range(3):
                gradient[a] += precision[0] * ((trace if a == c else 0.0) - m[c, a]) / 2 * off[c]
    normal[3, 3] += precision[1]
    gradient[3] += precision[1] * 2 * (scale - prior_scale) / (scale + prior_scale)
    for d in range(3):
        p = precision[2 if d < 2 else 3]
        normal[4 + d, 4 + d] += p
        gradient[4 + d] += p * (shift[d] - prior_shift[d])
        if normal[4 + d, 4 + d] == 0:  # an axis of which nothing is known stays where it is
            normal[4 + d, 4 + d] = 1.0


@kernel
def _add_three(row: Any, a: float, b: float, c: float, one: Any, two: Any, three: Any) -> None:
    for k in range(len(row)):
        row[k] = ((row[k] + a * one[k]) + b * two[k]) + c * three[k]


@kernel
def _block_of_grams(axes: Any, grams: Any, factor: float, rotation: Any, scale: float, normal: Any) -> None:
    """The block of the components among themselves, from the matrices that all faces share."""
    turned = np.empty(6)
    for pair in range(6):
        c, d = _PAIRS[pair]
        turned[pair] = factor * scale * scale * (
            axes[0] * rotation[0, c] * rotation[0, d]
            + axes[1] * rotation[1, c] * rotation[1, d]
            + axes[2] * rotation[2, c] * rotation[2, d]
        )  # fmt: skip
    t0, t1, t2, t3, t4, t5 = turned[0], turned[1], turned[2], turned[3], turned[4], turned[5]
    for k in range(grams.shape[1]):
        g0, g1, g2, g3, g4, g5 = grams[0, k], grams[1, k], grams[2, k], grams[3, k], grams[4, k], grams[5, k]
        out = normal[POSE_UNKNOWNS + k, POSE_UNKNOWNS:]
        for m in range(k + 1):
            out[m] = t0 * g0[m] + t1 * g1[m] + t2 * g2[m] + t3 * g3[m] + t4 * g4[m] + t5 * g5[m]


@kernel
def _block_of_rows(basis: Any, weight: Any, axes: Any, rotation: Any, scale: float, normal: Any) -> None:
    """What is added to it by rows of points, four at a time; a weight below 0 takes away."""
    count = basis.shape[1]
    rows, signs = np.zeros((4, count)), np.ones(4)
    filled = 0
    for i in range(len(weight)):
        if weight[i] == 0:
            continue
        for d in range(3):
            if axes[d] == 0:
                continue
            amount = scale * math.sqrt(abs(weight[i]) * axes[d])
            a, b, c = amount * rotation[d, 0], amount * rotation[d, 1], amount * rotation[d, 2]
            one, two, three, row = basis[3 * i], basis[3 * i + 1], basis[3 * i + 2], rows[filled]
            for k in range(count):
                row[k] = a * one[k] + b * two[k] + c * three[k]
            signs[filled] = 1.0 if weight[i] > 0 else -1.0
            filled += 1
            if filled == 4:
                _add_rows(rows, signs, normal)
                filled = 0
    if filled:
        rows[filled:] = 0.0
        _add_rows(rows, signs, normal)


@kernel
def _add_rows(rows: Any, signs: Any, normal: Any) -> None:
    p, q, r, s = rows[0], rows[1], rows[2], rows[3]
    for k in range(len(p)):
        out = normal[POSE_UNKNOWNS + k, POSE_UNKNOWNS:]
        a, b, c, d = signs[0] * p[k], signs[1] * q[k], signs[2] * r[k], signs[3] * s[k]
        for m in range(k + 1):
            out[m] += ((a * p[m] + b * q[m]) + c * r[m]) + d * s[m]


@kernel
def _solve(normal: Any, gradient: Any, damping: float, factor: Any, solved: Any) -> bool:
    """``solved = -(normal + damping diag)^-1 gradient`` by Cholesky's factors; False if it is not positive definite.

    Four columns at a time: what lies right of them is read and written once for the four.
    """
    size = len(gradient)
    columns = np.zeros((4, size))
    for k in range(size):
        factor[k, : k + 1] = normal[k, : k + 1]
        factor[k, k] *= 1 + damping
    for first in range(0, size, 4):
        stop = min(first + 4, size)
        for j in range(first, stop):
            column = columns[j - first, j:]
            for i in range(len(column)):
                column[i] = factor[j + i, j]
            for m in range(first, j):
                earlier = columns[m - first, j:]
                amount = earlier[0]
                for i in range(len(column)):
                    column[i] -= earlier[i] * amount
            if not column[0] > 0:
                return False
            root = math.sqrt(column[0])
            for i in range(len(column)):
                column[i] /= root
                factor[j + i, j] = column[i]
        if stop < size:  # then there are four
            # Views from there on: an index of stop + k would be tested for being negative, and the loop stay a loop.
            p, q, r, s = columns[0, stop:], columns[1, stop:], columns[2, stop:], columns[3, stop:]
            for i in range(len(p)):
                row, a, b, c, d = factor[stop + i, stop : stop + i + 1], p[i], q[i], r[i], s[i]
                for k in range(len(row)):
                    row[k] -= ((a * p[k] + b * q[k]) + c * r[k]) + d * s[k]
    for k in range(size):
        value = -gradient[k]
        for m in range(k):
            value -= factor[k, m] * solved[m]
        solved[k] = value / factor[k, k]
    for k in range(size - 1, -1, -1):
        solved[k] /= factor[k, k]
        amount, row = solved[k], factor[k]
        for m in range(k):
            solved[m] -= amount * row[m]
    return True
