"""What a face from landmarks costs, in units of one Cholesky solution of its normal equations by LAPACK, one thread.

At least five steps are needed from the mean face, and each makes and solves such equations.
"""

from __future__ import annotations

import time

import numpy as np
import pytest
from scipy.linalg import cho_factor, cho_solve
from threadpoolctl import threadpool_limits

from densegen.face.morphable_model import MorphableModel
from densegen.fitting.model_points import ModelPoints, landmark_points
from densegen.fitting.prior import Prior, prior_of_model
from densegen.fitting.solver import FaceSolver
from densegen.geometry.pose import rotation_matrix
from densegen.index.vertex_index import VertexIndex
from tests.benchmarks.conftest import Ratio

FACES = 40


def with_components(points: ModelPoints, prior: Prior, shapes: int, expressions: int) -> tuple[ModelPoints, Prior]:
    """The points with so many components: those that there are, and smooth ones made of them for the rest."""
    generator, wanted = np.random.default_rng(0), shapes + expressions
    more = max(wanted - len(prior.std), 0)
    mixed = np.tensordot(generator.normal(0, 0.2, (more, len(prior.std))) * prior.std, points.components, 1)
    waves = np.sin(points.mean @ generator.normal(0, 1e-4, (3, more))).T[..., None] + 1
    components = np.concatenate([points.components, mixed * waves])[:wanted]
    std = np.concatenate([prior.std, np.ones(more)])[:wanted]
    return ModelPoints(points.names, points.mean, components, points.normals, points.mirror), Prior(std * 0, std)


@pytest.mark.benchmark
@pytest.mark.parametrize(("shapes", "expressions", "goal"), [(199, 29, 40), (40, 10, 150)])
def test_a_fit_costs_few_solutions_of_its_equations(
    model: MorphableModel, index: VertexIndex, ratio: Ratio, shapes: int, expressions: int, goal: float
) -> None:
    """On a processor with AVX-512 LAPACK gains more than our kernels, which do not fuse."""
    points, prior = with_components(landmark_points(model, index), prior_of_model(model), shapes, expressions)
    generator, solver, faces = np.random.default_rng(1), FaceSolver(points, prior), []
    for _ in range(FACES):
        rotation = rotation_matrix(*generator.uniform(-0.5, 0.5, 3))
        face = 1.1e-3 * points.at(generator.normal(size=len(prior.std)) * prior.std) @ rotation.T
        faces.append(face + generator.normal(0, 1.0, face.shape))
    normal = np.cov(generator.normal(size=(7 + shapes + expressions, 600))) + np.eye(7 + shapes + expressions)
    right = generator.normal(size=len(normal))
    solver.solve(faces[0], 1.0)
    with threadpool_limits(1):
        fits, solutions = [], []
        for face in faces:
            begin = time.process_time()
            solver.solve(face, 1.0)
            fits.append(time.process_time() - begin)
            begin = time.process_time()
            for _ in range(10):
                cho_solve(cho_factor(normal, lower=True, check_finite=False), right, check_finite=False)
            solutions.append((time.process_time() - begin) / 10)
    cost = float(np.median(fits) / np.median(solutions))
    ratio(f"a fit with {shapes} + {expressions} components", cost, "solutions of its equations by LAPACK", goal)
    print(f"{1 / np.median(fits):.0f} fits a second and core")
    assert cost < 3 * goal
