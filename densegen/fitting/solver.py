"""A face from its landmarks: pose, identity and expression together.

The image of a model's point is ``p = s R (m + B a) + t`` (weak perspective, camera frame); the coefficients ``a`` of
identity and expression have a Gaussian prior, the observed points Gaussian noise. The most probable face is found by
Gauss-Newton steps over all unknowns at once; formulas and their sources stand in ``gauss_newton``. Only the rows of the
basis that belong to the observed points are used.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass, replace
from functools import cached_property
from typing import NamedTuple

import numpy as np

from densegen.arrays import Float32, Float64, Int64, Mask
from densegen.errors import ConfigurationError, SampleError
from densegen.fitting.alignment import middle_of, similarities, spread_of
from densegen.fitting.gauss_newton import gram_matrices, minimise, points_of_face
from densegen.fitting.model_points import ModelPoints
from densegen.fitting.outline import JawLines
from densegen.fitting.prior import EarlierFit, Prior
from densegen.geometry.crop import box_size
from densegen.geometry.pose import pose_from, rotation_matrix

__all__ = ["FEWEST_POINTS", "FaceSolver", "Solution", "face_size"]

FEWEST_POINTS = 5
"""A weak perspective camera has 6 unknowns, a point in the image gives 2; two more points say whether they agree."""

FAR = 5.0
"""Of a point's distance from the middle of a face, in the points' median one; on AFLW2000-3D it is at most 4.5."""

MAX_STEPS, POSE_STEPS = 40, 12

FARTHEST_AWAY = -0.5
"""Cosine of the largest angle between the viewer and where a face looks: 120 degrees."""

NARROWEST = 0.02
"""Points whose extent across is a smaller share of that along lie on a line."""

FLATTEST = 0.015
"""Points of the face whose depth is a smaller share of their extent lie in a plane: its picture has two poses."""

HUBER_SIGMAS = 2.0
"""Beyond so many sigma a point counts less."""

WRONG_SIGMAS = 5.0
"""A point this far from where the others put it is wrong, and is left out."""

MOST_WRONG = 0.3
"""If a larger share of a source's points would be wrong, nobody knows which are."""

_TURNS = np.stack(
    [rotation_matrix(pitch, yaw, 0.0) for pitch in (0.0, -0.5, 0.5) for yaw in (0.0, -0.7, 0.7, -1.3, 1.3)]
)
"""Pitch and yaw, in radians, from which a pose is looked for; the roll follows."""

ENOUGH_FOR_POSE = 80
"""About so many points are looked at for it."""

TRIED = 4
"""At most so many of them, those that look most like the points, are followed up."""

MOST_UNLIKE = 4.0
"""What does not meet the points by so many times as much, squared, is not."""

SAME_TURN = 0.98
"""Two poses are one if the cosine of half the angle between them is above this: 23 degrees."""

PITCH_RAD = 0.45
"""Standard deviation of pitch, by which two poses of one picture are told apart: heads are seldom seen from above."""

FACING, AVERTED = 0.3, -0.2
"""Depth of a unit normal of a point that should be seen, and of one that can hardly be."""

SLIDES = 4
"""Times that the jaw's points are moved to the outline."""


def face_size(points: Float64) -> float:
    """The :func:`~densegen.geometry.crop.box_size` of a face's visible points, (n, 2 or 3); 0 of less than two.

    Points far outside of where most lie do not count: one that is wrong would make a large face of a small one, and
    hide that it is wrong.
    """
    if len(points) < 2:
        return 0.0
    away = np.linalg.norm(points[:, :2] - np.median(points[:, :2], axis=0), axis=1)
    near = away <= FAR * np.median(away)
    return float(box_size(points[near])) or float(box_size(points))  # most in one place, as others write hidden ones


@dataclass(frozen=True, eq=False)
class Solution:
    """The face that explains its landmarks best.

    pose : (7,) float32, see ``conventions.POSE_FIELDS``; tz is 0 if no depth was observed
    coefficients : (K,) float64, raw, shape before expression
    residuals : (N, 2 or 3) float64, observed minus explained, px, camera frame; NaN for points not observed
    used : (N,) bool, points that were observed and not found to be wrong
    energy : what was minimised: squared sigmas over points and prior
    steps : Gauss-Newton steps
    """

    pose: Float32
    coefficients: Float64
    residuals: Float64
    used: Mask
    energy: float
    steps: int

    @property
    def wrong(self) -> Mask:
        """(N,) bool: points that were observed, and left out because they lie far from where the others put them."""
        return ~np.isnan(self.residuals[:, 0]) & ~self.used


