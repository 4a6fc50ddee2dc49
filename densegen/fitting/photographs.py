"""Fits for photographs: new ones from sparse landmarks, and better ones from fits that exist."""

from __future__ import annotations

import json
import os
import shutil
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path, PurePosixPath
from typing import Literal

import numpy as np

from densegen.arrays import Float64, Mask
from densegen.errors import ConfigurationError, SampleError
from densegen.executors import INLINE, Pool
from densegen.face.morphable_model import MorphableModel
from densegen.files import (
    LOCK_NAMES,
    is_leftover,
    only_one,
    remove_leftovers,
    replace_file,
    sha256_of,
    stays_below,
    write_bytes,
    write_text,
)
from densegen.fitting.model_points import ModelPoints, aflw21_points, ibug68_points, landmark_points
from densegen.fitting.outline import jaw_lines
from densegen.fitting.prior import EarlierFit, Prior
from densegen.fitting.solver import FaceSolver, Solution, face_size
from densegen.geometry.crop import box_around
from densegen.geometry.pose import camera_points, pose_vertices
from densegen.ibug68 import KEYPOINTS
from densegen.index.vertex_index import VertexIndex
from densegen.records import read_json
from densegen.sources.annotations import Annotations
from densegen.sources.fit_list import IMAGE_SUFFIXES, FitEntry
from densegen.sources.fits import Fit, fit_bytes, read_fit
from densegen.sources.photograph import read_photograph

__all__ = [
    "FITS_FOLDER",
    "FaceTask",
    "FitOutcome",
    "FitSettings",
    "Fitter",
    "make_fitter",
    "points_of",
    "run_tasks",
    "tasks_of_fits",
    "tasks_of_photographs",
]

MAKER = "densegen fits"

FITS_FOLDER = "FITS"
"""Folder, below the root that is written, of fits that are made anew."""

MANIFEST_NAME, REPORT_NAME, OVERLAYS_NAME = "manifest.yaml", "report.json", "overlays.png"

REPORT_FORMAT = "densegen fits report"

CHUNK = 16
"""Faces a task of a worker."""

SWAPPED_REASON = "left-right-swapped"

SWAPPED = 0.6
"""Left and right are swapped if the points fit so much better under each other's names."""


@dataclass(frozen=True)
class FitSettings:
    """How landmarks are believed.

    sigma : standard deviation of a coordinate, as a share of the face's size (sqrt(w h) of its points' box)
    jaw : ``true`` for points on the jaw that is there, ``outline`` for those that follow what is seen
    max_residual : a face whose points stay farther away on average is set aside, the same share
    """

    sigma: float = 0.02
    jaw: Literal["true", "outline"] = "true"
    max_residual: float = 0.06

    def __post_init__(self) -> None:
        for name, low, high in (("sigma", 1e-4, 0.5), ("max_residual", 1e-3, 1.0)):
            if not low <= getattr(self, name) <= high:
                raise ConfigurationError(f"{name} is {getattr(self, name)}, expected {low:g} to {high:g}")


@dataclass(frozen=True, eq=False)
class FaceTask:
    """One face to be fitted.

    name : of the fit that is written, below the output, without ``.mat``, with ``/``
    image : its photograph
    points : (N, 2 or 3) float64, px, image frame, NaN = not visible; None if there are none, for a fit that stays
    earlier : the fit that exists, or None
    """

    name: str
    image: Path
    points: Float64 | None
    earlier: Path | None = None


@dataclass(frozen=True, eq=False)
class FitOutcome:
    """What became of one face.

    reason, message : why it was set aside, or None and ""
    size : of the face, px
    residuals : (N, 2) float64, observed minus explained, px, image frame, y down; NaN if not visible
    before : the same of the fit that existed
    wrong : (N,) bool, points that were left out
    """

    task: FaceTask
    reason: str | None = None
    message: str = ""
    size: float = float("nan")
    residuals: Float64 | None = None
    before: Float64 | None = None
    wrong: Mask | None = None

    @property
    def error(self) -> float:
        """Mean distance of the points that were used, as a share of the face's size."""
        if self.residuals is None:
            return float("nan")
        distance = np.linalg.norm(self.residuals, axis=1)
        used = ~np.isnan(distance) if self.wrong is None else ~np.isnan(distance) & ~self.wrong
        return float(distance[used].mean()) / self.size


