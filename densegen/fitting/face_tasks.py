"""The faces to be fitted: landmarks of people's files, matched with photographs or with fits that exist."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

import numpy as np

from densegen.arrays import Float64, Mask
from densegen.errors import ConfigurationError
from densegen.files import files_below, stays_below
from densegen.fitting.solver import FEWEST_POINTS
from densegen.sources.annotations import Annotations, FaceMarks
from densegen.sources.fit_list import FitEntry, check_name
from densegen.sources.photograph import IMAGE_SUFFIXES

__all__ = [
    "FITS_FOLDER",
    "FaceTask",
    "FitOutcome",
    "marks_of_photograph",
    "tasks_of_fits",
    "tasks_of_photographs",
]

FITS_FOLDER = "FITS"
"""Folder, below the root that is written, of fits that are made anew."""


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
    weight : (N,) how much each point counts in a mean: 1 / sigma^2; None if all count alike
    """

    task: FaceTask
    reason: str | None = None
    message: str = ""
    size: float = float("nan")
    residuals: Float64 | None = None
    before: Float64 | None = None
    wrong: Mask | None = None
    weight: Float64 | None = None

    @property
    def error(self) -> float:
        """Mean distance of the points that were used, each by its weight, as a share of the face's size."""
        if self.residuals is None:
            return float("nan")
        distance = np.linalg.norm(self.residuals, axis=1)
        return float(self.mean(distance, None if self.wrong is None else ~self.wrong)) / self.size

    def mean(self, values: Float64, counted: Mask | None = None) -> Float64:
        """Mean of (N, ...) values of the points that are visible and ``counted``, each by its weight."""
        rows = ~np.isnan(values.reshape(len(values), -1)[:, 0])
        rows = rows if counted is None else rows & counted
        mean: Float64 = np.average(values[rows], axis=0, weights=None if self.weight is None else self.weight[rows])
        return mean

    @property
    def surest(self) -> Mask:
        """(N,) bool: the points of the largest weight of which enough for a face are visible; all if there is none."""
        assert self.task.points is not None
        visible = ~np.isnan(self.task.points[:, 0])
        for weight in () if self.weight is None else np.unique(self.weight[visible])[::-1]:
            rows: Mask = self.weight == weight
            if (rows & visible).sum() >= FEWEST_POINTS:
                return rows
        return np.ones(len(visible), bool)


def tasks_of_photographs(photos: Path, sources: Sequence[Annotations]) -> tuple[list[FaceTask], list[FitOutcome]]:
    """The faces whose photographs are there, and the others as outcomes.

    A photograph is named by its path below ``photos``, with or without its suffix, or by its name alone if that is
    unique there. A face has the points of all sources, one source's after the other's; with several sources a
    photograph has one face.

    Raises :class:`ConfigurationError` if the folder does not exist, no face has a photograph, or a photograph has
    several faces in several sources.
    """
    if not photos.is_dir():
        raise ConfigurationError(f"{photos} is not a folder of photographs")
    places = _Places(PurePosixPath(*path.relative_to(photos).parts) for path in files_below(photos, IMAGE_SUFFIXES))
    found: dict[tuple[PurePosixPath, int], dict[int, Float64]] = {}
    missing: dict[tuple[str, int], FitOutcome] = {}
    seen = Counter[tuple[int, str]]()
    for number, face in _numbered(sources):
        if not stays_below(face.image):
            raise ConfigurationError(f"the photograph {face.image!r} leaves {photos}: give names below it")
        candidates = places.named(face.image)
        name = str(candidates[0]) if len(candidates) == 1 else f"{FITS_FOLDER}/{_without_suffix(face.image)}"
        nth, seen[number, name] = seen[number, name], seen[number, name] + 1
        reason, why = "image-missing", f"{face.image} has no photograph"
        if len(candidates) == 1:
            try:
                check_name(str(candidates[0].with_suffix("")), photos)
            except ConfigurationError as error:  # a build would refuse all fits for it
                reason, why = "image-name", str(error)
            else:
                found.setdefault((candidates[0], nth), {})[number] = face.points
                continue
        if len(candidates) > 1:
            reason, why = "image-ambiguous", f"{face.image} names {len(candidates)} photographs: give their folders"
        task = FaceTask(name, photos / face.image, face.points)
        missing.setdefault((name, nth), FitOutcome(task, reason, why))
    if not found:
        first = next(iter(missing.values()))
        raise ConfigurationError(f"{len(missing)} faces, and not one has a photograph in {photos}: {first.message}")
    of_photograph = Counter(place for place, _ in found)
    most, count = of_photograph.most_common(1)[0]
    if len(sources) > 1 and count > 1:
        raise ConfigurationError(f"{most} has several faces in one of {len(sources)} files of landmarks: give one")
    tasks = []
    for (place, nth), marks in found.items():
        own = f"_face{nth}" if of_photograph[place] > 1 else ""
        points = _one_after_the_other(marks, sources)
        tasks.append(FaceTask(f"{FITS_FOLDER}/{place.with_suffix('')}{own}", photos / place, points))
    if twice := [name for name, count in Counter(task.name for task in tasks).items() if count > 1]:
        raise ConfigurationError(f"two faces would be written to {twice[0]}.mat: rename one of their photographs")
    return tasks, list(missing.values())


