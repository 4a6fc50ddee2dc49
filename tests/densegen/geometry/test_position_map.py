from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from densegen.dataset.pipeline import Recipe, mesh_in_image
from densegen.errors import SampleError
from densegen.face.morphable_model import MorphableModel
from densegen.geometry.crop import Crop
from densegen.geometry.flip import flip_position_map
from densegen.geometry.position_map import decode_fixed_point, encode_fixed_point, make_uv_table, render_fixed_point
from densegen.geometry.uv import uv_pixels
from densegen.sources.fits import Fit


def reference_raster(
    mesh: np.ndarray, model: MorphableModel, rows: range, columns: range
) -> dict[tuple[int, int], np.ndarray]:
    """Plain and slow: for each pixel the first triangle with u >= 0, v >= 0, u + v < 1, in float64."""
    corners = uv_pixels(model.uv)[model.triangles]
    p0, p1, p2 = corners[:, 0], corners[:, 1], corners[:, 2]
    found = {}
    for row in rows:
        for column in columns:
            matrix = np.stack([p2 - p0, p1 - p0], axis=-1)
            u, v = np.linalg.solve(matrix, (np.array([column, row]) - p0)[..., None])[..., 0].T
            inside = np.flatnonzero((u >= 1e-9) & (v >= 1e-9) & (u + v < 1 - 1e-9))
            if len(inside) == 1:
                t = inside[0]
                weights = np.array([1 - u[t] - v[t], v[t], u[t]])
                found[row, column] = weights @ mesh[model.triangles[t]]
    return found


def test_the_interior_equals_a_plain_reference_raster(model: MorphableModel, fit: Fit, recipe: Recipe) -> None:
    mesh = mesh_in_image(model, fit, 450)
    rendered = recipe.uv_table.position_map(mesh)
    reference = reference_raster(mesh, model, range(20, 200, 20), range(40, 216, 7))
    assert len(reference) > 150
    for (row, column), expected in reference.items():
        np.testing.assert_allclose(rendered[row, column], expected, atol=1e-4)


def test_a_hand_made_square_is_filled_to_its_edges() -> None:
    # Two triangles over the pixels 10..20 of a 256 map; z rises with the column.
    corners = np.array([[10, 10], [20, 10], [20, 20], [10, 20]], np.float64)
    uv = np.stack([corners[:, 0] / 255, 1 - corners[:, 1] / 255], axis=1)
    for triangles in ([[0, 1, 2], [0, 2, 3]], [[2, 1, 0], [3, 2, 0]], [[1, 2, 0], [2, 3, 0]]):
        table = make_uv_table(uv, np.array(triangles, np.int32))
        mesh = np.column_stack([corners, corners[:, 0] * 2]).astype(np.float32)
        rendered = table.position_map(mesh)
        assert table.valid[10:21, 10:21].all()
        assert table.valid.sum() == 121
        rows, columns = np.mgrid[10:21, 10:21]
        np.testing.assert_allclose(rendered[10:21, 10:21], np.stack([columns, rows, columns * 2], -1), atol=1e-5)
        assert (rendered[~table.valid] == 0).all()


def test_no_pixel_is_extrapolated_and_none_is_missing_inside(model: MorphableModel, recipe: Recipe) -> None:
    weights = recipe.uv_table.points.weights
    assert weights.min() >= -1e-6
    np.testing.assert_allclose(weights.sum(axis=1), 1, atol=1e-6)
    for row in recipe.uv_table.valid[4:200]:
        covered = np.flatnonzero(row)
        assert len(covered) == covered[-1] - covered[0] + 1


@pytest.mark.parametrize("mirror", [False, True])
@pytest.mark.parametrize("size", [256, 100])
def test_one_pass_gives_the_bits_of_its_steps(
    model: MorphableModel, fit: Fit, recipe: Recipe, mirror: bool, size: int
) -> None:
    mesh, crop = mesh_in_image(model, fit, 450), Crop(size / 450, 1.5, -2.25, 0.75, size)
    position_map, valid = recipe.uv_table.position_map(crop.apply(mesh)), recipe.uv_table.valid
    if mirror:
        position_map, valid = flip_position_map(position_map, valid, size)
    expected = encode_fixed_point(position_map, valid, size)
    assert np.array_equal(render_fixed_point(recipe.uv_table, mesh, crop, mirror=mirror), expected)
    for far in (1e4, -1e4, np.nan):
        with pytest.raises(SampleError, match="leaves the fixed-point range"):
            render_fixed_point(recipe.uv_table, mesh + np.float32(far), crop, mirror=mirror)


def test_fixed_point_is_within_half_a_step() -> None:
    valid = np.ones((256, 256), bool)
    valid[:3] = False
    rng = np.random.default_rng(0)
    position_map = rng.uniform(-127.9, 383.9, (256, 256, 3)).astype(np.float32)
    decoded = decode_fixed_point(encode_fixed_point(position_map, valid), valid)
    assert np.abs(decoded - position_map)[valid].max() <= 1 / 256 + 1e-4
    assert (decoded[~valid] == 0).all()


@pytest.mark.parametrize("value", [-129.0, 385.0])
def test_a_position_beyond_the_range_is_refused(value: float) -> None:
    position_map = np.zeros((256, 256, 3), np.float32)
    position_map[5, 5, 1] = value
    with pytest.raises(SampleError, match="fixed-point range"):
        encode_fixed_point(position_map, np.ones((256, 256), bool))


@given(st.floats(-128, 383.9), st.floats(-128, 383.9))
def test_fixed_point_is_right_to_half_a_step(x: float, y: float) -> None:
    positions = np.array([[[x, y, 0]]], np.float32)
    valid = np.ones((1, 1), bool)
    assert np.abs(decode_fixed_point(encode_fixed_point(positions, valid), valid) - positions).max() <= 1 / 256
