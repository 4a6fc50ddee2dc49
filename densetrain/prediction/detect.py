"""Finding faces: boxes of the 68 keypoints, as training crops are laid around, from a detector."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Literal

import numpy as np

from densegen.arrays import Float64, Image
from densegen.errors import ConfigurationError, FormatError
from densegen.extras import install_line
from densegen.files import read_bytes
from densegen.remembered import remembered_path
from densetrain.choices import DetectorName

__all__ = ["Detector", "better_detector", "how_to_get_yunet", "open_detector", "opened_when_asked", "yunet_file"]

Detector = Callable[[Image], Float64]
"""(H, W, 3) uint8 RGB -> (n, 4) left, top, right, bottom of the 68 keypoints, pixels, the largest face first; or (n, 5)
with the detector's confidence, 0 to 1."""

LONGEST_SIDE = 512
SMALLEST_SHARE = 0.12

YUNET = {
    "face_detection_yunet_2026may.onnx": "ebafce4e3c118d6554634be5c27ab333b4c047a9a8c3faf1d7cf93101c22f0f0",
    "face_detection_yunet_2023mar.onnx": "8f2383e4dd3cfbb4553ea8718107fc0423210dc964f9f4280604804ed2552fa4",
}
"""The files of YuNet (Wu et al., YuNet: a tiny millisecond-level face detector, MIR 2023) that are run, and their
SHA-256, as the OpenCV Zoo has them."""

YUNET_VARIABLE = "DENSETRAIN_YUNET"
YUNET_SIDES = (640, 320)
"""Longest sides at which YuNet looks, the second if it finds nothing at the first; a face that fills the picture is
found at the smaller one."""
YUNET_SCORE, YUNET_OVERLAP, YUNET_MOST = 0.6, 0.3, 500
MAX_YUNET_BYTES = 4 << 20


@dataclass(frozen=True)
class _Frame:
    """Where the box of the 68 lies in a detector's box, in units of its sides: measured medians.

    down : how far its centre lies below the detector's
    width, height : its sides
    """

    down: float
    width: float
    height: float


# Over the faces of AFLW2000-3D below 30 degrees of yaw.
CASCADE_FRAME = _Frame(0.14, 0.90, 0.90)
# Over every 8th face of AFLW2000-3D; the medians of the three yaw bins differ by at most 0.04.
YUNET_FRAME = _Frame(0.117, 1.04, 0.74)


def open_detector(name: DetectorName) -> Detector:
    """A detector by name: ``cascade`` comes with scikit-image and finds frontal faces; ``yunet`` finds nearly all, by
    OpenCV and a file that is fetched once; ``auto`` is the better of the two that is there.

    Raises :class:`ConfigurationError` if there is none of that name, or the library or the file that it needs is
    missing, :class:`FormatError` if the file is another one.
    """
    known = {"cascade": _cascade, "yunet": _yunet}
    if name not in ("auto", *known):
        raise ConfigurationError(f"there is no detector {name!r}: auto, {', '.join(known)}")
    return known[better_detector() if name == "auto" else name]()


def better_detector() -> Literal["cascade", "yunet"]:
    """What ``auto`` stands for on this machine."""
    return "yunet" if yunet_file() is not None and find_spec("cv2") is not None else "cascade"


def yunet_file() -> Path | None:
    """The file of YuNet's network: what ``DENSETRAIN_YUNET`` names, else one in the user's folder of settings."""
    if given := os.environ.get(YUNET_VARIABLE):
        return Path(given)
    return next((path for name in YUNET if (path := remembered_path().with_name(name)).is_file()), None)


def how_to_get_yunet() -> str:
    """What to install, if it is not there, and which file to put where."""
    name = next(iter(YUNET))
    first = "" if find_spec("cv2") is not None else f"{install_line('detect')}, and "
    return (
        f"{first}put {name} of the OpenCV Zoo (230 kB, MIT licence) into "
        f"{remembered_path().parent}, or name it in {YUNET_VARIABLE}"
    )


def opened_when_asked(name: DetectorName) -> Detector:
    """A detector that is opened when it is first asked: many a call needs none."""
    opened: list[Detector] = []

    def detect(image: Image) -> Float64:
        if not opened:
            opened.append(open_detector(name))
        return opened[0](image)

    return detect


