from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest

from densegen.errors import ConfigurationError
from densegen.face.morphable_model import MorphableModel
from densegen.geometry.surface import SurfacePoints
from densegen.index.quality import (
    coefficient_spread,
    compare,
    face_surface,
    farthest_point_index,
    mean_length,
    measure,
    recovery_error,
)
from densegen.index.vertex_index import VertexIndex


def at_vertices(vertices: list[int]) -> SurfacePoints:
    corners = np.repeat(np.array(vertices, np.int32)[:, None], 3, axis=1)
    return SurfacePoints(corners, np.tile(np.array([1, 0, 0], np.float32), (len(vertices), 1)))


def test_recovery_with_one_component_is_as_computed_by_hand(model: MorphableModel) -> None:
    # One component moves vertex 0 by 3 mm in x a standard deviation and vertex 1 by 4 mm in y, and 0 is seen with 2 mm
    # of noise: posterior variance 1 / (1 + 9 / 4), so vertex 1 is wrong by N(0, 16 * 4 / 13) along a line.
    basis = np.zeros_like(model.shape_basis[:1])
    basis[0, 0] = (3000, 0, 0)
    basis[0, 1] = (0, 4000, 0)
    one = dataclasses.replace(
        model,
        shape_basis=basis,
        shape_std=np.ones(1, np.float32),
        shape_names=(),
        expression_basis=model.expression_basis[:0],
        expression_std=model.expression_std[:0],
        expression_names=(),
    )
    error = recovery_error(at_vertices([0]), at_vertices([1]), one, np.array([1.0]))
    mean_of_absolute = np.sqrt(2 / np.pi)
    assert error == pytest.approx(mean_of_absolute * 4 * np.sqrt(4 / 13), rel=1e-6)
    # Twice the spread in the coefficient, unseen: the prior alone.
    unseen = recovery_error(at_vertices([5]), at_vertices([1]), one, np.array([2.0]))
    assert unseen == pytest.approx(mean_of_absolute * 8, rel=1e-6)


def test_the_mean_length_of_gaussian_vectors_is_known_in_one_two_and_three_dimensions() -> None:
    along_a_line, in_a_plane, in_space = np.diag([9.0, 0, 0]), np.diag([0, 9.0, 9.0]), np.diag([9.0, 9.0, 9.0])
    found = mean_length(np.stack([along_a_line, in_a_plane, in_space, np.zeros((3, 3))]))
    expected = 3 * np.sqrt([2 / np.pi, np.pi / 2, 8 / np.pi, 0])  # half-normal, Rayleigh, Maxwell
    np.testing.assert_allclose(found, expected, rtol=1e-6)
    # Between these, against a plain simulation.
    root = np.array([[1.0, 0, 0], [0.4, 0.2, 0], [-0.3, 0.1, 0.5]])
    drawn = np.random.default_rng(0).normal(size=(200_000, 3)) @ root.T
    assert mean_length((root @ root.T)[None])[0] == pytest.approx(np.linalg.norm(drawn, axis=1).mean(), rel=0.01)


def test_more_landmarks_cover_more_and_recover_more(model: MorphableModel, index: VertexIndex) -> None:
    few, many = (measure(farthest_point_index(model, count), model) for count in (68, 200))
    ours = measure(index, model)
    assert many.coverage_mm[0] < few.coverage_mm[0]
    assert ours.coverage_mm[2] < many.coverage_mm[2] < few.coverage_mm[2]
    assert ours.recovery_mm[1] < few.recovery_mm[1]
    assert (few.landmarks, many.landmarks, ours.landmarks) == (68, 200, 520)


def test_coverage_equals_a_plain_search(model: MorphableModel) -> None:
    index = farthest_point_index(model, 80)
    surface, _ = face_surface(model)
    places = index.resolve(model).gather(model.mean) * model.unit_mm
    some = surface.gather(model.mean)[::97] * model.unit_mm
    plain = np.linalg.norm(some[:, None] - places[None], axis=-1).min(axis=1)
    quality = measure(index, model)
    measured = quality.distance_mm[np.isfinite(quality.distance_mm)][::97]
    np.testing.assert_allclose(measured, plain, atol=1e-3)
    assert quality.coverage_mm[0] == pytest.approx(np.nanmax(quality.distance_mm))


def test_regions_and_closure_are_counted(model: MorphableModel, index: VertexIndex) -> None:
    quality = measure(index, model)
    assert sum(quality.regions.values()) == 520
    assert quality.mirrored == 520
    assert set(quality.subsets) == {"ibug68", "aflw21"}
    assert {"lid", "lip-outer", "brow", "nose", "forehead", "temple", "cheek", "jaw", "chin"} <= set(quality.regions)


def test_a_difference_names_what_changed(model: MorphableModel, index: VertexIndex) -> None:
    content = index.model_dump(mode="json")
    content["landmarks"][100]["name"] = "renamed"
    content["landmarks"][101]["uv"][0] += 3
    content["landmarks"][102]["name"] = "new"
    content["landmarks"][102]["uv"][0] += 3
    changed = VertexIndex.model_validate(content)
    difference = compare(index, changed)
    assert difference.renamed == {index.landmarks[100].name: "renamed"}
    assert difference.added == ("new",)
    assert difference.removed == (index.landmarks[102].name,)
    assert difference.moved == {index.landmarks[101].name: pytest.approx(3)}
    assert (difference.same, difference.unit) == (517, "UV px")
    assert compare(index, changed, model).unit == "mm"
    assert compare(index, index, model).same == 520


def test_the_spread_of_fits_is_their_standard_deviation(corpus: Path, model: MorphableModel, tmp_path: Path) -> None:
    spread = coefficient_spread(corpus, model)
    assert spread.shape == (36,)
    assert 0.2 < np.median(spread[:24]) < 1.5
    with pytest.raises(ConfigurationError, match="holds 0 fits"):
        coefficient_spread(tmp_path, model)
