"""Faces drawn into their image."""

from __future__ import annotations

import numpy as np
import pytest

from densetrain.prediction.drawing import draw_faces


def test_a_large_picture_is_drawn_at_its_own_size(monkeypatch: pytest.MonkeyPatch) -> None:
    image = np.zeros((30, 40, 3), np.uint8)
    assert draw_faces(image, [], None).shape == (60, 80, 3)
    monkeypatch.setattr("densetrain.prediction.drawing.MAX_DRAWN", image.size * 4 - 1)
    assert draw_faces(image, [], None).shape == (30, 40, 3)
