from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy.io import savemat

from densegen.errors import SampleError
from densegen.sources.fits import MAX_FIT_BYTES, read_fit


def contents(**changes: Any) -> dict[str, Any]:
    fields: dict[str, Any] = {
        "Pose_Para": np.array([[0.1, 0.2, 0.3, 100, 200, -50, 1e-3]], np.float32),
        "Shape_Para": np.arange(199, dtype=np.float64)[:, None],
        "Exp_Para": np.zeros((29, 1), np.uint8),
        "pt2d": np.ones((2, 68)),
        "roi": np.array([[1, 2, 3, 4]], np.int16),
    }
    fields.update(changes)
    return {name: value for name, value in fields.items() if value is not None}


def write(path: Path, **changes: Any) -> Path:
    savemat(path, contents(**changes))
    return path


def test_every_number_type_becomes_float32_vectors(tmp_path: Path) -> None:
    fit = read_fit(write(tmp_path / "a.mat"))
    assert fit.pose.dtype == fit.shape.dtype == fit.expression.dtype == np.float32
    assert (fit.pose.shape, fit.shape.shape, fit.expression.shape) == ((7,), (199,), (29,))
    assert fit.shape[7] == 7
    assert fit.pose[1] == np.float32(0.2)
    assert fit.roi is not None
    assert fit.roi.tolist() == [1, 2, 3, 4]


def test_landmarks_of_any_count_are_read_and_may_be_missing(tmp_path: Path) -> None:
    odd = read_fit(write(tmp_path / "a.mat", pt2d=np.ones((2, 23)), roi=None))
    assert odd.points_2d is not None
    assert odd.points_2d.shape == (2, 23)
    bare = read_fit(write(tmp_path / "b.mat", pt2d=None, roi=None))
    assert bare.points_2d is None
    assert bare.keypoints_3d is None
    assert bare.roi is None


@pytest.mark.parametrize(
    ("changes", "reason", "words"),
    [
        ({"Shape_Para": None}, "fit-invalid", "has no Shape_Para"),
        ({"Pose_Para": np.ones((1, 6))}, "fit-invalid", "6 numbers, expected 7"),
        ({"Pose_Para": np.array([[0, 0, 0, 0, 0, 0, 0.0]])}, "fit-invalid", "scale is 0"),
        ({"Pose_Para": np.array([[0, 1e6, 0, 0, 0, 0, 1.0]])}, "fit-invalid", "angle is 1e\\+06 rad"),
        ({"Pose_Para": np.array([[0, 0, 0, 0, 0, 1e7, 1.0]])}, "fit-invalid", "translation is 1e\\+07 px"),
        ({"Shape_Para": np.array([[np.nan]])}, "fit-invalid", "Shape_Para is not finite"),
        ({"Exp_Para": np.array([[1e300]])}, "fit-invalid", "Exp_Para is not finite"),
        ({"Exp_Para": "text"}, "fit-invalid", "Exp_Para is no array of numbers"),
        ({"pt3d_68": np.ones((3, 21))}, "fit-invalid", "21 points, expected 68"),
    ],
)
def test_an_unusable_fit_says_why(tmp_path: Path, changes: dict[str, Any], reason: str, words: str) -> None:
    with pytest.raises(SampleError, match=words) as caught:
        read_fit(write(tmp_path / "a.mat", **changes))
    assert caught.value.reason == reason


def test_a_missing_truncated_or_foreign_file_is_unreadable(tmp_path: Path) -> None:
    with pytest.raises(SampleError, match="No such file") as caught:
        read_fit(tmp_path / "none.mat")
    assert caught.value.reason == "fit-missing"
    whole = write(tmp_path / "a.mat").read_bytes()
    for name, data in {"cut": whole[: len(whole) // 2], "empty": b"", "text": b"hello" * 99}.items():
        (tmp_path / f"{name}.mat").write_bytes(data)
        with pytest.raises(SampleError) as caught:
            read_fit(tmp_path / f"{name}.mat")
        assert caught.value.reason in ("fit-unreadable", "fit-invalid")


def test_a_pipe_is_not_read(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "a.mat")  # reading it would never end
    with pytest.raises(SampleError, match="not a regular file") as caught:
        read_fit(tmp_path / "a.mat")
    assert caught.value.reason == "fit-unreadable"


def test_a_huge_file_is_refused_before_it_is_parsed(tmp_path: Path) -> None:
    path = tmp_path / "huge.mat"
    with path.open("wb") as file:
        file.truncate(MAX_FIT_BYTES + 1)
    with pytest.raises(SampleError, match="bytes, at most"):
        read_fit(path)
