"""Faces from landmarks."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from densegen.errors import ConfigurationError, SampleError
from densegen.face.morphable_model import MorphableModel
from densegen.fitting.model_points import ModelPoints, landmark_points
from densegen.fitting.outline import jaw_lines
from densegen.fitting.prior import EarlierFit, Prior
from densegen.fitting.solver import _TURNS, FaceSolver, Solution
from densegen.geometry.crop import box_size
from densegen.geometry.pose import pose_from, rotation_matrix
from densegen.index.quality import face_surface, recovery_error
from densegen.index.vertex_index import VertexIndex
from tests.densegen.fitting.conftest import camera, face


def turned_by(solution: Solution, pose: np.ndarray) -> float:
    """Degrees between a solution's rotation and a pose's."""
    between = rotation_matrix(*map(float, solution.pose[:3])) @ rotation_matrix(*pose[:3]).T
    return float(np.rad2deg(np.arccos(np.clip((np.trace(between) - 1) / 2, -1, 1))))


@pytest.mark.parametrize("dimensions", [2, 3])
@pytest.mark.parametrize("yaw_deg", [0.0, 50.0, -85.0])
def test_exact_landmarks_give_the_face_back(
    points520: ModelPoints, prior: Prior, model: MorphableModel, dimensions: int, yaw_deg: float
) -> None:
    pose, coefficients = face(prior, 5, yaw_deg)
    seen = camera(points520, pose, coefficients)
    found = FaceSolver(points520, prior).solve(seen[:, :dimensions], 1e-3)
    moved = points520.at(found.coefficients) - points520.at(coefficients)
    assert np.linalg.norm(moved, axis=1).mean() * model.unit_mm < 0.01
    assert turned_by(found, pose) < 0.01
    assert np.abs(found.residuals).max() < 0.01
    np.testing.assert_allclose(found.pose[6], pose[6], rtol=1e-4)


@pytest.mark.parametrize("roll_deg", [0.0, 90.0, 180.0, -120.0])
def test_a_face_is_found_however_it_is_rolled(points68: ModelPoints, prior: Prior, roll_deg: float) -> None:
    pose, coefficients = face(prior, 6, 60.0, roll_deg)
    found = FaceSolver(points68, prior).solve(camera(points68, pose, coefficients)[:, :2], 0.5)
    assert turned_by(found, pose) < 5


def test_noise_is_met_as_the_closed_form_says(model: MorphableModel, index: VertexIndex, prior: Prior) -> None:
    points = landmark_points(model, index)
    surface, _ = face_surface(model)
    surface = surface[np.arange(0, len(surface), 40)]
    # As if the pose were known: the closed form has none.
    known = EarlierFit(np.zeros(7, np.float32), prior.mean, rotation_rad=1e-6, scale=1e-6, shift=1e-9, share=1.0)
    generator, errors = np.random.default_rng(0), []
    solver = FaceSolver(points, prior)
    for seed in range(12):
        pose, _ = face(prior, seed)
        pose[3:6] = 0
        coefficients = prior.mean + generator.normal(size=len(prior.std)) * prior.std
        noise_px = 2.0 / model.unit_mm * pose[6]
        seen = camera(points, pose, coefficients) + generator.normal(0, noise_px, (len(points), 3))
        near = EarlierFit(
            pose.astype(np.float32), prior.mean, known.rotation_rad, known.scale, known.shift, known.share
        )
        found = solver.solve(seen, noise_px, earlier=near)
        vertices = [
            model.vertices(*np.split(c.astype(np.float32), [len(model.shape_basis)]))
            for c in (found.coefficients, coefficients)
        ]
        moved = surface.gather(vertices[0]) - surface.gather(vertices[1])
        errors.append(np.linalg.norm(moved, axis=1).mean() * model.unit_mm)
    expected = recovery_error(index.resolve(model), surface, model, prior.std)
    assert np.mean(errors) == pytest.approx(expected, rel=0.15)


def test_wrong_points_are_found_and_left_out(points68: ModelPoints, prior: Prior) -> None:
    pose, coefficients = face(prior, 8)
    seen = camera(points68, pose, coefficients)[:, :2]
    size = box_size(seen)
    seen = seen + np.random.default_rng(1).normal(0, 0.005 * size, seen.shape)
    wrong = np.zeros(68, bool)
    wrong[[3, 20, 30, 57]] = True
    moved = seen + np.where(wrong[:, None], 0.4 * size, 0.0)
    found = FaceSolver(points68, prior, robust=True).solve(moved, 0.01 * size)
    assert found.wrong.tolist() == wrong.tolist()
    assert np.linalg.norm(found.residuals[~wrong], axis=1).mean() < 0.02 * size
    trusting = FaceSolver(points68, prior).solve(moved, 0.01 * size)
    assert (
        np.linalg.norm(trusting.residuals[~wrong], axis=1).mean()
        > np.linalg.norm(found.residuals[~wrong], axis=1).mean()
    )


def test_each_point_counts_by_its_own_sigma(points68: ModelPoints, prior: Prior) -> None:
    pose, coefficients = face(prior, 9)
    seen = camera(points68, pose, coefficients)[:, :2]
    moved = seen.copy()
    moved[8] += 20
    sigma = np.ones(68)
    sigma[8] = 1e4
    found = FaceSolver(points68, prior).solve(moved, sigma)
    without = FaceSolver(points68, prior).solve(moved, 1.0, visible=np.arange(68) != 8)
    np.testing.assert_allclose(found.pose, without.pose, atol=1e-3)
    assert np.linalg.norm(found.residuals[8]) > 20


@pytest.mark.parametrize("near", [False, True])
def test_matrices_that_faces_share_change_the_way_and_not_the_face(
    points21: ModelPoints, points68: ModelPoints, prior: Prior, near: bool
) -> None:
    """Two sources, each with its sigma, hidden points and wrong ones."""
    both = points21 + points68
    pose, coefficients = face(prior, 10)
    seen = camera(both, pose, coefficients)[:, :2]
    size = box_size(seen)
    seen += np.random.default_rng(4).normal(0, 0.01 * size, seen.shape)
    seen[30] += 0.5 * size
    seen[[2, 5, 40, 41]] = np.nan
    sigma = np.repeat([0.01, 0.03], [21, 68]) * size
    sources = np.repeat([0, 1], [21, 68])
    earlier = EarlierFit(pose.astype(np.float32), prior.mean) if near else None
    shared, own = (FaceSolver(both, prior, robust=True, sources=sources) for _ in range(2))
    own.__dict__["largest"] = np.zeros(len(both), bool)
    found, expected = (solver.solve(seen, sigma, earlier=earlier) for solver in (shared, own))
    assert expected.wrong.tolist() == found.wrong.tolist()
    assert found.wrong[30]
    np.testing.assert_allclose(found.pose, expected.pose, rtol=1e-4, atol=1e-4)
    np.testing.assert_allclose(found.coefficients, expected.coefficients, atol=1e-3 * prior.std.max())
    assert ("grams" in shared.__dict__, "grams" in own.__dict__) == (True, False)


def test_the_mean_face_in_its_best_pose_tells_swapped_sides(points68: ModelPoints, prior: Prior) -> None:
    for yaw_deg in (-60.0, 0.0, 40.0):
        pose, coefficients = face(prior, 17, yaw_deg)
        seen = camera(points68, pose, coefficients)[:, :2]
        rigid = FaceSolver(points68, prior).rigid(seen, 2.0)
        assert turned_by(rigid, pose) < 15
        own, swapped = (distance_of_rigid(points, prior, seen) for points in (points68, points68.mirrored))
        assert swapped > 2 * own


def test_the_mean_face_itself_is_found(points68: ModelPoints, prior: Prior) -> None:
    """What a start pose leaves of it is rounding, which may lie below 0."""
    solver = FaceSolver(points68, prior)
    for turn in _TURNS:
        seen = (1e-3 * solver.mean @ turn.T + [200, 210, 0])[:, :2]
        found = solver.solve(seen, 1.0)
        np.testing.assert_allclose(found.residuals, 0, atol=1e-3)
        np.testing.assert_allclose(solver.rigid(seen, 1.0).residuals, 0, atol=1e-3)


def distance_of_rigid(points: ModelPoints, prior: Prior, seen: np.ndarray) -> float:
    """Pixels; infinite if the pose would be that of a face from behind."""
    try:
        return float(np.linalg.norm(FaceSolver(points, prior).rigid(seen, 2.0).residuals, axis=1).mean())
    except SampleError:
        return float("inf")


def test_hidden_points_tell_two_poses_of_one_picture_apart(points21: ModelPoints, prior: Prior) -> None:
    for yaw_deg in (-80.0, 80.0):
        pose, coefficients = face(prior, 11, yaw_deg, 0.0)
        seen = camera(points21, pose, coefficients)[:, :2]
        facing = points21.normals @ rotation_matrix(*pose[:3])[2] > -0.1
        noisy = seen + np.random.default_rng(3).normal(0, 0.5, seen.shape)
        found = FaceSolver(points21, prior, robust=True).solve(noisy, 4.0, visible=facing)
        assert turned_by(found, pose) < 25


def test_an_earlier_fit_is_kept_near_and_moved_by_points(points21: ModelPoints, prior: Prior) -> None:
    pose, coefficients = face(prior, 12)
    seen = camera(points21, pose, coefficients)[:, :2]
    off = pose_from(rotation_matrix(0.05, 0.05, 0.05) @ rotation_matrix(*pose[:3]), pose[3:6], pose[6] * 1.03)
    other = face(prior, 13)[1]
    solver = FaceSolver(points21, prior)
    before = np.linalg.norm(camera(points21, off.astype(float), other)[:, :2] - seen, axis=1).mean()
    after = np.linalg.norm(solver.solve(seen, 2.0, earlier=EarlierFit(off, other)).residuals, axis=1).mean()
    assert after < before / 3
    still = EarlierFit(off, other, rotation_rad=1e-6, scale=1e-6, shift=1e-6, share=1e-6)
    kept = solver.solve(seen, 2.0, earlier=still)
    np.testing.assert_allclose(kept.pose, off, rtol=1e-3, atol=1e-3)
    np.testing.assert_allclose(kept.coefficients, other, rtol=1e-3, atol=1e-3 * abs(other).max())


def test_points_on_the_outline_slide_along_the_jaw(points68: ModelPoints, prior: Prior, model: MorphableModel) -> None:
    lines = jaw_lines(model)
    pose, coefficients = face(prior, 14, 45.0, 0.0)
    seen = camera(points68, pose, coefficients)
    outline = pose[6] * lines.on_outline(coefficients, rotation_matrix(*pose[:3])).at(coefficients)
    seen[lines.rows] = outline @ rotation_matrix(*pose[:3]).T + pose[3:6]
    moved = np.linalg.norm(seen[lines.rows] - camera(points68, pose, coefficients)[lines.rows], axis=1)
    assert moved.max() > 3  # px: the annotation differs from the jaw
    size = box_size(seen)
    errors = {}
    for name, jaw in (("outline", lines), ("true", None)):
        found = FaceSolver(points68, prior, jaw=jaw).solve(seen[:, :2], 0.005 * size)
        errors[name] = turned_by(found, pose)
    assert errors["outline"] < errors["true"]
    assert errors["outline"] < 2


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (lambda p: np.where(np.arange(68)[:, None] < 4, p, np.nan), "points-too-few"),
        (lambda p: p * [1, 0], "points-on-a-line"),
        (lambda p: p * 0 + 7, "points-on-a-line"),
        (lambda p: np.random.default_rng(0).permutation(p), "points-contradict"),
    ],
)
def test_what_makes_no_face_is_an_error_and_never_a_wrong_face(
    points68: ModelPoints, prior: Prior, change: object, reason: str
) -> None:
    pose, coefficients = face(prior, 15)
    seen = camera(points68, pose, coefficients)[:, :2]
    with pytest.raises(SampleError) as caught:
        FaceSolver(points68, prior, robust=True).solve(change(seen), 2.0)  # type: ignore[operator]
    assert caught.value.reason == reason


def test_points_in_a_plane_of_the_face_have_two_poses_in_2d_and_one_in_3d(points68: ModelPoints, prior: Prior) -> None:
    flat = replace(points68, mean=points68.mean * [1, 1, 0], components=points68.components * 0)
    pose, coefficients = face(prior, 15)
    seen = camera(flat, pose, coefficients)
    with pytest.raises(SampleError) as caught:
        FaceSolver(flat, prior).solve(seen[:, :2], 2.0)
    assert caught.value.reason == "points-in-a-plane"
    assert turned_by(FaceSolver(flat, prior).solve(seen, 2.0), pose) < 0.1


def test_what_cannot_be_asked_says_why(points68: ModelPoints, prior: Prior) -> None:
    solver = FaceSolver(points68, prior)
    with pytest.raises(ConfigurationError, match=r"\(21, 2\) observed points, expected \(68, 2 or 3\)"):
        solver.solve(np.zeros((21, 2)), 1.0)
    with pytest.raises(ConfigurationError, match="standard deviation is above 0"):
        solver.solve(points68.mean, 0.0)
    with pytest.raises(ConfigurationError, match="the prior has 3 coefficients"):
        FaceSolver(points68, Prior(np.zeros(3), np.ones(3)))


def test_many_faces_are_solved_and_bad_ones_say_why(points68: ModelPoints, prior: Prior) -> None:
    pose, coefficients = face(prior, 16)
    seen = camera(points68, pose, coefficients)[:, :2]
    good, bad = FaceSolver(points68, prior).solve_all([seen, np.zeros((68, 2))], 1.0)
    assert isinstance(good, Solution)
    assert isinstance(bad, SampleError)
