"""The whole story of one fit: pose the mesh, crop the photograph, gather the landmarks, mirror, encode."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import NamedTuple

import numpy as np
import simplejpeg

from densegen.arrays import Float32, Float64, Image, Int32
from densegen.conventions import landmark_range_px
from densegen.dataset.map_codec import pack_map
from densegen.dataset.shards import Sample
from densegen.errors import SampleError
from densegen.face.components import combine
from densegen.face.depth import DepthSearch, make_depth_search
from densegen.face.morphable_model import MorphableModel
from densegen.geometry.crop import Crop, CropRecipe, box_around, crop_generator, place_crop, warp
from densegen.geometry.flip import flip_keypoints, flip_points
from densegen.geometry.pose import pose_vertices
from densegen.geometry.position_map import UvTable, make_uv_table, render_fixed_point
from densegen.geometry.surface import SurfacePoints
from densegen.index.vertex_index import VertexIndex
from densegen.sources.fit_list import FitEntry
from densegen.sources.fits import Fit, read_fit
from densegen.sources.manifest import FlipPolicy
from densegen.sources.photograph import read_photograph

__all__ = [
    "BATCH",
    "Face",
    "Recipe",
    "check_components",
    "check_in_picture",
    "make_samples",
    "mesh_in_image",
    "samples_of_fit",
]

BATCH = 16
"""Fits whose vertices are computed together, strip by strip of the basis; a vertex's bits do not depend on it."""


@dataclass(frozen=True, eq=False)
class Recipe:
    """All that turns a fit into samples, made once a process: the model, the index, and the settings."""

    model: MorphableModel
    index: VertexIndex
    seed: int = 0
    flip: FlipPolicy = "mirror"
    position_maps: bool = False
    crop: CropRecipe = field(default_factory=CropRecipe)
    jpeg_quality: int = 95

    @cached_property
    def landmarks(self) -> SurfacePoints:
        return self.index.resolve(self.model)

    @cached_property
    def mirrored_landmarks(self) -> SurfacePoints:
        return self.index.resolve_mirrored(self.model)

    @cached_property
    def uv_table(self) -> UvTable:
        return make_uv_table(self.model.uv, self.model.triangles)

    @cached_property
    def depth(self) -> DepthSearch:
        return make_depth_search(self.model)

    @cached_property
    def needed(self) -> Int32:
        """(n,) int32, ascending: the vertices that samples are made of; about 1 % of the Basel mesh without maps."""
        points = [self.landmarks, self.mirrored_landmarks, *([self.uv_table.points] if self.position_maps else [])]
        return np.unique(np.concatenate([self.model.keypoints68, *(p.vertices.ravel() for p in points)]))

    @cached_property
    def basis(self) -> Float32:
        """(K + 1, 3 n) float32: the model's basis at the needed vertices."""
        return self.model.basis_at(self.needed)

    @cached_property
    def among_needed(self) -> _AmongNeeded:
        return _AmongNeeded(
            keypoints68=np.searchsorted(self.needed, self.model.keypoints68).astype(np.int32),
            landmarks=self.landmarks.among(self.needed),
            mirrored_landmarks=self.mirrored_landmarks.among(self.needed),
            uv_table=self.uv_table.among(self.needed) if self.position_maps else None,
        )

    def faces(self, fits: Sequence[Fit]) -> list[Face]:
        """The faces of some fits, computed together."""
        if not fits:
            return []
        coefficients = np.stack([self.model.coefficients(fit.shape, fit.expression) for fit in fits])
        grounds = self.depth.smallest_z(coefficients, np.stack([fit.pose for fit in fits]))
        return [Face(*face) for face in zip(combine(coefficients, self.basis), grounds.tolist(), strict=True)]


class Face(NamedTuple):
    """What samples need of a fit's mesh.

    vertices : (n, 3) float32, model frame and units: the needed ones, see :attr:`Recipe.needed`
    ground : smallest z of the whole posed mesh, pixels
    """

    vertices: Float32
    ground: float


@dataclass(frozen=True, eq=False)
class _AmongNeeded:
    """The points of a recipe, with their vertices counted among the needed ones."""

    keypoints68: Int32
    landmarks: SurfacePoints
    mirrored_landmarks: SurfacePoints
    uv_table: UvTable | None


def check_components(fit: Fit, model: MorphableModel, name: str) -> None:
    """Raise :class:`SampleError` if the fit's coefficients are not as many as the model's components."""
    found = (fit.shape.size, fit.expression.size)
    expected = (len(model.shape_basis), len(model.expression_basis))
    if found != expected:
        raise SampleError(
            "component-count",
            f"{name} has {found[0]} shape and {found[1]} expression coefficients, "
            f"the model {expected[0]} and {expected[1]}",
        )


def make_samples(entries: Sequence[FitEntry], recipe: Recipe) -> Iterator[tuple[FitEntry, list[Sample] | SampleError]]:
    """The samples of many fits, in order; a fit that cannot be used gives its :class:`SampleError` instead."""
    for start in range(0, len(entries), BATCH):
        batch = entries[start : start + BATCH]
        fits = [_read_checked(entry, recipe.model) for entry in batch]
        faces = iter(recipe.faces([fit for fit in fits if isinstance(fit, Fit)]))
        for entry, fit in zip(batch, fits, strict=True):
            if isinstance(fit, SampleError):
                yield entry, fit
                continue
            face = next(faces)
            try:
                yield entry, samples_of_fit(entry, fit, read_photograph(entry.image), face, recipe)
            except SampleError as error:
                yield entry, error


