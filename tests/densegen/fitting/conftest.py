"""Faces of the procedural model with their landmarks, in the camera frame."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from densegen.face.morphable_model import MorphableModel
from densegen.fitting.model_points import ModelPoints, aflw21_points, ibug68_points, landmark_points
from densegen.fitting.prior import Prior, prior_of_model
from densegen.geometry.pose import rotation_matrix
from densegen.index.vertex_index import VertexIndex

Seen = Callable[..., tuple[np.ndarray, np.ndarray, np.ndarray]]


@pytest.fixture(scope="session")
def points68(model: MorphableModel) -> ModelPoints:
    return ibug68_points(model)


@pytest.fixture(scope="session")
def points21(model: MorphableModel) -> ModelPoints:
    return aflw21_points(model)


@pytest.fixture(scope="session")
def points520(model: MorphableModel, index: VertexIndex) -> ModelPoints:
    return landmark_points(model, index)


@pytest.fixture(scope="session")
def prior(model: MorphableModel) -> Prior:
    return prior_of_model(model)


def face(prior: Prior, seed: int, yaw_deg: float = 20.0, roll_deg: float = 10.0) -> tuple[np.ndarray, np.ndarray]:
    """A random pose of the camera frame, (7,), and the coefficients of a random face, (K,)."""
    generator = np.random.default_rng(seed)
    coefficients = prior.mean + generator.normal(0, 0.7, len(prior.std)) * prior.std
    angles = np.deg2rad([generator.uniform(-15, 15), yaw_deg, roll_deg])
    return np.array([*angles, 210.0, 240.0, 0.0, 1.1e-3]), coefficients


def camera(points: ModelPoints, pose: np.ndarray, coefficients: np.ndarray) -> np.ndarray:
    """(N, 3) points of a face in the camera frame."""
    return pose[6] * points.at(coefficients) @ rotation_matrix(*pose[:3]).T + pose[3:6]
