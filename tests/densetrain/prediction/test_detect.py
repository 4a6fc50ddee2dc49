"""Where faces are found, and from which files."""

from __future__ import annotations

import hashlib
import os
import sys
import types
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from skimage.data import astronaut

from densegen.arrays import Float64, Image
from densegen.errors import ConfigurationError, FormatError
from densetrain.prediction.detect import CASCADE_FRAME, YUNET_FRAME, _boxes, open_detector, yunet_file
from densetrain.prediction.face import Face
from densetrain.prediction.faces import detect, turn_back

# The box of her 68 keypoints in scikit-image's portrait, read off the picture by eye: brows to chin, jaw to jaw.
ASTRONAUT = np.array([181.0, 91.0, 268.0, 184.0])


def check_portrait(boxes: Float64) -> None:
    (box,) = boxes
    side = (ASTRONAUT[2:] - ASTRONAUT[:2]).mean()
    assert np.abs((box[:2] + box[2:4]) / 2 - (ASTRONAUT[:2] + ASTRONAUT[2:]) / 2).max() < 0.15 * side
    assert (box[2:4] - box[:2]).mean() == pytest.approx(side, rel=0.2)


def test_a_face_is_found_where_it_is() -> None:
    check_portrait(open_detector("cascade")(astronaut()))


@pytest.mark.skipif("DENSE_YUNET" not in os.environ, reason="DENSE_YUNET names no file of YuNet")
def test_yunet_finds_it_too_and_says_how_sure_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DENSETRAIN_YUNET", os.environ["DENSE_YUNET"])
    found = open_detector("auto")(astronaut())
    check_portrait(found)
    assert 0.6 < found[0, 4] <= 1
    small = np.zeros((1200, 1600, 3), np.uint8)
    small[500:700, 900:1100] = astronaut()[40:240, 130:330]
    (box,) = open_detector("yunet")(small)
    np.testing.assert_allclose(box[:4], found[0, :4] - [130, 40, 130, 40] + [900, 500, 900, 500], atol=12)


def test_a_picture_without_a_face_has_no_boxes() -> None:
    assert open_detector("cascade")(np.full((240, 320, 3), 127, np.uint8)).shape == (0, 4)


def test_the_box_of_the_68_lies_in_a_detectors_box_as_measured() -> None:
    """By hand: a square of 100 px at (50, 30); and the smaller of two boxes of one face is left out."""
    squares = np.array([[50.0, 30.0, 100.0, 100.0, 0.9], [60.0, 40.0, 80.0, 80.0, 0.8]])
    np.testing.assert_allclose(_boxes(squares, CASCADE_FRAME), [[55.0, 49.0, 145.0, 139.0, 0.9]])
    np.testing.assert_allclose(_boxes(squares[:1, :4], YUNET_FRAME), [[48.0, 54.7, 152.0, 128.7]])


def test_yunets_file_is_looked_for_and_only_known_ones_are_run(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("DENSEGEN_CONFIG_DIR", str(tmp_path))
    assert yunet_file() is None
    with monkeypatch.context() as without:
        without.setattr("densetrain.prediction.detect.find_spec", lambda name: None)
        missing = r"yunet is not here: pip install .*\[detect\].*, and put .*2026may.*MIT licence"
        with pytest.raises(ConfigurationError, match=missing):
            open_detector("yunet")
    monkeypatch.setattr("densetrain.prediction.detect.find_spec", lambda name: name)
    with pytest.raises(ConfigurationError, match=r"yunet is not here: put .*2026may.*MIT licence"):
        open_detector("yunet")
    check_portrait(open_detector("auto")(astronaut()))  # the cascade
    (tmp_path / "face_detection_yunet_2023mar.onnx").write_bytes(b"another network")
    assert yunet_file() == tmp_path / "face_detection_yunet_2023mar.onnx"
    with pytest.raises(FormatError, match="none of YuNet's files that are known: its SHA-256 is"):
        open_detector("yunet")
    monkeypatch.setenv("DENSETRAIN_YUNET", str(tmp_path / "gone.onnx"))
    with pytest.raises(ConfigurationError, match="does not exist"):
        open_detector("auto")


def test_a_library_that_cannot_run_it_is_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("DENSETRAIN_YUNET", str(tmp_path / "yunet.onnx"))
    older = types.ModuleType("cv2")
    older.__version__ = "4.5.1"  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "cv2", older)
    with pytest.raises(ConfigurationError, match=r"OpenCV 4.5.1 does not run YuNet: pip install .*\[detect\]"):
        open_detector("yunet")
    # From 4.5.4 to 4.8 it takes files alone, not bytes.
    known = b"a network"
    (tmp_path / "yunet.onnx").write_bytes(known)
    monkeypatch.setattr("densetrain.prediction.detect.YUNET", {"yunet.onnx": hashlib.sha256(known).hexdigest()})
    older.FaceDetectorYN = types.SimpleNamespace(create=lambda model, config, size: None)  # type: ignore[attr-defined]
    older.error = ValueError  # type: ignore[attr-defined]
    with pytest.raises(ConfigurationError, match="OpenCV 4.5.1 does not run YuNet"):
        open_detector("yunet")
    monkeypatch.setitem(sys.modules, "cv2", None)
    with pytest.raises(ConfigurationError, match=r"needs OpenCV: pip install .*\[detect\]"):
        open_detector("yunet")


