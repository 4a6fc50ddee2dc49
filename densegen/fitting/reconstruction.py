"""The whole surface of a face from its landmarks."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from densegen.arrays import Float32, Float64, Mask
from densegen.conventions import POSE_FIELDS
from densegen.errors import SampleError
from densegen.face.morphable_model import MorphableModel
from densegen.fitting.model_points import ModelPoints
from densegen.fitting.prior import Prior
from densegen.fitting.solver import FaceSolver, Solution, face_size
from densegen.geometry.crop import box_size
from densegen.geometry.pose import camera_points, pose_vertices
from densegen.sources.fits import Fit, complete_fit

__all__ = ["Reconstruction", "Reconstructor", "reconstruction_as_json"]

NETWORK_SIGMA = 0.1
"""Standard deviation of a network's landmark, as a share of the face's size, if nobody says it: more than the 3 to 5 %
by which landmarks are off, since a network's errors are alike in neighbouring landmarks, and the solver takes them for
independent.
"""


LEAST_SIGMA_PX = 1e-3


@dataclass(frozen=True, eq=False)
class Reconstruction:
    """A face that was found behind landmarks.

    fit : as 300W-LP would store it
    vertices : (V, 3) float32, model frame and units
    vertices_image : (V, 3) float32, px, image frame; z without an origin if the landmarks had no depth
    residuals : (N,) float64, px: distance of each landmark from where the face puts it, NaN if it was not visible
    left_out : (N,) bool, landmarks that were found to be wrong
    size_px : sqrt(w h) of the box of its 68 keypoints
    """

    fit: Fit
    vertices: Float32
    vertices_image: Float32
    residuals: Float64
    left_out: Mask
    size_px: float

    @property
    def error_percent(self) -> float:
        """Mean residual of the landmarks that were used, as percent of the face's size."""
        return 100 * float(np.nanmean(self.residuals[~self.left_out])) / self.size_px


class Reconstructor:
    """Finds surfaces by landmarks at the same points of a model.

    model : of whose faces the surface is one
    points : where on the model the landmarks are
    prior : of the coefficients
    robust : whether a few landmarks may be wrong, as a person's may
    sigma : of a landmark's coordinate, as a share of the face's size, if no sigma comes with the landmarks
    """

    def __init__(
        self,
        model: MorphableModel,
        points: ModelPoints,
        prior: Prior,
        *,
        robust: bool = False,
        sigma: float = NETWORK_SIGMA,
    ) -> None:
        self.model, self.points, self.prior, self.robust, self.sigma = model, points, prior, robust, sigma
        self.solver = FaceSolver(points, prior, robust=robust)

    def __call__(
        self, landmarks: Float32 | Float64, image_height: int, sigma_px: Float64 | None = None
    ) -> Reconstruction:
        """The face behind one set of landmarks.

        landmarks : (N, 2 or 3), px, image frame; z without an origin; NaN = not visible
        sigma_px : (N,) float64, standard deviation of each landmark's coordinates
        Raises :class:`SampleError` if no face follows from them.
        """
        found = self.solve(landmarks, image_height, sigma_px)
        shapes = len(self.model.shape_basis)
        coefficients = found.coefficients.astype(np.float32)
        vertices = self.model.vertices(coefficients[:shapes], coefficients[shapes:])
        posed = pose_vertices(vertices, found.pose, image_height)
        keypoints = posed[self.model.keypoints68]
        fit = complete_fit(found.pose, coefficients[:shapes], coefficients[shapes:], keypoints, landmarks)
        distance = np.linalg.norm(found.residuals[:, :2], axis=1)
        return Reconstruction(fit, vertices, posed, distance, found.wrong, float(box_size(keypoints)))

    def solve(self, landmarks: Float32 | Float64, image_height: int, sigma_px: Float64 | None = None) -> Solution:
        """Pose and coefficients alone; see :meth:`__call__`."""
        observed = camera_points(landmarks, image_height)
        seen = np.isfinite(observed).all(axis=1)
        if not seen.any():
            raise SampleError("points-too-few", "no landmark is visible")
        own = max(self.sigma * face_size(observed[seen]), LEAST_SIGMA_PX)
        return self.solver.solve(observed, own if sigma_px is None else np.maximum(sigma_px, LEAST_SIGMA_PX))

    def with_identity(self, shapes: Sequence[Float32]) -> Reconstructor:
        """The same for one person: the shape coefficients are the mean of those found so far, and stay."""
        count = len(self.model.shape_basis)
        mean, std = self.prior.mean.copy(), self.prior.std.copy()
        mean[:count] = np.mean(np.stack(shapes).astype(np.float64), axis=0)
        std[:count] = 0.0
        return Reconstructor(self.model, self.points, Prior(mean, std), robust=self.robust, sigma=self.sigma)


def reconstruction_as_json(found: Reconstruction, points: ModelPoints, model: MorphableModel) -> dict[str, Any]:
    """A reconstruction as plain values: coefficients, pose, and the residual of each landmark in pixels."""
    return {
        "model": {"name": model.name, "fingerprint": model.fingerprint},
        "pose": dict(zip(POSE_FIELDS, map(float, found.fit.pose), strict=True)),
        "shape": [float(f"{value:.6g}") for value in found.fit.shape],
        "expression": [float(f"{value:.6g}") for value in found.fit.expression],
        "error_percent": round(found.error_percent, 3),
        "residual_px": {
            name: None if np.isnan(value) else round(float(value), 3)
            for name, value in zip(points.names, found.residuals, strict=True)
        },
        "left_out": [points.names[row] for row in np.flatnonzero(found.left_out)],
    }
