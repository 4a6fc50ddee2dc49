"""The faces of an image: where they are, their landmarks, and back from a turned image. No torch here."""

from __future__ import annotations

from collections.abc import Sequence
from copy import deepcopy
from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt

from densegen.arrays import Float32, Float64, Image
from densegen.errors import FormatError
from densegen.geometry.crop import box_around
from densetrain.head_pose import head_pose
from densetrain.network.regressor import TURN_COUNTS, Answer, Regressor, answer_in_images
from densetrain.prediction.boxes import check_boxes, lie_beside
from densetrain.prediction.detect import Detector, better_detector, how_to_get_yunet
from densetrain.prediction.face import Face

__all__ = ["REFINE", "SMALLEST", "detect", "detected", "find_faces", "look_again", "turn_back"]

REFINE = 2
"""How often at most the crop of a detector's box is laid again."""

SURE = 0.5
"""Flip distance, percent, below which smaller ones say nothing more."""

WIDER = 1.55
"""How much larger the box is that is begun with if the network is unsure: three of AFLW2000-3D's 2,000 faces in YuNet's
boxes take what comes of it, all to their good; with 1.4 one, with 1.7 three."""

SMALLEST = 8
"""Pixels: a face whose box is narrower is none."""

RESTS = 0.01
"""A box rests if none of its sides moves by more than this share of its size."""


def find_faces(
    regressor: Regressor, image: Image, boxes: Float64, *, refine: int = 0,
    reference: Float64 | None = None,
) -> list[Face]:  # fmt: skip
    """The landmarks of the faces in (n, 4) boxes of an (H, W, 3) uint8 RGB image, or in (n, 5) with their scores.

    refine : see :func:`look_again`
    """
    if not len(boxes):
        return []
    boxes, scores = boxes[:, :4], list(map(float, boxes[:, 4])) if boxes.shape[1] > 4 else [None] * len(boxes)
    boxes, answer = look_again(regressor, [image] * len(boxes), boxes, refine)
    has68 = "ibug68" in regressor.index.subsets
    landmarks, nothing = answer.landmarks, [None] * len(boxes)
    keypoints = regressor.index.subset("ibug68", landmarks) if has68 else nothing
    poses = nothing if reference is None else list(head_pose(landmarks, reference))
    distances = nothing if answer.flip_distance is None else list(map(float, answer.flip_distance))
    sigmas = nothing if answer.sigma_px is None else list(answer.sigma_px)
    line = regressor.about.flip_line
    expected = [None if d is None or line is None else max(line[0] + line[1] * d, 0.0) for d in distances]
    parts = zip(boxes, landmarks, keypoints, poses, distances, sigmas, scores, expected, strict=True)
    return [Face(*one) for one in parts]


def look_again(regressor: Regressor, images: Sequence[Image], boxes: Float64, refine: int) -> tuple[Float64, Answer]:
    """What a network says of n faces, each in an image of its own or in the same, and the boxes it was last asked in.

    boxes : (n, 4) left, top, right, bottom, pixels; n > 0
    refine : how often at most a face's crop is laid again, around the 68 that were found, until its box rests: a
        detector's box is only near. The last answer counts; with a flip test all do, each by 1 / d^2, d the flip
        distance, but at least 0.5 %: of two crops, the one in which the network is surer; the answer's flip distance is
        the same mean of theirs. If that is beyond the network's validation NME, the detector may have seen a part of a
        face for the whole, and a box ``WIDER`` around the same centre is begun with, too; what comes of it counts
        instead if its answers agree as much better as :class:`~densetrain.network.regressor.FlipTested` asks of a turn
    """
    first, usual = np.array(boxes, np.float64), regressor.about.validation_nme
    boxes, answer = _laid_again(regressor, images, first, refine)
    if refine == 0 or answer.flip_distance is None or usual is None:
        return boxes, answer
    unsure = np.flatnonzero(answer.flip_distance > usual)
    if not len(unsure):
        return boxes, answer
    centre, half = (first[unsure, 2:] + first[unsure, :2]) / 2, (first[unsure, 2:] - first[unsure, :2]) / 2 * WIDER
    wider = np.concatenate([centre - half, centre + half], axis=1)
    wider, other = _laid_again(regressor, [images[place] for place in unsure.tolist()], wider, refine)
    assert other.flip_distance is not None
    surer = other.flip_distance < TURN_COUNTS * answer.flip_distance[unsure]
    boxes[unsure[surer]] = wider[surer]
    for kept, new in _numbers(answer, other):
        kept[unsure[surer]] = new[surer]
    return boxes, answer


