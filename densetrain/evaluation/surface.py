"""AFLW2000-3D's faces as surfaces: what a network's landmarks say of the whole face, against the fits.

The surface is the morphable model's face that explains the predicted landmarks best; the truth is the fit's own. Two
alignments are printed, since they answer different questions:

* *vertex to vertex*: each point against the same point, moved along the viewing axis alone, of which landmarks have no
  origin. It counts everything that is wrong, the pose among it.
* *rigid ICP*: the surface turned and shifted onto the truth by the iterative closest point algorithm (Besl and McKay,
  PAMI 1992), each point against the nearest one, as users of PRNet report it. It hides errors along the surface, and
  those of the pose: its correlation with the true error is as low as 0.41 (Sariyanidi et al., "Meta-evaluation for 3D
  face reconstruction via synthetic data", IJCB 2023). It is printed for comparison with published tables.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np

from densegen.arrays import Float32, Float64
from densegen.errors import ConfigurationError, FormatError, SampleError
from densegen.face.morphable_model import MorphableModel
from densegen.fitting.model_points import landmark_points
from densegen.fitting.prior import Prior
from densegen.fitting.reconstruction import NETWORK_SIGMA, Reconstructor
from densegen.geometry.pose import pose_vertices
from densegen.ibug68 import ids_of
from densegen.index.quality import face_surface
from densegen.sources.fits import Fit, read_fit
from densetrain.evaluation.benchmarks import Benchmark
from densetrain.evaluation.evaluate import Result
from densetrain.evaluation.metrics import score
from densetrain.network.regressor import Regressor, answer_in_images

__all__ = ["evaluate_surface", "rigid_icp"]

SURFACE_POINTS = 2000
"""About so many points of the face's surface, spread evenly over its UV map, are compared."""

ICP_STEPS = 20

WITHOUT_SURFACE = 100.0
"""Error, percent, of a face whose landmarks make no surface."""


def evaluate_surface(
    network: Regressor,
    benchmark: Benchmark,
    model: MorphableModel,
    prior: Prior,
    *,
    prior_in_words: str = "of the model",
    sigma: float = NETWORK_SIGMA,
    threshold: float = 10.0,
    seed: int = 0,
    progress: Callable[[int], None] = lambda n: None,
) -> list[Result]:
    """Score surfaces of all landmarks, of the 68 alone, and of the mean face in the pose that the landmarks say; and
    the landmarks themselves in 3D.

    benchmark : AFLW2000-3D with its images and fits
    sigma : of a landmark, as a share of the face's size, from a network that does not say its own
    Raises :class:`ConfigurationError` if the images or the subset ibug68 are missing, :class:`FormatError` if a fit
    cannot be read or is of another model.
    """
    if benchmark.images is None:
        raise ConfigurationError(f"{benchmark.title}: surfaces need the folder of images and fits: --root")
    if "ibug68" not in network.index.subsets:
        raise ConfigurationError(f"{network.index.name} has no iBUG 68 to compare with")
    table = _Errors(network, benchmark, model, prior, sigma)
    kept: dict[tuple[str, str], list[float]] = {}
    for row in table.rows():
        for key, value in row.items():
            kept.setdefault(key, []).append(value)
        progress(1)
    made = (
        f"crops around the true boxes, model {model.fingerprint[:8]}, prior {prior_in_words}, sigma {100 * sigma:g} %"
    )
    if table.without:
        made += f", {table.without} surfaces that could not be made count {WITHOUT_SURFACE:g} %"
    results = []
    for (what, alignment), errors in kept.items():
        values = np.array(errors)
        points = f"{len(network.index)} landmarks" if what == "landmarks" else f"surface of {model.name}"
        protocol = benchmark.protocol.model_copy(update={"points": points, "dimensions": "3D", "alignment": alignment})
        results.append(
            Result(
                method=f"{network.name}, {what}",
                protocol=protocol,
                made=made,
                weights=network.weights,
                score=score(values, benchmark.yaw_deg, threshold=threshold, seed=seed),
                names=list(benchmark.names),
                errors=[float(e) for e in values],
                yaw_deg=[float(y) for y in benchmark.yaw_deg],
            )
        )
    return results


