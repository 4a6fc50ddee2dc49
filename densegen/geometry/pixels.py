"""One step on a whole pixel, for kernels: numba's compiler makes vectors of loops, not of three channels."""

from __future__ import annotations

from typing import Any

from llvmlite import ir
from numba import types
from numba.extending import intrinsic

__all__ = ["blend_pixels"]

_LANES = 4
_FLOATS, _BYTES = ir.VectorType(ir.FloatType(), _LANES), ir.VectorType(ir.IntType(8), _LANES)


def _blend_pixels(typing_context: Any, line: Any, at: Any, share: Any, out: Any, to: Any) -> Any:
    """``out[to + c] = uint8(p + share * (q - p))`` with ``p, q = line[at + c], line[at + 3 + c]``, for the channels c
    of 0, 1, 2 and, since there are vectors of four, 3.

    Of both arrays one element after the pixel is touched: ``line`` needs it, and in ``out`` it is overwritten with
    nonsense, so pixels go from left to right and the last one has a spare byte behind it.

    line : (n,) float32 of colours 0 to 255.99; out : (m,) uint8; at, to : int; share : float32
    """

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


blend_pixels: Any = intrinsic(_blend_pixels)
