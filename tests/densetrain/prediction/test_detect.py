from __future__ import annotations

import sys
import types

import numpy as np
import pytest
from skimage.data import astronaut

from densegen.errors import ConfigurationError
from densetrain.prediction.detect import open_detector

# The box of her 68 keypoints in scikit-image's portrait, read off the picture by eye: brows to chin, jaw to jaw.
ASTRONAUT = np.array([181.0, 91.0, 268.0, 184.0])


@pytest.mark.parametrize("name", ["cascade", "opencv"])
def test_a_face_is_found_where_it_is(name: str) -> None:
    (box,) = open_detector(name)(astronaut())  # type: ignore[arg-type]
    side = (ASTRONAUT[2:] - ASTRONAUT[:2]).mean()
    assert np.abs((box[:2] + box[2:]) / 2 - (ASTRONAUT[:2] + ASTRONAUT[2:]) / 2).max() < 0.15 * side
    assert (box[2:] - box[:2]).mean() == pytest.approx(side, rel=0.2)


def test_a_picture_without_a_face_has_no_boxes() -> None:
    assert open_detector("cascade")(np.full((240, 320, 3), 127, np.uint8)).shape == (0, 4)


def test_a_library_without_its_models_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    newer = types.ModuleType("cv2")
    newer.__version__ = "5.0.0"  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "cv2", newer)
    with pytest.raises(ConfigurationError, match=r"does not come with release 5.0.0 .*\[detect\]"):
        open_detector("opencv")
    monkeypatch.setitem(sys.modules, "mediapipe", None)
    with pytest.raises(ConfigurationError, match=r"mediapipe is not installed: pip install .*\[mediapipe\]'"):
        open_detector("mediapipe")
