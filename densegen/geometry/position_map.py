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
from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

from densegen.arrays import Float32, Float64, Int32, Mask
from densegen.conventions import CROP_SIZE, UV_SIZE, position_map_grid_px
from densegen.errors import SampleError
from densegen.geometry.crop import Crop
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
        """The same table for a mesh of which only these vertices are there, (n,) in any order."""
        return UvTable(self.points.among(vertices), self.valid)

    @cached_property
    def places(self) -> Int32:
        """(n,) int32: the covered pixels, counted in row-major order."""
        return np.flatnonzero(self.valid).astype(np.int32)

    @cached_property
    def mirrored(self) -> UvTable:
        """The table of the mirror image, which shows the same points in reversed columns; its points are in row-major
        order, too.
        """
        places = np.zeros(self.valid.shape, np.int32)
        places[self.valid] = np.arange(len(self.points))
        valid = np.ascontiguousarray(self.valid[:, ::-1])
        return UvTable(self.points[places[:, ::-1][valid]], valid)


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
    table: UvTable, points_image: Float32, crop: Crop, *, mirror: bool = False
) -> npt.NDArray[np.uint16]:
    """What :func:`encode_fixed_point` gives of a mesh's position map in a crop, or of its mirror image, in one pass, to
    the same bits.

    points_image : (V, 3) float32, pixels, image frame
    returns : (S, S, 3) uint16; 0 if not valid

    Raises :class:`SampleError` if a position does not fit into the range.
    """
    step, offset = map(np.float32, position_map_grid_px(crop.size))
    shown = table.mirrored if mirror else table
    sign, shift = map(np.float32, (-1, crop.size - 1) if mirror else (1, 0))
    result = np.zeros(3 * shown.valid.size + 1, np.uint16)  # a spare number, see _step
    mesh = _in_crop(np.ascontiguousarray(points_image, np.float32), *map(np.float32, crop.as_array()))
    points = (shown.points.vertices, shown.points.weights, shown.places)
    if not _render(mesh, *points, sign, shift, offset, np.float32(1) / step, result):
        raise _out_of_range(crop.size)
    return result[:-1].reshape(*shown.valid.shape, 3)


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


_LANES = 4
_FLOATS, _NUMBERS, _STEPS = (ir.VectorType(kind, _LANES) for kind in (ir.FloatType(), ir.IntType(32), ir.IntType(16)))


def _step(
    typing_context: Any, mesh: Any, i: Any, j: Any, k: Any, a: Any, b: Any, c: Any, sign: Any, shift: Any,
    offset: Any, steps_per_px: Any, out: Any, to: Any,
) -> Any:  # fmt: skip
    """``out[to : to + 3] = rint((p - offset) * steps_per_px)`` of the point ``p = a mesh[i] + b mesh[j] + c mesh[k]``,
    whose x becomes ``sign x + shift`` first; whether all three fit into uint16.

    ``out[to + 3]`` becomes 0, so points go through ``out`` from left to right, and a spare number stands at its end.

    mesh : (3 V + 1,) float32, the vertices and a spare number, which is read and not used
    i, j, k : uint32; a, b, c, sign, shift, offset, steps_per_px : float32; out : (n,) uint16; to : int
    """
    if (mesh.dtype, mesh.layout, out.dtype, out.layout) != (types.float32, "C", types.uint16, "C"):
        return None  # numba says that no such function is known

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        def lanes(*numbers: Any) -> Any:
            vector = ir.Constant(_FLOATS, ir.Undefined)
            for lane, number in enumerate(numbers):
                vector = builder.insert_element(vector, number, ir.Constant(ir.IntType(32), lane))
            return vector

        def constant(number: float) -> Any:
            return ir.Constant(ir.FloatType(), number)

        source = context.make_array(mesh)(context, builder, arguments[0]).data
        target = context.make_array(out)(context, builder, arguments[11]).data
        vertices = [context.cast(builder, arguments[n], signature.args[n], types.intp) for n in (1, 2, 3)]
        weighted = [
            builder.fmul(
                lanes(*[weight] * _LANES),
                builder.load(
                    builder.bitcast(
                        builder.gep(source, [builder.mul(vertex, context.get_constant(types.intp, 3))]),
                        _FLOATS.as_pointer(),
                    ),
                    align=4,
                ),
            )
            for vertex, weight in zip(vertices, arguments[4:7], strict=True)
        ]
        sign, shift, offset, steps_per_px = arguments[7:11]
        one, zero = constant(1), constant(0)
        point = builder.fadd(builder.fadd(weighted[0], weighted[1]), weighted[2])
        point = builder.fadd(builder.fmul(point, lanes(sign, one, one, one)), lanes(shift, zero, zero, zero))
        steps = builder.fmul(builder.fsub(point, lanes(*[offset] * _LANES)), lanes(*[steps_per_px] * _LANES))
        kind = ir.FunctionType(_FLOATS, [_FLOATS])
        round_all = cgutils.get_or_insert_function(builder.module, kind, "llvm.rint.v4f32")  # type: ignore[no-untyped-call]
        steps = builder.call(round_all, [steps])
        inside = builder.and_(  # NaN is not
            builder.fcmp_ordered(">=", steps, lanes(*[zero] * _LANES)),
            builder.fcmp_ordered("<=", steps, lanes(*[constant(65535)] * _LANES)),
        )
        steps = builder.insert_element(steps, zero, ir.Constant(ir.IntType(32), _LANES - 1))
        kept = builder.trunc(builder.fptosi(steps, _NUMBERS), _STEPS)
        place = context.cast(builder, arguments[12], signature.args[12], types.intp)
        builder.store(kept, builder.bitcast(builder.gep(target, [place]), _STEPS.as_pointer()), align=2)
        three = ir.Constant(ir.IntType(_LANES), 0b111)
        return builder.icmp_unsigned("==", builder.and_(builder.bitcast(inside, ir.IntType(_LANES)), three), three)

    kinds = (mesh, i, j, k, a, b, c, sign, shift, offset, steps_per_px, out, to)
    return types.boolean(*kinds), generate


_step_of_point: Any = intrinsic(_step)
"""numba's compiler makes vectors of loops, not of the axes of a point: this halves the time."""


@kernel
def _render(
    mesh: Any, vertices: Any, weights: Any, places: Any, sign: Any, shift: Any, offset: Any, steps_per_px: Any, out: Any
) -> Any:  # fmt: skip
    """Fill ``out`` at its places, ascending; whether all positions fit."""
    fit = True
    for n in range(len(vertices)):
        # Unsigned indices are not tested for negative ones.
        i, j, k = np.uint32(vertices[n, 0]), np.uint32(vertices[n, 1]), np.uint32(vertices[n, 2])
        a, b, c = weights[n]
        fit &= _step_of_point(mesh, i, j, k, a, b, c, sign, shift, offset, steps_per_px, out, 3 * places[n])
    return fit


@kernel
def _in_crop(points: Any, scale: Any, x: Any, y: Any, z: Any) -> Any:
    """(3 V + 1,) float32: what :meth:`Crop.apply` makes of (V, 3), and a spare number."""
    out = np.empty(3 * len(points) + 1, np.float32)
    out[-1] = 0
    placed = out[:-1].reshape(-1, 3)
    for n in range(len(points)):
        placed[n, 0] = points[n, 0] * scale + x
        placed[n, 1] = points[n, 1] * scale + y
        placed[n, 2] = points[n, 2] * scale + z
    return out


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
