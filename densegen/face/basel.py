"""The Basel Face Model 2009 from the files that people really have: no MATLAB, every file named.

Two ways lead to the same model, bit for bit: :func:`assemble_model` from the separate downloads, and
:func:`convert_model` from face3d's ``BFM.mat``.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from densegen.arrays import Float32, Float64, Int32
from densegen.errors import ConfigurationError, FormatError, in_short
from densegen.face.morphable_model import BASEL_RAW_VERTICES, BASEL_VERTICES, MorphableModel, count_words
from densegen.mat5 import read_mat

__all__ = ["RAW_FILES", "assemble_model", "convert_model"]

UNIT_MM = 0.001
MAX_BYTES = 2 << 30

RAW_FILES = {
    "01_MorphableModel.mat": "the Basel Face Model 2009: request it from the University of Basel, faces.dmi.unibas.ch",
    "model_info.mat": "3DDFA's HELEN/300W-LP model folder (Zhu et al.), or face3d's examples/Data/BFM/3ddfa",
    "Model_Expression.mat": "3DDFA's or HPEN's model folder (Zhu et al., CVPR 2015 and 2016)",
    "Model_tri_mouth.mat": "3DDFA's or HPEN's model folder",
    "BFM_UV.mat": "3DMMasSTN's util folder (Bas et al., ICCVW 2017), 53490 rows",
}
"""What users download, and where each file comes from."""

# Three vertices of 3DMMasSTN's unwrapping are outliers; they move to the mean of these neighbours (1-based).
_UV_OUTLIERS = {10032: (10033, 10158), 10155: (10534, 10157, 10661), 10280: (10916, 10286)}

# Column 38 (1-based) of tri_mouth is a bad triangle; seven more close the inner mouth (1-based).
_BAD_MOUTH_COLUMN = 37
_MOUTH_COLUMNS = 108
_INNER_MOUTH = (
    (6420, 6542, 6664),
    (6420, 6294, 6167),
    (6167, 6297, 6420),
    (6167, 6297, 6296),
    (6167, 6296, 6295),
    (6167, 6295, 6039),
    (6168, 6295, 6039),
)


def assemble_model(folder: Path, read: Callable[[int], object] = lambda files: None) -> MorphableModel:
    """Assemble the trimmed model (53,215 vertices) from the downloads in ``folder``; see :data:`RAW_FILES`.

    read : is told of each file that was read

    Raises :class:`ConfigurationError` that names every missing file and its source, :class:`FormatError` if a
    file is truncated or holds other counts.
    """
    if not folder.is_dir():
        what = "is a file, not the folder of the downloads" if folder.exists() else "does not exist"
        raise ConfigurationError(f"{folder} {what}: 'densegen model build RAW OUT', the folder first")
    missing = [name for name in RAW_FILES if not (folder / name).is_file()]
    if missing:
        sources = "; ".join(f"{name} (from {RAW_FILES[name]})" for name in missing)
        raise ConfigurationError(f"{folder} lacks {sources}")

    def load(name: str, *variables: str) -> dict[str, Any]:
        contents = _load(folder / name, *variables)
        read(1)
        return contents

    with _fitting(str(folder)):
        info = load("model_info.mat", "trimIndex", "tri", "keypoints")
        morphable = load("01_MorphableModel.mat", "shapeMU", "shapePC", "shapeEV")
        expression = load("Model_Expression.mat", "mu_exp", "w_exp", "sigma_exp")
        trim = _zero_based(info["trimIndex"]).ravel()
        if (np.diff(trim) <= 0).any():
            raise FormatError("model_info.mat's trimIndex does not count upwards: another file, or its rows are mixed")
        _expect_vertices("model_info.mat's trimIndex", trim.size, BASEL_VERTICES)
        _expect_vertices("01_MorphableModel.mat", len(morphable["shapeMU"]) // 3, BASEL_RAW_VERTICES)
        _expect_vertices("Model_Expression.mat", len(expression["w_exp"]) // 3, BASEL_VERTICES)
        return _model(
            shape_mean=_per_vertex(morphable["shapeMU"])[:, trim],
            shape_basis=_per_vertex(morphable["shapePC"])[:, trim],
            shape_std=morphable["shapeEV"],
            expression_mean=_per_vertex(expression["mu_exp"]),
            expression_basis=_per_vertex(expression["w_exp"]),
            expression_std=expression["sigma_exp"],
            triangles=info["tri"],
            mouth=load("Model_tri_mouth.mat", "tri_mouth")["tri_mouth"],
            keypoints=info["keypoints"],
            uv=_uv(load("BFM_UV.mat", "UV"), "BFM_UV.mat", trim),
        )


def convert_model(path: Path, uv_path: Path) -> MorphableModel:
    """Convert face3d's ``BFM.mat`` and its ``BFM_UV.mat`` (53,215 rows).

    Raises :class:`ConfigurationError` if a file is missing, :class:`FormatError` if one is truncated or holds
    other counts.
    """
    for file in (path, uv_path):
        if not file.is_file():
            raise ConfigurationError(f"{file} is a folder" if file.is_dir() else f"{file} does not exist")
    with _fitting(path.name):
        model = _load(path, "model")["model"]
        names = ("shapeMU", "shapePC", "shapeEV", "expMU", "expPC", "expEV", "tri", "tri_mouth", "kpt_ind")
        if model.dtype.names is None or (lacking := [name for name in names if name not in model.dtype.names]):
            lacking = list(names) if model.dtype.names is None else lacking
            raise FormatError(f"{path.name}: the struct 'model' lacks {', '.join(lacking)}: not face3d's layout")
        field = {name: model[name][0, 0] for name in names}
        _expect_numbers(field)
        _expect_vertices(path.name, len(field["shapeMU"]) // 3, BASEL_VERTICES)
        return _model(
            shape_mean=_per_vertex(field["shapeMU"]),
            shape_basis=_per_vertex(field["shapePC"]),
            shape_std=field["shapeEV"],
            expression_mean=_per_vertex(field["expMU"]),
            expression_basis=_per_vertex(field["expPC"]),
            expression_std=field["expEV"],
            triangles=field["tri"],
            mouth=field["tri_mouth"],
            keypoints=field["kpt_ind"],
            uv=_uv(_load(uv_path, "UV"), uv_path.name, trim=None),
        )


def _model(
    *,
    shape_mean: Float32,
    shape_basis: Float32,
    shape_std: npt.NDArray[Any],
    expression_mean: Float32,
    expression_basis: Float32,
    expression_std: npt.NDArray[Any],
    triangles: npt.NDArray[Any],
    mouth: npt.NDArray[Any],
    keypoints: npt.NDArray[Any],
    uv: Float64,
) -> MorphableModel:
    return MorphableModel(
        shape_mean=shape_mean[0],
        expression_mean=expression_mean[0],
        shape_basis=np.ascontiguousarray(shape_basis),
        expression_basis=np.ascontiguousarray(expression_basis),
        shape_std=np.asarray(shape_std, np.float32).ravel(),
        expression_std=np.asarray(expression_std, np.float32).ravel(),
        triangles=np.concatenate([_triangles(triangles), _mended_mouth(mouth)]),
        keypoints68=_zero_based(keypoints).ravel(),
        uv=uv,
        unit_mm=UNIT_MM,
        name="Basel Face Model 2009 with 3DDFA expressions",
    )


@contextmanager
def _fitting(what: str) -> Iterator[None]:
    """Arrays of other shapes or types than they should have end in one clear line."""
    try:
        yield
    except (ValueError, IndexError, TypeError, AttributeError, KeyError) as error:
        raise FormatError(f"{what} does not hold what it should: {in_short(error)}") from error


def _load(path: Path, *names: str) -> dict[str, Any]:
    contents = read_mat(path, names, MAX_BYTES)
    if lacking := [name for name in names if name not in contents]:
        raise FormatError(f"{path.name} lacks the variable {', '.join(lacking)}")
    _expect_numbers({name: contents[name] for name in names if contents[name].dtype.names is None})
    return contents


def _expect_numbers(arrays: dict[str, npt.NDArray[Any]]) -> None:
    for name, array in arrays.items():
        if array.dtype.kind not in "fiub":
            raise ValueError(f"{name} holds no real numbers")


def _expect_vertices(what: str, found: int, expected: int) -> None:
    if found != expected:
        raise FormatError(f"{what} has {count_words(found)} vertices, expected {count_words(expected)}")


def _zero_based(indices: npt.NDArray[Any]) -> Int32:
    """Whole numbers from 1 of any type, as int32 from 0."""
    numbers = np.asarray(indices).astype(np.float64)
    if not ((numbers >= 1) & (numbers <= 2**31) & (numbers == np.rint(numbers))).all():  # NaN is none of these
        raise ValueError("an index is no whole number from 1 on, as MATLAB counts")
    return (numbers - 1).astype(np.int32)


def _triangles(columns: npt.NDArray[Any]) -> Int32:
    """(3, F) 1-based, any number type -> (F, 3) int32, 0-based."""
    if columns.ndim != 2 or len(columns) != 3:
        raise ValueError(f"triangles have the shape {columns.shape}, expected (3, F)")
    return np.ascontiguousarray(_zero_based(columns).T)


def _mended_mouth(columns: npt.NDArray[Any]) -> Int32:
    mouth = _triangles(columns)
    mended = _MOUTH_COLUMNS - 1 + len(_INNER_MOUTH)
    if len(mouth) not in (_MOUTH_COLUMNS, mended):
        raise ValueError(f"tri_mouth has {len(mouth)} triangles, expected {_MOUTH_COLUMNS}, or mended {mended}")
    if len(mouth) == mended:  # face3d's generator has done it already
        return mouth
    return np.concatenate([np.delete(mouth, _BAD_MOUTH_COLUMN, axis=0), np.array(_INNER_MOUTH, np.int32) - 1])


def _per_vertex(columns: npt.NDArray[Any]) -> Float32:
    """(3 V, K) with x, y, z interleaved -> (K, V, 3) float32, a view where it can be one."""
    with np.errstate(over="ignore"):  # infinity is refused with what is not finite
        return np.asarray(columns, np.float32).T.reshape(columns.shape[1], -1, 3)


def _uv(contents: dict[str, Any], name: str, trim: Int32 | None) -> Float64:
    uv = np.asarray(contents["UV"], np.float64)
    if trim is not None:
        _expect_vertices(name, len(uv), BASEL_RAW_VERTICES)
        uv = uv[trim]
        mended = uv.copy()
        for vertex, neighbours in _UV_OUTLIERS.items():
            mended[vertex - 1] = uv[np.array(neighbours) - 1].mean(axis=0)
        uv = mended
    _expect_vertices(name, len(uv), BASEL_VERTICES)
    return uv
