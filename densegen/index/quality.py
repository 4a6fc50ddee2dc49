"""How good a vertex index is, measured on a model's mean face in millimetres."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from densegen.arrays import Float32, Float64, Mask
from densegen.face.morphable_model import MorphableModel
from densegen.face.regions import REGIONS, valid_uv_region
from densegen.geometry.position_map import make_uv_table
from densegen.geometry.surface import SurfacePoints
from densegen.ibug68 import KEYPOINTS, ids_of
from densegen.index.landmark import Landmark
from densegen.index.points import BarePoint, name_points
from densegen.index.vertex_index import VertexIndex
from densegen.sources.fits import read_coefficients

__all__ = [
    "IndexDifference",
    "IndexQuality",
    "coefficient_spread",
    "compare",
    "face_surface",
    "farthest_point_index",
    "mean_length",
    "measure",
    "recovery_error",
]

NOISE_MM = 2.0


@dataclass(frozen=True, eq=False)
class IndexQuality:
    """What ``densegen index check`` prints of one index.

    coverage_mm : largest, 99th percentile and mean distance from a point of the face's surface to its nearest landmark
    spacing_mm : smallest and median distance from a landmark to its nearest neighbour
    added_spacing_mm : the smallest distance from a landmark to its nearest neighbour, over the pairs in which at least
        one of the two is not among the iBUG 68; NaN if there is no such pair
    mirrored : how many landmarks have a mirror partner
    recovery_mm : see :func:`recovery_error`: of identity alone, and of identity with expression
    regions : number of landmarks in each region
    region_spacing_mm : median distance from a landmark to its nearest neighbour, for each region
    distance_mm : (256, 256) float64, distance from each pixel of the UV map to the nearest landmark, NaN outside the
        face
    """

    name: str
    landmarks: int
    coverage_mm: tuple[float, float, float]
    spacing_mm: tuple[float, float]
    added_spacing_mm: float
    mirrored: int
    subsets: tuple[str, ...]
    recovery_mm: tuple[float, float]
    regions: dict[str, int]
    region_spacing_mm: dict[str, float]
    distance_mm: Float64


def face_surface(model: MorphableModel) -> tuple[SurfacePoints, Mask]:
    """The surface points under the UV pixels that count as face, and (256, 256) bool, which pixels those are."""
    table = make_uv_table(model.uv, model.triangles)
    valid = valid_uv_region() & table.valid
    return table.points[np.flatnonzero(valid[table.valid])], valid


def measure(index: VertexIndex, model: MorphableModel, std: npt.NDArray[np.floating] | None = None) -> IndexQuality:
    """Measure an index on the model's mean face.

    std : (Ks + Ke,) standard deviations of the raw coefficients for the recovery; the model's own if None
    """
    from scipy.spatial import cKDTree

    mean_mm = model.mean_mm.astype(np.float32)
    surface, valid = face_surface(model)
    landmarks = index.resolve(model)
    places = landmarks.gather(mean_mm)
    distance = cKDTree(places).query(surface.gather(mean_mm))[0]
    neighbour, nearest = (column[:, 1] for column in cKDTree(places).query(places, k=2))
    keypoint = np.zeros(len(index), bool)
    keypoint[[i for point in index.subsets.get("ibug68", ()) for i in ids_of(point)]] = True
    added = neighbour[~(keypoint & keypoint[nearest])]
    region = np.array([landmark.region for landmark in index.landmarks])
    spread = np.concatenate([model.shape_std, model.expression_std]) if std is None else std
    identity = np.arange(len(spread)) < len(model.shape_std)
    picture = np.full(valid.shape, np.nan)
    picture[valid] = distance
    return IndexQuality(
        name=f"{index.name} {index.version}",
        landmarks=len(index),
        coverage_mm=(float(distance.max()), float(np.percentile(distance, 99)), float(distance.mean())),
        spacing_mm=(float(neighbour.min()), float(np.median(neighbour))),
        added_spacing_mm=float(added.min()) if added.size else float("nan"),
        mirrored=int((index.mirror >= 0).sum()),
        subsets=tuple(index.subsets),
        recovery_mm=(
            recovery_error(landmarks, surface, model, spread * identity),
            recovery_error(landmarks, surface, model, spread),
        ),
        regions={r: int((region == r).sum()) for r in REGIONS if (region == r).any()},
        region_spacing_mm={
            name: float(np.median(neighbour[region == name])) for name in REGIONS if (region == name).any()
        },
        distance_mm=picture,
    )


def recovery_error(
    landmarks: SurfacePoints,
    surface: SurfacePoints,
    model: MorphableModel,
    std: npt.NDArray[np.floating],
    noise_mm: float = NOISE_MM,
) -> float:
    """The mean error of the whole surface, in mm, when a face is recovered from its landmarks alone.

    Coefficients have the prior ``a ~ N(0, diag(std^2))``; landmarks are seen as ``L a + e``, each coordinate of e ~
    N(0, noise_mm^2), where L holds the components at the landmarks. The posterior covariance of the whitened
    coefficients is ``C = (I + (L S)^T (L S) / noise_mm^2)^-1``, S = diag(std) (Bishop, PRML, eq. 2.117; for morphable
    models Albrecht et al., CVPR 2008), so a surface point with components G_i is wrong by ``d_i ~ N(0, G_i S C S
    G_i^T)``. The result is the mean of ``E|d_i|`` over the points of ``surface``.

    std : (Ks + Ke,) standard deviations of the raw coefficients; 0 holds a component still
    """
    moving = np.flatnonzero(std)
    if not moving.size:
        return 0.0
    basis = model.basis[:-1].reshape(len(std), -1, 3)[moving]
    scale = np.asarray(std, np.float64)[moving] * model.unit_mm
    seen, whole = _components_at(landmarks, basis, scale), _components_at(surface, basis, scale)
    precision = np.eye(len(moving)) + seen @ seen.T / noise_mm**2
    root = np.linalg.cholesky(np.linalg.inv(precision))
    spread = (whole.T @ root).reshape(len(surface), 3, -1)
    return float(mean_length(spread @ spread.transpose(0, 2, 1)).mean())


def mean_length(covariance: Float64) -> Float64:
    """(n,) expected lengths ``E|d|`` of vectors ``d ~ N(0, covariance)``, covariance : (n, D, D).

    With eigenvalues l, ``E|d| = 1 / (2 sqrt(pi)) * integral over s > 0 of (1 - prod (1 + 2 s l)^-1/2) s^-3/2`` (Mathai
    and Provost, Quadratic Forms in Random Variables, 1992), by 64 Gauss-Legendre nodes after ``s = (t / (1 - t))^2``:
    exact to 1e-6.
    """
    eigenvalues = np.linalg.eigvalsh(covariance).clip(0)
    total = eigenvalues.sum(axis=1, keepdims=True) + np.finfo(np.float64).tiny
    nodes, weights = np.polynomial.legendre.leggauss(64)
    t = (nodes + 1) / 2
    s = (t / (1 - t)) ** 2
    # s^-3/2 ds = 2 t^-2 dt
    factors = 1 + 2 * s[:, None] * (eigenvalues / total)[:, None, :]
    integral = ((1 - factors.prod(axis=2) ** -0.5) * weights / t**2).sum(axis=1)
    length: Float64 = np.sqrt(total[:, 0]) * integral / (2 * np.sqrt(np.pi))
    return length


def _components_at(points: SurfacePoints, basis: Float32, scale: Float64) -> Float64:
    """(K, 3 N) components at surface points, in mm per standard deviation."""
    return np.stack(
        [points.gather(field).astype(np.float64).ravel() * s for field, s in zip(basis, scale, strict=True)]
    )


def coefficient_spread(folder: Path, model: MorphableModel) -> Float64:
    """(Ks + Ke,) standard deviations of the raw coefficients over the fits in ``folder`` and below it.

    Raises :class:`ConfigurationError` if fewer than two fits there belong to the model.
    """
    spread: Float64 = read_coefficients(folder, model.component_counts, model.name).std(axis=0)
    return spread


@dataclass(frozen=True)
class IndexDifference:
    """What changed from one index to another, by names; ``moved`` says how far, in ``unit``.

    renamed : old name -> new name of landmarks that stayed within a UV pixel
    """

    added: tuple[str, ...]
    removed: tuple[str, ...]
    renamed: dict[str, str]
    moved: dict[str, float]
    same: int
    unit: str


def compare(old: VertexIndex, new: VertexIndex, model: MorphableModel | None = None) -> IndexDifference:
    """Compare two indices by name, and those without a namesake by place; mm on a model's mean face, else UV pixels."""
    if model is None:
        places: list[Float64] = [index.uv for index in (old, new)]
    else:
        places = [index.resolve(model).gather(model.mean) * np.float64(model.unit_mm) for index in (old, new)]
    before, after = (
        {landmark.name: place for landmark, place in zip(index.landmarks, rows, strict=True)}
        for index, rows in zip((old, new), places, strict=True)
    )
    distance = {name: float(np.linalg.norm(after[name] - before[name])) for name in after if name in before}
    moved = {name: length for name, length in distance.items() if length > 1e-4}
    gone, come = ([m for m in one.landmarks if m.name not in other] for one, other in ((old, after), (new, before)))
    renamed = _renamed(gone, come)
    return IndexDifference(
        added=tuple(m.name for m in come if m.name not in renamed.values()),
        removed=tuple(m.name for m in gone if m.name not in renamed),
        renamed=renamed,
        moved=moved,
        same=len(distance) - len(moved),
        unit="UV px" if model is None else "mm",
    )


