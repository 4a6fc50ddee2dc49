"""The sum of a face's components, in an order that no processor changes."""

from __future__ import annotations

from typing import Any

import numpy as np

from densegen.arrays import Float32
from densegen.geometry.kernels import kernel

__all__ = ["add_components", "combine"]


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
            add_components(out[faces - 1, start:stop], coefficients[faces - 1], basis, start)
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
def add_components(one: Any, c: Any, basis: Any, start: int) -> None:
    """Add components to one face's strip, in the order of :func:`combine`; for kernels.

    one : (n,) float32; c : (K,) float32; basis : (K or more, start + n or more) float32
    """
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
