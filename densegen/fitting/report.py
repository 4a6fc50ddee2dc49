"""What a run of the solver says of its fits: residuals, bias, what was set aside, and a sheet of overlays."""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import numpy as np

from densegen.arrays import Float32, Float64, Image
from densegen.drawing import contact_sheet, draw_points, write_png
from densegen.errors import SampleError
from densegen.files import write_text
from densegen.fitting.face_tasks import FitOutcome
from densegen.fitting.fit_folder import REPORT_FORMAT
from densegen.fitting.fitter import SWAPPED_REASON, Fitter
from densegen.fitting.solver import FEWEST_POINTS
from densegen.geometry.crop import box_around, crop_of_box, warp
from densegen.sources.annotations import Annotations
from densegen.sources.fits import read_fit
from densegen.sources.photograph import read_photograph

__all__ = ["FitReport", "draw_overlays", "summarise", "write_report"]

TILE_PX, COLUMNS, WORST, TYPICAL = 224, 6, 12, 6
GIVEN_RGB, FITTED_RGB, WRONG_RGB = (80, 255, 80), (255, 255, 255), (255, 40, 40)

COUNTED_FROM_ONE_PX = (0.7, 1.3)
"""A bias of this size to the right and downwards is what points have that count pixels from 1."""

FEWEST_FOR_BIAS = 8

MOST_SWAPPED = 0.25
"""Share of the faces."""


@dataclass(frozen=True)
class FitReport:
    """A run in numbers.

    fits : how many were written; ``unchanged`` of them had no landmarks
    set_aside : reason -> how many
    error : median, 90th percentile and largest of the faces' mean residuals, percent of the face's size; here and below
        a face's mean is over its points, each by 1 / sigma^2
    before : the same of the fits that existed, or None
    bias_px : observed minus explained, x and y, px, image frame: the median over the faces of each face's mean
    bias_before_px : the same of the fits that existed, or None
    points : (name, mean residual in percent of the face's size, how often it was left out) of each point
    """

    fits: int
    unchanged: int
    set_aside: dict[str, int]
    error: tuple[float, float, float]
    before: tuple[float, float, float] | None
    bias_px: tuple[float, float]
    bias_before_px: tuple[float, float] | None
    points: tuple[tuple[str, float, int], ...]

    @property
    def mostly_swapped(self) -> bool:
        """Whether so many faces fit with left and right swapped that the others can be trusted no more: a face that is
        turned by 80 degrees, its sides swapped, has the picture of one that is turned by 100.
        """
        swapped = self.set_aside.get(SWAPPED_REASON, 0)
        return swapped > 1 and swapped > MOST_SWAPPED * (swapped + self.fits)

    @property
    def counted_from_one(self) -> bool:
        """Whether the points lie beside existing fits as points do that count pixels from 1 and are taken to count from
        0.
        """
        low, high = COUNTED_FROM_ONE_PX
        return self.bias_before_px is not None and all(low <= bias <= high for bias in self.bias_before_px)


def summarise(fitter: Fitter, outcomes: Sequence[FitOutcome]) -> FitReport:
    """A run's outcomes as numbers."""
    fitted = [one for one in outcomes if one.reason is None and one.residuals is not None]
    aside = Counter(one.reason for one in outcomes if one.reason is not None)
    shares = [np.linalg.norm(one.residuals, axis=1) / one.size for one in fitted if one.residuals is not None]
    table = np.stack(shares) if shares else np.full((1, len(fitter.points)), np.nan)
    wrong = (
        np.sum([one.wrong for one in fitted if one.wrong is not None], axis=0) if fitted else np.zeros(table.shape[1])
    )
    before = [one for one in fitted if one.before is not None]
    return FitReport(
        fits=sum(one.reason is None for one in outcomes),
        unchanged=sum(one.reason is None and one.residuals is None for one in outcomes),
        set_aside={str(reason): count for reason, count in sorted(aside.items(), key=lambda pair: str(pair[0]))},
        error=_spread([one.error for one in fitted]),
        before=_spread([_error_before(one) for one in before]) if before else None,
        bias_px=_bias([one.mean(one.residuals) for one in fitted if one.residuals is not None]),
        bias_before_px=_bias([one.mean(one.before) for one in before if one.before is not None])
        if len(before) >= FEWEST_FOR_BIAS
        else None,
        points=tuple(
            (name, _percent(column), int(count))
            for name, column, count in zip(fitter.points.names, table.T, wrong, strict=True)
        ),
    )


def _percent(column: Float64) -> float:
    seen = column[~np.isnan(column)]
    return round(100 * float(seen.mean()), 3) if seen.size else float("nan")