def _renamed(gone: list[Landmark], come: list[Landmark]) -> dict[str, str]:
    """Landmarks that are each other's nearest, within a UV pixel."""
    from scipy.spatial import cKDTree

    if not gone or not come:
        return {}
    trees = [cKDTree([m.uv for m in some]) for some in (gone, come)]
    distance, there = trees[1].query(trees[0].data)
    back = trees[0].query(trees[1].data)[1]
    return {
        one.name: come[to].name
        for row, (one, to) in enumerate(zip(gone, there, strict=True))
        if back[to] == row and distance[row] <= 1.0
    }


def farthest_point_index(model: MorphableModel, count: int) -> VertexIndex:
    """The plain baseline: the iBUG 68, then again and again the place of the face that is farthest from all so far."""
    from scipy.spatial import cKDTree

    mean_mm = model.mean_mm.astype(np.float32)
    surface, valid = face_surface(model)
    places = surface.gather(mean_mm).astype(np.float64)
    distance = cKDTree(mean_mm[model.keypoints68[:count]]).query(places)[0]
    chosen: list[int] = []
    while KEYPOINTS + len(chosen) < count:
        chosen.append(int(np.argmax(distance)))
        distance = np.minimum(distance, np.linalg.norm(places - places[chosen[-1]], axis=1))
    rows, columns = np.nonzero(valid)
    keypoints = model.keypoint_pixels
    points = [
        BarePoint((float(x), float(y)), vertex=int(vertex))
        for (x, y), vertex in zip(keypoints[:count], model.keypoints68, strict=False)
    ]
    points += [BarePoint((float(columns[n]), float(rows[n]))) for n in chosen]
    name = "farthest-point" if count > KEYPOINTS else "ibug68-alone"
    return name_points(points, model, name, "farthest-point", range(KEYPOINTS) if count >= KEYPOINTS else None)
