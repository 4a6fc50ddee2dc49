"""How far a crop is averaged before it is sampled at a network's size: the same in training and afterwards."""

from __future__ import annotations

__all__ = ["shrink_factor"]


def shrink_factor(side: int, size: int) -> int:
    """The side of the squares that are averaged before a crop of ``side`` pixels is sampled bilinearly at ``size``.

    Bilinear sampling sees two pixels across, so an image of more than twice the size has to become smaller first.
    """
    # No default for max(): the compiler of torch 2.11 does not know it.
    return max([1, *[factor for factor in range(2, side // (2 * size) + 1) if side % factor == 0]])
