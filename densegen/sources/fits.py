"""3DMM fits of photographs, as 300W-LP and AFLW2000-3D store them: one MATLAB 5 file beside each image."""

from __future__ import annotations

import io
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from densegen.arrays import Float32, Float64
from densegen.console import counted
from densegen.conventions import POSE_FIELDS
from densegen.errors import ConfigurationError, FormatError, SampleError
from densegen.files import files_below, is_about_the_file
from densegen.geometry.crop import box_around
from densegen.geometry.pose import proper_pose
from densegen.ibug68 import KEYPOINTS
from densegen.mat5 import read_mat

__all__ = [
    "Fit",
    "check_components",
    "check_pose",
    "complete_fit",
    "fit_bytes",
    "read_coefficients",
    "read_fit",
    "read_labels",
]

MAX_FIT_BYTES = 1 << 20
"""Real fits have 3 to 10 kB. A larger file is not one, and is refused before it is parsed."""

MAX_TRANSLATION_PX = 20_000
"""A fit that is farther away is refused. At this distance, neighbouring float32 numbers are 0.002 px apart."""

MAX_ANGLE_RAD = 1000
"""Angles in real files are at most 17. At 1000, neighbouring float32 numbers are 0.0035 degrees apart."""

_OPTIONAL = ("pt2d", "pt3d_68", "roi")


@dataclass(frozen=True, slots=True, eq=False)
class Fit:
    """A 3DMM fit of one photograph.

    pose : (7,) float32, see ``conventions.POSE_FIELDS``; radians, pixels of the camera frame, pixels per model unit;
        angles within one turn and a positive scale, see :func:`~densegen.geometry.pose.proper_pose`
    shape : (Ks,) float32, raw coefficients (``Shape_Para``), never multiplied by standard deviations
    expression : (Ke,) float32, raw coefficients (``Exp_Para``)
    points_2d : (2, n) float32 or None; ``pt2d``, 1-based pixels from the top left, n = 68 (300W-LP), 21
        (AFLW2000-3D) or another number; -1 = not visible
    keypoints_3d : (3, 68) float32 or None; ``pt3d_68``, 1-based pixels from the top left
    roi : (4,) float32 or None; left, top, right, bottom of the face in the photograph it was cut from
    """

    pose: Float32
    shape: Float32
    expression: Float32
    points_2d: Float32 | None = None
    keypoints_3d: Float32 | None = None
    roi: Float32 | None = None


def read_fit(path: str | Path, *, optional: bool = True) -> Fit:
    """Read one 300W-LP or AFLW2000-3D ``.mat`` file.

    Real files hold float32, float64 and even uint8 parameters, as rows or as columns; all become float32 vectors.
    ``pt2d``, ``pt3d_68`` and ``roi`` may be missing and are skipped with ``optional=False``.

    A negative scale and angles beyond a turn become the rotation that they stand for.

    Raises :class:`SampleError` if the file is missing or truncated, a parameter is missing or not finite, the scale is
    zero, or angles are beyond all sense; ``OSError`` if the disk fails.
    """
    path = Path(path)
    contents = _read(path, ("Pose_Para", "Shape_Para", "Exp_Para", *(_OPTIONAL if optional else ())))
    pose = _pose(contents, path)
    check_pose(pose, path.name)
    keypoints_3d = _matrix(contents, "pt3d_68", 3)
    if keypoints_3d is not None and keypoints_3d.shape[1] != KEYPOINTS:
        raise SampleError("fit-invalid", f"{path.name}: pt3d_68 has {keypoints_3d.shape[1]} points, expected 68")
    roi = np.asarray(contents.get("roi", ()))
    return Fit(
        pose=proper_pose(pose),
        shape=_vector(contents, "Shape_Para", path),
        expression=_vector(contents, "Exp_Para", path),
        points_2d=_matrix(contents, "pt2d", 2),
        keypoints_3d=keypoints_3d,
        roi=roi.astype(np.float32).ravel() if roi.dtype.kind in "fiu" and roi.size == 4 else None,
    )


def check_pose(pose: Float32, name: str) -> None:
    """Raise :class:`SampleError` if a (7,) pose has no scale, or is beyond all sense; ``name`` is the fit's."""
    if pose[6] == 0:
        raise SampleError("fit-invalid", f"{name}: the scale is 0")
    if (turned := max(map(abs, pose[:3].tolist()))) > MAX_ANGLE_RAD:
        raise SampleError("fit-invalid", f"{name}: an angle is {turned:g} rad, at most {MAX_ANGLE_RAD:g}")
    if (far := max(map(abs, pose[3:6].tolist()))) > MAX_TRANSLATION_PX:
        raise SampleError("fit-invalid", f"{name}: the translation is {far:g} px, at most {MAX_TRANSLATION_PX:g}")


def read_labels(path: Path) -> tuple[Float32, float]:
    """What a benchmark needs of an AFLW2000-3D ``.mat`` file: its points and its yaw, whatever else is odd in it.

    returns : (68, 2) float32 ``pt3d_68``, 1-based pixels from the top left; the yaw in radians as the file has it, not
        wrapped, as the public yaw file has it, too

    Raises :class:`SampleError` if one of them is missing, or the file cannot be read.
    """
    contents = _read(path, ("Pose_Para", "pt3d_68"))
    points = _matrix(contents, "pt3d_68", 3)
    if points is None or points.shape[1] != KEYPOINTS or not np.isfinite(points[:2]).all():
        raise SampleError("fit-invalid", f"{path.name} has no pt3d_68 of 68 points")
    return np.ascontiguousarray(points[:2].T), float(_pose(contents, path)[1])


