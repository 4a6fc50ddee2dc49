"""Faces followed through films and webcams."""

from __future__ import annotations

import itertools
import json
import os
import shutil
import signal
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from densegen.errors import ConfigurationError, FormatError
from densetrain.network.checkpoint import load_regressor
from densetrain.prediction.face import Face
from densetrain.prediction.faces import REFINE, find_faces
from densetrain.prediction.video import Filmed, Follower, _Film, process_video
from tests.densetrain.command import call, fails


@pytest.mark.slow
def test_video_is_followed_and_smoothed(exported: Path, corpus: Path, tmp_path: Path) -> None:
    cv2 = pytest.importorskip("cv2")
    frame = cv2.imread(str(corpus / "SYNTH/SYNTH_00000_0.jpg"))
    writer = cv2.VideoWriter(str(tmp_path / "in.mp4"), cv2.VideoWriter.fourcc(*"mp4v"), 10, frame.shape[1::-1])
    for _ in range(4):
        writer.write(frame)
    writer.release()
    made = call("predict", "--onnx", exported / "model.onnx", tmp_path / "in.mp4", "--out", tmp_path / "out")
    assert made.exit_code == 0, made.output
    lines = [json.loads(line) for line in (tmp_path / "out/in.jsonl").read_text().splitlines()]
    assert [line["number"] for line in lines] == [0, 1, 2, 3]
    reader = cv2.VideoCapture(str(tmp_path / "out/in.mp4"))
    assert int(reader.get(cv2.CAP_PROP_FRAME_COUNT)) == 4
    reader.release()
    given = ("--box", 120, 120, 330, 330, "--limit", 2, "--out", tmp_path / "boxed")
    made = call("predict", "--onnx", exported / "model.onnx", tmp_path / "in.mp4", *given)
    assert json.loads((tmp_path / "boxed/in.jsonl").read_text().splitlines()[0])["faces"][0]["box"] == [
        120,
        120,
        330,
        330,
    ]
    beside = ("--box", 5000, 5000, 5200, 5200, "--out", tmp_path / "beside")
    assert "the first frame: the box" in fails(
        "predict", "--onnx", exported / "model.onnx", tmp_path / "in.mp4", *beside
    )
    shutil.copy(tmp_path / "in.mp4", tmp_path / os.fsdecode(b"v\xff.mp4"))
    assert "only paths in UTF-8" in fails(
        "predict", "--onnx", exported / "model.onnx", tmp_path / os.fsdecode(b"v\xff.mp4"), "--out", tmp_path / "out"
    )
    assert "--write is for images" in fails(
        "predict", "--onnx", exported / "model.onnx", tmp_path / "in.mp4", "--write", "csv", "--out", tmp_path / "out"
    )
    (tmp_path / "bad.mp4").write_text("no video")
    assert "gives no frame" in fails(
        "predict", "--onnx", exported / "model.onnx", tmp_path / "bad.mp4", "--out", tmp_path / "out"
    )
    assert not (tmp_path / "out/bad.mp4").exists()


class Writer:
    """Stands in for OpenCV's."""

    def __init__(self, path: str, *_: object) -> None:
        Path(path).write_bytes(b"film")

    @staticmethod
    def fourcc(*_: str) -> int:
        return 0

    def isOpened(self) -> bool:  # noqa: N802
        return True

    def write(self, frame: np.ndarray) -> None: ...
    def release(self) -> None: ...


class Films:
    """Stands in for OpenCV: three grey frames, then Ctrl-C."""

    CAP_PROP_POS_MSEC, CAP_PROP_FPS, CAP_PROP_FRAME_COUNT, VideoWriter, error = 0, 5, 7, Writer, OSError

    def __init__(self) -> None:
        self.left = self.frames = 3

    def VideoCapture(self, source: object) -> Films:  # noqa: N802
        return self

    def get(self, key: int) -> float:
        return float(self.frames) if key == self.CAP_PROP_FRAME_COUNT else 10.0

    def isOpened(self) -> bool:  # noqa: N802
        return True

    def grab(self) -> bool:
        return True

    def read(self) -> tuple[bool, np.ndarray]:
        if self.left == 0:
            raise KeyboardInterrupt
        self.left -= 1
        return True, np.full((90, 120, 3), 127, np.uint8)

    def release(self) -> None: ...