class _Errors:
    """The errors of one face after the other, in percent of the true 68 points' box."""

    def __init__(
        self, network: Regressor, benchmark: Benchmark, model: MorphableModel, prior: Prior, sigma: float
    ) -> None:
        self.network, self.benchmark, self.model = network, benchmark, model
        points = landmark_points(model, network.index)
        self.landmarks, self.without = network.index.resolve(model), 0
        rows68 = [i for point in network.index.subsets["ibug68"] for i in ids_of(point)]
        everything, still = list(range(len(points))), Prior(prior.mean, np.zeros_like(prior.std))
        self.makers = {
            f"surface from the {len(points)}": (Reconstructor(model, points, prior, sigma=sigma), everything),
            "surface from the 68": (Reconstructor(model, points.rows(rows68), prior, sigma=sigma), rows68),
            "mean face in their pose": (Reconstructor(model, points, still, sigma=sigma), everything),
        }
        surface, _ = face_surface(model)
        self.surface = surface[np.arange(0, len(surface), max(len(surface) // SURFACE_POINTS, 1))]

    def rows(self) -> Iterator[dict[tuple[str, str], float]]:
        assert self.benchmark.images is not None
        faces = zip(
            self.benchmark.read_images(), self.benchmark.images, self.benchmark.names, self.benchmark.boxes,
            self.benchmark.normaliser, strict=True,
        )  # fmt: skip
        for image, path, name, box, size in faces:
            fit = self._fit(path.with_name(f"{name}.mat"))
            truth = pose_vertices(self.model.vertices(fit.shape, fit.expression), fit.pose, len(image))
            answer = answer_in_images(self.network, [image], box[None])
            found, sigma_px = answer.landmarks[0], None if answer.sigma_px is None else answer.sigma_px[0]
            true_surface = self.surface.gather(truth).astype(np.float64)
            row = {("landmarks", "vertex to vertex"): _apart(found, self.landmarks.gather(truth), size)}
            for what, (maker, rows) in self.makers.items():
                try:
                    made = maker(found[rows], len(image), None if sigma_px is None else sigma_px[rows])
                except SampleError:
                    self.without += 1
                    row[what, "vertex to vertex"] = row[what, "rigid ICP"] = WITHOUT_SURFACE
                    continue
                surface = self.surface.gather(made.vertices_image).astype(np.float64)
                row[what, "vertex to vertex"] = _apart(surface, true_surface, size)
                row[what, "rigid ICP"] = 100 * rigid_icp(surface, true_surface) / float(size)
            yield row

    def _fit(self, path: Path) -> Fit:
        try:
            fit = read_fit(path, optional=False)
            self.model.coefficients(fit.shape, fit.expression)
        except (SampleError, ConfigurationError) as error:
            raise FormatError(f"{self.benchmark.title}, {path.name}: {error}") from error
        return fit


def _apart(points: Float32 | Float64, truth: Float32 | Float64, size: float) -> float:
    """Mean distance of each point from its own true one, in percent of a size; z without an origin."""
    difference = points.astype(np.float64) - truth
    difference[:, 2] -= difference[:, 2].mean()
    return 100 * float(np.linalg.norm(difference, axis=1).mean()) / float(size)


def rigid_icp(points: Float64, truth: Float64) -> float:
    """Mean distance of points from the nearest true ones after turning and shifting them there (Besl and McKay, 1992;
    the turn by Arun, Huang and Blostein, PAMI 1987).

    points, truth : (n, 3) and (m, 3) float64, one unit
    """
    from scipy.spatial import cKDTree

    tree = cKDTree(truth)
    moved = points + (truth.mean(axis=0) - points.mean(axis=0))
    distance, nearest = tree.query(moved)
    for _ in range(ICP_STEPS):
        goal = truth[nearest]
        middle, aim = moved.mean(axis=0), goal.mean(axis=0)
        u, _, vt = np.linalg.svd((moved - middle).T @ (goal - aim))
        turn = vt.T @ np.diag([1.0, 1.0, np.sign(np.linalg.det(vt.T @ u.T))]) @ u.T
        moved = (moved - middle) @ turn.T + aim
        before = float(distance.mean())
        distance, nearest = tree.query(moved)
        if before - float(distance.mean()) < 1e-4 * before:
            break
    return float(distance.mean())