def complete_fit(
    pose: Float32, shape: Float32, expression: Float32, keypoints: Float32, marks: Float32 | Float64
) -> Fit:
    """A fit with the points that files of fits carry, counted from 1 as MATLAB does.

    keypoints : (68, 3) float32, px, image frame, of the fit's own face
    marks : (n, 2 or 3), px, image frame: the landmarks that the fit was made of, of several kinds those that count
        most; NaN = not visible
    """
    xy = np.asarray(marks, np.float64)[:, :2] + 1
    return Fit(
        pose=pose,
        shape=shape,
        expression=expression,
        points_2d=np.where(np.isnan(xy).any(axis=1, keepdims=True), -1, xy).T.astype(np.float32),
        keypoints_3d=keypoints.T + np.array([[1], [1], [0]], np.float32),
        roi=np.rint(box_around(keypoints) + 1).clip(-32768, 32767).astype(np.float32),
    )


def check_components(fit: Fit, counts: tuple[int, int], name: str) -> None:
    """Raise :class:`SampleError` if the fit's coefficients of shape and expression are not as many as a model's
    components; ``name`` is the fit's.
    """
    if (found := (fit.shape.size, fit.expression.size)) != counts:
        raise SampleError(
            "component-count",
            f"{name} has {found[0]} shape and {found[1]} expression coefficients, "
            f"the model {counts[0]} and {counts[1]}",
        )


def read_coefficients(folder: Path, counts: tuple[int, int], model_name: str) -> Float64:
    """(n, Ks + Ke) float64: the raw coefficients of a model's fits (*.mat) in a folder and below it, sorted by path.

    counts : of the model's components of shape and expression; of fits with others, and of files that are none,
        nothing is taken

    Raises :class:`ConfigurationError` if there is no folder, or fewer than two fits belong to the model.
    """
    if not folder.is_dir():
        raise ConfigurationError(f"{folder} is not a folder of fits (*.mat)")
    rows = []
    for path in files_below(folder, (".mat",)):
        try:
            fit = read_fit(path, optional=False)
        except SampleError:
            continue
        if (fit.shape.size, fit.expression.size) == counts:
            rows.append(np.concatenate([fit.shape, fit.expression]).astype(np.float64))
    if len(rows) < 2:
        found = counted(len(rows), "fit")
        raise ConfigurationError(f"{folder} holds {found} of {model_name}, and at least two say how faces vary")
    return np.array(rows)


def fit_bytes(fit: Fit, maker: str) -> bytes:
    """A fit as a 300W-LP file, with the fields of colour and light that readers of such files expect, all neutral.

    maker : who made it; MATLAB's header names the moment of writing, ours says the same each time
    """
    from scipy.io import savemat

    contents = {
        "Pose_Para": fit.pose[None],
        "Shape_Para": fit.shape[:, None].astype(np.float64),
        "Exp_Para": fit.expression[:, None].astype(np.float64),
    }
    if fit.points_2d is not None:
        contents["pt2d"] = fit.points_2d.astype(np.float64)
    if fit.keypoints_3d is not None:
        contents["pt3d_68"] = fit.keypoints_3d
    if fit.roi is not None:
        contents["roi"] = fit.roi[None].astype(np.int16)
    contents |= {
        "Color_Para": np.array([[1, 1, 1, 0, 0, 0, 1]], np.float32),
        "Illum_Para": np.array([[0.5, 0.5, 0.5, 0.5, 0.5, 0.5, 0, 0, 0.1, 20]]),
        "Tex_Para": np.zeros((len(fit.shape), 1)),
    }
    buffer = io.BytesIO()
    savemat(buffer, contents, do_compression=True)
    header = f"MATLAB 5.0 MAT-file, {maker}".encode("ascii", "replace")[:116].ljust(116)
    return header + buffer.getvalue()[116:]


def _read(path: Path, names: tuple[str, ...]) -> dict[str, Any]:
    try:
        return read_mat(path, names, MAX_FIT_BYTES)
    except OSError as error:
        if not is_about_the_file(error):
            raise
        reason = "fit-missing" if isinstance(error, FileNotFoundError) else "fit-unreadable"
        raise SampleError(reason, f"{path.name}: {error.strerror}") from error
    except FormatError as error:
        raise SampleError("fit-unreadable", str(error)) from error


def _pose(contents: dict[str, Any], path: Path) -> Float32:
    pose = _vector(contents, "Pose_Para", path)
    if pose.size != len(POSE_FIELDS):
        raise SampleError("fit-invalid", f"{path.name}: Pose_Para has {pose.size} numbers, expected 7")
    return pose


def _vector(contents: dict[str, Any], name: str, path: Path) -> Float32:
    if name not in contents:
        raise SampleError("fit-invalid", f"{path.name} has no {name}")
    array = np.asarray(contents[name])
    if array.dtype.kind not in "fiu":
        raise SampleError("fit-invalid", f"{path.name}: {name} is no array of numbers")
    with np.errstate(all="ignore"):  # what does not fit becomes infinite, and is refused
        vector = array.astype(np.float32).ravel()
    if not np.isfinite(vector).all():
        raise SampleError("fit-invalid", f"{path.name}: {name} is not finite")
    return vector


def _matrix(contents: dict[str, Any], name: str, rows: int) -> Float32 | None:
    array = np.asarray(contents.get(name, ()))
    if array.dtype.kind not in "fiu" or array.ndim != 2 or array.shape[0] != rows:
        return None
    with np.errstate(all="ignore"):
        return array.astype(np.float32)
