"""What evaluation and prediction ask of a trained network, whatever runs it. No torch here."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Protocol

import numpy as np
import numpy.typing as npt

from densegen.arrays import Float32, Float64, Image
from densegen.errors import ConfigurationError
from densegen.extras import install_line
from densegen.geometry.crop import box_size, crop_of_box, warp
from densegen.geometry.flip import flip_points
from densegen.index.vertex_index import VertexIndex
from densetrain.network.description import Description
from densetrain.network.onnx_regressor import OnnxRegressor

__all__ = [
    "TURN_COUNTS",
    "Answer",
    "FlipTested",
    "Regressor",
    "answer_in_images",
    "open_regressor",
]

TURN_COUNTS = 1 / 3
"""Share of the upright answers' distance below which those of a turned crop count. With the network of docs/accuracy.md
six of AFLW2000-3D's faces take a turn, all to their good; below a half, another network took a wrong one, too."""

TOGETHER = 32
"""Crops that a network sees at once: at 256 px a crop takes some 15 MB within it."""


class Regressor(Protocol):
    """A trained network; ``index`` is the vertex index of its landmarks, ``name`` is for tables."""

    about: Description
    index: VertexIndex
    name: str

    @property
    def weights(self) -> str:
        """Digest of the weights, 16 digits: two networks may have one name."""
        ...

    def __call__(self, crops: Image) -> Float32:
        """(B, S, S, 3) uint8 RGB crops -> (B, N, 3) float32 landmarks, pixels, crop frame."""
        ...

    def with_sigma(self, crops: Image) -> tuple[Float32, Float32 | None]:
        """The same, and (B, N) float32, the standard deviation of each landmark's coordinates, pixels; None from a
        network that does not say it.
        """
        ...


class FlipTested:
    """A :class:`Regressor` that asks a network twice, for the crop and for its mirror image, and averages.

    The landmarks of the mirror image are mirrored back, and each takes its partner's place. This is the "flip test" of
    human pose estimation (Newell et al., ECCV 2016, section 4.2). It costs twice the time.

    If the two answers lie further apart than the network is off on average over its validation samples, the face may be
    on its side or head, which networks are seldom trained for: such a crop is looked at in its other quarter turns,
    too, at four times the cost. A turn counts if its answers lie less than a third as far apart.

    Raises :class:`ConfigurationError` if the index is not closed under the mirror.
    """

    about: Description
    index: VertexIndex
    name: str

    def __init__(self, network: Regressor) -> None:
        self.network, self.about, self.index = network, network.about, network.index
        self.name = f"{network.name}, flip test"
        if not self.index.mirror_closed:
            raise ConfigurationError(
                f"a flip test needs an index that is closed under the mirror, not {self.index.name}"
            )

    @property
    def weights(self) -> str:
        """See :attr:`Regressor.weights`."""
        return self.network.weights

    def __call__(self, crops: Image) -> Float32:
        return self.with_sigma(crops)[0]

    def with_sigma(self, crops: Image) -> tuple[Float32, Float32 | None]:
        """See :meth:`Regressor.with_sigma`: the sigmas of both answers are averaged, too."""
        one, other, sigma = self.both(crops)
        mean: Float32 = np.float32(0.5) * (one + other)
        return mean, sigma

    def both(self, crops: Image) -> tuple[Float32, Float32, Float32 | None]:
        """(B, N, 3) float32 landmarks, pixels, crop frame: of the crops, and of their mirror images, mirrored back; and
        the mean of their sigmas, if the network says them. Of unsure ones, in the quarter turn of which it is surest.
        """
        one, other, sigma = self.pair(crops)
        usual, apart = self.about.validation_nme, _apart(self.index, one, other)
        rows = np.flatnonzero(apart > (np.inf if usual is None else usual))
        enough = apart[rows] * TURN_COUNTS
        for turns in (1, 2, 3) if len(rows) else ():
            answers = self.pair(np.ascontiguousarray(np.rot90(crops[rows], turns, axes=(1, 2))))
            apart = _apart(self.index, answers[0], answers[1])
            better = apart < enough
            enough[better] = apart[better]
            for mine, turned in zip((one, other), answers[:2], strict=True):
                mine[rows[better]] = _turn_back(turned[better], turns, self.about.crop_size)
            if sigma is not None and answers[2] is not None:
                sigma[rows[better]] = answers[2][better]
        return one, other, sigma

    def pair(self, crops: Image) -> tuple[Float32, Float32, Float32 | None]:
        """The same of the crops as they are, whether or not the answers agree; the arrays are the caller's."""
        landmarks, sigma = self.network.with_sigma(crops)
        mirrored, other = self.network.with_sigma(np.ascontiguousarray(crops[:, :, ::-1]))
        back = flip_points(mirrored, self.about.crop_size)[:, self.index.mirror]
        if sigma is None or other is None:
            return landmarks.copy(), back, None
        return landmarks.copy(), back, np.float32(0.5) * (sigma + other[:, self.index.mirror])


