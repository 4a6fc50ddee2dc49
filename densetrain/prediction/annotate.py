"""What a network says of the faces of fits that exist: landmarks for ``densegen fits``. No torch here."""

from __future__ import annotations

import io
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np

from densegen.arrays import Float32, Float64, Image
from densegen.errors import SampleError
from densegen.executors import read_ahead
from densegen.face.components import combine
from densegen.face.morphable_model import MorphableModel
from densegen.geometry.crop import box_around, check_in_picture
from densegen.geometry.pose import pose_vertices
from densegen.sources.fit_list import FitEntry
from densegen.sources.fits import check_components, read_fit, read_labels
from densegen.sources.photograph import read_photograph
from densetrain.network.regressor import Regressor, answer_in_images

__all__ = ["Annotated", "annotate"]

BATCH = 16
"""Faces that a network is asked for together; the photographs of two batches are in memory."""

NARROWEST_PX = 4.0


@dataclass(frozen=True, eq=False)
class Annotated:
    """Landmarks of n faces.

    annotated_by : name of the network
    vertex_index : fingerprint of its vertex index
    names : of their fits, below the root, without ``.mat``, with ``/``
    landmarks : (n, N, 2) float32, px, image frame, centres from 0
    passed_over : (name, why) of each fit that has none
    """

    annotated_by: str
    vertex_index: str
    names: tuple[str, ...]
    landmarks: Float32
    passed_over: tuple[tuple[str, str], ...]

    def to_npz(self) -> bytes:
        """A NumPy archive of what is above but what was passed over, as ``densegen fits`` reads it; nothing in it is
        pickled. The network's name is its first array, by which densegen knows the file again.
        """
        buffer = io.BytesIO()
        np.savez(
            buffer, annotated_by=np.array(self.annotated_by),
            vertex_index=np.array(self.vertex_index), names=np.array(self.names, str), landmarks=self.landmarks,
        )  # fmt: skip
        return buffer.getvalue()


def annotate(
    network: Regressor, entries: Sequence[FitEntry], root: Path, model: MorphableModel | None = None,
    advance: Callable[[int, int], None] = lambda done, aside: None,
) -> Annotated:  # fmt: skip
    """Ask a network for its landmarks of each fit's face, in the crop around its 68 points.

    model : poses the fit, and so says where they lie, as in a build; None for the points that the fit's file has
    advance : told how many more are done, and how many of them were passed over
    """
    read = partial(_read_part, _points_of_files if model is None else _posed_points(model))
    names, found, passed = [], [np.zeros((0, len(network.index), 2), np.float32)], []
    for part in read_ahead(read, [entries[first : first + BATCH] for first in range(0, len(entries), BATCH)]):
        there = [(entry, face) for entry, face in part if not isinstance(face, SampleError)]
        passed += [(_name(entry, root), str(face)) for entry, face in part if isinstance(face, SampleError)]
        if there:
            images, boxes = [image for _, (image, _) in there], np.stack([box for _, (_, box) in there])
            found.append(answer_in_images(network, images, boxes).landmarks[..., :2])
            names += [_name(entry, root) for entry, _ in there]
        advance(len(part), len(part) - len(there))
    return Annotated(network.name, network.index.fingerprint, tuple(names), np.concatenate(found), tuple(passed))


_Face = tuple[Image, Float64]
"""A photograph, and the box around its face's 68 points."""

_Points = Callable[[Path, int], Float32]
"""(68, 2 or 3) float32, px, image frame: the points of the fit in a file, of a photograph of so many rows."""


def _points_of_files(fit: Path, height: int) -> Float32:
    points, _ = read_labels(fit)
    return points - 1  # MATLAB counts from 1


def _posed_points(model: MorphableModel) -> _Points:
    basis = model.basis_at(model.keypoints68)

    def points(path: Path, height: int) -> Float32:
        fit = read_fit(path, optional=False)
        check_components(fit, model.component_counts, path.name)
        return pose_vertices(combine(model.coefficients(fit.shape, fit.expression)[None], basis)[0], fit.pose, height)

    return points


def _read_part(points: _Points, entries: Sequence[FitEntry]) -> list[tuple[FitEntry, _Face | SampleError]]:
    return [(entry, _read(points, entry)) for entry in entries]


def _read(points: _Points, entry: FitEntry) -> _Face | SampleError:
    try:
        image = read_photograph(entry.image)
        found = points(entry.fit, len(image))
        box = box_around(found.astype(np.float64))
        check_in_picture(found, box, *image.shape[:2])
        if not (box[2:] - box[:2] >= NARROWEST_PX).all():
            raise SampleError("fit-invalid", f"{entry.fit.name}: its 68 points are no face")
        return image, box
    except SampleError as error:
        return error


def _name(entry: FitEntry, root: Path) -> str:
    return entry.fit.relative_to(root).with_suffix("").as_posix()
