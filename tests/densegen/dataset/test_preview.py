from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from densegen.dataset.preview import _side_by_side, draw_sample, unwrap_texture
from densegen.drawing import contact_sheet, depth_colours, draw_points
from densegen.errors import ConfigurationError
from densegen.face.morphable_model import MorphableModel


def test_points_are_drawn_where_they_are() -> None:
    drawn = draw_points(np.zeros((20, 30, 3), np.uint8), np.array([[10.0, 5.0]], np.float32), (255, 0, 0), scale=2)
    rows, columns = np.nonzero(drawn[..., 0])
    assert drawn.shape == (40, 60, 3)
    # The centre of pixel (10, 5) lies at (20.5, 10.5) in a picture of twice the size.
    assert columns.mean() == pytest.approx(20.5, abs=0.5)
    assert rows.mean() == pytest.approx(10.5, abs=0.5)
    outside = draw_points(np.zeros((20, 30, 3), np.uint8), np.array([[-50.0, 5.0]], np.float32), (255, 0, 0))
    assert outside.max() == 0


def test_near_and_far_have_other_colours() -> None:
    near, far = depth_colours(np.array([[0, 0, 10], [0, 0, 0]], np.float32))
    assert near[0] > far[0]


def test_a_contact_sheet_goes_row_by_row() -> None:
    tiles = [np.full((2, 3, 3), n, np.uint8) for n in range(1, 6)]
    sheet = contact_sheet(tiles, 3)
    assert sheet[::2, ::3, 0].tolist() == [[1, 2, 3], [4, 5, 0]]


def test_a_texture_is_read_through_the_position_map() -> None:
    image = np.zeros((256, 256, 3), np.uint8)
    image[40, 70] = (9, 8, 7)
    position_map = np.full((256, 256, 3), -5, np.float32)
    position_map[3, 4] = (70.2, 39.9, 0)
    texture = unwrap_texture(image, position_map, np.ones((256, 256), bool))
    assert texture[3, 4].tolist() == [9, 8, 7]
    assert np.count_nonzero(texture) == 3


def test_a_sample_is_drawn_side_by_side(dataset: Path, model: MorphableModel, tmp_path: Path) -> None:
    draw_sample(dataset, "SYNTH/SYNTH_00000_1+mirror", tmp_path / "s.png", model)
    with Image.open(tmp_path / "s.png") as picture:
        assert picture.width > 4 * picture.height * 0.9
    _side_by_side([("a panel", np.zeros((8, 8, 3), np.uint8))], "100$^$, a formula that is none", tmp_path / "odd.png")
    assert (tmp_path / "odd.png").is_file()
    with pytest.raises(ConfigurationError, match="no sample"):
        draw_sample(dataset, "nobody", tmp_path / "n.png")
    other = dataclasses.replace(model, shape_mean=model.shape_mean * np.float32(2))
    with pytest.raises(ConfigurationError, match="shard-00000.h5 was made with densegen procedural face"):
        draw_sample(dataset, "SYNTH/SYNTH_00000_1+mirror", tmp_path / "n.png", other)
    assert not (tmp_path / "n.png").exists()


def test_points_that_are_nowhere_near_are_left_out() -> None:
    image = np.zeros((20, 20, 3), np.uint8)
    points = np.array([[5, 5, 0], [1e30, 5, 0], [-500, 5, 0], [np.nan, 5, 0]], np.float32)
    drawn = draw_points(image, points, (255, 255, 255), scale=1)
    assert (drawn == draw_points(image, points[:1], (255, 255, 255), scale=1)).all()
    assert drawn[5, 5].tolist() == [255, 255, 255]
