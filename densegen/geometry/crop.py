"""The training crop: where it lies (seeded), the similarity it is, and the pixels in it."""

from __future__ import annotations

import hashlib
import math
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt

from densegen.arrays import Float32, Float64, Image
from densegen.conventions import CROP_SIZE
from densegen.errors import SampleError
from densegen.geometry.kernels import kernel
from densegen.geometry.pixels import average, interpolate

__all__ = [
    "Crop",
    "CropRecipe",
    "box_around",
    "box_size",
    "check_in_picture",
    "crop_generator",
    "crop_of_box",
    "place_crop",
    "warp",
]


@dataclass(frozen=True, slots=True)
class CropRecipe:
    """How a square is laid around a face, as published for 300W-LP training (Feng et al., PRNet, ECCV 2018).

    The box of the 68 keypoints has the mean side m = (w + h) / 2. The square has the side ``margin * m * U(1 -
    scale_jitter, 1 + scale_jitter)``; its centre is the box's, moved by ``U(-shift_jitter, shift_jitter) * m`` in x
    and in y. Its corners map to the centres of the corner pixels: 0 and ``size - 1``. Samples of the split ``test`` are
    cropped without jitter, as a network's own crops are.

    size : pixels, 64 to 512
    margin : 0.5 to 5
    scale_jitter, shift_jitter : 0 to 0.5
    """

    __pydantic_config__: ClassVar[dict[str, str]] = {"extra": "forbid"}  # in manifests, unknown names are refused

    size: int = CROP_SIZE
    margin: float = 1.5
    scale_jitter: float = 0.1
    shift_jitter: float = 0.1

    def __post_init__(self) -> None:
        for name, low, high in (
            ("size", 64, 512),
            ("margin", 0.5, 5),
            ("scale_jitter", 0, 0.5),
            ("shift_jitter", 0, 0.5),
        ):
            if not low <= getattr(self, name) <= high:
                raise ValueError(f"a crop's {name} is {getattr(self, name)}, expected {low} to {high}")


@dataclass(frozen=True, slots=True)
class Crop:
    """The similarity from the image frame to the crop frame: ``(x, y, z) * scale + (tx, ty, tz)``, in pixels."""

    scale: float
    tx: float
    ty: float
    tz: float = 0.0
    size: int = CROP_SIZE

    @classmethod
    def from_array(cls, numbers: Float64, size: int = CROP_SIZE) -> Crop:
        """From (4,) scale, tx, ty, tz, as a shard stores them."""
        scale, tx, ty, tz = map(float, numbers)
        return cls(scale, tx, ty, tz, size)

    def as_array(self) -> Float64:
        """(4,) float64: scale, tx, ty, tz."""
        return np.array([self.scale, self.tx, self.ty, self.tz])

    def apply(self, points_image: Float32) -> Float32:
        """(..., 3) float32 points from the image frame to the crop frame, pixels."""
        points: Float32 = _scale_and_shift(
            np.ascontiguousarray(points_image, np.float32).reshape(-1, 3),
            np.float32(self.scale),
            np.array([self.tx, self.ty, self.tz], np.float32),
        )
        return points.reshape(points_image.shape)

    def invert(self, points_crop: Float32) -> Float32:
        """(..., 3) float32 points from the crop frame back to the image frame, pixels."""
        return (points_crop - np.array([self.tx, self.ty, self.tz], np.float32)) / np.float32(self.scale)

    def on_ground(self, smallest_z_image: float) -> Crop:
        """The same crop with z moved so that ``smallest_z_image`` becomes 0."""
        return Crop(self.scale, self.tx, self.ty, -self.scale * smallest_z_image, self.size)

    def mirrored(self, image_width: int) -> Crop:
        """The crop of the mirrored photograph that shows this crop's mirror image."""
        return Crop(self.scale, self.size - 1 - self.tx - self.scale * (image_width - 1), self.ty, self.tz, self.size)

    def share_outside(self, height: int, width: int) -> float:
        """The share of the crop's area that lies outside of a photograph, whose outer pixels end half a pixel beyond
        their centres; it is black there.

        >>> Crop(scale=2.0, tx=0.5, ty=0.5, size=256).share_outside(height=128, width=96)
        0.25
        """
        side, inside = self.size / self.scale, 1.0
        for start, length in ((self.tx, width), (self.ty, height)):
            first = (-0.5 - start) / self.scale
            inside *= max(0.0, min(first + side, length - 0.5) - max(first, -0.5)) / side
        return 1 - inside


def crop_generator(seed: int, sample_id: str, flipped: bool) -> np.random.Generator:
    """The random numbers of one sample's crop: they depend on these three and on nothing else."""
    key = hashlib.sha256(f"densegen crop\n{seed}\n{sample_id}\n{int(flipped)}".encode()).digest()
    return np.random.Generator(np.random.PCG64(np.frombuffer(key[:16], "<u4")))


def box_around(points: npt.NDArray[np.floating]) -> Float64:
    """(..., 4) left, top, right, bottom of (..., P, 2 or 3) points, in their unit and frame.

    >>> box_around(np.array([[3, 9, 0], [7, 1, 5]])).tolist()
    [3.0, 1.0, 7.0, 9.0]
    """
    xy = points[..., :2].astype(np.float64)
    return np.concatenate([xy.min(axis=-2), xy.max(axis=-2)], axis=-1)


