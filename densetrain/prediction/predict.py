"""Landmarks on a photograph: find its faces, crop, regress. No torch here."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import numpy.typing as npt

from densegen.arrays import Image
from densegen.errors import ConfigurationError, FormatError
from densetrain.choices import DetectorName
from densetrain.network.regressor import FlipTested, Regressor
from densetrain.prediction.boxes import check_boxes, check_boxes_on
from densetrain.prediction.detect import Detector, open_detector
from densetrain.prediction.face import Face
from densetrain.prediction.faces import REFINE, detect, find_faces, turn_back
from densetrain.prediction.inputs import read_image

__all__ = ["check_drop", "predict"]


def predict(
    network: Regressor, image: Image | str | Path, boxes: npt.ArrayLike | None = None, *,
    detector: DetectorName | Detector = "auto", refine: int | None = None, drop_above: float | None = None,
    name: str = "the image",
) -> list[Face]:  # fmt: skip
    """The faces of an image and their landmarks, in pixels of the image.

    image : (H, W, 3) uint8 RGB, or a file
    boxes : (n, 4) left, top, right, bottom of the box around each face's 68 keypoints, pixels, image frame; by default
        ``detector`` finds them
    detector : its name, or a function from an image to boxes; not asked if ``boxes`` are given. If it finds nothing, it
        looks again at the image upside down and on its sides
    refine : how often at most the crop is laid again, around the 68 that were found; by default ``REFINE`` times for
        detected boxes, and never for given ones
    drop_above : leaves out found faces whose expected NME is above this, percent: what is no face has a large one;
        needs a network with a flip test
    name : of an image that is no file, for errors

    Raises :class:`FormatError` if the image cannot be read, no face is found, or a box lies beside the image,
    :class:`ConfigurationError` if the detector is not installed or the network does not say what to expect, and
    ``ValueError`` if ``image`` is no such image or ``boxes`` are not boxes.
    """
    check_drop(network, drop_above)
    if isinstance(image, str | Path):
        name, image = Path(image).name, read_image(Path(image))
    if not isinstance(image, np.ndarray):
        raise ValueError(f"{name} is of {type(image).__name__}, expected an array (H, W, 3) of uint8, or a file")
    if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3:
        raise ValueError(f"{name} is {image.shape} {image.dtype}, expected (H, W, 3) uint8, RGB")
    if boxes is not None:
        given = np.asarray(boxes, np.float64)
        given = check_boxes(np.atleast_2d(given) if given.size else given.reshape(0, 4))
        check_boxes_on(image, given, name)
        return find_faces(network, image, given, refine=refine or 0, reference=network.about.reference)
    opened = open_detector(detector) if isinstance(detector, str) else detector
    turns, given = detect(opened, image, name)
    times, turned = REFINE if refine is None else refine, np.ascontiguousarray(np.rot90(image, turns))
    faces = find_faces(network, turned, given, refine=times, reference=network.about.reference)
    if drop_above is not None and not (faces := [f for f in faces if (f.expected_nme or 0) <= drop_above]):
        raise FormatError(f"{name}: of what was found nothing is expected to be within {drop_above:g} %")
    return turn_back(faces, turns, image, network.about.reference) if turns else faces


def check_drop(network: Regressor, drop_above: float | None) -> None:
    """Raise :class:`ConfigurationError` if faces are to be left out by what a network does not say."""
    if drop_above is None:
        return
    if not isinstance(network, FlipTested):
        raise ConfigurationError("to leave out faces by their expected NME needs a flip test: --flip-test")
    if network.about.flip_line is None:
        raise ConfigurationError(f"{network.name} does not say what NME to expect: train it with this densetrain")