class FaceSolver:
    """Finds faces by landmarks at the same points of a model.

    points : where on the model landmarks are observed
    prior : of the coefficients
    robust : whether a few points may be wrong: they are found, left out, and said
    jaw : lines along which the jaw's points slide to the outline that is seen, for 2D annotations; None for points that
        mark the true jaw
    sources : (N,) int64, who says where a point is; by default one for all. Of each source most points have to be
        right, and one that says nothing of a face does not say that the face is hidden
    """

    def __init__(
        self, points: ModelPoints, prior: Prior, *, robust: bool = False, jaw: JawLines | None = None,
        sources: Int64 | None = None,
    ) -> None:  # fmt: skip
        if len(prior.std) != len(points.components):
            raise ConfigurationError(
                f"the prior has {len(prior.std)} coefficients, the model {len(points.components)} components"
            )
        self.points, self.prior, self.robust, self.jaw = points, prior, robust, jaw
        self.sources = np.zeros(len(points), np.int64) if sources is None else sources

    @cached_property
    def across(self) -> Float64:
        """(K, 3 N): the components, per standard deviation."""
        components = self.points.components * self.prior.std[:, None, None]
        return components.reshape(len(components), 3 * len(self.points))

    @cached_property
    def basis(self) -> Float64:
        """(3 N, K): the same, transposed."""
        return np.ascontiguousarray(self.across.T)

    @cached_property
    def mean(self) -> Float64:
        """(N, 3): the face in the middle of the prior."""
        return self.points.at(self.prior.mean)

    @cached_property
    def largest(self) -> Mask:
        """(N,) bool: the points of the source that has most."""
        numbers, counts = np.unique(self.sources, return_counts=True)
        largest: Mask = self.sources == numbers[counts.argmax()]
        return largest

    @cached_property
    def grams(self) -> Float64:
        """For the points of :attr:`largest`, each with the weight 1."""
        grams: Float64 = gram_matrices(self.basis, self.largest.astype(np.float64))
        return grams

    def solve(
        self,
        observed: Float64,
        sigma_px: float | Float64,
        *,
        visible: Mask | None = None,
        earlier: EarlierFit | None = None,
    ) -> Solution:
        """The face behind one set of landmarks.

        observed : (N, 2) or (N, 3) float64, px, camera frame (see ``pose.camera_points``); z without an origin
        sigma_px : standard deviation of each coordinate, px; one, or (N,) of each point
        visible : (N,) bool, points that were observed; by default those that are finite
        earlier : a fit that exists, to stay near

        Raises :class:`SampleError` if the points are too few, on a line, or in a plane of the face, if they contradict
        each other, or if the face that they give looks away: its left and right are swapped then.
        """
        problem = self._problem(observed, sigma_px, visible, earlier)
        huber = HUBER_SIGMAS if self.robust else 0.0
        face = problem.minimise(problem.first(huber), huber, problem.seen)
        if self.jaw is not None:
            for _ in range(SLIDES):
                problem = problem.slide(face, self.jaw)
                face = problem.minimise(face, huber, problem.seen)
        used = problem.seen
        if self.robust:
            face, used = _without_wrong(problem, face)
        solution = problem.solution(face, used)
        _check_facing(solution)
        return solution

    def _problem(
        self, observed: Float64, sigma_px: float | Float64, visible: Mask | None, earlier: EarlierFit | None
    ) -> _Problem:
        observed = np.asarray(observed, np.float64)
        if observed.shape not in ((len(self.points), 2), (len(self.points), 3)):
            raise ConfigurationError(f"{observed.shape} observed points, expected ({len(self.points)}, 2 or 3)")
        seen: Mask = np.asarray(np.isfinite(observed).all(axis=1), np.bool_)
        if visible is not None:
            seen = seen & np.asarray(visible, np.bool_)
        _check_spread(observed, self.points.mean, seen)
        sigma = np.broadcast_to(np.asarray(sigma_px, np.float64), len(seen))
        if not (np.isfinite(sigma[seen]).all() and (sigma[seen] > 0).all()):
            raise ConfigurationError("sigma_px: each point's standard deviation is above 0 px")
        return _Problem.of(self, observed, sigma, seen, earlier)

    def rigid(self, observed: Float64, sigma_px: float | Float64) -> Solution:
        """The mean face in the pose that explains landmarks best, and looks at the viewer, without wrong points: found
        a hundred times as fast as a face. ``observed``, ``sigma_px`` and errors are those of :meth:`solve`.
        """
        problem = self._problem(observed, sigma_px, None, None)
        poses = problem.poses(HUBER_SIGMAS if self.robust else 0.0)
        solutions = [problem.solution(face, problem.seen) for face in poses]
        for solution in solutions[:-1]:
            if _is_facing(solution):
                return solution
        _check_facing(solutions[-1])
        return solutions[-1]

    def solve_all(self, observed: Iterable[Float64], sigma_px: float | Float64) -> list[Solution | SampleError]:
        """The faces of many sets of landmarks; one that has no answer gives its error instead."""
        results: list[Solution | SampleError] = []
        for one in observed:
            try:
                results.append(self.solve(one, sigma_px))
            except SampleError as error:
                results.append(error)
        return results