@dataclass(frozen=True, eq=False)
class Fitter:
    """All that turns landmarks into fits, made once and sent to each worker.

    mesh68 : where the 68 are, to write them beside the fit
    shapes : how many of the coefficients are of shape
    swapped : takes left for right; None if the points have no mirror images
    """

    mesh68: ModelPoints
    shapes: int
    settings: FitSettings
    solver: FaceSolver
    swapped: FaceSolver | None

    @property
    def points(self) -> ModelPoints:
        return self.solver.points

    def run(self, task: FaceTask) -> tuple[FitOutcome, Fit | None]:
        """The fit of one face, or why there is none."""
        try:
            earlier = None if task.earlier is None else read_fit(task.earlier)
            if earlier is not None and (found := len(earlier.shape) + len(earlier.expression)) != len(
                self.solver.prior.std
            ):
                raise SampleError(
                    "component-count", f"{task.name} has {found} coefficients, the model {len(self.solver.prior.std)}"
                )
            if task.points is None:
                return FitOutcome(task), earlier
            height = len(read_photograph(task.image))
            return self._fit(task, task.points, height, earlier)
        except SampleError as error:
            return FitOutcome(task, error.reason, str(error)), None

    def _fit(self, task: FaceTask, points: Float64, height: int, earlier: Fit | None) -> tuple[FitOutcome, Fit | None]:
        observed = camera_points(points, height)
        visible = np.isfinite(observed).all(axis=1)
        size = face_size(observed[visible]) if visible.sum() > 1 else 0.0
        near = None
        before = None
        if earlier is not None:
            near = EarlierFit(earlier.pose, np.concatenate([earlier.shape, earlier.expression]).astype(np.float64))
            whole = self._posed(self.mesh68, near.coefficients, earlier, height)
            size = face_size(whole)
            before = points[:, :2] - self._posed(self.points, near.coefficients, earlier, height)[:, :2]
        sigma = max(self.settings.sigma * size, 1e-3)
        try:
            solution = self.solver.solve(observed, sigma, earlier=near)
        except SampleError as error:
            if error.reason in ("points-contradict", "face-turned-away"):
                self._refuse_swapped(task, observed, sigma, size)
            raise
        off = _mean_distance(solution) / max(size, 1e-9)
        if off > self.settings.max_residual / 2:
            self._refuse_swapped(task, observed, sigma, size)
        fit = self._fit_of(solution, points, height)
        residuals = solution.residuals[:, :2] * [1, -1]
        outcome = FitOutcome(task, None, "", size, residuals, before, solution.wrong)
        if not off <= self.settings.max_residual:
            message = (
                f"the points stay {100 * off:.1f} % of the face away, at most {100 * self.settings.max_residual:g} %"
            )
            return FitOutcome(task, "points-far", message, size, residuals, before, solution.wrong), None
        return outcome, fit

    def _refuse_swapped(self, task: FaceTask, observed: Float64, sigma: float, size: float) -> None:
        """Raise :class:`SampleError` if the points make a face with left and right swapped, and none as they are."""
        if self.swapped is None:
            return
        errors = []
        for solver in (self.solver, self.swapped):
            try:
                errors.append(_mean_distance(solver.solve(observed, sigma)) / max(size, 1e-9))
            except SampleError:
                errors.append(float("inf"))
        own, other = errors
        if other < min(SWAPPED * own, self.settings.max_residual):
            raise SampleError(SWAPPED_REASON, f"{task.name}: the points fit better with left and right swapped")

    def _fit_of(self, solution: Solution, points: Float64, height: int) -> Fit:
        coefficients = solution.coefficients.astype(np.float32)
        fit = Fit(solution.pose, coefficients[: self.shapes], coefficients[self.shapes :])
        keypoints = self._posed(self.mesh68, coefficients.astype(np.float64), fit, height).astype(np.float32)
        given = np.where(np.isnan(points[:, :2]), -1, points[:, :2] + 1).T
        return Fit(
            pose=fit.pose,
            shape=fit.shape,
            expression=fit.expression,
            points_2d=given.astype(np.float32),
            keypoints_3d=keypoints.T + np.array([[1], [1], [0]], np.float32),
            roi=np.rint(box_around(keypoints) + 1).clip(-32768, 32767).astype(np.float32),
        )

    def _posed(self, points: ModelPoints, coefficients: Float64, fit: Fit, height: int) -> Float64:
        """(N, 3) float64, px, image frame: points of a fit's face."""
        places = points.at(coefficients).astype(np.float32)
        return pose_vertices(places, fit.pose, height).astype(np.float64)


def _mean_distance(solution: Solution) -> float:
    return float(np.linalg.norm(solution.residuals[solution.used, :2], axis=1).mean())


