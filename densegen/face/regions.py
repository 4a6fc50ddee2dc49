"""Regions of the face over the UV plane: which pixels are face at all, and what a place is called."""

from __future__ import annotations

from functools import lru_cache

import numpy as np

from densegen.arrays import Float64, Mask
from densegen.conventions import UV_SIZE
from densegen.files import find_data_file
from densegen.geometry.uv import mirror_pixels
from densegen.ibug68 import INNER_LIPS, JAW, OUTER_LIPS, RIGHT_BROW, RIGHT_EYE
from densegen.records import read_yaml

__all__ = ["MIDLINE", "REGIONS", "on_face", "region_of", "valid_uv_region"]

REGIONS = ("jaw", "chin", "brow", "eye", "lid", "nose", "lip-outer", "lip-inner", "cheek", "forehead", "temple", "ear")

EAR_BEYOND = 3.0
"""How far outside the jaw's upper three points the ear begins, pixels of the UV map; its lobe ends at the third."""

MIDLINE = (UV_SIZE - 1) / 2
"""Column of the face's midline in the UV map, between two pixels."""


def region_of(pixel: Float64, keypoints: Float64) -> str:
    """The region of the face at a UV position, by where it lies among the 68.

    pixel : (2,) float64, (column, row), pixels of the 256x256 UV map
    keypoints : (68, 2) float64, (column, row) of the iBUG 68, pixels of the same map
    """
    x, y = mirror_pixels(pixel[None])[0] if pixel[0] > MIDLINE else pixel
    point = np.array([x, y])
    if _inside(point, keypoints[OUTER_LIPS]):
        return (
            "lip-inner"
            if _distance(point, keypoints[INNER_LIPS]) < _distance(point, keypoints[OUTER_LIPS])
            else "lip-outer"
        )
    if _inside(point, keypoints[RIGHT_EYE]):
        return "eye"
    if _distance(point, keypoints[RIGHT_EYE]) < 8:
        return "lid"
    if _distance(point, keypoints[RIGHT_BROW], closed=False) < 5:
        return "brow"
    if keypoints[17, 0] < x < keypoints[27, 0] and keypoints[RIGHT_BROW, 1].max() < y < keypoints[39, 1]:
        return "nose" if keypoints[27, 0] - x < 13 else "lid"
    nose = np.concatenate(
        [
            keypoints[[27]] - [8, 0],
            keypoints[[31]] - [9, 4],
            keypoints[31:36],
            keypoints[[35]] + [9, -4],
            keypoints[[27]] + [8, 0],
        ]
    )
    if _inside(point, nose):
        return "nose"
    if _distance(point, keypoints[OUTER_LIPS]) < 5:
        return "lip-outer"
    if y > keypoints[57, 1] and x > keypoints[48, 0] - 8:
        return "chin"
    ear = keypoints[JAW][:3]
    if ear[0, 1] <= y <= ear[2, 1] and x < np.interp(y, ear[:, 1], ear[:, 0]) - EAR_BEYOND:
        return "ear"
    beyond = y > keypoints[0, 1] and not _inside(point, keypoints[JAW])
    if beyond or _distance(point, keypoints[JAW], closed=False) < 7:
        return "jaw"
    if y < keypoints[RIGHT_BROW, 1].max() and x > keypoints[17, 0]:
        return "forehead"
    if y < keypoints[0, 1] and x < keypoints[17, 0]:
        return "temple"
    return "cheek"


def _inside(point: Float64, polygon: Float64) -> bool:
    from matplotlib.path import Path as Outline

    return bool(Outline(polygon).contains_point((float(point[0]), float(point[1]))))


def _distance(point: Float64, line: Float64, closed: bool = True) -> float:
    ends = np.roll(line, -1, axis=0) if closed else line[1:]
    starts = line if closed else line[:-1]
    along = ends - starts
    share = np.clip(((point - starts) * along).sum(1) / (along**2).sum(1), 0, 1)
    return float(np.linalg.norm(starts + share[:, None] * along - point, axis=1).min())


@lru_cache(maxsize=1)
def valid_uv_region() -> Mask:
    """(256, 256) bool, read-only: the pixels of the UV map that count as face (PRNet's 43,867)."""
    contents = read_yaml(find_data_file("uv_bfm-3dmmasstn.yaml"), "UV region")
    valid = np.zeros((UV_SIZE, UV_SIZE), np.bool_)
    for row, first, last in contents["rows"]:
        valid[row, first : last + 1] = True
    valid.flags.writeable = False
    return valid


def on_face(pixels: Float64) -> Mask:
    """(N,) bool: which of (N, 2) UV positions lie in the face's part of the UV map, or within a pixel of it."""
    columns, rows = np.rint(pixels).astype(np.int64).T
    inside: Mask = _near_face()[rows, columns]
    return inside


@lru_cache(maxsize=1)
def _near_face() -> Mask:
    valid = valid_uv_region()  # its outline differs by a pixel between left and right
    around = np.lib.stride_tricks.sliding_window_view(np.pad(valid | valid[:, ::-1], 1), (3, 3))
    near: Mask = np.asarray(around.any(axis=(2, 3)))
    return near
