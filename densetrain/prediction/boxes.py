"""Boxes of faces that were given: with a command, in a file, from a script."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from densegen.arrays import Float64, Image, Mask
from densegen.errors import ConfigurationError, FormatError
from densegen.records import read_json

__all__ = ["Boxes", "check_boxes", "check_boxes_on", "lie_beside", "read_boxes"]

FOUR_NUMBERS = "a box is four numbers: left, top, right, bottom"

FARTHEST_PX = 100_000
"""Larger coordinates of a box are no pixels of a photograph."""


@dataclass(frozen=True, eq=False)
class Boxes:
    """The boxes of faces that were given with a command.

    everywhere : (1, 4) of each image, or None
    by_name : (n, 4) by file name
    source : name of the file that they are from, None without one
    """

    everywhere: Float64 | None
    by_name: dict[str, Float64]
    source: str | None

    @classmethod
    def read(cls, box: tuple[float, float, float, float] | None, path: Path | None) -> Boxes:
        """Raises :class:`ConfigurationError` or :class:`FormatError` if they are no boxes."""
        everywhere = None
        if box:
            try:
                everywhere = check_boxes(np.array([box], np.float64))
            except ValueError as error:
                raise ConfigurationError(f"--box: {error}") from error
        return cls(everywhere, {} if path is None else read_boxes(path), None if path is None else path.name)

    def of(self, image: Path) -> Float64 | None:
        """(n, 4) boxes of an image, None if a detector has to find them.

        Raises :class:`FormatError` if there is a file of boxes, and it has none for this image.
        """
        if self.everywhere is not None:
            return self.everywhere
        boxes = self.by_name.get(image.name)
        if boxes is None and self.source is not None:
            raise FormatError(f"{self.source} has no box for {image.name}")
        if boxes is not None and not len(boxes):
            raise FormatError(f"{self.source} says there is no face in {image.name}")
        return boxes


def read_boxes(path: Path) -> dict[str, Float64]:
    """(n, 4) boxes by file name, from a JSON file like ``{"a.jpg": [[left, top, right, bottom], ...]}``; n is 0 of an
    image without a face.
    """
    if not path.exists():
        raise FormatError(f"{path} does not exist")
    contents = read_json(path)
    if not isinstance(contents, dict):
        raise FormatError(f"{path} is not a JSON file of boxes by file name")
    boxes = {}
    for name, rows in contents.items():
        try:
            numbers = np.empty((0, 4)) if rows == [] else np.atleast_2d(np.array(rows, np.float64))
        except (ValueError, TypeError, OverflowError) as error:
            raise FormatError(f"{path.name}: {name}: {FOUR_NUMBERS}") from error
        try:
            boxes[name] = check_boxes(numbers)
        except ValueError as error:
            raise FormatError(f"{path.name}: {name}: {error}") from error
    return boxes


def check_boxes(boxes: Float64) -> Float64:
    """The boxes; raises ``ValueError`` if they are not (n, 4) with right > left and bottom > top."""
    if boxes.ndim != 2 or boxes.shape[1] != 4 or not np.isfinite(boxes).all():
        raise ValueError(FOUR_NUMBERS)
    if not ((boxes[:, 2:] - boxes[:, :2]) >= 1).all() or not (np.abs(boxes) <= FARTHEST_PX).all():
        raise ValueError(
            f"a box's right and bottom lie at least a pixel beyond its left and top, none beyond {FARTHEST_PX:,} px"
        )
    return boxes


def lie_beside(image: Image, boxes: Float64) -> Mask:
    """(n,) bool: which of (n, 4) boxes have no pixel of the image."""
    height, width = image.shape[:2]
    beyond, before = (boxes[:, :2] >= [width, height]).any(axis=1), (boxes[:, 2:] <= 0).any(axis=1)
    beside: Mask = np.asarray(beyond | before, np.bool_)
    return beside


def check_boxes_on(image: Image, boxes: Float64, name: str) -> None:
    """Raise :class:`FormatError` if one of (n, 4) boxes has no pixel of the image, as one made for another size."""
    height, width = image.shape[:2]
    beside = lie_beside(image, boxes)
    if beside.any():
        box = ", ".join(f"{number:g}" for number in boxes[beside.argmax()])
        raise FormatError(f"{name}: the box ({box}) lies outside of the {width}x{height} image")
