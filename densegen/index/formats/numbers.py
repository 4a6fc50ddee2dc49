"""Landmarks as bare numbers in a text file, as published indices are."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

import numpy as np

from densegen.errors import ConfigurationError, FormatError
from densegen.face.morphable_model import BASEL_RAW_VERTICES, BASEL_VERTICES, MorphableModel, count_words
from densegen.face.regions import valid_uv_region
from densegen.files import find_data_file, read_text
from densegen.geometry.uv import uv_pixels
from densegen.index.points import BarePoint
from densegen.records import read_yaml

__all__ = ["NUMBERINGS", "Numbering", "points_of_numbers", "read_numbers"]

Numbering = Literal["prnet", "bfm-53215", "bfm-53490", "model"]
NUMBERINGS: tuple[Numbering, ...] = ("prnet", "bfm-53215", "bfm-53490", "model")
"""What numbers can count, from 0: PRNet's 43,867 valid UV pixels, vertices of the trimmed or the raw Basel model, or of
the model at hand, whichever it is."""


MAX_BYTES = 1 << 20


def read_numbers(path: Path) -> list[int]:
    """The whole numbers in a text file; raises :class:`FormatError` if it holds something else."""
    text = read_text(path, "list of numbers", MAX_BYTES)
    try:
        numbers = [float(word) for word in text.split()]
        if any(number != int(number) for number in numbers):
            raise ValueError("a number is not whole")
    except (ValueError, OverflowError) as error:
        raise FormatError(f"{path.name} is not a list of whole numbers: {error}") from error
    return [int(number) for number in numbers]


def points_of_numbers(path: Path, model: MorphableModel, numbering: Numbering | None) -> list[BarePoint]:
    """The landmarks that the numbers in ``path`` name.

    Raises :class:`ConfigurationError` if it is not said what they count or the model is another one,
    :class:`FormatError` if a number is out of range.
    """
    numbers = read_numbers(path)
    if numbering is None:
        raise ConfigurationError(
            f"{path.name} holds bare numbers: say with --numbering what they count, {', '.join(NUMBERINGS)}"
        )
    counts = {"prnet": int(valid_uv_region().sum()), "bfm-53215": BASEL_VERTICES, "bfm-53490": BASEL_RAW_VERTICES}
    count = counts.get(numbering, model.vertex_count)
    if outside := [number for number in numbers if not 0 <= number < count]:
        raise FormatError(f"{path.name} holds {outside[0]}, but {numbering} counts {count_words(count)} from 0")
    if numbering == "prnet":
        rows, columns = np.nonzero(valid_uv_region())
        return [BarePoint((float(columns[n]), float(rows[n]))) for n in numbers]
    if numbering != "model" and model.vertex_count != BASEL_VERTICES:
        raise ConfigurationError(
            f"{numbering} counts vertices of the Basel model, but {model.name} has {count_words(model.vertex_count)}: "
            "'model' counts its own"
        )
    if numbering == "bfm-53490":
        numbers = _trimmed(numbers, path)
    pixels = uv_pixels(model.uv)
    return [BarePoint((float(pixels[n, 0]), float(pixels[n, 1])), vertex=n) for n in numbers]


def _trimmed(numbers: list[int], path: Path) -> list[int]:
    """Vertices of the raw Basel model as vertices of the trimmed one."""
    runs = read_yaml(find_data_file("bfm_removed_vertices.yaml"), "list of removed vertices")["runs"]
    removed = np.concatenate([np.arange(first, last + 1) for first, last in runs])
    if gone := sorted(set(numbers) & set(removed.tolist())):
        raise FormatError(f"{path.name} holds vertex {gone[0]} of the raw model, which trimming removes")
    return [int(number - np.searchsorted(removed, number)) for number in numbers]
