"""The procedural face: a mean surface over the UV plane, with named components of identity and expression.

The mean is a thin-plate spline through a few dozen hand-placed points (the iBUG 68 and some on forehead, cheeks and
temples), with soft bumps for what lies between them. Everything is made on the right half and mirrored, so the face
and each of its components are symmetric to the last bit.
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np

from densegen.arrays import Float32, Float64, Int32, Mask
from densegen.conventions import OWN_INDEX, UV_SIZE
from densegen.face.morphable_model import MorphableModel
from densegen.face.regions import MIDLINE
from densegen.files import find_data_file
from densegen.geometry.uv import mirror_pixels, uv_from_pixels
from densegen.ibug68 import KEYPOINT_MIRROR, KEYPOINTS
from densegen.index.vertex_index import read_index
from densegen.synthetic.components import EXPRESSIONS, IDENTITY, MEAN_DETAIL, displacement

__all__ = ["face_model", "keypoint_pixels", "whole_units"]

UNITS_PER_MM = 1000
GRID_PX = 2.0

# The iBUG 68 of the right half and the midline, in millimetres: x to the subject's left, y up, z to the front.
_KEYPOINTS_MM: dict[int, tuple[float, float, float]] = {
    0: (-73, 21, 12), 1: (-72, 1, 14), 2: (-70, -18, 18), 3: (-66, -36, 24), 4: (-58, -54, 34), 5: (-47, -69, 49),
    6: (-34, -79, 66), 7: (-18, -86, 81), 8: (0, -89, 87),
    17: (-57, 40, 74), 18: (-49, 46.5, 87), 19: (-39, 49, 95), 20: (-28.5, 48, 100), 21: (-18, 44.5, 103),
    27: (0, 27, 105), 28: (0, 15.5, 113), 29: (0, 4, 122), 30: (0, -7, 129),
    31: (-12.5, -16, 106), 32: (-6.5, -18, 110.5), 33: (0, -19.5, 112.5),
    36: (-46, 26, 82), 37: (-39, 30.3, 89.5), 38: (-29.5, 30.3, 91), 39: (-20.5, 25.5, 88), 40: (-29, 22.8, 90),
    41: (-38, 22.3, 88),
    48: (-25.5, -42, 95), 49: (-16, -36.2, 105), 50: (-6.2, -32.5, 111), 51: (0, -33.6, 112), 57: (0, -51.5, 109),
    58: (-8.5, -50.5, 108), 59: (-17, -47, 103.5), 60: (-23.5, -42, 95.5), 61: (-8, -40.6, 107), 62: (0, -40.4, 108.5),
    66: (0, -42.2, 107.5), 67: (-8, -42.2, 106.5),
}  # fmt: skip

# More points of the mean: UV pixel -> millimetres, right half and midline.
_SURFACE_MM: dict[tuple[float, float], tuple[float, float, float]] = {
    # forehead
    (127.5, 2): (0, 97, 82), (127.5, 14): (0, 83, 95), (127.5, 28): (0, 64, 103), (127.5, 42): (0, 47, 106),
    (100, 4): (-22, 94, 80), (100, 22): (-22, 72, 99), (75, 6): (-43, 90, 68), (78, 24): (-43, 69, 89),
    (52, 8): (-58, 84, 50), (55, 26): (-58, 65, 70),
    # temples, fading out towards the ears
    (30, 8): (-68, 80, 24), (32, 30): (-69, 60, 42), (36, 55): (-69, 40, 50),
    (4, 4): (-74, 80, -8), (4, 30): (-77, 62, -8),
    (4, 60): (-78, 42, -8), (4, 92): (-78, 22, -8), (20, 75): (-74, 32, 20), (6, 112): (-77, 6, -6),
    (12, 132): (-74, -12, 0),
    (18, 152): (-71, -30, 8), (28, 172): (-66, -48, 18), (42, 190): (-58, -64, 28), (66, 200): (-44, -79, 42),
    (92, 204): (-27, -88, 62), (127.5, 206): (0, -97, 72),
    # cheeks and jaw
    (56, 75): (-61, 24, 66), (40, 95): (-67, 8, 48),
    (62, 95): (-58, 6, 72), (84, 90): (-43, 8, 90), (104, 88): (-22, 8, 96),
    (112, 78): (-13, 14, 100), (82, 108): (-44, -8, 91), (100, 104): (-26, -8, 98),
    (60, 120): (-58, -16, 67),
    (42, 125): (-65, -18, 45), (82, 128): (-43, -27, 88), (98, 124): (-28, -24, 98), (60, 145): (-56, -38, 62),
    (82, 148): (-41, -46, 83), (44, 155): (-62, -42, 40), (62, 170): (-51, -60, 56), (86, 170): (-36, -66, 77),
    # around the mouth and on the chin
    (116, 120): (-8, -26, 108), (127.5, 121): (0, -26.5, 108), (104, 156): (-22, -54, 98),
    (127.5, 158): (0, -58.5, 102),
    (114, 160): (-12, -60, 101), (127.5, 172): (0, -71, 103.5), (112, 174): (-15, -73, 97), (127.5, 184): (0, -82, 98),
    # sides of the nose
    (115, 65): (-9, 22, 98), (118, 90): (-8, 2, 112), (112, 100): (-13.5, -7, 107), (121, 102): (-6, -9, 121),
}  # fmt: skip


@lru_cache(maxsize=1)
def face_model() -> MorphableModel:
    """The procedural morphable model; the same numbers each time.

    11,480 vertices, units of micrometres, UV layout ``bfm-3dmmasstn`` with everything outside the face left out.
    """
    half, half_triangles, middle = _half_plane()
    vertices, triangles, pixels = _mirror_mesh(half, half_triangles, middle)
    mean = _spline_mean(half) + displacement(half, _spline_mean(half), MEAN_DETAIL)

    def whole(field: Float64) -> Float32:
        """A field on the right half, on both, in whole units: x changes its sign, and is 0 on the midline."""
        units = whole_units(field)
        units[middle, 0] = 0
        return np.concatenate([units, units[~middle] * np.array([-1, 1, 1], np.float32)])

    keypoints = np.array([_nearest(pixels, pixel) for pixel in keypoint_pixels()], np.int32)
    mean_units = whole(mean)
    assert len(mean_units) == vertices
    return MorphableModel(
        shape_mean=mean_units,
        expression_mean=np.zeros_like(mean_units),
        shape_basis=np.stack([whole(displacement(half, mean, c.parts)) for c in IDENTITY]),
        expression_basis=np.stack([whole(displacement(half, mean, c.parts)) for c in EXPRESSIONS]),
        shape_std=np.array([c.std for c in IDENTITY], np.float32),
        expression_std=np.array([c.std for c in EXPRESSIONS], np.float32),
        triangles=triangles,
        keypoints68=keypoints,
        uv=uv_from_pixels(pixels),
        unit_mm=1 / UNITS_PER_MM,
        name="densegen procedural face",
        shape_names=tuple(c.name for c in IDENTITY),
        expression_names=tuple(c.name for c in EXPRESSIONS),
    )


def whole_units(field_mm: Float64) -> Float32:
    """Millimetres in model units, rounded to whole ones: float32 holds them exactly.

    The spline's coefficients come from LAPACK, whose last bits depend on the processor. Rounding hides that difference:
    it is about 10^5 times smaller than a unit, and no number of the face lies within 0.001 units of a rounding limit.
    """
    rounded: Float32 = np.rint(field_mm * UNITS_PER_MM).astype(np.float32)
    return rounded


def keypoint_pixels() -> Float64:
    """(68, 2) UV pixels of the iBUG 68, exactly symmetric; from the vertex index, the layout's own description."""
    index = read_index(find_data_file(OWN_INDEX))
    pixels = index.subset("ibug68", index.uv)
    symmetric: Float64 = (pixels + mirror_pixels(pixels)[KEYPOINT_MIRROR]) / 2
    return symmetric


