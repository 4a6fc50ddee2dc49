"""Names of arrays by what their numbers are: one name, one dtype. Shapes, units and frames stand in docstrings."""

from __future__ import annotations

from typing import TypeAlias

import numpy as np
import numpy.typing as npt

__all__ = ["Float32", "Float64", "Image", "Int32", "Int64", "Mask", "UInt8"]

Float32: TypeAlias = npt.NDArray[np.float32]
Float64: TypeAlias = npt.NDArray[np.float64]
Int32: TypeAlias = npt.NDArray[np.int32]
Int64: TypeAlias = npt.NDArray[np.int64]
UInt8: TypeAlias = npt.NDArray[np.uint8]

Image: TypeAlias = UInt8
"""(H, W, 3) RGB, 0 to 255, if nothing else is said."""

Mask: TypeAlias = npt.NDArray[np.bool_]