def box_size(points: npt.NDArray[np.floating]) -> Float64:
    """(...) sqrt(w h) of the box around (..., P, 2 or 3) points, in their unit: the length by which benchmarks divide.

    >>> float(box_size(np.array([[3, 9, 0], [7, 0, 5]])))
    6.0
    """
    box = box_around(points)
    size: Float64 = np.sqrt((box[..., 2] - box[..., 0]) * (box[..., 3] - box[..., 1]))
    return size


def crop_of_box(
    box: npt.NDArray[np.floating],
    margin: float,
    size: int,
    factor: float = 1.0,
    shift: tuple[float, float] = (0.0, 0.0),
) -> Crop:
    """Lay the square about the box of a face; z is not moved yet.

    box : (4,) left, top, right, bottom of the 68 keypoints, pixels, image frame
    margin : of the square's side, in units of the box's mean side
    size : of the crop, pixels
    factor, shift : the jitter: of the side, and of the centre in units of the box's mean side

    The box of 100 px fills two thirds of a crop of margin 1.5, whose corners lie at 25 and 175:

    >>> crop = crop_of_box(np.array([50, 50, 150, 150]), margin=1.5, size=256)
    >>> crop.apply(np.array([[25, 25, 0], [175, 100, 0]], np.float32)).tolist()
    [[0.0, 0.0, 0.0], [255.0, 127.5, 0.0]]
    """
    left, top, right, bottom = map(float, box)
    mean_side = ((right - left) + (bottom - top)) / 2
    side = max(margin * mean_side * factor, 1e-6)
    scale = (size - 1) / side
    corner_x = (left + right) / 2 + shift[0] * mean_side - side / 2
    corner_y = (top + bottom) / 2 + shift[1] * mean_side - side / 2
    return Crop(scale, -scale * corner_x, -scale * corner_y, size=size)


def place_crop(box: Float64, recipe: CropRecipe, generator: np.random.Generator | None) -> Crop:
    """Lay a sample's square around the box of its face; z is not moved yet.

    box : (4,) left, top, right, bottom of the 68 keypoints, pixels, image frame
    generator : draws the jitter; without one there is none

    Raises :class:`SampleError` if the box is not finite or has no extent.
    """
    factor, shift = 1.0, (0.0, 0.0)
    if generator is not None:
        scale_low, scale_high, move = 1 - recipe.scale_jitter, 1 + recipe.scale_jitter, recipe.shift_jitter
        drawn = generator.random(3).tolist()
        factor = scale_low + (scale_high - scale_low) * drawn[0]
        shift = (2 * move * drawn[1] - move, 2 * move * drawn[2] - move)
    left, top, right, bottom = box.tolist()
    mean_side = ((right - left) + (bottom - top)) / 2
    if not math.isfinite(mean_side) or mean_side < 1:
        raise SampleError("face-too-small", f"the box of the 68 keypoints has a mean side of {mean_side:g} px")
    return crop_of_box(box, recipe.margin, recipe.size, factor, shift)


def check_in_picture(keypoints_image: Float32, box: Float64, height: int, width: int) -> None:
    """A face is in the picture if the centre of its keypoints' box and half of the keypoints are.

    keypoints_image : (68, 2 or 3) float32, px, image frame
    box : that around the keypoints; it is finite if they are
    height, width : of the picture, px
    Raises :class:`SampleError` if it is not, or lies outside.
    """
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


AVERAGED_ABOVE = 1.5
"""Pixels of the image in one of the crop, along a side, from which on a crop is averaged instead of interpolated."""


def warp(image: Image, crop: Crop, *, mirror: bool = False) -> Image:
    """Cut a crop out of an image; black outside, as if the image lay on black.

    Bilinear interpolation; if the crop shrinks the image by more than ``AVERAGED_ABOVE``, the mean over the area that a
    pixel of the crop covers: interpolation would take two pixels in each direction out of ten, noise and all.

    image : (H, W, 3) uint8
    mirror : the crop's mirror image instead; ``crop`` still speaks of ``image``
    returns : (S, S, 3) uint8
    """
    centres = np.arange(crop.size)
    columns = ((centres[::-1] if mirror else centres) - crop.tx) / crop.scale
    rows = (centres - crop.ty) / crop.scale
    image = np.ascontiguousarray(image)
    if 1 / crop.scale > AVERAGED_ABOVE:
        averaged: Image = average(image, columns, rows, 1 / crop.scale)
        return averaged
    result: Image = interpolate(image, columns, rows)
    return result


@kernel
def _scale_and_shift(points: Any, scale: Any, shift: Any) -> Any:
    """NumPy's broadcasting takes twenty times as long."""
    out = np.empty_like(points)
    x, y, z = shift
    for n in range(len(points)):
        out[n, 0] = points[n, 0] * scale + x
        out[n, 1] = points[n, 1] * scale + y
        out[n, 2] = points[n, 2] * scale + z
    return out