def points_of(annotations: Annotations, model: MorphableModel, index: VertexIndex) -> ModelPoints:
    """The model's points for annotated ones; raises :class:`ConfigurationError` if a name is no landmark's."""
    if annotations.kind in ("ibug68", "aflw21"):
        points = ibug68_points(model) if annotations.kind == "ibug68" else aflw21_points(model)
        return points.rows([int(name) for name in annotations.names])
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
    annotations: Annotations, model: MorphableModel, index: VertexIndex, prior: Prior, settings: FitSettings
) -> Fitter:
    """A fitter for the points of ``annotations``.

    Raises :class:`ConfigurationError` if the outline of the jaw is asked for points without a jaw.
    """
    points = points_of(annotations, model, index)
    lines = None
    if settings.jaw == "outline":
        if annotations.kind != "ibug68":
            raise ConfigurationError("--jaw outline moves the jaw of the 68: these points are others")
        rows = np.full(KEYPOINTS, -1)
        rows[[int(name) for name in annotations.names]] = np.arange(len(points))
        lines = jaw_lines(model, rows)
    mirrored = None if points.mirror is None else FaceSolver(points.mirrored, prior, robust=True)
    return Fitter(
        mesh68=ibug68_points(model),
        shapes=len(model.shape_basis),
        settings=settings,
        solver=FaceSolver(points, prior, robust=True, jaw=lines),
        swapped=mirrored,
    )


def tasks_of_photographs(photos: Path, annotations: Annotations) -> tuple[list[FaceTask], list[FitOutcome]]:
    """The faces whose photographs are there, and the others as outcomes.

    A photograph is named by its path below ``photos``, with or without its suffix, or by its name alone if that is
    unique there.

    Raises :class:`ConfigurationError` if the folder does not exist, or no face has a photograph.
    """
    if not photos.is_dir():
        raise ConfigurationError(f"{photos} is not a folder of photographs")
    places = _Places(
        path
        for path in (PurePosixPath(*found.relative_to(photos).parts) for found in sorted(photos.rglob("*")))
        if path.suffix.lower() in IMAGE_SUFFIXES and not any(part.startswith(".") for part in path.parts)
    )
    found, missing = [], []
    for face in annotations.faces:
        if not stays_below(face.image):
            raise ConfigurationError(f"the photograph {face.image!r} leaves {photos}: give names below it")
        candidates = places.named(face.image)
        if len(candidates) == 1:
            found.append((candidates[0], face.points))
            continue
        task = FaceTask(f"{FITS_FOLDER}/{_without_suffix(face.image)}", photos / face.image, face.points)
        if candidates:
            why = f"{face.image} names {len(candidates)} photographs: give their folders"
            missing.append(FitOutcome(task, "image-ambiguous", why))
        else:
            missing.append(FitOutcome(task, "image-missing", f"{face.image} has no photograph"))
    if not found:
        raise ConfigurationError(
            f"{len(missing)} faces, and not one has a photograph in {photos}: {missing[0].message}"
        )
    of_photograph, seen, tasks = Counter(place for place, _ in found), Counter[PurePosixPath](), []
    for place, points in found:
        own = f"_face{seen[place]}" if of_photograph[place] > 1 else ""
        seen[place] += 1
        tasks.append(FaceTask(f"{FITS_FOLDER}/{place.with_suffix('')}{own}", photos / place, points))
    if twice := [name for name, count in Counter(task.name for task in tasks).items() if count > 1]:
        raise ConfigurationError(f"two faces would be written to {twice[0]}.mat: rename one of their photographs")
    return tasks, missing


def _without_suffix(name: str) -> str:
    """A photograph's name without the suffix of a picture; another ending belongs to the name."""
    path = PurePosixPath(name)
    return str(path.with_suffix("") if path.suffix.lower() in IMAGE_SUFFIXES else path)


class _Places:
    """Files of pictures or fits, found by path, by path without suffix, or by name alone."""

    def __init__(self, paths: Iterable[PurePosixPath]) -> None:
        self.by_path: dict[str, list[PurePosixPath]] = {}
        self.by_stem: dict[str, list[PurePosixPath]] = {}
        self.by_name: dict[str, list[PurePosixPath]] = {}
        for path in paths:
            self.by_path[str(path)] = [path]
            self.by_stem.setdefault(str(path.with_suffix("")), []).append(path)
            for name in {path.name, path.stem}:
                self.by_name.setdefault(name, []).append(path)

    def named(self, name: str) -> list[PurePosixPath]:
        """The files that a name can mean; the fullest reading that means any."""
        path = str(PurePosixPath(name))
        readings = (self.by_path.get(path), self.by_stem.get(path), self.by_stem.get(_without_suffix(path)))
        found = next(filter(None, readings), None)
        if found is None and "/" not in path:
            found = self.by_name.get(path) or self.by_name.get(_without_suffix(path))
        return found or []


