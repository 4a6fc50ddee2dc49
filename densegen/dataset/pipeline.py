"""The whole story of one fit: pose the mesh, crop the photograph, gather the landmarks, mirror, encode."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import NamedTuple

import numpy as np
import simplejpeg

from densegen.arrays import Float32, Image, Int32
from densegen.conventions import landmark_range_px
from densegen.dataset.map_codec import pack_map
from densegen.dataset.shards import Sample
from densegen.errors import SampleError
from densegen.face.components import combine
from densegen.face.depth import DepthSearch, make_depth_search
from densegen.face.morphable_model import MorphableModel
from densegen.geometry.crop import (
    Crop,
    CropRecipe,
    box_around,
    check_in_picture,
    crop_generator,
    place_crop,
    warp,
)
from densegen.geometry.flip import flip_points
from densegen.geometry.pose import pose_vertices
from densegen.geometry.position_map import UvTable, make_uv_table, render_fixed_point
from densegen.geometry.surface import SurfacePoints, used_vertices
from densegen.ibug68 import KEYPOINT_MIRROR, KEYPOINTS
from densegen.index.vertex_index import VertexIndex
from densegen.sources.fit_list import FitEntry
from densegen.sources.fits import Fit, check_components, read_fit
from densegen.sources.manifest import FlipPolicy
from densegen.sources.photograph import read_photograph

__all__ = [
    "BATCH",
    "Face",
    "Recipe",
    "make_samples",
    "mesh_in_image",
    "samples_of_fit",
]

BATCH = 32
"""Fits that go through each step together, in a build, and when maps are rendered again; no bit depends on it."""

HELD_BYTES = 32 << 20
"""Pixels that wait for the next step, of photographs and of their crops: beyond this, no further one is read."""


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

    @property
    def mirrors(self) -> tuple[bool, ...]:
        """Of each sample of a fit, whether it is a mirror image."""
        return (False, True) if self.flip == "mirror" else (False,)

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
        """(n,) int32: the vertices that samples are made of; about 1 % of the Basel mesh without maps."""
        return used_vertices(*([self.uv_table.points] if self.position_maps else []), *self._points)

    @property
    def _points(self) -> tuple[SurfacePoints, SurfacePoints]:
        """Of a sample and of its mirror image the points at the same places of the list: the landmarks, and behind
        them the 68 keypoints.
        """
        keypoints = self.model.keypoints68
        return (
            _with_vertices(self.landmarks, keypoints),
            _with_vertices(self.mirrored_landmarks, keypoints[KEYPOINT_MIRROR]),
        )

    @cached_property
    def basis(self) -> Float32:
        """(K + 1, 3 n) float32: the model's basis at the needed vertices."""
        return self.model.basis_at(self.needed)

    @cached_property
    def among_needed(self) -> _AmongNeeded:
        points, mirrored_points = (some.among(self.needed) for some in self._points)
        return _AmongNeeded(
            keypoints68=points.vertices[-KEYPOINTS:, 0],
            points=points,
            mirrored_points=mirrored_points,
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
    points: SurfacePoints
    mirrored_points: SurfacePoints
    uv_table: UvTable | None


def _with_vertices(points: SurfacePoints, vertices: Int32) -> SurfacePoints:
    """The points, and behind them some vertices themselves."""
    weights = np.tile(np.array([1, 0, 0], np.float32), (len(vertices), 1))
    return SurfacePoints(
        np.concatenate([points.vertices, np.repeat(vertices[:, None], 3, axis=1)]),
        np.concatenate([points.weights, weights]),
    )


def make_samples(entries: Sequence[FitEntry], recipe: Recipe) -> Iterator[tuple[FitEntry, list[Sample] | SampleError]]:
    """The samples of many fits, in order; a fit that cannot be used gives its :class:`SampleError` instead.

    Each step is taken for a batch of fits before the next one: steps that take turns empty the caches for each other.
    """
    for start in range(0, len(entries), BATCH):
        batch = entries[start : start + BATCH]
        fits = [_read_checked(entry, recipe.model) for entry in batch]
        faces = iter(recipe.faces([fit for fit in fits if isinstance(fit, Fit)]))
        waiting, held = list[tuple[FitEntry, _Work | SampleError]](), 0
        for entry, fit in zip(batch, fits, strict=True):
            waiting.append((entry, fit if isinstance(fit, SampleError) else _begin(entry, fit, next(faces))))
            held += _held_bytes(waiting[-1][1], recipe)
            if held > HELD_BYTES:
                yield from _finished(waiting, recipe)
                waiting, held = [], 0
        yield from _finished(waiting, recipe)
        waiting = []  # the next batch begins without this one's photographs


def _held_bytes(work: _Work | SampleError, recipe: Recipe) -> int:
    crops = len(recipe.mirrors) * 3 * recipe.crop.size**2
    return 0 if isinstance(work, SampleError) else work.photograph.nbytes + crops


def samples_of_fit(entry: FitEntry, fit: Fit, photograph: Image, face: Face, recipe: Recipe) -> list[Sample]:
    """The sample of one fit and, with ``flip="mirror"``, its mirror image with a crop of its own.

    photograph : (H, W, 3) uint8, RGB
    face : one of :meth:`Recipe.faces`
    Raises :class:`SampleError` if the face lies outside the photograph or has no extent.
    """
    work = _Work(entry, fit, face, photograph)
    for step in _STEPS:
        step(work, recipe)
    return work.samples


@dataclass(slots=True, eq=False)
class _Work:
    """A fit on its way to its samples. Each step fills in what the next ones need; lists have one item a sample.

    points_image : (n, 3) float32, pixels, image frame: the needed vertices
    generators : of the crops' jitter; None for none
    crops : of the photograph as it is, also that of the mirror image
    points : (N + 68, 3) float32, pixels, crop frame: landmarks, and keypoints
    images : (S, S, 3) uint8, RGB, until they are encoded
    maps : packed position maps
    """

    entry: FitEntry
    fit: Fit
    face: Face
    photograph: Image
    points_image: Float32 = field(init=False)
    generators: list[np.random.Generator | None] = field(init=False)
    crops: list[Crop] = field(init=False)
    points: list[Float32] = field(init=False)
    images: list[Image] = field(init=False)
    jpegs: list[bytes] = field(init=False)
    maps: list[bytes] | list[None] = field(init=False)
    samples: list[Sample] = field(init=False)


def _begin(entry: FitEntry, fit: Fit, face: Face) -> _Work | SampleError:
    try:
        return _Work(entry, fit, face, read_photograph(entry.image))
    except SampleError as error:
        return _without_traceback(error)


def _without_traceback(error: SampleError) -> SampleError:
    """The same error; its traceback would keep all that its functions had in hand, a whole file for one."""
    return SampleError(error.reason, str(error))


def _finished(
    waiting: list[tuple[FitEntry, _Work | SampleError]], recipe: Recipe
) -> Iterator[tuple[FitEntry, list[Sample] | SampleError]]:
    works: list[_Work | SampleError] = [work for _, work in waiting]
    for step in _STEPS:
        for n, work in enumerate(works):
            try:
                if not isinstance(work, SampleError):
                    step(work, recipe)
            except SampleError as error:
                works[n] = _without_traceback(error)
    for (entry, _), work in zip(waiting, works, strict=True):
        yield entry, work if isinstance(work, SampleError) else work.samples


def _pose(work: _Work, recipe: Recipe) -> None:
    work.points_image = pose_vertices(work.face.vertices, work.fit.pose, work.photograph.shape[0])


def _seed_crops(work: _Work, recipe: Recipe) -> None:
    entry = work.entry
    work.generators = [
        crop_generator(recipe.seed, entry.sample_id, mirror or entry.flipped) if entry.split != "test" else None
        for mirror in recipe.mirrors
    ]


def _lay_crops(work: _Work, recipe: Recipe) -> None:
    keypoints = work.points_image[recipe.among_needed.keypoints68]
    box = box_around(keypoints)
    check_in_picture(keypoints, box, *work.photograph.shape[:2])
    work.crops = [place_crop(box, recipe.crop, one).on_ground(work.face.ground) for one in work.generators]


def _gather_points(work: _Work, recipe: Recipe) -> None:
    work.points, among = [], recipe.among_needed
    for crop, mirror in zip(work.crops, recipe.mirrors, strict=True):
        points = crop.apply((among.mirrored_points if mirror else among.points).gather(work.points_image))
        if mirror:
            points = flip_points(points, crop.size)
        _check_range(crop.size, points)
        work.points.append(points)


def _cut_images(work: _Work, recipe: Recipe) -> None:
    sides = zip(work.crops, recipe.mirrors, strict=True)
    work.images = [warp(work.photograph, crop, mirror=mirror) for crop, mirror in sides]


def _encode_images(work: _Work, recipe: Recipe) -> None:
    work.jpegs = [simplejpeg.encode_jpeg(image, recipe.jpeg_quality, "RGB", "420") for image in work.images]
    work.images = []


def _render_maps(work: _Work, recipe: Recipe) -> None:
    table = recipe.among_needed.uv_table
    if table is None:
        work.maps = [None] * len(work.crops)
        return
    work.maps = [
        pack_map(render_fixed_point(table, work.points_image, crop, mirror=mirror))
        for crop, mirror in zip(work.crops, recipe.mirrors, strict=True)
    ]


def _collect(work: _Work, recipe: Recipe) -> None:
    entry, fit, (height, width) = work.entry, work.fit, work.photograph.shape[:2]
    parts = zip(recipe.mirrors, work.crops, work.points, work.jpegs, work.maps, strict=True)
    work.samples = [
        Sample(
            sample_id=entry.mirrored_id if mirror else entry.sample_id,
            group=entry.group,
            split=entry.split,
            flipped=mirror or entry.flipped,
            mirrored=mirror,
            jpeg=jpeg,
            landmarks=points[:-KEYPOINTS],
            keypoints68=points[-KEYPOINTS:],
            pose=fit.pose,
            shape=fit.shape,
            expression=fit.expression,
            crop=(crop.mirrored(width) if mirror else crop).as_array(),
            image_size=(height, width),
            position_map=position_map,
        )
        for mirror, crop, points, jpeg, position_map in parts
    ]


_STEPS = (_pose, _seed_crops, _lay_crops, _gather_points, _cut_images, _encode_images, _render_maps, _collect)


def mesh_in_image(model: MorphableModel, fit: Fit, image_height: int) -> Float32:
    """The posed mesh of one fit: (V, 3) float32, pixels, image frame."""
    return pose_vertices(model.vertices(fit.shape, fit.expression), fit.pose, image_height)


def _read_checked(entry: FitEntry, model: MorphableModel) -> Fit | SampleError:
    try:
        fit = read_fit(entry.fit, optional=False)
        check_components(fit, model.component_counts, entry.fit.name)
    except SampleError as error:
        return _without_traceback(error)
    return fit


def _check_range(size: int, points: Float32) -> None:
    low, high = landmark_range_px(size)
    if not (low <= points.min() and points.max() <= high):  # NaN is not in range either
        raise SampleError("landmarks-out-of-range", f"landmarks leave the range of {low:g} to {high:g} px")
