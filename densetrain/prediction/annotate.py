"""What a network says of the faces of fits that exist: landmarks for ``densegen fits``. No torch here."""

from __future__ import annotations

import io
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from densegen.arrays import Float32, Float64, Image
from densegen.errors import SampleError
from densegen.executors import read_ahead
from densegen.geometry.crop import box_around
from densegen.sources.fit_list import FitEntry
from densegen.sources.fits import read_labels
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
            buffer, allow_pickle=False, annotated_by=np.array(self.annotated_by),
            vertex_index=np.array(self.vertex_index), names=np.array(self.names, str), landmarks=self.landmarks,
        )  # fmt: skip
        return buffer.getvalue()


def annotate(
    network: Regressor, entries: Sequence[FitEntry], root: Path,
    advance: Callable[[int, int], None] = lambda done, aside: None,
) -> Annotated:  # fmt: skip
    """Ask a network for its landmarks of each fit's face, in the crop around the 68 points of the fit's file.

    advance : told how many more are done, and how many of them were passed over
    """
    names, found, passed = [], [np.zeros((0, len(network.index), 2), np.float32)], []
    for part in read_ahead(_read_part, [entries[first : first + BATCH] for first in range(0, len(entries), BATCH)]):
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


def _read_part(entries: Sequence[FitEntry]) -> list[tuple[FitEntry, _Face | SampleError]]:
    return [(entry, _read(entry)) for entry in entries]


def _read(entry: FitEntry) -> _Face | SampleError:
    try:
        points, _ = read_labels(entry.fit)
        image, box = read_photograph(entry.image), box_around(points.astype(np.float64) - 1)  # MATLAB counts from 1
        centre, size = (box[:2] + box[2:]) / 2, box[2:] - box[:2]
        height, width = image.shape[:2]
        if not (size >= NARROWEST_PX).all() or not ((centre >= 0) & (centre <= [width - 1, height - 1])).all():
            raise SampleError("face-outside", f"{entry.fit.name}: its 68 points are no face in the picture")
        return image, box
    except SampleError as error:
        return error


def _name(entry: FitEntry, root: Path) -> str:
    return entry.fit.relative_to(root).with_suffix("").as_posix()
