"""Sine, cosine, the arctangent and the exponential, with the same last bit on every processor.

NumPy and the C library choose their versions of these by what the processor can do, and the versions differ in the
last bit. Everything that ends in a shard is made of these instead: additions and multiplications of doubles in a fixed
order (Taylor series after a reduction of the argument, within 2 units in the last place).
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import numpy.typing as npt

from densegen.arrays import Float64
from densegen.geometry.kernels import kernel

__all__ = ["arctangent", "exponential", "sine_cosine", "sine_cosine_array"]

# pi / 2 and ln 2 in parts of 33 bits, as in FreeBSD's msun: a multiple of the first part is exact.
_HALF_PI = (1.57079632673412561417e00, 6.07710050630396597660e-11, 2.02226624879595063154e-21)
_LN_2 = (6.93147180369123816490e-01, 1.90821492927058770002e-10)

_SINE = tuple((-1) ** (k // 2) / math.factorial(k) for k in range(1, 20, 2))[::-1]
_COSINE = tuple((-1) ** (k // 2) / math.factorial(k) for k in range(0, 19, 2))[::-1]
_EXPONENTIAL = tuple(1 / math.factorial(k) for k in range(15))[::-1]
"""Taylor coefficients, the highest power first."""

_ARCTANGENT = tuple((-1) ** k / (2 * k + 1) for k in range(14))[::-1]


def sine_cosine(angle_rad: float) -> tuple[float, float]:
    """Sine and cosine of one angle, radians, at most 10^5 in size."""
    sine, cosine = _sine_cosine(np.array([angle_rad], np.float64))
    return float(sine[0]), float(cosine[0])


def sine_cosine_array(angles_rad: npt.NDArray[Any]) -> tuple[Float64, Float64]:
    """Sines and cosines, float64, in the shape of the angles; radians, at most 10^5 in size."""
    sines, cosines = _sine_cosine(np.ascontiguousarray(angles_rad, np.float64).ravel())
    return sines.reshape(angles_rad.shape), cosines.reshape(angles_rad.shape)


def arctangent(y: float, x: float) -> float:
    """The angle of the point (x, y), radians, in [-pi, pi]; 0 for the origin. Within 4 units in the last place."""
    return float(_arctangent(float(y), float(x)))


def exponential(exponents: npt.NDArray[Any]) -> Float64:
    """e to the power of each element, float64, in their shape; for exponents between -700 and 700."""
    result: Float64 = _exponential(np.ascontiguousarray(exponents, np.float64).ravel())
    return result.reshape(exponents.shape)


@kernel
def _sine_cosine(angles: Any) -> Any:
    sines, cosines = np.empty_like(angles), np.empty_like(angles)
    for n in range(angles.size):
        quarters = np.floor(angles[n] * (2 / math.pi) + 0.5)
        r = ((angles[n] - quarters * _HALF_PI[0]) - quarters * _HALF_PI[1]) - quarters * _HALF_PI[2]
        square = r * r
        sine, cosine = 0.0, 0.0
        for k in range(len(_SINE)):
            sine = sine * square + _SINE[k]
            cosine = cosine * square + _COSINE[k]
        sine *= r
        quadrant = int(quarters) & 3
        if quadrant == 0:
            sines[n], cosines[n] = sine, cosine
        elif quadrant == 1:
            sines[n], cosines[n] = cosine, -sine
        elif quadrant == 2:
            sines[n], cosines[n] = -sine, -cosine
        else:
            sines[n], cosines[n] = -cosine, sine
    return sines, cosines


@kernel
def _arctangent(y: Any, x: Any) -> Any:
    """Halve the angle three times, ``atan(r) = 2 atan(r / (1 + sqrt(1 + r^2)))``, then the series."""
    a, b = abs(x), abs(y)
    if a == 0.0 and b == 0.0:
        return 0.0
    r = b / a if b <= a else a / b
    for _ in range(3):
        r = r / (1.0 + math.sqrt(1.0 + r * r))
    square, value = r * r, 0.0
    for k in range(len(_ARCTANGENT)):
        value = value * square + _ARCTANGENT[k]
    angle = 8.0 * (value * r)
    if b > a:
        angle = math.pi / 2 - angle
    if x < 0:
        angle = math.pi - angle
    return -angle if y < 0 else angle


@kernel
def _exponential(exponents: Any) -> Any:
    """Without a branch or a call, so that the compiler makes vector instructions of it."""
    out, powers = np.empty_like(exponents), np.empty(exponents.size, np.int64)
    for n in range(exponents.size):
        doublings = np.floor(exponents[n] * 1.4426950408889634 + 0.5)
        r = (exponents[n] - doublings * _LN_2[0]) - doublings * _LN_2[1]
        value = 0.0
        for k in range(len(_EXPONENTIAL)):
            value = value * r + _EXPONENTIAL[k]
        out[n], powers[n] = value, (np.int64(doublings) + 1023) << 52  # the bits of 2 to that power
    return out * powers.view(np.float64)
