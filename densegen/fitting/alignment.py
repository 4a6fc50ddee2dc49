"""How points are spread, and how they are brought near to others: sums in a fixed order on every processor."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from densegen.geometry.kernels import kernel

__all__ = ["middle_of", "similarities", "spread_of"]


@kernel
def spread_of(points: Any) -> Any:
    """Of the covariance of (n, D) points, D at most 3, with the variances a >= b >= c along its axes: ``a + b + c``,
    ``a b + a c + b c`` and ``a b c``. Points on a line have a small second one, points in a plane a small third one.
    """
    count, middle, moments = len(points), np.zeros(3), np.zeros((3, 3))
    for i in range(count):
        for c in range(points.shape[1]):
            middle[c] += points[i, c] / count
    for i in range(count):
        for c in range(points.shape[1]):
            for d in range(c + 1):
                moments[c, d] += (points[i, c] - middle[c]) * (points[i, d] - middle[d]) / count
    xx, yy, zz, xy, xz, yz = (
        moments[0, 0], moments[1, 1], moments[2, 2], moments[1, 0], moments[2, 0], moments[2, 1]
    )  # fmt: skip
    minors = xx * yy - xy * xy + xx * zz - xz * xz + yy * zz - yz * yz
    return xx + yy + zz, minors, xx * (yy * zz - yz * yz) - xy * (xy * zz - yz * xz) + xz * (xy * yz - yy * xz)


@kernel
def middle_of(points: Any) -> Any:
    """(D,) float64, the mean of (n, D) points, added from the first to the last."""
    middle = np.zeros(points.shape[1])
    for i in range(len(points)):
        for c in range(points.shape[1]):
            middle[c] += points[i, c]
    return middle / len(points)


@kernel
def similarities(points: Any, target: Any, turns: Any) -> Any:
    """For each turn of the points the roll, scale and shift that bring them nearest to a target in the image plane.

    As complex numbers z of the turned points and q of the target, both about their means, roll and scale together are
    ``sum(conj(z) q) / sum(|z|^2)`` (least squares).

    points : (n, 3) float64, model frame
    target : (n, 3) float64, camera frame
    turns : (T, 3, 3) float64
    returns : (T,) what is left, squared; (T, 3, 3) rotations; (T,) scales; (T, 3) shifts
    """
    count = len(points)
    left, scales = np.empty(len(turns)), np.empty(len(turns))
    rotations, shifts = np.empty((len(turns), 3, 3)), np.zeros((len(turns), 3))
    middle, aim = np.zeros(3), np.zeros(2)
    for i in range(count):
        for c in range(3):
            middle[c] += points[i, c] / count
        aim[0] += target[i, 0] / count
        aim[1] += target[i, 1] / count
    for number in range(len(turns)):
        turn = turns[number]
        size, spread, cosine, sine = 0.0, 0.0, 0.0, 0.0
        for i in range(count):
            a, b, c = points[i, 0] - middle[0], points[i, 1] - middle[1], points[i, 2] - middle[2]
            x, y = turn[0, 0] * a + turn[0, 1] * b + turn[0, 2] * c, turn[1, 0] * a + turn[1, 1] * b + turn[1, 2] * c
            u, v = target[i, 0] - aim[0], target[i, 1] - aim[1]
            size += x * x + y * y
            spread += u * u + v * v
            cosine += x * u + y * v
            sine += x * v - y * u
        cosine, sine = cosine / size, sine / size
        scale = math.sqrt(cosine * cosine + sine * sine)
        left[number], scales[number] = spread - scale * scale * size, scale
        cosine, sine = cosine / scale, sine / scale
        for d in range(3):
            rotations[number, 0, d] = cosine * turn[0, d] - sine * turn[1, d]
            rotations[number, 1, d] = sine * turn[0, d] + cosine * turn[1, d]
            rotations[number, 2, d] = turn[2, d]
        for d in range(2):
            along = 0.0
            for c in range(3):
                along += rotations[number, d, c] * middle[c]
            shifts[number, d] = aim[d] - scale * along
    return left, rotations, scales, shifts