def _cascade() -> Detector:
    from skimage.data import lbp_frontal_face_cascade_filename
    from skimage.feature import Cascade

    find_file: Any = lbp_frontal_face_cascade_filename
    cascade: Any = Cascade(find_file())

    def detect(image: Image) -> Float64:
        small, scale = _reduce(image)
        longest = max(small.shape[:2])
        least = max(int(longest * SMALLEST_SHARE), 24)
        found: list[dict[str, Any]] = cascade.detect_multi_scale(
            img=small, scale_factor=1.15, step_ratio=1, min_size=(least, least), max_size=(longest, longest)
        )
        squares = [(f["c"], f["r"], f["width"], f["height"]) for f in found]
        return _boxes(np.array(squares, np.float64).reshape(-1, 4) / scale, CASCADE_FRAME)

    return detect


def _yunet() -> Detector:
    path = yunet_file()
    if path is None:
        raise ConfigurationError(f"the detector yunet is not here: {how_to_get_yunet()}")
    cv2 = _opencv()
    network = read_bytes(path, "network of YuNet", MAX_YUNET_BYTES)
    if (digest := hashlib.sha256(network).hexdigest()) not in YUNET.values():
        raise FormatError(f"{path} is none of YuNet's files that are known: its SHA-256 is {digest[:12]}...")
    try:  # from the bytes that were looked at
        with _without_warnings(cv2):
            model = cv2.FaceDetectorYN.create(
                "onnx", np.frombuffer(network, np.uint8), np.empty(0, np.uint8), (320, 320), YUNET_SCORE,
                YUNET_OVERLAP, YUNET_MOST,
            )  # fmt: skip
    except (TypeError, cv2.error) as error:
        raise _old_opencv(cv2) from error

    def detect(image: Image) -> Float64:
        boxes = np.empty((0, 5))
        for side in YUNET_SIDES:
            small, scale = _reduce(image, side, enlarge=True)
            model.setInputSize((small.shape[1], small.shape[0]))
            _, found = model.detect(cv2.cvtColor(small, cv2.COLOR_RGB2BGR))
            if found is not None:
                squares = np.concatenate([found[:, :4] / scale, found[:, 14:]], axis=1)
                boxes = _boxes(squares.astype(np.float64), YUNET_FRAME)
            if len(boxes):
                break
        return boxes

    return detect


def _opencv() -> Any:
    try:
        import cv2
    except ModuleNotFoundError as error:
        raise ConfigurationError(f"the detector yunet needs OpenCV: {install_line('detect')}") from error
    except ImportError as error:  # installed, and a library of the system that it needs is not
        raise ConfigurationError(f"OpenCV is installed, but does not load: {error}") from error
    if not hasattr(cv2, "FaceDetectorYN"):
        raise _old_opencv(cv2)
    return cv2


@contextmanager
def _without_warnings(cv2: Any) -> Iterator[None]:
    """OpenCV 5 warns of a target that nobody chose."""
    logging = getattr(getattr(cv2, "utils", None), "logging", None)
    if logging is None:
        yield
        return
    level = logging.setLogLevel(logging.LOG_LEVEL_ERROR)
    try:
        yield
    finally:
        logging.setLogLevel(level)


def _old_opencv(cv2: Any) -> ConfigurationError:
    return ConfigurationError(f"OpenCV {cv2.__version__} does not run YuNet: {install_line('detect')}")


def _reduce(image: Image, longest: int = LONGEST_SIDE, *, enlarge: bool = False) -> tuple[Image, float]:
    """The image with its longest side at most ``longest``, or just that, and its scale."""
    from PIL import Image

    scale = longest / max(image.shape[:2])
    scale = scale if enlarge else min(scale, 1.0)
    size = max(round(image.shape[1] * scale), 1), max(round(image.shape[0] * scale), 1)
    return np.asarray(Image.fromarray(image).resize(size, Image.Resampling.BILINEAR)), scale


def _boxes(squares: Float64, frame: _Frame) -> Float64:
    """Boxes of the 68 in (n, 4) left, top, width, height, the largest first, each face once; further columns stay."""
    order = np.argsort(-squares[:, 2])
    kept: list[Float64] = []
    for left, top, width, height, *score in squares[order]:
        centre = np.array([left + width / 2, top + height * (0.5 + frame.down)])
        half = np.array([width * frame.width, height * frame.height]) / 2
        box = np.concatenate([centre - half, centre + half, score])
        if all(not _inside(centre, other) for other in kept):
            kept.append(box)
    return np.array(kept).reshape(-1, squares.shape[1])


def _inside(point: Float64, box: Float64) -> bool:
    return bool((point > box[:2]).all() and (point < box[2:4]).all())