def _half_plane() -> tuple[Float64, Int32, Mask]:
    """The right half of the UV plane: (H, 2) pixels, (F, 3) triangles, (H,) whether a vertex lies on the midline.

    A regular grid inside the face's outline, with the keypoints as vertices of their own.
    """
    from scipy.spatial import Delaunay, cKDTree

    keypoints = keypoint_pixels()
    keypoints = keypoints[keypoints[:, 0] <= MIDLINE + 1e-6]
    columns = MIDLINE - GRID_PX * np.arange(int(MIDLINE / GRID_PX) + 1)
    # Off the pixel centres, so that none of them lies on an edge between two triangles.
    rows = np.arange(0.3, UV_SIZE, GRID_PX)
    grid = np.stack(np.meshgrid(columns, rows), axis=-1).reshape(-1, 2)
    grid = grid[_in_outline(grid)]
    grid = grid[cKDTree(keypoints).query(grid)[0] > 0.6 * GRID_PX]
    points = np.concatenate([keypoints, grid])
    triangles = Delaunay(points).simplices
    inside = _in_outline(points[triangles].mean(axis=1))
    a, b, c = np.moveaxis(points[triangles], 1, 0)
    area = (b[:, 0] - a[:, 0]) * (c[:, 1] - a[:, 1]) - (c[:, 0] - a[:, 0]) * (b[:, 1] - a[:, 1])
    triangles = triangles[inside & (np.abs(area) > 1e-3)].astype(np.int32)
    clockwise = area[inside & (np.abs(area) > 1e-3)] > 0
    triangles[clockwise] = triangles[clockwise][:, ::-1]
    return points, triangles, np.abs(points[:, 0] - MIDLINE) < 1e-6


