"""The sum of a face's components, in an order that no processor changes."""

from __future__ import annotations

from typing import Any

import numpy as np

from densegen.arrays import Float32
from densegen.geometry.kernels import kernel

__all__ = ["combine", "smallest_depths"]


def combine(coefficients: Float32, basis: Float32) -> Float32:
    """``mean + c[0] * basis[0] + c[1] * basis[1] + …`` of B faces, added from left to right.

    coefficients : (B, K) float32, raw coefficients
    basis : (K + 1, 3 n) float32, model units, the mean in its last row
    returns : (B, n, 3) float32, model frame and units

    BLAS would add in an order that depends on the processor, and on how many faces are computed at once.
    """
    combined: Float32 = _combine(coefficients, basis)
    return combined.reshape(len(coefficients), -1, 3)


@kernel
def _combine(coefficients: Any, basis: Any) -> Any:
    """Strip by strip, so that a strip of the basis stays in the cache for all faces, and two faces at a time, so that
    what is read of it is used twice.
    """
    faces, count = coefficients.shape
    width, strip = basis.shape[1], 768
    out = np.empty((faces, width), np.float32)
    for start in range(0, width, strip):
        stop = min(start + strip, width)
        for face in range(faces):
            out[face, start:stop] = basis[count, start:stop]
        for face in range(0, faces - 1, 2):
            one, two = out[face, start:stop], out[face + 1, start:stop]
            _add_to_two(one, two, coefficients[face], coefficients[face + 1], basis, start)
        if faces % 2:
            _add_to_one(out[faces - 1, start:stop], coefficients[faces - 1], basis, start)
    return out


@kernel
def _add_to_two(one: Any, two: Any, c: Any, d: Any, basis: Any, start: int) -> None:
    """Add components to two faces' strips, four at a time, from left to right."""
    stop, whole = start + len(one), len(c) - len(c) % 4
    for k in range(0, whole, 4):
        p, q = basis[k, start:stop], basis[k + 1, start:stop]
        r, s = basis[k + 2, start:stop], basis[k + 3, start:stop]
        for n in range(len(one)):
            one[n] = (((one[n] + c[k] * p[n]) + c[k + 1] * q[n]) + c[k + 2] * r[n]) + c[k + 3] * s[n]
            two[n] = (((two[n] + d[k] * p[n]) + d[k + 1] * q[n]) + d[k + 2] * r[n]) + d[k + 3] * s[n]
    for k in range(whole, len(c)):
        p = basis[k, start:stop]
        for n in range(len(one)):
            one[n] += c[k] * p[n]
            two[n] += d[k] * p[n]


@kernel
def _add_to_one(one: Any, c: Any, basis: Any, start: int) -> None:
    """Add components to one face's strip, in the order of :func:`_add_to_two`."""
    stop, whole = start + len(one), len(c) - len(c) % 4
    for k in range(0, whole, 4):
        p, q = basis[k, start:stop], basis[k + 1, start:stop]
        r, s = basis[k + 2, start:stop], basis[k + 3, start:stop]
        for n in range(len(one)):
            one[n] = (((one[n] + c[k] * p[n]) + c[k + 1] * q[n]) + c[k + 2] * r[n]) + c[k + 3] * s[n]
    for k in range(whole, len(c)):
        p = basis[k, start:stop]
        for n in range(len(one)):
            one[n] += c[k] * p[n]


@kernel
def smallest_depths(coefficients: Any, towards: Any, basis: Any, faces: Any, slots: Any) -> Any:
    """The smallest depths of some vertices of B faces: vertices as :func:`combine` adds them up, depths as
    :func:`~densegen.geometry.pose.transform` computes them.

    coefficients : (B, K) float32
    towards : (B, 4) float32, ``z = x a + y b + z c + d``
    basis : (n, K + 1, 3 m) float32, of n sets of m vertices each
    faces, slots : (p,) int32, which faces have their vertices of which sets looked at
    returns : (B,) float64, infinite if a face has none looked at
    """
    smallest = np.full(len(towards), np.inf)
    count, width = basis.shape[1] - 1, basis.shape[2]
    vertices = np.empty(width, np.float32)
    for pair in range(len(faces)):
        face, patch = faces[pair], basis[slots[pair]]
        dx, dy, dz, offset = towards[face]
        vertices[:] = patch[count]
        _add_to_one(vertices, coefficients[face], patch, 0)
        for n in range(0, width, 3):
            depth = vertices[n] * dx + vertices[n + 1] * dy + vertices[n + 2] * dz + offset
            smallest[face] = min(smallest[face], depth)
    return smallest
