"""The pixels at a grid of places in an image, interpolated or averaged."""

from __future__ import annotations

from typing import Any

import numpy as np
from llvmlite import ir
from numba import types
from numba.extending import intrinsic

from densegen.geometry.kernels import kernel

__all__ = ["average", "interpolate"]

_LANES = 4
_FLOATS, _BYTES = ir.VectorType(ir.FloatType(), _LANES), ir.VectorType(ir.IntType(8), _LANES)


def _blend(typing_context: Any, line: Any, at: Any, share: Any, out: Any, to: Any) -> Any:
    """``out[to + c] = uint8(p + share * (q - p))`` with ``p, q = line[at + c], line[at + 3 + c]``, for the channels c
    of 0, 1, 2 and, since there are vectors of four, 3.

    Of both arrays one element after the pixel is touched: ``line`` needs it, and in ``out`` it is overwritten with
    nonsense, so pixels go from left to right and the last one has a spare byte behind it.

    line : (n,) float32 of colours 0 to 255.99; out : (m,) uint8; at, to : int; share : float32
    """
    if (line.dtype, line.layout, out.dtype, out.layout) != (types.float32, "C", types.uint8, "C"):
        return None  # numba says that no such function is known

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        kinds = signature.args
        source = context.make_array(kinds[0])(context, builder, arguments[0]).data
        target = context.make_array(kinds[3])(context, builder, arguments[3]).data
        at, to = (context.cast(builder, arguments[n], kinds[n], types.intp) for n in (1, 4))
        three = context.get_constant(types.intp, 3)
        pixel, next_pixel = (
            builder.load(builder.bitcast(builder.gep(source, [place]), _FLOATS.as_pointer()), align=4)
            for place in (at, builder.add(at, three))
        )
        shares = ir.Constant(_FLOATS, ir.Undefined)
        for lane in range(_LANES):
            shares = builder.insert_element(shares, arguments[2], ir.Constant(ir.IntType(32), lane))
        blended = builder.fadd(pixel, builder.fmul(shares, builder.fsub(next_pixel, pixel)))
        whole = builder.fptosi(blended, ir.VectorType(ir.IntType(32), _LANES))
        place = builder.bitcast(builder.gep(target, [to]), _BYTES.as_pointer())
        builder.store(builder.trunc(whole, _BYTES), place, align=1)
        return context.get_dummy_value()

    return types.void(line, at, share, out, to), generate


_blend_pixels: Any = intrinsic(_blend)
"""numba's compiler makes vectors of loops, not of the channels of a pixel: this halves the time."""


@kernel
def interpolate(image: Any, columns: Any, rows: Any) -> Any:
    """Separable bilinear sampling at the grid rows x columns: two source rows are blended, then pairs of columns.

    image : (H, W, 3) uint8, in one piece; outside it is black
    columns, rows : (c,), (r,) float64, both ascending or descending
    returns : (r, c, 3) uint8
    """
    height, width, _ = image.shape
    size_r, size_c = rows.size, columns.size
    out = np.zeros(size_r * size_c * 3 + 1, np.uint8)  # a spare byte, see _blend_pixels
    # Only this range of source columns is ever read; one black column stands on each side of the image.
    first = max(-1, int(np.floor(min(columns[0], columns[-1]))))
    last = min(width, int(np.floor(max(columns[0], columns[-1]))) + 1)
    if first > width - 1 or last < 0:
        return out[:-1].reshape(size_r, size_c, 3)
    span = last - first + 1
    half = np.float32(0.5)  # rounds when the result is cut to a whole number; so 0.5 is black
    blended = np.full((span + 2) * 3 + 1, half, np.float32)
    left = np.empty(size_c, np.uint32)
    weight = np.empty(size_c, np.float32)
    for c in range(size_c):
        floor = int(np.floor(columns[c]))
        # The last two pixels of the blended row stay black, for all that lies outside.
        left[c] = (floor - first if first <= floor < last else span) * 3
        weight[c] = np.float32(columns[c] - floor)
    inner = max(first, 0)
    count = (min(last, width - 1) - inner + 1) * 3
    target = blended[(inner - first) * 3 : (inner - first) * 3 + count]
    flat = image.reshape(height, width * 3)
    for r in range(size_r):
        top = int(np.floor(rows[r]))
        bottom = top + 1
        to = r * size_c * 3
        if bottom < 0 or top >= height:
            out[to] = 0  # where the row before has its spare byte
            continue
        down = np.float32(rows[r] - top)
        up = np.float32(1) - down
        if top < 0:
            top, up = 0, np.float32(0)
        if bottom >= height:
            bottom, down = height - 1, np.float32(0)
        upper = flat[top, inner * 3 : inner * 3 + count]
        lower = flat[bottom, inner * 3 : inner * 3 + count]
        for i in range(count):
            target[i] = up * np.float32(upper[i]) + down * np.float32(lower[i]) + half
        for c in range(size_c):
            _blend_pixels(blended, left[c], weight[c], out, to)
            to += 3
    return out[:-1].reshape(size_r, size_c, 3)


@kernel
def average(image: Any, columns: Any, rows: Any, side: float) -> Any:
    """The mean over squares of ``side`` pixels around the grid rows x columns, exact at their edges: first down each
    column of the image, then along the line that results. A pixel covers half a pixel to each side of its centre.
    Arguments as of :func:`interpolate`.
    """
    height, width, _ = image.shape
    out = np.zeros((rows.size, columns.size, 3), np.uint8)
    share = np.float32(1 / side)
    line = np.empty((width, 3), np.float32)
    left = max(0, int(np.floor(min(columns[0], columns[-1]) - side / 2)))
    right = min(width, int(np.ceil(max(columns[0], columns[-1]) + side / 2)) + 1)
    for r in range(rows.size):
        top, bottom = rows[r] - side / 2 + 0.5, rows[r] + side / 2 + 0.5
        first, last = max(0, int(np.floor(top))), min(height - 1, int(np.floor(bottom)))
        if first > last:
            continue
        line[left:right] = 0
        for y in range(first, last + 1):
            weight = np.float32(min(bottom, y + 1) - max(top, y)) * share
            for x in range(left, right):
                for channel in range(3):
                    line[x, channel] += weight * np.float32(image[y, x, channel])
        for c in range(columns.size):
            start, stop = columns[c] - side / 2 + 0.5, columns[c] + side / 2 + 0.5
            red, green, blue = np.float32(0.5), np.float32(0.5), np.float32(0.5)
            for x in range(max(0, int(np.floor(start))), min(width - 1, int(np.floor(stop))) + 1):
                weight = np.float32(min(stop, x + 1) - max(start, x)) * share
                red += weight * line[x, 0]
                green += weight * line[x, 1]
                blue += weight * line[x, 2]
            # 255 may come out a rounding error above 255.5: of 256 a byte keeps nothing.
            out[r, c, 0] = np.uint8(min(int(red), 255))
            out[r, c, 1] = np.uint8(min(int(green), 255))
            out[r, c, 2] = np.uint8(min(int(blue), 255))
    return out