def _numbered(sources: Sequence[Annotations]) -> Iterator[tuple[int, FaceMarks]]:
    """Each face with the number of the source that it is of."""
    return ((number, face) for number, source in enumerate(sources) for face in source.faces)


def _one_after_the_other(marks: dict[int, Float64], sources: Sequence[Annotations]) -> Float64:
    """(N, 2 or 3) a face's points of all sources, 2D if there are several; NaN for a source that lacks the face.

    marks : (n, 2 or 3) by the number of a source
    """
    if len(sources) == 1:
        return marks[0]
    nothing = [np.full((len(source.names), 2), np.nan) for source in sources]
    return np.concatenate(
        [marks[number][:, :2] if number in marks else nothing[number] for number in range(len(sources))]
    )


def _without_suffix(name: str) -> str:
    """A photograph's name without the suffix of a picture; another ending belongs to the name."""
    path = PurePosixPath(name)
    return str(path.with_suffix("") if path.suffix.lower() in IMAGE_SUFFIXES else path)


def marks_of_photograph(image: Path, source: Annotations) -> list[FaceMarks]:
    """The faces of one photograph, which is named by the end of its path, with or without its suffix; of names that fit
    the fullest counts.
    """
    parts = image.with_suffix("").resolve().parts  # of a link its own name, not that of what it leads to
    named = [(PurePosixPath(_without_suffix(face.image)).parts, face) for face in source.faces]
    fitting = [(len(name), face) for name, face in named if parts[-len(name) :] == name]
    fullest = max((length for length, _ in fitting), default=0)
    return [face for length, face in fitting if length == fullest]


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


def tasks_of_fits(
    entries: Sequence[FitEntry], root: Path, sources: Sequence[Annotations]
) -> tuple[list[FaceTask], list[str]]:
    """Fits that exist, with their landmarks if there are some, those of all sources; the others stay as they are. And
    the names of landmarks that are of no fit.

    Raises :class:`ConfigurationError` if not one has landmarks, or a name means several fits.
    """
    fits = {PurePosixPath(*entry.fit.relative_to(root).parts): entry for entry in entries}
    places, marks, strangers = _Places(fits), dict[PurePosixPath, dict[int, Float64]](), list[str]()
    for number, face in _numbered(sources):
        meant = places.named(_without_suffix(face.image))
        if len(meant) > 1:
            raise ConfigurationError(f"{face.image} names {len(meant)} fits: give their folders")
        if meant and number in marks.setdefault(meant[0], {}):
            raise ConfigurationError(f"{meant[0]} has landmarks of two faces: a fit is of one")
        if meant:
            marks[meant[0]][number] = face.points
        else:
            strangers.append(face.image)
    if not marks:
        raise ConfigurationError(
            f"none of {len(fits)} fits has landmarks: the first fit is {next(iter(fits), 'not there')}, the first "
            f"landmarks are of {sources[0].faces[0].image}"
        )
    points = {path: _one_after_the_other(of_fit, sources) for path, of_fit in marks.items()}
    tasks = [
        FaceTask(str(path.with_suffix("")), entry.image, points.get(path), entry.fit) for path, entry in fits.items()
    ]
    return tasks, strangers
