"""The components of the procedural face."""

from __future__ import annotations

import numpy as np
import pytest

from densegen.face.morphable_model import MorphableModel
from densegen.synthetic.components import EXPRESSIONS, IDENTITY, lower_lip_share


@pytest.mark.parametrize(
    ("name", "keypoint", "axis", "sign"),
    [
        ("mouth-open", 57, 1, -1),
        ("smile", 54, 1, 1),
        ("frown", 48, 1, -1),
        ("pucker", 51, 2, 1),
        ("brow-raise", 19, 1, 1),
        ("blink", 37, 1, -1),
        ("nose-wrinkle", 31, 1, 1),
    ],
)
def test_an_expression_moves_what_its_name_says(
    model: MorphableModel, name: str, keypoint: int, axis: int, sign: int
) -> None:
    move = model.expression_basis[model.expression_names.index(name)][model.keypoints68[keypoint]] * model.unit_mm
    assert sign * move[axis] > 1.0


def test_an_open_mouth_opens_and_leaves_the_upper_face_alone(model: MorphableModel) -> None:
    move = model.expression_basis[model.expression_names.index("mouth-open")][model.keypoints68] * model.unit_mm
    assert np.linalg.norm(move[66] - move[62]) > 10
    assert np.abs(move[17:48]).max() < 2
    assert lower_lip_share(np.array([[127.5, 130.0], [127.5, 150.0]])).tolist() == [0, 1]


def test_components_have_names_of_their_own() -> None:
    names = [component.name for component in (*IDENTITY, *EXPRESSIONS)]
    assert len(names) == len(set(names))
    assert {"jaw-width", "nose-length", "mouth-open", "smile", "blink", "brow-raise"} <= set(names)
