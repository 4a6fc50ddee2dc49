"""Faces to judge a landmark's place on: the mean, drawn ones, or real fits with their photographs."""

from __future__ import annotations

import os
from functools import lru_cache
from pathlib import Path

import numpy as np
import numpy.typing as npt

from densegen.arrays import Float32, Image
from densegen.errors import SampleError
from densegen.face.morphable_model import MorphableModel
from densegen.files import files_below
from densegen.geometry.pose import pose_vertices
from densegen.geometry.renderer import vertex_normals
from densegen.sources.fit_list import find_image
from densegen.sources.fits import Fit, check_components, read_fit
from densegen.sources.photograph import read_photograph

__all__ = ["SampleFaces"]

COUNT = 24
"""Sample faces beside the mean face."""

SEEN_FROM = 0.15
"""Cosine between a surface's normal and the viewing axis from which a photograph is taken to show it."""

PLASTER = np.array([199, 189, 179], np.uint8)


class SampleFaces:
    """Number 0 is the mean face; the others are fits of photographs, or drawn with the spread ``std``.

    std : (Ks + Ke,) spread of the raw coefficients
    fits : a folder of fits (``*.mat``) with their photographs beside them, or None
    """

    def __init__(self, model: MorphableModel, std: npt.NDArray[np.floating], fits: Path | None = None) -> None:
        self.model, self.std = model, std
        self.fits = [] if fits is None else self._usable(files_below(fits, (".mat",)))
        self.count = len(self.fits) or COUNT

    def _usable(self, paths: list[Path]) -> list[Path]:
        """Fits of this model with a photograph beside them, spread evenly over all."""
        usable = []
        for path in paths[:: max(len(paths) // (4 * COUNT), 1)]:
            try:
                self._read(path)
            except SampleError:
                continue
            usable.append(path)
        return usable[:: max(len(usable) // COUNT, 1)][:COUNT]

    def _read(self, path: Path) -> tuple[Fit, Path]:
        fit = read_fit(path, optional=False)
        check_components(fit, self.model.component_counts, path.name)
        image = find_image(path.stem, os.listdir(path.parent), path.parent)
        if image is None:
            raise SampleError("image-missing", f"{path.name} has no photograph beside it")
        return fit, path.with_name(image)

    def vertices(self, number: int) -> Float32:
        """(V, 3) float32 vertices of a face, model units, model frame."""
        shapes = len(self.model.shape_basis)
        if number and self.fits:
            fit, _ = self._read(self.fits[number - 1])
            return self.model.vertices(fit.shape, fit.expression)
        drawn = np.random.default_rng(number).normal(0, self.std * (number > 0)).astype(np.float32)
        return self.model.vertices(drawn[:shapes], drawn[shapes:])

    @lru_cache(maxsize=COUNT + 1)  # noqa: B019 - there is one of these a process
    def photograph(self, number: int) -> Image | None:
        """(V, 3) uint8 colours of a fit's photograph at its vertices, plaster where it does not show them; None for
        faces without a photograph that can be read.
        """
        if not number or not self.fits:
            return None
        fit, path = self._read(self.fits[number - 1])
        try:
            image = read_photograph(path)
        except (SampleError, OSError):
            return None  # the face is shown in plaster
        points = pose_vertices(self.model.vertices(fit.shape, fit.expression), fit.pose, image.shape[0])
        columns, rows = np.rint(points[:, :2]).astype(np.int64).T
        inside = (columns >= 0) & (columns < image.shape[1]) & (rows >= 0) & (rows < image.shape[0])
        # In the image frame y points down, so the outward triangles run the other way round.
        facing = -vertex_normals(points, self.model.outward_triangles)[:, 2] > SEEN_FROM
        colours: Image = np.tile(PLASTER, (len(points), 1))
        seen = inside & facing
        colours[seen] = image[rows[seen], columns[seen]]
        return colours

    def describe(self, number: int) -> str:
        """What the page calls a face."""
        if not number:
            return "mean face"
        return self.fits[number - 1].stem if self.fits else f"drawn face {number}"
