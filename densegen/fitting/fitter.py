"""From the landmarks of one face to its fit, or to the reason why there is none."""

from __future__ import annotations

import operator
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property, reduce
from typing import Literal

import numpy as np

from densegen.arrays import Float64, Int64
from densegen.errors import ConfigurationError, SampleError
from densegen.face.morphable_model import MorphableModel
from densegen.fitting.face_tasks import FaceTask, FitOutcome
from densegen.fitting.model_points import ModelPoints, aflw21_points, ibug68_points, landmark_points
from densegen.fitting.outline import jaw_lines
from densegen.fitting.prior import EarlierFit, Prior
from densegen.fitting.solver import FaceSolver, Solution, face_size
from densegen.geometry.crop import CropRecipe, box_around, box_size, check_in_picture, place_crop
from densegen.geometry.pose import camera_points, pose_vertices
from densegen.ibug68 import KEYPOINTS
from densegen.index.vertex_index import VertexIndex
from densegen.sources.annotations import Annotations
from densegen.sources.fits import Fit, check_components, check_pose, complete_fit, read_fit
from densegen.sources.photograph import read_photograph

__all__ = ["SIGMA", "SWAPPED_REASON", "Fitter", "FitterSettings", "make_fitter", "points_of"]

SIGMA = 0.02
"""How far a person's points are off, as a share of the face's size."""

SWAPPED_REASON = "left-right-swapped"

AS_LIKELY = 1.1
"""A mean face that meets the points worse than another by this factor is not tried any further. From 55 degrees on, a
face and its swapped picture are met equally well."""

SWAPPED = 0.6
"""Left and right are swapped if the points fit so much better under each other's names."""


@dataclass(frozen=True)
class FitterSettings:
    """How landmarks are believed.

    sigma : standard deviation of a coordinate, as a share of the face's size (sqrt(w h) of its points' box); one for
        all, or one for each source of landmarks
    jaw : ``true`` for points on the jaw that is there, ``outline`` for those that follow what is seen
    max_residual : a face whose points stay farther away on average is set aside, the same share
    """

    sigma: tuple[float, ...] = (SIGMA,)
    jaw: Literal["true", "outline"] = "true"
    max_residual: float = 0.06

    def __post_init__(self) -> None:
        allowed = [("sigma", one, 1e-4, 2.0) for one in self.sigma] + [("max_residual", self.max_residual, 1e-3, 1.0)]
        for name, value, low, high in allowed:
            if not low <= value <= high:
                raise ConfigurationError(f"{name} is {value}, expected {low:g} to {high:g}")