def _error_before(outcome: FitOutcome) -> float:
    """Mean distance of the same points from the fit that existed."""
    assert outcome.before is not None
    return replace(outcome, residuals=outcome.before).error


def _spread(shares: list[float]) -> tuple[float, float, float]:
    if not shares:
        return (float("nan"),) * 3
    return (
        round(100 * float(np.median(shares)), 3),
        round(100 * float(np.percentile(shares, 90)), 3),
        round(100 * float(max(shares)), 3),
    )


def _bias(means: list[Float64]) -> tuple[float, float]:
    if not means:
        return (float("nan"), float("nan"))
    x, y = np.median(means, axis=0)
    return round(float(x), 3), round(float(y), 3)


def write_report(
    path: Path, report: FitReport, outcomes: Sequence[FitOutcome], fitter: Fitter, sources: Sequence[Annotations], *,
    model: str, prior: str, manifest: str | None,
) -> None:  # fmt: skip
    """Write a run's numbers, the faces that were set aside with their reasons, and each face's residual, as JSON.

    model, prior : in words
    manifest : the text of the manifest that is then written beside it, None if there is none
    """

    def number(value: float) -> float | None:
        return None if np.isnan(value) else value

    contents = {
        "format": REPORT_FORMAT,
        "format_version": 2,
        "model": model,
        "sources": [{"points": source.kind, "first_pixel": source.first_pixel} for source in sources],
        "settings": asdict(fitter.settings),
        "prior": prior,
        "manifest_sha256": None if manifest is None else hashlib.sha256(manifest.encode()).hexdigest(),
        "fits": report.fits,
        "unchanged": report.unchanged,
        "set_aside": report.set_aside,
        "error_percent": dict(zip(("median", "p90", "largest"), map(number, report.error), strict=True)),
        "error_before_percent": None
        if report.before is None
        else dict(zip(("median", "p90", "largest"), map(number, report.before), strict=True)),
        "bias_px": list(map(number, report.bias_px)),
        "bias_before_px": None if report.bias_before_px is None else list(report.bias_before_px),
        "residual_of_points": [
            {"name": name, "error_percent": number(error), "left_out": count} for name, error, count in report.points
        ],
        "faces": [
            {
                "name": one.task.name,
                "set_aside": one.reason,
                "why": one.message or None,
                "error_percent": None if np.isnan(one.error) else round(100 * one.error, 3),
                "left_out": [] if one.wrong is None else [fitter.points.names[i] for i in np.flatnonzero(one.wrong)],
            }
            for one in outcomes
        ],
    }
    write_text(path, json.dumps(contents, indent=1) + "\n")


def draw_overlays(path: Path, outcomes: Sequence[FitOutcome], out: Path) -> int:
    """A sheet of the worst fits and of typical ones, and how many were drawn: given points green, those left out red,
    the fit's 68 white. Of several sources the points that count most are drawn.
    """
    fitted = sorted(
        (one for one in outcomes if one.residuals is not None and one.task.points is not None),
        key=lambda one: -one.error,
    )
    middle = max(len(fitted) // 2 - TYPICAL // 2, min(WORST, len(fitted)))
    tiles = []
    for one in [*fitted[:WORST], *fitted[middle : middle + TYPICAL]]:
        tile = _tile(one, out)
        if tile is not None:
            tiles.append(tile)
    if tiles:
        write_png(contact_sheet(tiles, COLUMNS), path)
    return len(tiles)


def _tile(outcome: FitOutcome, out: Path) -> Image | None:
    points = outcome.task.points
    assert points is not None
    try:
        image = read_photograph(outcome.task.image)
        fit = read_fit(out / f"{outcome.task.name}.mat") if outcome.reason is None else None
    except SampleError:
        return None
    visible = outcome.surest & ~np.isnan(points[:, 0])
    if fit is None and visible.sum() < FEWEST_POINTS:
        return None
    keypoints = points[visible] if fit is None or fit.keypoints_3d is None else fit.keypoints_3d.T - [1, 1, 0]
    crop = crop_of_box(box_around(keypoints), 1.6, TILE_PX)

    def placed(xy: Float64) -> Float32:
        return crop.apply(np.concatenate([xy[:, :2], np.zeros((len(xy), 1))], axis=1).astype(np.float32))

    tile = warp(image, crop, mirror=False)
    wrong = np.zeros(len(points), bool) if outcome.wrong is None else outcome.wrong
    colours = np.where(wrong[:, None], WRONG_RGB, GIVEN_RGB)[visible]
    tile = draw_points(tile, placed(points[visible]), colours, scale=1, radius=2.4, rim=1.0)
    return tile if fit is None else draw_points(tile, placed(keypoints), FITTED_RGB, scale=1, radius=1.1)