@pytest.mark.parametrize("turns", [0, 1, 2, 3])
def test_a_face_is_also_looked_for_on_its_side_and_upside_down(turns: int) -> None:
    """A detector that sees only what is upright: white below black. Landmarks are where the image itself has them."""
    upright = np.zeros((40, 60, 3), np.uint8)
    upright[20:] = 255
    upright[7, 11] = (9, 8, 7)
    image = np.ascontiguousarray(np.rot90(upright, -turns))

    def detector(seen: Image) -> Float64:
        head, foot = seen[: len(seen) // 4].mean(), seen[-len(seen) // 4 :].mean()
        return np.array([[5.0, 6.0, 25.0, 36.0]]) if head < 5 and foot > 250 else np.empty((0, 4))

    turned, boxes = detect(detector, image, "a.jpg")
    assert turned == turns
    place = np.array([[11.0, 7.0, 3.0], [59.0, 39.0, 0.0]], np.float32)
    (face,) = turn_back([Face(boxes[0], place, place, None)], turned, image, None)
    x, y, z = face.landmarks[0]
    assert image[int(y), int(x)].tolist() == [9, 8, 7]
    assert z == 3
    assert face.box[2] - face.box[0] == (20 if turns % 2 == 0 else 30)
    height, width = image.shape[:2]
    assert (face.landmarks >= 0).all()
    assert (face.landmarks[:, :2] < [width, height]).all()


def test_a_photograph_without_a_face_says_what_to_install(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("DENSEGEN_CONFIG_DIR", str(tmp_path))
    looked: list[Any] = []

    def nothing(image: Image) -> Float64:
        looked.append(image.shape[:2])
        return np.empty((0, 4))

    with pytest.raises(
        FormatError, match=r"a.jpg: no face found; .*--box.*The detector yunet finds more: .*put face_detection"
    ):
        detect(nothing, np.zeros((30, 50, 3), np.uint8), "a.jpg")
    assert looked == [(30, 50), (30, 50), (50, 30), (50, 30)]


@pytest.mark.parametrize(
    ("found", "words"),
    [
        ([[0.0, 0.0, np.nan, 50.0]], "a box is four numbers"),
        ([0.0, 0.0, 50.0, 50.0], r"gives \(4,\) numbers, not \(n, 4\) boxes"),
        ([[50.0, 0.0, 0.0, 50.0]], "right and bottom lie at least a pixel beyond"),
    ],
)
def test_what_a_detector_of_ones_own_gives_is_looked_at(found: Any, words: str) -> None:
    with pytest.raises(FormatError, match=f"a.jpg.*{words}"):
        detect(lambda image: found, np.zeros((64, 64, 3), np.uint8), "a.jpg")


def test_boxes_may_be_lists_have_any_score_and_lie_beside_the_image() -> None:
    """YuNet's box of a head that the lower edge cuts lies below it; the other faces stay."""
    found: Any = [[1, 70, 30, 90, 0.9], [1, 2, 30, 40, 0.0], [-50, 2, 0, 40, 1.0]]
    turns, boxes = detect(lambda image: found, np.zeros((64, 64, 3), np.uint8), "a.jpg")
    assert (turns, boxes.tolist()) == (0, [[1, 2, 30, 40, 0]])