@pytest.fixture
def films(monkeypatch: pytest.MonkeyPatch) -> Films:
    stand_in, ticks = Films(), itertools.count()
    monkeypatch.setattr("densetrain.prediction.video._import_opencv", lambda: stand_in)
    monkeypatch.setattr("densetrain.prediction.video.monotonic", lambda: next(ticks) / 10)  # ten frames a second
    return stand_in


def no_face(image: np.ndarray) -> np.ndarray:
    return np.empty((0, 4))


def test_ctrl_c_ends_and_keeps_a_webcams_recording(run: Path, films: Films, tmp_path: Path) -> None:
    follower = Follower(load_regressor(run), no_face)
    assert process_video(0, follower, tmp_path / "cam", np.empty((0, 3), np.int64)) == Filmed(3, 0, None)
    assert {path.name for path in tmp_path.iterdir()} == {"cam.mp4", "cam.jsonl"}
    assert len((tmp_path / "cam.jsonl").read_text().splitlines()) == 3


def test_ctrl_c_while_a_frame_is_in_work_keeps_all_frames(run: Path, films: Films, tmp_path: Path) -> None:
    """It comes anywhere between the camera and the files, so the frame is done first."""

    def interrupted(image: np.ndarray) -> np.ndarray:
        if films.left == 1:
            os.kill(os.getpid(), signal.SIGINT)
        return no_face(image)

    films.frames = 2
    before = signal.getsignal(signal.SIGINT)
    follower = Follower(load_regressor(run), interrupted)
    assert process_video(0, follower, tmp_path / "cam", np.empty((0, 3), np.int64)) == Filmed(2, 0, None)
    assert signal.getsignal(signal.SIGINT) is before
    assert len((tmp_path / "cam.jsonl").read_text().splitlines()) == 2


@pytest.mark.parametrize("once", [True, False])
def test_ctrl_c_before_a_cameras_first_frame_is_no_error_of_the_camera(
    run: Path, films: Films, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, once: bool
) -> None:
    def read() -> tuple[bool, None]:
        os.kill(os.getpid(), signal.SIGINT)
        if not once:  # a person who has waited for the first frame long enough
            os.kill(os.getpid(), signal.SIGINT)
        return False, None

    monkeypatch.setattr(films, "read", read)
    with pytest.raises(KeyboardInterrupt):
        process_video(0, Follower(load_regressor(run), no_face), tmp_path / "cam", np.empty((0, 3), np.int64))
    assert not list(tmp_path.iterdir())


