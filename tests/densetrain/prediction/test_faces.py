"""Crops that are laid again, and answers that are weighed."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from densegen.arrays import Float64, Image
from densegen.sources.photograph import read_photograph
from densetrain import load
from densetrain.network.regressor import Answer, Regressor, answer_in_images
from densetrain.prediction.faces import look_again


def test_many_faces_are_asked_for_in_parts(exported: Path, corpus: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    image = read_photograph(corpus / "SYNTH/SYNTH_00000_0.jpg")
    boxes = np.array([[120, 110, 330, 340]], float) + np.arange(5)[:, None] * [4, 2, -3, 5]
    network = load(exported / "model.onnx", flip_test=True)
    whole = answer_in_images(network, [image] * 5, boxes)
    monkeypatch.setattr("densetrain.network.regressor.TOGETHER", 2)
    parts = answer_in_images(network, [image] * 5, boxes)
    np.testing.assert_allclose(parts.landmarks, whole.landmarks, atol=1e-3)
    assert parts.flip_distance is not None
    assert whole.flip_distance is not None
    np.testing.assert_allclose(parts.flip_distance, whole.flip_distance, atol=1e-3)
    assert parts.sigma_px is whole.sigma_px is None


class Seeing:
    """A regressor whose 68 lie in a fixed box, moved from the crop's middle by half of what the light is off."""

    def __init__(self, index: Any, about: Any) -> None:
        self.index, self.about, self.asked = index, about, list[int]()

    def with_sigma(self, crops: Image) -> tuple[Any, None]:
        self.asked.append(len(crops))
        size = self.about.crop_size
        light = crops[..., 0].astype(np.float64).sum(axis=1)
        middle = (light * np.arange(size)).sum(axis=1) / light.sum(axis=1)
        answer = np.zeros((len(crops), len(self.index), 3), np.float32)
        centre = (size - 1) / 2  # a box fills two thirds of its crop
        answer[:, ::2, :2], answer[:, 1::2, :2] = centre * (1 - 2 / 3), centre * (1 + 2 / 3)
        answer[..., 0] += (middle - centre)[:, None] / 2
        return answer, None


def test_a_crop_is_laid_again_until_its_box_rests_and_each_face_by_itself(exported: Path) -> None:
    """The middle of a bright patch is found by halves: the box that starts far off is looked at more often."""
    network = load(exported)
    image = np.zeros((300, 300, 3), np.uint8)
    image[140:160, 140:160] = 255
    near, far = np.array([100.0, 100, 200, 200]), np.array([70.0, 100, 170, 200])
    seeing: Any = Seeing(network.index, network.about)
    boxes, answer = look_again(seeing, [image, image], np.stack([far, near]), 9)
    assert seeing.asked[0] == 2
    assert seeing.asked[1:] == [1] * (len(seeing.asked) - 1)
    assert 3 < len(seeing.asked) < 9
    for start, box, landmarks in zip((far, near), boxes, answer.landmarks, strict=True):
        alone: Any = Seeing(network.index, network.about)
        (only,), of_it = look_again(alone, [image], start[None], 9)
        np.testing.assert_array_equal(only, box)
        np.testing.assert_array_equal(of_it.landmarks[0], landmarks)
        # Without a flip test the last answer counts, to the bit.
        last = answer_in_images(alone, [image], only[None]).landmarks
        np.testing.assert_array_equal(of_it.landmarks, last)
    never: Any = Seeing(network.index, network.about)
    assert (look_again(never, [image], far[None], 0)[0] == far).all()
    assert never.asked == [1]