def _apart(index: VertexIndex, one: Float32, other: Float32) -> Float64:
    """(B,) how far two answers lie apart, percent of sqrt(w h) of the box around the 68 that they mean (of all, if the
    index has no 68): the face's own size, since of one that is not seen, networks make large and small ones.
    """
    apart_px = np.linalg.norm((one - other)[..., :2].astype(np.float64), axis=-1).mean(axis=-1)
    mean = (one + other) / 2
    face = index.subset("ibug68", mean) if "ibug68" in index.subsets else mean
    share: Float64 = 100 * apart_px / np.maximum(box_size(face), 1.0)
    return share


def _turn_back(points: Float32, turns: int, size: int) -> Float32:
    """(B, N, 3) points of crops that ``np.rot90`` turned so often, in the crops as they were."""
    for _ in range(turns):
        points = np.stack([np.float32(size - 1) - points[..., 1], points[..., 0], points[..., 2]], axis=-1)
    return points


def open_regressor(path: str | Path, device: str = "cpu", *, flip_test: bool = False) -> Regressor:
    """A run's folder or an export's, a checkpoint, a ``.safetensors`` or an ``.onnx`` file as a network.

    device : torch's name of it; an ``.onnx`` file runs on the CPU
    flip_test : see :class:`FlipTested`

    Raises :class:`ConfigurationError` if there is none or torch is needed and not installed, :class:`FormatError` if
    it is damaged.
    """
    network = _open(Path(path), device)
    return FlipTested(network) if flip_test else network


def _open(path: Path, device: str) -> Regressor:
    onnx = path / "model.onnx"
    if onnx.is_file() and (find_spec("torch") is None or not (path / "model.safetensors").is_file()):
        path = onnx
    if path.suffix == ".onnx":
        if device != "cpu":
            raise ConfigurationError(f"{path.name}: ONNX files run on the CPU here, not on {device!r}")
        return OnnxRegressor.open(path)
    try:
        from densetrain.network.checkpoint import load_regressor
    except ImportError as error:
        raise ConfigurationError(f"checkpoints need torch: {install_line('train')}, or give an .onnx file") from error
    return load_regressor(path, device)


@dataclass(frozen=True, eq=False)
class Answer:
    """What a network says of n faces.

    landmarks : (n, N, 3) float32, pixels, image frame; z has the scale of x and y, and no origin
    sigma_px : (n, N) float64, standard deviation of each landmark's coordinates, pixels of the image, or None
    flip_distance : (n,) float64, how far the two answers of a flip test lie apart, in the turn of the crop that counts,
        or None: a network that is unsure of a face gives two. 100 times their mean distance in x and y over sqrt(w h)
        of the box around the 68 that were found: the unit of NME
    """

    landmarks: Float32
    sigma_px: Float64 | None
    flip_distance: Float64 | None


def answer_in_images(regressor: Regressor, images: Sequence[Image], boxes: npt.NDArray[np.floating]) -> Answer:
    """What a network says of n faces, each in an image of its own or in the same: ``TOGETHER`` a call.

    images : n of (H, W, 3) uint8 RGB
    boxes : (n, 4) left, top, right, bottom of the box around each face's 68 keypoints, pixels, image frame; n > 0
    """
    if len(boxes) > TOGETHER:
        parts = [slice(first, first + TOGETHER) for first in range(0, len(boxes), TOGETHER)]
        answers = [answer_in_images(regressor, images[part], boxes[part]) for part in parts]
        return Answer(
            np.concatenate([answer.landmarks for answer in answers]),
            _joined([answer.sigma_px for answer in answers]),
            _joined([answer.flip_distance for answer in answers]),
        )
    crops = [crop_of_box(box, regressor.about.margin, regressor.about.crop_size) for box in boxes]
    pictures = np.stack([warp(image, crop) for image, crop in zip(images, crops, strict=True)])
    scales = np.array([crop.scale for crop in crops])
    distance = None
    if isinstance(regressor, FlipTested):
        one, other, sigma = regressor.both(pictures)
        landmarks, distance = np.float32(0.5) * (one + other), _apart(regressor.index, one, other)
    else:
        landmarks, sigma = regressor.with_sigma(pictures)
    own = None if sigma is None else sigma.astype(np.float64) / scales[:, None]
    in_images = np.stack([crop.invert(points) for crop, points in zip(crops, landmarks, strict=True)])
    return Answer(in_images, own, distance)


def _joined(parts: list[Float64 | None]) -> Float64 | None:
    there = [part for part in parts if part is not None]
    return np.concatenate(there) if there else None
