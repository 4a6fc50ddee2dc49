from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from densegen.errors import ConfigurationError, FormatError
from densegen.face.components import combine
from densegen.face.morphable_model import MorphableModel, count_words


def random_coefficients(model: MorphableModel, faces: int) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(0)
    shape = rng.normal(size=(faces, len(model.shape_basis))).astype(np.float32)
    return shape, rng.normal(size=(faces, len(model.expression_basis))).astype(np.float32)


def test_vertices_are_the_plain_formula(model: MorphableModel) -> None:
    shape, expression = random_coefficients(model, 5)
    vertices = combine(np.concatenate([shape, expression], axis=1), model.basis)
    plain = model.shape_mean.astype(np.float64) + model.expression_mean
    plain = plain + np.einsum("k,kvc->vc", shape[3].astype(np.float64), model.shape_basis)
    plain += np.einsum("k,kvc->vc", expression[3].astype(np.float64), model.expression_basis)
    np.testing.assert_allclose(vertices[3], plain, atol=0.1)  # micrometres, in a face of 150,000


def test_a_vertex_has_the_same_bits_alone_in_a_batch_and_in_the_mesh(model: MorphableModel) -> None:
    shape, expression = random_coefficients(model, 3)
    batch = combine(np.concatenate([shape, expression], axis=1), model.basis)
    some = np.array([7, 4000, 11000, 3], np.int32)
    for face in range(3):
        coefficients = model.coefficients(shape[face], expression[face])
        assert (model.vertices(shape[face], expression[face]) == batch[face]).all()
        assert (combine(coefficients[None], model.basis_at(some))[0] == batch[face, some]).all()


def test_components_are_added_from_left_to_right() -> None:
    """2^24 + 1 + 1 is 2^24 in float32, one at a time, and 2^24 + 2 in any other order."""
    basis = np.array([[1.0], [1.0], [0.0], [0.0], [-(2.0**24)], [2.0**24]], np.float32)
    assert combine(np.ones((1, 5), np.float32), np.repeat(basis, 3, axis=1)).tolist() == [[[0.0, 0.0, 0.0]]]


def test_the_fingerprint_sees_one_changed_number(model: MorphableModel) -> None:
    mean = model.shape_mean.copy()
    mean[100, 1] += 1
    other = dataclasses.replace(model, shape_mean=mean)
    assert other.fingerprint != model.fingerprint
    assert other.topology == model.topology


def test_viewers_get_triangles_that_face_outside_however_they_are_wound(model: MorphableModel) -> None:
    for triangles in (model.triangles, np.ascontiguousarray(model.triangles[:, ::-1])):
        outward = dataclasses.replace(model, triangles=triangles).outward_triangles
        a, b, c = (model.mean[outward[:, corner]] for corner in range(3))
        assert (np.cross(b - a, c - a)[:, 2] > 0).mean() > 0.9
        assert (np.sort(outward, axis=1) == np.sort(model.triangles, axis=1)).all()


def test_wrong_component_counts_name_both(model: MorphableModel) -> None:
    with pytest.raises(ConfigurationError, match="199 shape and 29 expression coefficients, but .* has 24 and 12"):
        model.vertices(np.zeros(199, np.float32), np.zeros(29, np.float32))


def test_contradicting_arrays_are_refused(model: MorphableModel) -> None:
    with pytest.raises(FormatError, match="uv has shape"):
        dataclasses.replace(model, uv=model.uv[:, :1])
    with pytest.raises(FormatError, match="triangles refers to vertex"):
        dataclasses.replace(model, triangles=model.triangles + 9000)
    broken = model.shape_mean.copy()
    broken[0] = np.nan
    with pytest.raises(FormatError, match="not finite"):
        dataclasses.replace(model, shape_mean=broken)


def test_counts_that_users_meet_are_named() -> None:
    assert count_words(53490) == "53490 (the raw Basel Face Model 2009)"
    assert "PRNet" in count_words(43867)
    assert count_words(12) == "12"
