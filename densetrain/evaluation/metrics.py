"""Normalised mean errors, by yaw bin, and what is read off them. NumPy alone."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import numpy.typing as npt

from densegen.arrays import Float64, Int64, Mask
from densegen.conventions import YAW_EDGES_DEG
from densegen.ibug68 import AFLW21, ids_of

__all__ = [
    "BALANCED_DRAWS",
    "BINS",
    "Score",
    "area_under_curve",
    "cumulative_errors",
    "nme",
    "points21",
    "score",
    "yaw_bins",
]

BINS = tuple(f"{'[' if low == 0 else '('}{low}, {high}]" for low, high in pairwise(YAW_EDGES_DEG))
BALANCED_DRAWS = 100


def nme(
    predicted: npt.NDArray[np.floating],
    truth: npt.NDArray[np.floating],
    normaliser: npt.NDArray[np.floating],
    visible: Mask | None = None,
) -> Float64:
    """(n,) NME in percent: ``100 * mean distance / normaliser``.

    predicted, truth : (n, P, D) pixels of one frame; distances over all D axes
    normaliser : (n,) pixels
    visible : (n, P) bool, points that count; by default all
    returns : (n,) float64; NaN for a face without a visible point
    """
    distance = np.linalg.norm(predicted.astype(np.float64) - truth.astype(np.float64), axis=-1)
    if visible is None:
        visible = np.ones(distance.shape, bool)
    counted = visible.sum(axis=-1)
    with np.errstate(invalid="ignore"):
        result: Float64 = 100 * np.where(visible, distance, 0).sum(axis=-1) / counted / normaliser
    return result


def points21(points68: npt.NDArray[np.floating]) -> npt.NDArray[np.floating]:
    """AFLW's (n, 21, D) points from (n, 68, D) iBUG ones: eye and mouth centres are means."""
    return np.stack([points68[:, ids_of(point)].mean(axis=1) for point in AFLW21], axis=1)


def yaw_bins(yaw_deg: npt.NDArray[np.floating]) -> Int64:
    """(n,) the number of the bin of |yaw|; a bin's upper edge belongs to it, and larger angles count in the last."""
    number: Int64 = np.searchsorted(YAW_EDGES_DEG[1:-1], np.abs(yaw_deg), side="left").astype(np.int64)
    return number


@dataclass(frozen=True)
class Score:
    """What a protocol's errors say, in percent.

    bins, counts : NME and number of faces in each yaw bin; NaN and 0 if a bin is empty
    mean, std : unweighted mean of the bins and their population standard deviation
    all_images : mean over all faces
    balanced : mean over random subsets with an equal number of faces from each bin that holds faces
    balanced_std : standard deviation of the subsets' means
    balanced_size : faces from each bin in a subset
    seed : of the generator that draws the subsets
    auc : area under the CED curve up to ``threshold``, percent of the whole
    failures : share of the faces above ``threshold``, percent
    threshold : NME, percent
    """

    bins: tuple[float, ...]
    counts: tuple[int, ...]
    mean: float
    std: float
    all_images: float
    balanced: float
    balanced_std: float
    balanced_size: int
    seed: int
    auc: float
    failures: float
    threshold: float


def score(errors: Float64, yaw_deg: npt.NDArray[np.floating], *, threshold: float = 10.0, seed: int = 0) -> Score:
    """Sum up (n,) NMEs by yaw, as published tables do.

    The headline is the unweighted mean over the bins that hold faces.
    """
    number = yaw_bins(yaw_deg)
    members = [np.flatnonzero(number == b) for b in range(len(BINS))]
    bins = [float(errors[m].mean()) if m.size else float("nan") for m in members]
    filled = [m for m in members if m.size]
    smallest = min(m.size for m in filled)
    generator = np.random.default_rng(seed)
    draws = [
        float(np.mean([errors[generator.choice(m, smallest, replace=False)].mean() for m in filled]))
        for _ in range(BALANCED_DRAWS)
    ]
    return Score(
        bins=tuple(bins),
        counts=tuple(int(m.size) for m in members),
        mean=float(np.nanmean(bins)),
        std=float(np.nanstd(bins)),
        all_images=float(errors.mean()),
        balanced=float(np.mean(draws)),
        balanced_std=float(np.std(draws)),
        balanced_size=smallest,
        seed=seed,
        auc=area_under_curve(errors, threshold),
        failures=100 * float((errors > threshold).mean()),
        threshold=threshold,
    )


def cumulative_errors(errors: Float64, threshold: float) -> tuple[Float64, Float64]:
    """The CED curve up to ``threshold``: NMEs, and the percent of faces with at most that NME; a step function."""
    ordered = np.sort(errors)
    kept = ordered[ordered <= threshold]
    share = 100 * np.arange(1, len(kept) + 1) / len(ordered)
    x = np.concatenate([[0.0], np.repeat(kept, 2), [threshold]])
    y = np.repeat(np.concatenate([[0.0], share]), 2)
    return x, y


def area_under_curve(errors: Float64, threshold: float) -> float:
    """The area under the CED curve up to ``threshold``, as percent of the whole: exact, without bins."""
    return 100 * (float(np.clip(threshold - errors, 0, None).mean()) / threshold)