@dataclass(frozen=True, eq=False)
class Fitter:
    """All that turns landmarks into fits, made once and sent to each worker.

    mesh68 : where the 68 are, to write them beside the fit
    shapes : how many of the coefficients are of shape
    sigma : (N,) float64, standard deviation of a point's coordinates, as a share of the face's size
    swapped : take left for right, of one source or of all; none if the points have no mirror images
    """

    mesh68: ModelPoints
    shapes: int
    settings: FitterSettings
    sigma: Float64
    solver: FaceSolver
    swapped: tuple[FaceSolver, ...]

    @property
    def points(self) -> ModelPoints:
        return self.solver.points

    @cached_property
    def weight(self) -> Float64 | None:
        """(N,) how much a point counts in a mean; None if all count alike."""
        return None if (self.sigma == self.sigma[0]).all() else 1.0 / (self.sigma * self.sigma)

    def run(self, task: FaceTask) -> tuple[FitOutcome, Fit | None]:
        """The fit of one face, or why there is none."""
        try:
            earlier = None if task.earlier is None else read_fit(task.earlier)
            if earlier is not None:
                check_components(earlier, (self.shapes, len(self.solver.prior.std) - self.shapes), task.name)
            if task.points is None:
                if not task.image.is_file():
                    raise SampleError("image-missing", f"{task.image.name} is not there")
                return FitOutcome(task), earlier
            height, width = read_photograph(task.image).shape[:2]
            outcome, fit = self._fit(task, task.points, height, earlier)
            if fit is not None:
                _check_as_a_build(fit, task.name, height, width)
            return outcome, fit
        except SampleError as error:
            return FitOutcome(task, error.reason, str(error)), None

    def _fit(self, task: FaceTask, points: Float64, height: int, earlier: Fit | None) -> tuple[FitOutcome, Fit | None]:
        observed = camera_points(points, height)
        visible = np.isfinite(observed).all(axis=1)
        size = face_size(observed[visible])
        near = None
        before = None
        if earlier is not None:
            near = EarlierFit(earlier.pose, np.concatenate([earlier.shape, earlier.expression]).astype(np.float64))
            whole = self._posed(self.mesh68, near.coefficients, earlier, height)
            size = float(box_size(whole))
            before = points[:, :2] - self._posed(self.points, near.coefficients, earlier, height)[:, :2]
        sigma = np.maximum(self.sigma * size, 1e-3)
        try:
            solution = self.solver.solve(observed, sigma, earlier=near)
        except SampleError as error:
            if error.reason in ("points-contradict", "face-turned-away"):
                self._refuse_swapped(observed, sigma, size)
            raise
        off = self._mean_distance(solution) / max(size, 1e-9)
        if off > self.settings.max_residual / 2:
            self._refuse_swapped(observed, sigma, size)
        residuals = solution.residuals[:, :2] * [1, -1]
        outcome = FitOutcome(task, None, "", size, residuals, before, solution.wrong, self.weight)
        if not off <= self.settings.max_residual:
            most = 100 * self.settings.max_residual
            message = f"the points stay {100 * off:.1f} % of the face away, at most {most:g} %"
            return replace(outcome, reason="points-far", message=message), None
        return outcome, self._fit_of(solution, points[outcome.surest], height)

    def _refuse_swapped(self, observed: Float64, sigma: Float64, size: float) -> None:
        """Raise :class:`SampleError` if the points make a face with left and right swapped, and none as they are.

        A whole face is solved only if the mean face in its best pose does not tell already.
        """

        def error(solve: Callable[[Float64, Float64], Solution]) -> float:
            try:
                return self._mean_distance(solve(observed, sigma)) / max(size, 1e-9)
            except SampleError:
                return float("inf")

        rigid = error(self.solver.rigid)
        likely = [solver for solver in self.swapped if error(solver.rigid) <= AS_LIKELY * rigid]
        if not likely:
            return
        if min(error(solver.solve) for solver in likely) < min(
            SWAPPED * error(self.solver.solve), self.settings.max_residual
        ):
            raise SampleError(SWAPPED_REASON, "the points fit better with left and right swapped")

    def _fit_of(self, solution: Solution, points: Float64, height: int) -> Fit:
        coefficients = solution.coefficients.astype(np.float32)
        fit = Fit(solution.pose, coefficients[: self.shapes], coefficients[self.shapes :])
        keypoints = self._posed(self.mesh68, coefficients.astype(np.float64), fit, height).astype(np.float32)
        return complete_fit(fit.pose, fit.shape, fit.expression, keypoints, points)

    def _posed(self, points: ModelPoints, coefficients: Float64, fit: Fit, height: int) -> Float64:
        """(N, 3) float64, px, image frame: points of a fit's face."""
        places = points.at(coefficients).astype(np.float32)
        return pose_vertices(places, fit.pose, height).astype(np.float64)

    def _mean_distance(self, solution: Solution) -> float:
        distance = np.linalg.norm(solution.residuals[solution.used, :2], axis=1)
        return float(np.average(distance, weights=None if self.weight is None else self.weight[solution.used]))