def tasks_of_fits(entries: Sequence[FitEntry], root: Path, annotations: Annotations) -> list[FaceTask]:
    """Fits that exist, with their landmarks if there are some; the others stay as they are.

    Raises :class:`ConfigurationError` if not one has landmarks, or a name means several fits.
    """
    fits = {PurePosixPath(*entry.fit.relative_to(root).parts): entry for entry in entries}
    places, marks = _Places(fits), dict[PurePosixPath, Float64]()
    for face in annotations.faces:
        meant = places.named(_without_suffix(face.image))
        if len(meant) > 1:
            raise ConfigurationError(f"{face.image} names {len(meant)} fits: give their folders")
        if meant and meant[0] in marks:
            raise ConfigurationError(f"{meant[0]} has landmarks of two faces: a fit is of one")
        if meant:
            marks[meant[0]] = face.points
    if not marks:
        raise ConfigurationError(
            f"none of {len(fits)} fits has landmarks: the first fit is {next(iter(fits), 'not there')}, the first "
            f"landmarks are of {annotations.faces[0].image}"
        )
    return [
        FaceTask(str(path.with_suffix("")), entry.image, marks.get(path), entry.fit) for path, entry in fits.items()
    ]


def run_tasks(
    fitter: Fitter, tasks: Sequence[FaceTask], out: Path, pool: Pool = INLINE,
    advance: Callable[[int, int], None] = lambda done, aside: None,
) -> list[FitOutcome]:  # fmt: skip
    """Fit each face, and write ``OUT/NAME.mat`` and its photograph beside it; the outcomes in the order of the tasks.

    advance : told how many more are done, and how many of them were set aside
    Raises what :func:`check_output_folder` raises.
    """
    check_output_folder(out, tasks)
    outcomes: dict[str, FitOutcome] = {}
    with only_one(out, f"another process is writing fits into {out}: wait for it, or choose another folder"):
        write_text(out / REPORT_NAME, json.dumps({"format": REPORT_FORMAT, "status": "running"}) + "\n")
        for folder in {out, *((out / task.name).parent for task in tasks)}:
            folder.mkdir(parents=True, exist_ok=True)
            remove_leftovers(folder)
        for name in (MANIFEST_NAME, OVERLAYS_NAME):  # written last: the manifest says that all is there
            (out / name).unlink(missing_ok=True)
        chunks = (tasks[first : first + CHUNK] for first in range(0, len(tasks), CHUNK))
        for done in pool.run(partial(_run_chunk, fitter, out), chunks):
            outcomes |= {outcome.task.name: outcome for outcome in done}
            advance(len(done), sum(outcome.reason is not None for outcome in done))
    return [outcomes[task.name] for task in tasks]


def _run_chunk(fitter: Fitter, out: Path, tasks: Iterable[FaceTask]) -> list[FitOutcome]:
    from threadpoolctl import threadpool_limits

    outcomes = []
    with threadpool_limits(1):
        for task in tasks:
            outcome, fit = fitter.run(task)
            path = out / f"{task.name}.mat"
            image = path.with_suffix(task.image.suffix)
            if outcome.reason is None and task.points is None and task.earlier is not None:
                _copy(task.earlier, path)
            elif fit is not None:
                write_bytes(path, fit_bytes(fit, MAKER))
            if outcome.reason is None:
                _copy(task.image, image)
            else:  # of an earlier run with other settings
                path.unlink(missing_ok=True)
                image.unlink(missing_ok=True)
            outcomes.append(outcome)
    return outcomes


def _copy(source: Path, target: Path) -> None:
    if not source.exists():
        return
    with replace_file(target) as temporary:
        shutil.copyfile(source, temporary)


def check_output_folder(out: Path, tasks: Sequence[FaceTask]) -> None:
    """Refuse a folder that is not empty and not of an earlier run with the same faces, or that holds what is read, or a
    manifest that a person has edited; writes nothing.

    Raises :class:`ConfigurationError`.
    """
    if out.exists() and not out.is_dir():
        raise ConfigurationError(f"{out} is not a folder: choose another one")
    own = os.path.realpath(out)
    sources = {os.path.realpath(source.parent) for task in tasks for source in (task.image, task.earlier) if source}
    if any(source == own or source.startswith(f"{own}{os.sep}") for source in sources):
        raise ConfigurationError(f"{out} holds what is read: choose another folder to write")
    known = {f"{task.name}{suffix}" for task in tasks for suffix in (".mat", task.image.suffix)}
    known |= {MANIFEST_NAME, REPORT_NAME, OVERLAYS_NAME, *LOCK_NAMES}
    there = [path for path in out.rglob("*") if not path.is_dir() and not is_leftover(path)] if out.is_dir() else []
    contents = read_json(out / REPORT_NAME) if there else None
    report = contents if isinstance(contents, dict) else {}
    ours = report.get("format") == REPORT_FORMAT
    for path in there:
        name = PurePosixPath(*path.relative_to(out).parts)
        if str(name) not in known or not (ours or str(name) in LOCK_NAMES):
            raise ConfigurationError(f"{out} holds something else than these fits ({name}): choose another folder")
    if (out / MANIFEST_NAME).is_file() and ours and report.get("manifest_sha256") != sha256_of(out / MANIFEST_NAME):
        raise ConfigurationError(f"{out / MANIFEST_NAME} was edited: move it away, or choose another folder")