def _laid_again(regressor: Regressor, images: Sequence[Image], boxes: Float64, refine: int) -> tuple[Float64, Answer]:
    """The same from these boxes alone."""
    boxes, moving = boxes.copy(), np.arange(len(boxes))
    latest = answer_in_images(regressor, images, boxes)
    answer, total = deepcopy(latest), _weight(latest)
    if "ibug68" not in regressor.index.subsets:
        return boxes, answer
    for _ in range(refine):
        again = box_around(regressor.index.subset("ibug68", latest.landmarks))
        size = (boxes[moving, 2:] - boxes[moving, :2]).mean(axis=1)
        # A face that got lost keeps the box that it had.
        plausible = np.all(again[:, 2:] - again[:, :2] >= SMALLEST, axis=1)
        moved = plausible & (np.abs(again - boxes[moving]).max(axis=1) >= RESTS * size)
        moving, again = moving[moved], again[moved]
        if not len(moving):
            break
        boxes[moving] = again
        latest = answer_in_images(regressor, [images[place] for place in moving], again)
        weight = _weight(latest)
        total[moving] += weight
        share = weight / total[moving]
        for kept, new in _numbers(answer, latest):
            if latest.flip_distance is None:
                kept[moving] = new
            else:
                kept[moving] += share.reshape(-1, *[1] * (new.ndim - 1)).astype(new.dtype) * (new - kept[moving])
    return boxes, answer


def _numbers(*answers: Answer) -> list[tuple[npt.NDArray[Any], ...]]:
    """The arrays of several answers that belong together, without those that the network does not give."""
    parts = zip(*((one.landmarks, one.sigma_px, one.flip_distance) for one in answers), strict=True)
    return [tuple(arrays) for arrays in parts if arrays[0] is not None]


def _weight(answer: Answer) -> Float64:
    """(n,) how much an answer counts among those to other crops of the same face."""
    if answer.flip_distance is None:
        return np.ones(len(answer.landmarks))
    distance = np.maximum(answer.flip_distance, SURE)
    weight: Float64 = 1.0 / (distance * distance)
    return weight


def detected(detector: Detector, image: Image, name: str) -> Float64:
    """(n, 4) boxes of a detector, or (n, 5) with scores, without those that lie beside the image: a head that the
    image's edge cuts has such a box. Raises :class:`FormatError` if what it gives are no boxes.
    """
    boxes = np.asarray(detector(image), np.float64)
    if not boxes.size:
        return np.zeros((0, 4))
    if boxes.ndim != 2 or boxes.shape[1] not in (4, 5):
        raise FormatError(f"{name}: the detector gives {boxes.shape} numbers, not (n, 4) boxes, or (n, 5) with scores")
    try:
        check_boxes(boxes[:, :4])
    except ValueError as error:
        raise FormatError(f"{name}: of the detector's boxes, {error}") from error
    seen: Float64 = boxes[~lie_beside(image, boxes[:, :4])]
    return seen


def detect(detector: Detector, image: Image, name: str) -> tuple[int, Float64]:
    """By how many quarter turns to the left an image is turned until the detector finds faces in it, 0 first, and
    their boxes in the turned image.

    Raises :class:`FormatError` if it finds none at all, or what it gives are no boxes.
    """
    for turns in (0, 2, 1, 3):
        boxes = detected(detector, np.ascontiguousarray(np.rot90(image, turns)), name)
        if len(boxes):
            return turns, boxes
    missing = "" if better_detector() == "yunet" else f". The detector yunet finds more: {how_to_get_yunet()}"
    raise FormatError(f"{name}: no face found; give its box with --box or --boxes{missing}")


def turn_back(faces: list[Face], turns: int, image: Image, reference: Float64 | None) -> list[Face]:
    """The faces that were found in ``np.rot90(image, turns)``, in pixels of the image itself."""
    height, width = image.shape[:2]
    # Of a turned image's place (x, y, 1): where it was.
    back = {
        0: [[1, 0, 0], [0, 1, 0]],
        1: [[0, -1, width - 1], [1, 0, 0]],
        2: [[-1, 0, width - 1], [0, -1, height - 1]],
        3: [[0, 1, 0], [-1, 0, height - 1]],
    }[turns]
    matrix = np.array(back, np.float32)

    def moved(points: Float32) -> Float32:
        places: Float32 = np.concatenate([points[:, :2] @ matrix[:, :2].T + matrix[:, 2], points[:, 2:]], axis=1)
        return places

    found = []
    for face in faces:
        landmarks = moved(face.landmarks)
        keypoints = None if face.keypoints68 is None else moved(face.keypoints68)
        pose = None if reference is None else head_pose(landmarks[None], reference)[0]
        box = box_around(moved(face.box.reshape(2, 2).astype(np.float32)))
        found.append(replace(face, box=box, landmarks=landmarks, keypoints68=keypoints, pose_deg=pose))
    return found