def test_with_a_flip_test_the_answers_to_all_crops_count_by_how_well_each_agrees(
    exported: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two crops of a face, flip distances of 4 and 2 %: the second answer counts four times as much as the first."""
    network = load(exported)
    answers: list[tuple[float, float | None]] = [(0.0, 4.0), (10.0, 2.0), (12.0, 0.1)]
    face = np.zeros((1, len(network.index), 3), np.float32)
    face[:, ::2, :2] = 100

    def answer(regressor: Regressor, images: list[Image], boxes: Float64) -> Answer:
        place, distance = answers[len(asked)]
        asked.append(boxes)
        apart = None if distance is None else np.array([distance])
        return Answer(face + np.float32(place), np.full((1, len(network.index)), place), apart)

    asked: list[Float64] = []
    monkeypatch.setattr("densetrain.prediction.faces.answer_in_images", answer)
    start = np.array([[50.0, 50, 90, 90]])
    boxes, found = look_again(network, [np.zeros((9, 9, 3), np.uint8)], start, 1)
    np.testing.assert_array_equal(boxes, [[0, 0, 100, 100]])
    np.testing.assert_allclose(found.landmarks, face + 8, rtol=1e-6)
    assert found.sigma_px is not None
    assert found.flip_distance is not None
    np.testing.assert_allclose(found.sigma_px, 8)
    np.testing.assert_allclose(found.flip_distance, [0.2 * 4 + 0.8 * 2])
    # A third crop is laid around the second's answer, not around the mean; below half a percent, surer is no surer.
    asked.clear()
    boxes, found = look_again(network, [np.zeros((9, 9, 3), np.uint8)], start, 2)
    np.testing.assert_array_equal(boxes, [[10, 10, 110, 110]])
    np.testing.assert_allclose(found.landmarks, face + (10 / 4 + 12 / 0.25) / (1 / 16 + 1 / 4 + 4), rtol=1e-5)
    # Without a flip test the last answer alone counts, to the bit, however far off the first was.
    asked.clear()
    answers[:] = [(1e9, None), (0.1, None)]
    found = look_again(network, [np.zeros((9, 9, 3), np.uint8)], start, 1)[1]
    np.testing.assert_array_equal(found.landmarks, face + np.float32(0.1))


@pytest.mark.parametrize(("wide_distance", "taken"), [(1.0, True), (2.0, False)])
def test_an_unsure_network_looks_around_a_detectors_box(
    exported: Path, monkeypatch: pytest.MonkeyPatch, wide_distance: float, taken: bool
) -> None:
    """An ear in a box of 40 px, flip distance 4 %, or with a box of 62 px the face: it counts if it is three times as
    sure; a face that the network is sure of is not looked at again, nor is one in a box that was given.
    """
    network = load(exported)
    network.about = network.about.model_copy(update={"validation_nme": 3.0})
    shape = np.zeros((len(network.index), 3), np.float32)
    shape[::2, :2] = 1
    asked: list[list[float]] = []

    def answer(regressor: Regressor, images: list[Image], boxes: Float64) -> Answer:
        side = boxes[:, 2] - boxes[:, 0]
        asked.append(side.tolist())
        is_ear = side < 50
        size, distance = np.where(is_ear, side, 100), np.where(is_ear, np.where(boxes[:, 0] < 500, 4, 1), wide_distance)
        corner = np.pad(boxes[:, None, :2], ((0, 0), (0, 0), (0, 1)))
        return Answer((corner + shape * size[:, None, None]).astype(np.float32), None, distance)

    monkeypatch.setattr("densetrain.prediction.faces.answer_in_images", answer)
    boxes = np.array([[100.0, 100, 140, 140], [600, 600, 640, 640]])
    image = np.zeros((9, 9, 3), np.uint8)
    _, found = look_again(network, [image, image], boxes, 1)
    assert asked == [[40, 40], [62], [100]]
    assert [float(np.ptp(points[:, 0])) for points in found.landmarks] == [100 if taken else 40, 40]
    assert found.flip_distance is not None
    np.testing.assert_allclose(found.flip_distance, [wide_distance if taken else 4, 1])
    asked.clear()
    look_again(network, [image, image], boxes, 0)
    assert asked == [[40, 40]]
