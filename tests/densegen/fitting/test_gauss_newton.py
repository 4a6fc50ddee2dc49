"""The solver's arithmetic against NumPy's."""

from __future__ import annotations

import numpy as np
import pytest

from densegen.fitting.gauss_newton import (
    POSE_UNKNOWNS,
    _normal_equations,
    _solve,
    gram_matrices,
    minimise,
    points_of_face,
)
from densegen.fitting.model_points import ModelPoints
from densegen.fitting.prior import Prior
from densegen.geometry.pose import rotation_matrix
from tests.densegen.fitting.conftest import camera, face


def arrays(points: ModelPoints, prior: Prior) -> tuple[np.ndarray, np.ndarray]:
    across = np.ascontiguousarray((points.components * prior.std[:, None, None]).reshape(len(prior.std), -1))
    return across, np.ascontiguousarray(across.T)


def test_grams_are_the_products_of_the_bases_rows(points68: ModelPoints, prior: Prior) -> None:
    _, basis = arrays(points68, prior)
    weight = np.linspace(0.5, 2, 68)
    grams = gram_matrices(basis, weight)
    rows = basis.reshape(68, 3, -1)
    for number, (c, d) in enumerate([(0, 0), (1, 1), (2, 2), (0, 1), (0, 2), (1, 2)]):
        expected = np.einsum("i,ik,im->km", weight, rows[:, c], rows[:, d])
        expected = expected if c == d else expected + expected.T
        np.testing.assert_allclose(
            np.tril(grams[number]), np.tril(expected), rtol=1e-10, atol=1e-9 * abs(expected).max()
        )


@pytest.mark.parametrize("axes", [(1.0, 1.0, 0.0), (1.0, 1.0, 1.0)])
@pytest.mark.parametrize("shared", ["all", "most", "none"])
def test_normal_equations_are_those_of_the_numerical_jacobian(
    points21: ModelPoints, prior: Prior, axes: tuple[float, float, float], shared: str
) -> None:
    across, basis = arrays(points21, prior)
    pose, coefficients = face(prior, 1)
    rotation, scale, shift = rotation_matrix(*pose[:3]), 0.05, np.array([1.0, 2.0, 3.0])
    x = (coefficients - prior.mean) / np.where(prior.std > 0, prior.std, 1)
    target = np.random.default_rng(0).normal(0, 30, (21, 3))
    weight = np.ones(21)
    # Of most points the matrices hold twice what they count; one is hidden, one counts less, and three are not in them.
    counted, factor = weight.copy(), 1.0
    if shared == "most":
        counted[-3:], factor, weight[4], weight[5], weight[-2] = 0, 0.5, 0, 0.3, 2
    grams = gram_matrices(basis, counted / factor) if shared != "none" else np.zeros((0, 0, 0))
    count = POSE_UNKNOWNS + len(x)
    normal, gradient = np.zeros((count, count)), np.zeros(count)
    earlier, precision = rotation_matrix(0.1, 0.2, 0.3), np.array([3.0, 5.0, 0.1, 0.2])
    mean = points21.mean
    _normal_equations(
        points_of_face(mean, across, x), basis, target, weight, np.array(axes), grams, factor, counted,
        rotation, scale, shift, x, earlier, 0.04, np.array([2.0, 1.0, 0.0]), precision, normal, gradient,
    )  # fmt: skip

    def residual(step: np.ndarray) -> np.ndarray:
        a, b, c = step[:3]
        turn = np.array([[0, -c, b], [c, 0, -a], [-b, a, 0]])
        turned = (np.eye(3) + turn + turn @ turn / 2) @ rotation
        s, t, y = scale * np.exp(step[3]), shift + step[4:7], x + step[7:]
        places = (mean.ravel() + y @ across).reshape(-1, 3)
        off = (s * places @ turned.T + t - target) * np.sqrt(axes) * np.sqrt(weight)[:, None]
        m = turned @ earlier.T
        between = np.array([m[2, 1] - m[1, 2], m[0, 2] - m[2, 0], m[1, 0] - m[0, 1]]) / 2
        prior_rows = [
            np.sqrt(precision[0]) * between,
            [np.sqrt(precision[1]) * 2 * (s - 0.04) / (s + 0.04)],
            np.sqrt(precision[[2, 2, 3]]) * (t - [2, 1, 0]),
            y,
        ]
        return np.concatenate([off.ravel(), *prior_rows])

    h = 1e-6
    jacobian = np.stack([(residual(h * e) - residual(-h * e)) / (2 * h) for e in np.eye(count)], axis=1)
    expected_gradient = jacobian.T @ residual(np.zeros(count))
    np.testing.assert_allclose(gradient, expected_gradient, rtol=1e-3, atol=1e-5 * abs(expected_gradient).max())
    expected = np.tril(jacobian.T @ jacobian)
    # The scale's prior is linear in log s to second order only.
    np.testing.assert_allclose(np.tril(normal), expected, rtol=0.06, atol=1e-5 * abs(expected).max())


@pytest.mark.parametrize("size", [1, 4, 7, 61])
def test_the_linear_solver_meets_numpys(size: int) -> None:
    generator = np.random.default_rng(size)
    root = generator.normal(size=(size + 3, size))
    normal, gradient = root.T @ root, generator.normal(size=size)
    factor, solved = np.empty((size, size)), np.empty(size)
    assert _solve(normal, gradient, 0.1, factor, solved)
    expected = np.linalg.solve(normal + 0.1 * np.diag(np.diag(normal)), -gradient)
    np.testing.assert_allclose(solved, expected, rtol=1e-8, atol=1e-12)


def test_a_matrix_that_is_not_positive_definite_is_refused() -> None:
    assert not _solve(np.diag([1.0, -1.0]), np.ones(2), 0.0, np.empty((2, 2)), np.empty(2))


def test_a_minimum_is_where_it_ends(points68: ModelPoints, prior: Prior) -> None:
    across, basis = arrays(points68, prior)
    pose, coefficients = face(prior, 2)
    seen = camera(points68, pose, coefficients)
    seen -= seen.mean(axis=0)
    weight, axes = np.ones(68), np.array([1.0, 1.0, 0.0])
    nothing = (np.eye(3), 1.0, np.zeros(3), np.zeros(4))
    rotation, scale, shift, x, energy, steps = minimise(
        points68.mean, basis, across, seen, weight, axes, gram_matrices(basis, weight), 1.0, weight, 0.0,
        rotation_matrix(*pose[:3]), pose[6] * 1.1, np.zeros(3), np.zeros(len(prior.std)), *nothing, 40,
    )  # fmt: skip
    assert steps < 30
    count = 7 + len(x)
    normal, gradient = np.zeros((count, count)), np.zeros(count)
    _normal_equations(
        points_of_face(points68.mean, across, x), basis, seen, weight, axes, np.zeros((0, 0, 0)), 1.0, np.zeros(0),
        rotation, scale, shift, x, *nothing, normal, gradient,
    )  # fmt: skip
    assert np.abs(gradient / np.sqrt(np.diag(normal))).max() < 1e-3 * np.sqrt(energy)
    np.testing.assert_allclose(rotation @ rotation.T, np.eye(3), atol=1e-12)