def test_a_camera_that_fails_leaves_what_it_had_recorded(
    run: Path, films: Films, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def read() -> tuple[bool, np.ndarray]:
        if films.left == 0:
            raise films.error("unplugged")
        films.left -= 1
        return True, np.zeros((90 + films.left, 120, 3), np.uint8)  # of another size each time

    monkeypatch.setattr(films, "read", read)
    sizes: list[tuple[int, int]] = []
    monkeypatch.setattr(films, "resize", lambda frame, size: sizes.append(size) or frame, raising=False)
    follower = Follower(load_regressor(run), no_face)
    assert process_video(0, follower, tmp_path / "cam", np.empty((0, 3), np.int64)) == Filmed(3, 0, None)
    assert sizes == [(120, 92)] * 2
    assert len((tmp_path / "cam.jsonl").read_text().splitlines()) == 3


def test_a_recording_replaces_neither_a_film_nor_an_earlier_one(exported: Path, films: Films, tmp_path: Path) -> None:
    asked = ("predict", "--onnx", exported / "model.onnx", "--box", 10, 10, 80, 80, "--out", tmp_path, "--webcam", 0)
    (tmp_path / "webcam-0.mp4").write_bytes(b"mine")
    for name in ("webcam-0-2", "webcam-0-3"):
        films.left = 3
        made = call(*asked)
        assert made.exit_code == 0, made.output
        assert f"{name}.mp4" in made.output
    assert (tmp_path / "webcam-0.mp4").read_bytes() == b"mine"


def test_in_video_one_box_is_followed(exported: Path, films: Films, tmp_path: Path) -> None:
    (tmp_path / "in.mp4").write_bytes(b"a film")
    (tmp_path / "boxes.json").write_text('{"in.mp4": [[0, 0, 50, 50], [50, 0, 100, 50]]}')
    line = fails(
        "predict", "--onnx", exported / "model.onnx", tmp_path / "in.mp4", "--boxes", tmp_path / "boxes.json",
        "--out", tmp_path / "out",
    )  # fmt: skip
    assert "2 boxes are given, and in video one face is followed" in line


def test_a_webcams_times_are_the_clocks(
    run: Path, films: Films, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It gives ten frames a second; the network takes a third of a second for each, so frames are lost."""
    now = iter([100.0, 100.3, 100.6])
    monkeypatch.setattr("densetrain.prediction.video.monotonic", lambda: next(now))
    rates: list[float] = []
    follower = Follower(load_regressor(run), no_face)
    monkeypatch.setattr(follower, "smooth_at", rates.append)
    films.frames = 7  # what the film has to hold: at 0, 0.1, ... 0.6 s
    process_video(0, follower, tmp_path / "cam", np.empty((0, 3), np.int64))
    lines = [json.loads(line) for line in (tmp_path / "cam.jsonl").read_text().splitlines()]
    assert [line["time_s"] for line in lines] == [0, 0.3, 0.6]
    assert rates == pytest.approx([10, 1 / 0.3, 1 / 0.3])


def test_ctrl_c_in_a_file_leaves_nothing_half_done(run: Path, films: Films, tmp_path: Path) -> None:
    follower = Follower(load_regressor(run), no_face)
    (tmp_path / "in.mp4").write_bytes(b"a film")
    with pytest.raises(KeyboardInterrupt):
        process_video(tmp_path / "in.mp4", follower, tmp_path / "out", np.empty((0, 3), np.int64))
    assert films.left == 0
    assert [path.name for path in tmp_path.iterdir()] == ["in.mp4"]


def test_a_film_that_the_disk_cut_short_is_none(run: Path, films: Films, tmp_path: Path) -> None:
    """OpenCV reports nothing when the disk is full; the finished file is looked at, and an earlier film stays."""
    (tmp_path / "cam.mp4").write_bytes(b"an earlier film")
    follower = Follower(load_regressor(run), no_face)
    films.left = 2  # the fake's file says three frames
    with pytest.raises(FormatError, match=r"cam\.mp4 could not be written whole, 3 of 2 frames"):
        process_video(0, follower, tmp_path / "cam", np.empty((0, 3), np.int64))
    assert [(path.name, path.read_bytes()) for path in tmp_path.iterdir()] == [("cam.mp4", b"an earlier film")]


def test_a_face_that_was_lost_is_smoothed_from_where_it_comes_back(run: Path) -> None:
    boxes = iter([np.array([[20.0, 20, 90, 90]]), np.empty((0, 4)), np.array([[60.0, 60, 130, 130]])])
    follower = Follower(load_regressor(run), lambda image: next(boxes), refine=0)
    follower.smooth_at(30.0)
    image = np.full((150, 150, 3), 127, np.uint8)
    assert len(follower(image)) == 1
    follower.box = None  # lost
    assert follower(image) == []
    (face,) = follower(image)
    fresh = find_faces(load_regressor(run), image, np.array([[60.0, 60, 130, 130]]))[0]
    np.testing.assert_allclose(face.landmarks, fresh.landmarks, atol=1e-3)


def test_crops_are_laid_again_in_a_new_box_and_never_in_the_last_frames(
    run: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As ``predict`` does it in images: a detector's box twice at most, a person's as often as is asked for."""
    asked: list[int] = []

    def noted(regressor: object, image: np.ndarray, boxes: np.ndarray, *, refine: int, **options: object) -> list[Face]:
        asked.append(refine)
        return [replace(a_face, keypoints68=box.repeat(34, axis=0))]

    image, start = np.full((150, 150, 3), 127, np.uint8), np.array([20.0, 20, 90, 90])
    box = np.array([[20, 20, 0], [90, 90, 0]], np.float32)
    (a_face,) = find_faces(load_regressor(run), image, start[None])
    monkeypatch.setattr("densetrain.prediction.video.find_faces", noted)
    for options, first in (
        ({"start": start}, 0), ({"start": start, "refine": 3}, 3), ({}, REFINE), ({"refine": 0}, 0),
    ):  # fmt: skip
        follower = Follower(load_regressor(run), lambda image: start[None], **options)  # type: ignore[arg-type]
        asked.clear()
        follower(image)
        follower(image)
        assert asked == [first, 0]


def test_a_film_that_cannot_be_followed_does_not_end_the_photographs(
    exported: Path, corpus: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def missing() -> None:
        raise ConfigurationError("video needs OpenCV")

    monkeypatch.setattr("densetrain.prediction.video._import_opencv", missing)
    (tmp_path / "a.mp4").write_bytes(b"a film")
    asked = ("predict", "--onnx", exported / "model.onnx", "--box", 120, 110, 330, 340, "--out", tmp_path / "out")
    made = call(*asked, tmp_path / "a.mp4", corpus / "SYNTH/SYNTH_00000_0.jpg")
    assert made.exit_code == 1
    assert "densetrain: a.mp4: video needs OpenCV\n" in made.stderr
    assert "1 of 2 inputs have no result, the first is a.mp4" in made.stderr
    assert (tmp_path / "out/SYNTH_00000_0.json").is_file()


def test_a_box_that_shrinks_where_no_face_is_is_given_up(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Half the side in each frame; the detector, which is asked again in the same frame, finds another face."""
    asked: list[int] = []

    def detector(image: np.ndarray) -> np.ndarray:
        asked.append(len(sides))
        return np.array([[20.0, 20, 90, 90]])

    sides: list[float] = []

    def halved(regressor: object, image: np.ndarray, boxes: np.ndarray, **options: object) -> list[Face]:
        left, top, right, bottom = boxes[0].tolist()
        sides.append(right - left)
        share = 1.0 if len(sides) == 1 else 0.5
        corners = np.array([[left, top], [left + share * (right - left), top + share * (bottom - top)]])
        keypoints = np.column_stack([corners.repeat(34, axis=0), np.zeros(68)]).astype(np.float32)
        return [replace(a_face, keypoints68=keypoints)]

    image = np.full((150, 150, 3), 127, np.uint8)
    (a_face,) = find_faces(load_regressor(run), image, np.array([[20.0, 20, 90, 90]]))
    monkeypatch.setattr("densetrain.prediction.video.find_faces", halved)
    follower = Follower(load_regressor(run), detector, refine=0)
    for _ in range(4):
        follower(image)
    # 70 of 70, 35 and 17.5 of 70, then 8.75, which is an eighth, so the detector is asked.
    assert asked == [0, 4]


def test_a_film_has_no_more_frames_than_its_time(films: Films, tmp_path: Path) -> None:
    with _Film(tmp_path / "a.mp4", 10.0, films) as film:
        for until in (0, 0, 1, 1, 4):
            film.write(np.zeros((8, 8, 3), np.uint8), until)
        assert film.frames == 5
