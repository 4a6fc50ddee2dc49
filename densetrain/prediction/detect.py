"""Finding faces: boxes of the 68 keypoints, as training crops are laid around, from a detector."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from densegen.arrays import Float64, Image
from densegen.errors import ConfigurationError
from densegen.extras import install_line
from densetrain.choices import DetectorName

__all__ = ["Detector", "open_detector", "opened_when_asked"]

Detector = Callable[[Image], Float64]
"""(H, W, 3) uint8 RGB -> (n, 4) left, top, right, bottom of the 68 keypoints, pixels, the largest face first; or (n, 5)
with the detector's confidence, 0 to 1."""

# The place of the 68's box in a detector's square: how far its centre lies below the square's centre, and its sides,
# in units of the square's sides. Measured for the cascade: medians over the faces of AFLW2000-3D below 30 degrees of
# yaw. The other two detectors frame a face in nearly the same way.
SHIFT_DOWN, SIDE = 0.14, 0.90

LONGEST_SIDE = 512
SMALLEST_SHARE = 0.12


def open_detector(name: DetectorName) -> Detector:
    """A detector by name: ``cascade`` comes with scikit-image and finds frontal faces.

    Raises :class:`ConfigurationError` if the library that it needs is not installed.
    """
    return {"cascade": _cascade, "opencv": _opencv, "mediapipe": _mediapipe}[name]()


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
        return _boxes(np.array(squares, np.float64).reshape(-1, 4) / scale)

    return detect


def _opencv() -> Detector:
    cv2 = _import("cv2", "opencv", "CascadeClassifier", install_line("detect"))
    classifier = cv2.CascadeClassifier(cv2.data.haarcascades + "haarcascade_frontalface_alt2.xml")

    def detect(image: Image) -> Float64:
        small, scale = _reduce(image)
        squares = classifier.detectMultiScale(cv2.cvtColor(small, cv2.COLOR_RGB2GRAY), 1.1, 4)
        return _boxes(np.array(squares, np.float64).reshape(-1, 4) / scale)

    return detect


def _mediapipe() -> Detector:
    mediapipe = _import("mediapipe", "mediapipe", "solutions", install_line("mediapipe"))
    finder = mediapipe.solutions.face_detection.FaceDetection(model_selection=1)

    def detect(image: Image) -> Float64:
        height, width = image.shape[:2]
        found = [(d.location_data.relative_bounding_box, d.score[0]) for d in finder.process(image).detections or ()]
        squares = [(b.xmin * width, b.ymin * height, b.width * width, b.height * height, s) for b, s in found]
        return _boxes(np.array(squares, np.float64).reshape(-1, 5))

    return detect


def _import(module: str, name: str, needed: str, line: str) -> Any:
    """A library with the part that is ``needed``: newer releases of both come without their models."""
    import importlib

    try:
        library = importlib.import_module(module)
    except ModuleNotFoundError as error:
        raise ConfigurationError(f"the detector {name} is not installed: {line}") from error
    except ImportError as error:  # installed, and a library of the system that it needs is not
        raise ConfigurationError(f"the detector {name} is installed, but does not load: {error}") from error
    if not hasattr(library, needed):
        version = getattr(library, "__version__", "installed here")
        raise ConfigurationError(f"the detector {name} does not come with release {version} of its library: {line}")
    return library


def _reduce(image: Image) -> tuple[Image, float]:
    """The image with its longest side at most ``LONGEST_SIDE``, and its scale."""
    from PIL import Image

    scale = min(LONGEST_SIDE / max(image.shape[:2]), 1.0)
    size = max(round(image.shape[1] * scale), 1), max(round(image.shape[0] * scale), 1)
    return np.asarray(Image.fromarray(image).resize(size, Image.Resampling.BILINEAR)), scale


def _boxes(squares: Float64) -> Float64:
    """Boxes of the 68 in (n, 4) left, top, width, height, the largest first, each face once; further columns stay."""
    order = np.argsort(-squares[:, 2])
    kept: list[Float64] = []
    for left, top, width, height, *score in squares[order]:
        centre = np.array([left + width / 2, top + height * (0.5 + SHIFT_DOWN)])
        half = np.array([width, height]) * SIDE / 2
        box = np.concatenate([centre - half, centre + half, score])
        if all(not _inside(centre, other) for other in kept):
            kept.append(box)
    return np.array(kept).reshape(-1, squares.shape[1])


def _inside(point: Float64, box: Float64) -> bool:
    return bool((point > box[:2]).all() and (point < box[2:4]).all())
