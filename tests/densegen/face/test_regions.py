"""Names for places on the face."""

from __future__ import annotations

import numpy as np
import pytest

from densegen.face.morphable_model import MorphableModel
from densegen.face.regions import region_of
from densegen.geometry.uv import uv_pixels


@pytest.mark.parametrize(
    ("pixel", "region"),
    [
        ((127.5, 15), "forehead"),
        ((20, 40), "temple"),
        ((91, 64), "eye"),
        ((160, 72), "lid"),
        ((88, 53), "lid"),
        ((118, 55), "nose"),
        ((85, 41), "brow"),
        ((127.5, 97), "nose"),
        ((127.5, 131), "lip-outer"),
        ((127.5, 141), "lip-inner"),
        ((127.5, 172), "chin"),
        ((24, 140), "jaw"),
        ((70, 110), "cheek"),
        ((185, 110), "cheek"),
    ],
)
def test_a_place_has_the_region_a_person_would_name(
    model: MorphableModel, pixel: tuple[float, float], region: str
) -> None:
    assert region_of(np.array(pixel), uv_pixels(model.uv[model.keypoints68])) == region