class _Face(NamedTuple):
    """A face in a problem's own units."""

    rotation: Float64
    scale: float
    shift: Float64
    x: Float64
    energy: float = 0.0
    steps: int = 0


@dataclass(frozen=True, eq=False)
class _Problem:
    """One set of N landmarks in units that suit the arithmetic: pixels are counted in sigmas of the first point that
    was seen, from the middle of the points; points with the same sigma then have the weight 1. K coefficients are
    counted in spreads from a centre; mean, basis and across are the points, in the model frame, for these.

    observed : (N, 2 or 3) px, camera frame
    seen : (N,) bool
    unit_px, middle_px : the sigma that is counted in, and (3,) where the points' middle lies
    target, weight : (N, 3) and (N,), the points in these units, and 1 / sigma^2; 0 for points that were not seen
    axes : (3,) 1 for an axis of the camera frame that was observed, else 0
    centre, spread : (K,) raw coefficients, of the prior or of the earlier fit
    mean : (N, 3) the face of the centre
    basis, across : (3 N, K) and its transpose, model units a spread
    earlier : the pose to stay near, in these units
    precision : (4,) 1 / sigma^2 of its rotation (radians), log scale, shift in x and y, shift in z; 0 without one
    common : the weight of those points of the solver's largest source that are seen; 0 if the solver's matrices are of
        no use, since these points have several weights, or are others
    gram_factor : what the solver's matrices are multiplied with
    """

    solver: FaceSolver
    observed: Float64
    seen: Mask
    unit_px: float
    middle_px: Float64
    target: Float64
    weight: Float64
    axes: Float64
    centre: Float64
    spread: Float64
    mean: Float64
    basis: Float64
    across: Float64
    earlier: _Face
    precision: Float64
    common: float
    gram_factor: float

    @classmethod
    def of(
        cls, solver: FaceSolver, observed: Float64, sigma: Float64, seen: Mask, earlier: EarlierFit | None
    ) -> _Problem:
        unit = float(sigma[np.argmax(seen)])
        weight = np.where(seen, (unit / np.where(seen, sigma, 1.0)) ** 2, 0.0)
        dimensions = observed.shape[1]
        middle, target = np.zeros(3), np.zeros((len(seen), 3))
        middle[:dimensions] = middle_of(observed[seen])
        target[seen, :dimensions] = (observed[seen] - middle[:dimensions]) / unit
        own = weight[solver.largest & seen]
        common = float(own[0]) if own.size and (own == own[0]).all() else 0.0
        problem = cls(
            solver=solver, observed=observed, seen=seen, unit_px=unit, middle_px=middle, target=target, weight=weight,
            axes=np.array([1.0, 1.0, float(dimensions == 3)]), centre=solver.prior.mean, spread=solver.prior.std,
            mean=solver.mean, basis=solver.basis, across=solver.across,
            earlier=_Face(np.eye(3), 1.0, np.zeros(3), np.zeros(len(solver.prior.std))), precision=np.zeros(4),
            common=common, gram_factor=common,
        )  # fmt: skip
        return problem if earlier is None else problem._around(earlier)

    def _around(self, earlier: EarlierFit) -> _Problem:
        """The same landmarks, of a face near an earlier fit."""
        pitch, yaw, roll, *translation, scale = map(float, earlier.pose)
        shift = (np.array(translation) - self.middle_px) / self.unit_px
        pose = _Face(
            rotation_matrix(pitch, yaw, roll), scale / self.unit_px, shift * self.axes,
            np.zeros(len(earlier.coefficients)),
        )  # fmt: skip
        length = earlier.shift * face_size(self.observed[self.seen]) / self.unit_px
        return replace(
            self,
            centre=earlier.coefficients,
            spread=self.spread * earlier.share,
            mean=self.solver.points.at(earlier.coefficients),
            basis=self.basis * earlier.share,
            across=self.across * earlier.share,
            earlier=pose,
            precision=np.array([1 / (s * s) for s in (earlier.rotation_rad, earlier.scale, length)] + [0.0]),
            gram_factor=self.gram_factor * earlier.share**2,
        )

    def first(self, huber: float) -> _Face:
        """Where to begin: at the earlier fit, or at the mean face in the pose that explains the points best.

        Few points may have two poses that explain them, one the other seen from the back of the picture. Of these, the
        one is taken in which the points that are seen face the viewer, and the head is less pitched.
        """
        if self.precision[0] > 0:
            return self.earlier
        different = self.poses(huber)
        if len(different) == 1:
            return different[0]
        faces = [self.minimise(pose, huber, self.seen) for pose in different]
        return min(faces, key=lambda face: face.energy + self._implausible(face.rotation))

    def poses(self, huber: float) -> list[_Face]:
        """The mean face in each of the poses that explain the points, the best first."""
        some = self._thinned()
        left, rotations, scales, shifts = similarities(some.mean[some.seen], some.target[some.seen], _TURNS)
        left = np.maximum(left, 0.0)  # of the mean face itself, rounding leaves less than nothing
        order = np.argsort(left, kind="stable")[:TRIED]
        order = order[left[order] <= MOST_UNLIKE * left[order[0]]]
        tried = [_Face(rotations[row], float(scales[row]), shifts[row], np.zeros(0)) for row in order]
        poses = sorted((some.minimise(start, huber, some.seen, POSE_STEPS) for start in tried), key=_energy)
        different: list[_Face] = []
        for pose in poses:
            if all(_half_angle_cosine(pose.rotation, other.rotation) < SAME_TURN for other in different):
                different.append(pose._replace(x=np.zeros(len(self.spread)), steps=0))
        return different

    def _thinned(self) -> _Problem:
        """Some of each source's points, of the mean face without components: enough to find a pose by."""
        sources = self.solver.sources
        parts = [np.flatnonzero(self.seen & (sources == source)) for source in np.unique(sources[self.seen])]
        rows = np.sort(np.concatenate([part[:: max(len(part) // ENOUGH_FOR_POSE, 1)] for part in parts]))
        count = len(rows)
        return replace(
            self, observed=self.observed[rows], seen=self.seen[rows], target=self.target[rows],
            weight=self.weight[rows], mean=self.mean[rows], basis=np.zeros((3 * count, 0)),
            across=np.zeros((0, 3 * count)), common=0.0,
        )  # fmt: skip

    def _implausible(self, rotation: Float64) -> float:
        """What speaks against a pose beside the points' places, in squared sigmas."""
        x, y, z = self.solver.points.normals.T
        depth = rotation[2, 0] * x + rotation[2, 1] * y + rotation[2, 2] * z
        pitch = float(pose_from(rotation, np.zeros(3), 1.0)[0])
        sources = self.solver.sources
        unseen = ~self.seen & np.isin(sources, sources[self.seen])
        hidden = float(((depth < AVERTED) & self.seen).sum()) + float(((depth > FACING) & unseen).sum())
        return (pitch / PITCH_RAD) ** 2 + 2 * hidden

    def minimise(self, start: _Face, huber: float, used: Mask, steps: int = MAX_STEPS) -> _Face:
        """From a start to the most probable face."""
        grams = self.solver.grams if self.common else np.zeros((0, 0, 0))
        counted = self.common * self.solver.largest if self.common else np.zeros(0)
        rotation, scale, shift, x, energy, taken = minimise(
            self.mean, self.basis, self.across, self.target, np.where(used, self.weight, 0.0), self.axes,
            grams, self.gram_factor, counted, huber, start.rotation, start.scale, start.shift, start.x,
            self.earlier.rotation, self.earlier.scale, self.earlier.shift, self.precision, steps,
        )  # fmt: skip
        return _Face(rotation, scale, shift, x, energy, start.steps + taken)

    def slide(self, face: _Face, jaw: JawLines) -> _Problem:
        """The same landmarks, the jaw's among them where the outline of this face is."""
        line = jaw.on_outline(self.centre + self.spread * face.x, face.rotation)
        moved = self.across.reshape(len(self.spread), -1, 3).copy()
        moved[:, jaw.rows] = line.components * self.spread[:, None, None]
        across = moved.reshape(len(self.spread), -1)
        mean = self.mean.copy()
        mean[jaw.rows] = line.at(self.centre)
        return replace(self, mean=mean, across=across, basis=np.ascontiguousarray(across.T), common=0.0)

    def explained(self, face: _Face) -> Float64:
        """(N, 3) where the face puts the points, in the problem's units."""
        x, y, z = points_of_face(self.mean, self.across, face.x).T
        turned = [face.rotation[d, 0] * x + face.rotation[d, 1] * y + face.rotation[d, 2] * z for d in range(3)]
        return face.scale * np.stack(turned, axis=1) + face.shift

    def sigmas_off(self, face: _Face) -> Float64:
        """(N,) how many of its own sigmas each point lies off; 0 for points that were not seen."""
        x, y, z = ((self.target - self.explained(face)) * self.axes).T
        return np.where(self.seen, np.sqrt(self.weight * (x * x + y * y + z * z)), 0.0)

    def solution(self, face: _Face, used: Mask) -> Solution:
        """The face in pixels of the camera frame and raw coefficients."""
        translation = (face.shift * self.axes) * self.unit_px + self.middle_px
        explained = self.explained(face) * self.unit_px + self.middle_px
        return Solution(
            pose=pose_from(face.rotation, translation, face.scale * self.unit_px),
            coefficients=self.centre + self.spread * face.x,
            residuals=np.where(self.seen[:, None], self.observed - explained[:, : self.observed.shape[1]], np.nan),
            used=used,
            energy=face.energy,
            steps=face.steps,
        )


def _energy(face: _Face) -> float:
    return face.energy


def _half_angle_cosine(one: Float64, other: Float64) -> float:
    """Cosine of half the angle between two rotations: ``trace = 1 + 2 cos`` of the whole."""
    trace = math.fsum((one * other).ravel())
    return math.sqrt(max(0.0, (1 + trace) / 4))


def _without_wrong(problem: _Problem, face: _Face) -> tuple[_Face, Mask]:
    """Leave out the points that are wrong, and take one back if the others agree with it after all."""
    seen, used = problem.seen, problem.seen
    for _ in range(3):
        agreeing = seen & (problem.sigmas_off(face) <= WRONG_SIGMAS)
        for source in np.unique(problem.solver.sources[seen]):
            own = seen & (problem.solver.sources == source)
            right, of = int((agreeing & own).sum()), int(own.sum())
            if right < (1 - MOST_WRONG) * of or agreeing.sum() < FEWEST_POINTS:
                raise SampleError(
                    "points-contradict", f"{of - right} of {of} points lie far from where the others put them"
                )
        if used is not seen and (agreeing == used).all():
            break
        used = agreeing
        face = problem.minimise(face, 0.0, used)
    return face, used


def _check_spread(observed: Float64, places: Float64, seen: Mask) -> None:
    """Refuse points from which no pose follows."""
    if (count := int(seen.sum())) < FEWEST_POINTS:
        raise SampleError(
            "points-too-few", f"{count} of {len(seen)} points are visible, at least {FEWEST_POINTS} are needed"
        )
    total, minors, _ = spread_of(observed[seen])
    if not total > 0 or minors < NARROWEST**2 * total**2:
        raise SampleError("points-on-a-line", f"the {count} points lie on a line, or all in one place")
    total, minors, determinant = spread_of(places[seen])
    if minors < NARROWEST**2 * total**2:
        raise SampleError("points-on-a-line", f"the {count} points lie on a line of the face")
    if observed.shape[1] == 2 and determinant < FLATTEST**2 * total * minors:
        raise SampleError(
            "points-in-a-plane", f"the {count} points lie in a plane of the face: their picture has two poses"
        )


def _is_facing(solution: Solution) -> bool:
    pitch, yaw = float(solution.pose[0]), float(solution.pose[1])
    return not float(rotation_matrix(pitch, yaw, 0.0)[2, 2]) < FARTHEST_AWAY


def _check_facing(solution: Solution) -> None:
    if not _is_facing(solution):
        raise SampleError("face-turned-away", "the points show a face from behind: are left and right swapped?")
    if not np.isfinite(solution.coefficients).all():
        raise SampleError("points-contradict", "no face explains the points")
