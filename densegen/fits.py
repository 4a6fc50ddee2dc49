"""3DMM fits of photographs, as 300W-LP and AFLW2000-3D store them: one MATLAB 5 file beside each image."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from densegen.errors import FormatError, SampleError
from densegen.mat5 import read_mat
from densegen.schema import KEYPOINTS, POSE_FIELDS

__all__ = ["Fit", "read_fit"]

FloatArray = npt.NDArray[np.float32]

MAX_FIT_BYTES = 1 << 20
"""Real fits have 3 to 10 kB. A larger file is not one, and is refused before it is parsed."""

MAX_TRANSLATION_PX = 20_000
"""Farther away, float32 no longer tells a hundredth of a pixel apart."""

_OPTIONAL = ("pt2d", "pt3d_68", "roi")


@dataclass(frozen=True, slots=True, eq=False)
class Fit:
    """A 3DMM fit of one photograph.

    pose : (7,) float32, see ``schema.POSE_FIELDS``; radians, pixels of the camera frame, pixels per model unit
    shape : (Ks,) float32, raw coefficients (``Shape_Para``), never multiplied by standard deviations
    expression : (Ke,) float32, raw coefficients (``Exp_Para``)
    points_2d : (2, n) float32 or None; ``pt2d``, 1-based pixels from the top left, n = 68 (300W-LP), 21
        (AFLW2000-3D) or another number; -1 = not visible
    keypoints_3d : (3, 68) float32 or None; ``pt3d_68``, 1-based pixels from the top left
    roi : (4,) float32 or None; left, top, right, bottom of the face in the photograph it was cut from
    """

    pose: FloatArray
    shape: FloatArray
    expression: FloatArray
    points_2d: FloatArray | None = None
    keypoints_3d: FloatArray | None = None
    roi: FloatArray | None = None


def read_fit(path: Path, *, optional: bool = True) -> Fit:
    """Read one 300W-LP or AFLW2000-3D ``.mat`` file.

    Real files hold float32, float64 and even uint8 parameters, as rows or as columns; all become float32 vectors.
    ``pt2d``, ``pt3d_68`` and ``roi`` may be missing and are skipped with ``optional=False``.

    Raises :class:`SampleError` where the file is missing or truncated, a parameter is missing or not finite, or
    the scale is not positive.
    """
    names = ("Pose_Para", "Shape_Para", "Exp_Para", *(_OPTIONAL if optional else ()))
    try:
        contents = read_mat(path, names, MAX_FIT_BYTES)
    except OSError as error:
        reason = "fit-missing" if isinstance(error, FileNotFoundError) else "fit-unreadable"
        raise SampleError(reason, f"{path.name}: {error.strerror}") from error
    except FormatError as error:
        raise SampleError("fit-unreadable", str(error)) from error

    pose = _vector(contents, "Pose_Para", path)
    if pose.size != len(POSE_FIELDS):
        raise SampleError("fit-invalid", f"{path.name}: Pose_Para has {pose.size} numbers, expected 7")
    if pose[6] <= 0:
        raise SampleError("fit-invalid", f"{path.name}: the scale is {pose[6]:g}, expected more than 0")
    if (far := float(np.abs(pose[3:6]).max())) > MAX_TRANSLATION_PX:
        raise SampleError("fit-invalid", f"{path.name}: the translation is {far:g} px, at most {MAX_TRANSLATION_PX:g}")
    keypoints_3d = _matrix(contents, "pt3d_68", 3)
    if keypoints_3d is not None and keypoints_3d.shape[1] != KEYPOINTS:
        raise SampleError("fit-invalid", f"{path.name}: pt3d_68 has {keypoints_3d.shape[1]} points, expected 68")
    roi = np.asarray(contents.get("roi", ()))
    return Fit(
        pose=pose,
        shape=_vector(contents, "Shape_Para", path),
        expression=_vector(contents, "Exp_Para", path),
        points_2d=_matrix(contents, "pt2d", 2),
        keypoints_3d=keypoints_3d,
        roi=roi.astype(np.float32).ravel() if roi.dtype.kind in "fiu" and roi.size == 4 else None,
    )


def _vector(contents: dict[str, Any], name: str, path: Path) -> FloatArray:
    if name not in contents:
        raise SampleError("fit-invalid", f"{path.name} has no {name}")
    array = np.asarray(contents[name])
    if array.dtype.kind not in "fiu":
        raise SampleError("fit-invalid", f"{path.name}: {name} is {array.dtype}, expected numbers")
    with np.errstate(all="ignore"):  # what does not fit becomes infinite, and is refused
        vector = array.astype(np.float32).ravel()
    if not np.isfinite(vector).all():
        raise SampleError("fit-invalid", f"{path.name}: {name} is not finite")
    return vector


def _matrix(contents: dict[str, Any], name: str, rows: int) -> FloatArray | None:
    array = np.asarray(contents.get(name, ()))
    if array.dtype.kind not in "fiu" or array.ndim != 2 or array.shape[0] != rows:
        return None
    with np.errstate(all="ignore"):
        return array.astype(np.float32)
