"""The UV position map: an image whose pixels are 3D positions.

Which triangle covers a UV pixel never changes, so the raster is made once, as a table of three vertices and their
weights a pixel; a position map is then a gather.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt

from densegen.arrays import Float32, Float64, Int32, Mask
from densegen.conventions import CROP_SIZE, UV_SIZE, position_map_grid_px
from densegen.errors import SampleError
from densegen.geometry.kernels import kernel
from densegen.geometry.surface import SurfacePoints
from densegen.geometry.uv import uv_pixels

__all__ = ["UvTable", "decode_fixed_point", "encode_fixed_point", "make_uv_table", "render_fixed_point"]


@dataclass(frozen=True, eq=False)
class UvTable:
    """For every covered UV pixel the surface point under its centre; ``valid`` marks those pixels.

    points : the n covered pixels in row-major order
    valid : (S, S) bool
    """

    points: SurfacePoints
    valid: Mask

    def position_map(self, mesh: Float32) -> Float32:
        """Render the position map of a posed mesh.

        mesh : (V, 3) float32, any frame (the crop frame in a build)
        returns : (S, S, 3) float32, the mesh's frame and unit; 0 if not valid
        """
        size = len(self.valid)
        points = self.points.gather(mesh)
        if len(points) == size * size:
            return points.reshape(size, size, 3)
        result = np.zeros((size * size, 3), np.float32)
        result[self.places] = points
        return result.reshape(size, size, 3)

    def among(self, vertices: Int32) -> UvTable:
        """The same table for a mesh of which only these vertices are there, (n,) ascending."""
        return UvTable(self.points.among(vertices), self.valid)

    @cached_property
    def places(self) -> Int32:
        """(n,) int32: the covered pixels, counted in row-major order."""
        return np.flatnonzero(self.valid).astype(np.int32)

    @cached_property
    def mirrored_places(self) -> Int32:
        """(n,) int32: where the covered pixels are in the mirror image."""
        width = len(self.valid)
        return (self.places + (width - 1 - 2 * (self.places % width))).astype(np.int32)


def make_uv_table(uv: Float64, triangles: Int32, size: int = UV_SIZE) -> UvTable:
    """Rasterise the UV plane once: each pixel centre belongs to the first triangle that contains it.

    A centre p is inside if, with ``p - p0 = u (p2 - p0) + v (p1 - p0)``, ``u >= 0, v >= 0, u + v < 1`` (the
    rule of face3d's and PRNet's rasteriser). A centre that lies on the edge ``u + v = 1`` of every triangle it touches
    is inside none of them by that rule; it is given to the first. Pixels outside every triangle are not valid. The
    public rasteriser differs: it extrapolates into the outermost two rows and columns, with weights from -3.5 to 3.

    uv : (V, 2) float64 in [0, 1], v up
    triangles : (F, 3) int32
    size : S, side of the UV map in pixels
    returns : the table of an (S, S) map
    """
    covered, weights = _rasterise(uv_pixels(uv, size), triangles, size)
    valid = covered >= 0
    valid.setflags(write=False)  # many samples share it
    return UvTable(
        SurfacePoints(triangles[covered[valid]], weights[valid].astype(np.float32)),
        valid,
    )


def encode_fixed_point(position_map: Float32, valid: Mask, size: int = CROP_SIZE) -> npt.NDArray[np.uint16]:
    """A position map in pixels as uint16: ``value * step + offset`` px, rounded to the nearest (error <= step / 2).

    position_map : (S, S, 3) float32, pixels, crop frame
    valid : (S, S) bool; elsewhere 0 is stored
    size : of the crop, pixels; step and offset are those of :func:`~densegen.conventions.position_map_grid_px`

    Raises :class:`SampleError` if a position does not fit into the range.
    """
    step, offset = position_map_grid_px(size)
    steps = np.rint((position_map - np.float32(offset)) * np.float32(1 / step))
    steps[~valid] = 0
    if not (steps.min() >= 0 and steps.max() <= 65535):  # NaN is not in range either
        raise _out_of_range(size)
    encoded: npt.NDArray[np.uint16] = steps.astype(np.uint16)
    return encoded


def render_fixed_point(
    table: UvTable, mesh_crop: Float32, size: int = CROP_SIZE, *, mirror: bool = False
) -> npt.NDArray[np.uint16]:
    """What :func:`encode_fixed_point` gives of a mesh's position map, or of its mirror image, in one pass, to the same
    bits.

    mesh_crop : (V, 3) float32, pixels, crop frame
    returns : (S, S, 3) uint16; 0 if not valid

    Raises :class:`SampleError` if a position does not fit into the range.
    """
    step, offset = map(np.float32, position_map_grid_px(size))
    mesh = np.ascontiguousarray(mesh_crop, np.float32)
    result = np.zeros((*table.valid.shape, 3), np.uint16)
    places = table.mirrored_places if mirror else table.places
    arguments = (table.points.vertices, table.points.weights, places, np.float32(size - 1), mirror)
    if not _render(mesh, *arguments, offset, np.float32(1) / step, result.reshape(-1, 3)):
        raise _out_of_range(size)
    return result


def _out_of_range(size: int) -> SampleError:
    step, offset = position_map_grid_px(size)
    return SampleError(
        "position-out-of-range",
        f"the position map leaves the fixed-point range of {offset:g} to {offset + 65536 * step:g} px",
    )


def decode_fixed_point(encoded: npt.NDArray[np.uint16], valid: Mask, size: int = CROP_SIZE) -> Float32:
    """The reverse of :func:`encode_fixed_point`: (S, S, 3) float32, pixels, crop frame; 0 if not valid."""
    step, offset = position_map_grid_px(size)
    decoded: Float32 = np.multiply(encoded, np.float32(step), dtype=np.float32)
    decoded += np.float32(offset)
    if not valid.all():
        decoded[~valid] = 0
    return decoded


@kernel
def _render(
    mesh: Any,
    vertices: Any,
    weights: Any,
    places: Any,
    last: Any,
    mirror: bool,
    offset: Any,
    steps_per_px: Any,
    out: Any,
) -> bool:
    """Fill ``out``, (S * S, 3), at its places; False if a position does not fit. ``last`` is the crop's last pixel.

    Some positions at a time, in loops without branches, which the compiler turns into vector instructions; unsigned
    indices are not tested for negative ones.
    """
    positions, steps = np.empty((256, 3), np.float32), np.empty((256, 3), np.uint16)
    for start in range(0, len(vertices), 256):
        count = min(256, len(vertices) - start)
        for n in range(count):
            i, j, k = (
                np.uint32(vertices[start + n, 0]),
                np.uint32(vertices[start + n, 1]),
                np.uint32(vertices[start + n, 2]),
            )
            a, b, c = weights[start + n]
            positions[n, 0] = a * mesh[i, 0] + b * mesh[j, 0] + c * mesh[k, 0]
            positions[n, 1] = a * mesh[i, 1] + b * mesh[j, 1] + c * mesh[k, 1]
            positions[n, 2] = a * mesh[i, 2] + b * mesh[j, 2] + c * mesh[k, 2]
        if mirror:
            for n in range(count):
                positions[n, 0] = last - positions[n, 0]
        if not _to_steps(positions[:count].reshape(-1), offset, steps_per_px, steps[:count].reshape(-1)):
            return False
        for n in range(count):
            place = np.uint32(places[start + n])
            out[place, 0], out[place, 1], out[place, 2] = steps[n]
    return True


@kernel
def _to_steps(positions: Any, offset: Any, steps_per_px: Any, out: Any) -> Any:
    outside = np.uint32(0)
    for n in range(len(positions)):
        step = np.rint((positions[n] - offset) * steps_per_px)
        outside |= np.uint32(not (np.float32(0) <= step <= np.float32(65535)))  # NaN is outside, too
        out[n] = np.uint16(np.int32(step))
    return outside == 0


@kernel
def _rasterise(points: Any, triangles: Any, size: int) -> Any:
    covered = np.full((size, size), -1, np.int64)
    on_edge = np.ones((size, size), np.bool_)
    weights = np.zeros((size, size, 3), np.float64)
    for f in range(len(triangles)):
        x0, y0 = points[triangles[f, 0]]
        x1, y1 = points[triangles[f, 1]]
        x2, y2 = points[triangles[f, 2]]
        ax, ay, bx, by = x2 - x0, y2 - y0, x1 - x0, y1 - y0
        aa, ab, bb = ax * ax + ay * ay, ax * bx + ay * by, bx * bx + by * by
        determinant = aa * bb - ab * ab
        if determinant == 0:
            continue
        first_column = max(int(np.ceil(min(x0, x1, x2) - 1e-9)), 0)
        last_column = min(int(np.floor(max(x0, x1, x2) + 1e-9)), size - 1)
        first_row = max(int(np.ceil(min(y0, y1, y2) - 1e-9)), 0)
        last_row = min(int(np.floor(max(y0, y1, y2) + 1e-9)), size - 1)
        for row in range(first_row, last_row + 1):
            for column in range(first_column, last_column + 1):
                if not on_edge[row, column]:
                    continue
                px, py = column - x0, row - y0
                ap, bp = ax * px + ay * py, bx * px + by * py
                u = (bb * ap - ab * bp) / determinant
                v = (aa * bp - ab * ap) / determinant
                inside = u >= 0 and v >= 0 and u + v < 1
                touched = covered[row, column] < 0 and u >= -1e-9 and v >= -1e-9 and u + v <= 1 + 1e-9
                if inside or touched:
                    covered[row, column] = f
                    on_edge[row, column] = not inside
                    weights[row, column, 0] = 1 - u - v
                    weights[row, column, 1] = v
                    weights[row, column, 2] = u
    return covered, weights