def _in_outline(pixels: Float64) -> Mask:
    """The face's outline: straight sides to the ears, then narrowing to the chin."""
    column, row = np.minimum(pixels[:, 0], UV_SIZE - 1 - pixels[:, 0]), pixels[:, 1]
    left = np.interp(row, [0, 105, 115, 140, 165, 180, 190, 198, 206], [2, 2, 3, 14, 26, 38, 52, 70, 100])
    return (row >= 1) & (row <= 206) & (column >= left)


def _mirror_mesh(half: Float64, triangles: Int32, middle: Mask) -> tuple[int, Int32, Float64]:
    """Vertex count, triangles and UV pixels of both halves; the midline's vertices are shared."""
    partner = np.arange(len(half))
    partner[~middle] = len(half) + np.arange(int((~middle).sum()))
    pixels = np.concatenate([half, mirror_pixels(half[~middle])])
    both = np.concatenate([triangles, partner[triangles][:, ::-1]]).astype(np.int32)
    return len(pixels), both, pixels


def _spline_mean(half: Float64) -> Float64:
    """(H, 3) millimetres: the thin-plate spline through the hand-placed points and their mirror images."""
    from scipy.interpolate import RBFInterpolator

    keypoints = keypoint_pixels()
    right = [(tuple(keypoints[k]), mm) for k, mm in _KEYPOINTS_MM.items()] + list(_SURFACE_MM.items())
    pixels = np.array([pixel for pixel, _ in right], np.float64)
    places = np.array([mm for _, mm in right], np.float64)
    off = np.abs(pixels[:, 0] - MIDLINE) > 1e-6
    pixels = np.concatenate([pixels, mirror_pixels(pixels[off])])
    places = np.concatenate([places, places[off] * [-1, 1, 1]])
    mean: Float64 = RBFInterpolator(pixels, places, kernel="thin_plate_spline", smoothing=1.0)(half)
    return mean


def _nearest(pixels: Float64, pixel: Float64) -> int:
    return int(np.argmin(((pixels - pixel) ** 2).sum(axis=1)))


assert len(_KEYPOINTS_MM) + sum(1 for k in range(KEYPOINTS) if KEYPOINT_MIRROR[k] != k) // 2 == KEYPOINTS