def _check_as_a_build(fit: Fit, name: str, height: int, width: int) -> None:
    """Raise :class:`SampleError` if a build would set a fit aside that has its ``keypoints_3d``."""
    check_pose(fit.pose, name)
    assert fit.keypoints_3d is not None
    keypoints = fit.keypoints_3d.T - np.array([1, 1, 0], np.float32)
    box = box_around(keypoints.astype(np.float64))
    check_in_picture(keypoints, box, height, width)
    place_crop(box, CropRecipe(), None)


def points_of(annotations: Annotations, model: MorphableModel, index: VertexIndex) -> ModelPoints:
    """The model's points for annotated ones; raises :class:`ConfigurationError` if a name is no landmark's."""
    if annotations.kind in ("ibug68", "aflw21"):
        points = ibug68_points(model) if annotations.kind == "ibug68" else aflw21_points(model)
        return points.rows([int(name) for name in annotations.names])
    if annotations.vertex_index not in (None, index.fingerprint):
        raise ConfigurationError(
            f"landmarks of another vertex index than {index.name} {index.version}: give theirs with --index"
        )
    points = landmark_points(model, index)
    if annotations.names == tuple(map(str, range(len(index)))):
        return points
    row_of = {name: row for row, name in enumerate(points.names)}
    if unknown := [name for name in annotations.names if name not in row_of]:
        raise ConfigurationError(
            f"{len(annotations.names)} points, among them {unknown[0]!r}: neither the 68 nor AFLW's 21, nor names of "
            f"{index.name}'s landmarks; say what they are with --points"
        )
    return points.rows([row_of[name] for name in annotations.names])


def make_fitter(
    sources: Sequence[Annotations], model: MorphableModel, index: VertexIndex, prior: Prior, settings: FitterSettings
) -> Fitter:
    """A fitter for the points of one or several sources, one source's after the other's.

    With several sources a point's name begins with its source's number, from 1.

    Raises :class:`ConfigurationError` if there are neither one sigma nor one for each source, or the outline of the jaw
    is asked for and not exactly one source has a jaw.
    """
    parts = [points_of(source, model, index) for source in sources]
    if len(parts) > 1:
        parts = [replace(p, names=tuple(f"{n}/{name}" for name in p.names)) for n, p in enumerate(parts, start=1)]
    points = reduce(operator.add, parts)
    counts = [len(part) for part in parts]
    if len(settings.sigma) not in (1, len(sources)):
        raise ConfigurationError(f"{len(settings.sigma)} sigmas for {len(sources)} sources of landmarks")
    sigma = np.repeat(np.broadcast_to(settings.sigma, len(sources)), counts)
    numbers = np.repeat(np.arange(len(sources)), counts)
    lines = None
    if settings.jaw == "outline":
        lines = jaw_lines(model, _rows_of_68(sources))
    # Of several sources, one may take left for right, or all.
    swaps = [{number} for number in range(len(parts))] + ([set(range(len(parts)))] if len(parts) > 1 else [])
    swapped = tuple(
        FaceSolver(
            reduce(operator.add, [part.mirrored if n in swap else part for n, part in enumerate(parts)]),
            prior, robust=True, sources=numbers,
        )
        for swap in swaps
        if all(parts[number].mirror is not None for number in swap)
    )  # fmt: skip
    return Fitter(
        mesh68=ibug68_points(model),
        shapes=len(model.shape_basis),
        settings=settings,
        sigma=sigma,
        solver=FaceSolver(points, prior, robust=True, jaw=lines, sources=numbers),
        swapped=swapped,
    )


def _rows_of_68(sources: Sequence[Annotations]) -> Int64:
    """(68,) which of the points is which of the iBUG 68, -1 = none."""
    rows, first = np.full(KEYPOINTS, -1), 0
    if [source.kind for source in sources].count("ibug68") != 1:
        raise ConfigurationError(
            "--jaw outline moves the jaw of the 68: exactly one file of landmarks has to have them"
        )
    for source in sources:
        if source.kind == "ibug68":
            rows[[int(name) for name in source.names]] = first + np.arange(len(source.names))
        first += len(source.names)
    return rows
