"""What is known of a face before its landmarks are seen: a Gaussian over coefficients, and an earlier fit."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from densegen.arrays import Float32, Float64
from densegen.errors import ConfigurationError
from densegen.face.morphable_model import MorphableModel
from densegen.sources.fits import read_coefficients

__all__ = ["EarlierFit", "Prior", "prior_of_model", "read_prior"]


@dataclass(frozen=True, eq=False)
class Prior:
    """Coefficients before anything is observed: independent, ``a_k ~ N(mean_k, std_k^2)``.

    mean, std : (K,) float64, raw coefficients, shape before expression; a std of 0 holds a coefficient at its mean
    """

    mean: Float64
    std: Float64


def prior_of_model(model: MorphableModel) -> Prior:
    """The model's own: around the mean face, with the standard deviations that its file states.

    Raises :class:`ConfigurationError` if it states none.
    """
    std = np.concatenate([model.shape_std, model.expression_std]).astype(np.float64)
    if len(std) > 1 and float(std.max()) == float(std.min()):
        raise ConfigurationError(
            f"{model.name} states the same standard deviation, {std[0]:g}, for each of its components, so they are not "
            "known: give a folder of fits whose coefficients say them, with --prior"
        )
    return Prior(np.zeros(len(std)), std)


def read_prior(folder: Path | None, model: MorphableModel) -> Prior:
    """The mean and the spread of the coefficients of the fits in a folder and below it, or without one the model's own
    prior; of another model's fits nothing is taken.

    Raises :class:`ConfigurationError` if there is no folder, or fewer than two fits belong to the model.
    """
    if folder is None:
        return prior_of_model(model)
    table = read_coefficients(folder, model.component_counts, model.name)
    return Prior(table.mean(axis=0), table.std(axis=0))


@dataclass(frozen=True, eq=False)
class EarlierFit:
    """A fit that exists, and how far the truth may be from it (standard deviations).

    pose : (7,) float32, see ``conventions.POSE_FIELDS``
    coefficients : (K,) float64, raw
    rotation_rad : of the rotation, about each axis
    scale : of the scale's logarithm
    shift : of the translation, as a share of the face's size
    share : of the coefficients, as a share of the prior's standard deviations
    """

    pose: Float32
    coefficients: Float64
    rotation_rad: float = 0.1
    scale: float = 0.1
    shift: float = 0.04
    share: float = 0.5
