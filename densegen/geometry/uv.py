"""The UV plane: its pixel frame and its mirror."""

from __future__ import annotations

import numpy as np

from densegen.arrays import Float64, Int32
from densegen.conventions import UV_SIZE
from densegen.errors import FormatError

__all__ = ["mirror_from_uv", "mirror_pixels", "uv_from_pixels", "uv_pixels"]


def uv_pixels(uv: Float64, size: int = UV_SIZE) -> Float64:
    """UV coordinates as sub-pixel positions: (N, 2) in [0, 1], v up -> (N, 2) (column, row) in [0, size - 1].

    >>> uv_pixels(np.array([[0.0, 1.0], [0.5, 0.5]])).tolist()
    [[0.0, 0.0], [127.5, 127.5]]
    """
    return np.stack([uv[:, 0] * (size - 1), (1 - uv[:, 1]) * (size - 1)], axis=1)


def uv_from_pixels(pixels: Float64, size: int = UV_SIZE) -> Float64:
    """The reverse of :func:`uv_pixels`: (N, 2) (column, row) -> (N, 2) in [0, 1], v up."""
    return np.stack([pixels[:, 0] / (size - 1), 1 - pixels[:, 1] / (size - 1)], axis=1)


def mirror_pixels(pixels: Float64, size: int = UV_SIZE) -> Float64:
    """Mirrored sub-pixel positions: column -> size - 1 - column. The face's midline lies at (size - 1) / 2.

    >>> mirror_pixels(np.array([[10.0, 40.0]])).tolist()
    [[245.0, 40.0]]
    """
    return pixels * [-1, 1] + [size - 1, 0]


def mirror_from_uv(uv: Float64) -> Int32:
    """Pair each vertex with that at its mirrored UV position (u -> 1 - u): (V, 2) float64 -> (V,) int32, an involution.

    The nearest vertex is the partner if the choice is mutual. The few that are left (14 of 53,215 in the
    Basel layout, all inside the mouth) are paired among themselves, nearest first. Against the model's own symmetry
    list (``symlist``), which the downloads carry but face3d's file does not, this differs in 9 vertices.

    Raises :class:`FormatError` if too many vertices have no mirror image.
    """
    from scipy.spatial import cKDTree
    from scipy.spatial.distance import cdist

    mirrored = uv * [-1, 1] + [1, 0]
    partner = cKDTree(uv).query(mirrored)[1].astype(np.int32)
    everyone = np.arange(len(uv), dtype=np.int32)
    left = everyone[partner[partner] != everyone]
    if len(left) > max(1000, 0.02 * len(uv)):
        raise FormatError(f"the UV layout is not symmetric: {len(left)} of {len(uv)} vertices have no mirror image")
    cost = cdist(mirrored[left], uv[left])
    cost = cost + cost.T
    while left.size:
        pair = list(np.unravel_index(np.argmin(cost), cost.shape))
        partner[left[pair]] = left[pair[::-1]]
        left = np.delete(left, pair)
        cost = np.delete(np.delete(cost, pair, axis=0), pair, axis=1)
    result: Int32 = partner
    return result