def samples_of_fit(entry: FitEntry, fit: Fit, photograph: Image, face: Face, recipe: Recipe) -> list[Sample]:
    """The sample of one fit and, with ``flip="mirror"``, its mirror image with a crop of its own.

    photograph : (H, W, 3) uint8, RGB
    face : one of :meth:`Recipe.faces`
    Raises :class:`SampleError` if the face lies outside the photograph or has no extent.
    """
    points_image = pose_vertices(face.vertices, fit.pose, photograph.shape[0])
    keypoints_image = points_image[recipe.among_needed.keypoints68]
    box = box_around(keypoints_image)
    check_in_picture(keypoints_image, box, photograph)
    samples = []
    for mirror in (False, True) if recipe.flip == "mirror" else (False,):
        jittered = entry.split != "test"
        generator = crop_generator(recipe.seed, entry.sample_id, mirror or entry.flipped) if jittered else None
        crop = place_crop(box, recipe.crop, generator).on_ground(face.ground)
        samples.append(_sample(entry, fit, photograph, points_image, crop, recipe, mirror=mirror))
    return samples


def _sample(
    entry: FitEntry,
    fit: Fit,
    photograph: Image,
    points_image: Float32,
    crop: Crop,
    recipe: Recipe,
    *,
    mirror: bool,
) -> Sample:
    among = recipe.among_needed
    landmarks = crop.apply((among.mirrored_landmarks if mirror else among.landmarks).gather(points_image))
    keypoints = crop.apply(points_image[among.keypoints68])
    stored_crop = crop
    if mirror:
        landmarks, keypoints = flip_points(landmarks, crop.size), flip_keypoints(keypoints, crop.size)
        stored_crop = crop.mirrored(photograph.shape[1])
    _check_range(crop.size, landmarks, keypoints)
    image = warp(photograph, crop, mirror=mirror)
    return Sample(
        sample_id=entry.mirrored_id if mirror else entry.sample_id,
        group=entry.group,
        split=entry.split,
        flipped=mirror or entry.flipped,
        mirrored=mirror,
        jpeg=simplejpeg.encode_jpeg(image, recipe.jpeg_quality, "RGB", "420"),
        landmarks=landmarks,
        keypoints68=keypoints,
        pose=fit.pose,
        shape=fit.shape,
        expression=fit.expression,
        crop=stored_crop.as_array(),
        image_size=(photograph.shape[0], photograph.shape[1]),
        position_map=_packed_map(points_image, crop, recipe, mirror=mirror) if recipe.position_maps else None,
    )


def _packed_map(points_image: Float32, crop: Crop, recipe: Recipe, *, mirror: bool) -> bytes:
    table = recipe.among_needed.uv_table
    assert table is not None
    return pack_map(render_fixed_point(table, crop.apply(points_image), crop.size, mirror=mirror))


def mesh_in_image(model: MorphableModel, fit: Fit, image_height: int) -> Float32:
    """The posed mesh of one fit: (V, 3) float32, pixels, image frame."""
    return pose_vertices(model.vertices(fit.shape, fit.expression), fit.pose, image_height)


def _read_checked(entry: FitEntry, model: MorphableModel) -> Fit | SampleError:
    try:
        fit = read_fit(entry.fit, optional=False)
        check_components(fit, model, entry.fit.name)
    except SampleError as error:
        return error
    return fit


def _check_range(size: int, *points: Float32) -> None:
    low, high = landmark_range_px(size)
    for array in points:
        if not (low <= array.min() and array.max() <= high):  # NaN is not in range either
            raise SampleError("landmarks-out-of-range", f"landmarks leave the range of {low:g} to {high:g} px")


def check_in_picture(keypoints_image: Float32, box: Float64, photograph: Image) -> None:
    """A face is in the picture if the centre of its keypoints' box and half of the keypoints are.

    keypoints_image : (68, 2 or 3) float32, px, image frame
    box : that around the keypoints; it is finite if they are
    Raises :class:`SampleError` if it is not, or lies outside.
    """
    height, width = photograph.shape[:2]
    x, y = keypoints_image[:, 0], keypoints_image[:, 1]
    left, top, right, bottom = box.tolist()
    centre_x, centre_y = (left + right) / 2, (top + bottom) / 2
    if not (math.isfinite(centre_x) and math.isfinite(centre_y)):
        raise SampleError("fit-invalid", "the posed face is not finite")
    inside = np.count_nonzero((x >= -0.5) & (x <= width - 0.5) & (y >= -0.5) & (y <= height - 0.5))
    if 2 * inside < len(x) or not (0 <= centre_x <= width - 1 and 0 <= centre_y <= height - 1):
        raise SampleError(
            "face-outside",
            f"{inside} of 68 keypoints lie in the {width}x{height} picture, the face's centre at "
            f"({centre_x:.0f}, {centre_y:.0f})",
        )
