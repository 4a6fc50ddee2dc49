"""Landmarks that people or networks have of photographs: iBUG ``.pts``, CSV, JSON, COCO keypoints, NumPy arrays."""

from __future__ import annotations

import csv
import io
import json
import math
import re
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
import numpy.typing as npt

from densegen.arrays import Float64
from densegen.console import counted
from densegen.errors import ConfigurationError, FormatError, in_short
from densegen.files import files_below, read_bytes, read_text
from densegen.ibug68 import AFLW21, KEYPOINTS
from densegen.records import read_archive

__all__ = ["Annotations", "FaceMarks", "read_annotations"]

MAX_BYTES = 512 << 20
MAX_PTS_BYTES = 1 << 20
FARTHEST_PX = 100_000

LEAST_DEPTHS, FLATTEST = 10, 0.1
"""A face's depths reach over half of its size, whatever its pose: of so many points, over no smaller share."""

POINT_COUNTS = {"ibug68": KEYPOINTS, "aflw21": len(AFLW21)}
"""So many points are these, if nobody says what they are."""


@dataclass(frozen=True, eq=False)
class FaceMarks:
    """The landmarks of one face.

    image : name of its photograph as the file has it, with ``/``
    points : (N, 2 or 3) float64, px, image frame; NaN for a point that is not visible
    """

    image: str
    points: Float64


@dataclass(frozen=True, eq=False)
class Annotations:
    """The landmarks of many faces.

    kind : ``ibug68`` or ``aflw21``, or ``names`` for points with names of their own
    names : of the N points: numbers of the 68 or the 21, or an index's landmark names
    faces : in the order of the file
    first_pixel : 0 or 1, how the file counted pixels; ``faces`` count from 0
    vertex_index : fingerprint of the vertex index whose landmarks the points are; None if the file does not say
    """

    kind: str
    names: tuple[str, ...]
    faces: tuple[FaceMarks, ...]
    first_pixel: int
    vertex_index: str | None = None


def read_annotations(
    path: Path, *, kind: str | None = None, first_pixel: int | None = None, names: Path | None = None
) -> Annotations:
    """Read landmarks; which format it is follows from the file.

    * a folder of iBUG ``.pts`` files, or one of them: named as their photographs are;
    * ``.csv`` with a header: one row a point (``image,point,x,y``, and ``face`` if an image has several), or one row a
      face: the image, then x and y of each point;
    * ``.json``: ``{"a.jpg": [[x, y], ...]}`` or ``{"a.jpg": {"30": [x, y], ...}}``, a list of these for several faces;
      or COCO's keypoints;
    * ``.npy``: (faces, N, 2 or 3) or (faces, 2 or 3, N), with a text file ``names`` of one photograph a line;
    * ``.npz``: the same array as ``landmarks``, and ``names``, as ``densetrain annotate`` writes it.

    kind : what the points are; by default told by their number, 68 or 21
    first_pixel : what the file calls the first pixel; by default 1 in ``.pts``, else 0

    A point of which x or y is -1 exactly or no number, or with COCO's visibility 0, is not visible.

    Raises :class:`ConfigurationError` if the file does not exist or is of no known kind, :class:`FormatError` if it
    contradicts itself.
    """
    origin, vertex_index = first_pixel, None
    if path.is_dir() or path.suffix.lower() == ".pts":
        rows, origin = list(_read_pts(path)), 1 if first_pixel is None else first_pixel
    elif path.suffix.lower() == ".csv":
        rows = list(_read_csv(path))
    elif path.suffix.lower() == ".json":
        rows = list(_read_json(path))
    elif path.suffix.lower() == ".npy":
        rows = list(_read_npy(path, names))
    elif path.suffix.lower() == ".npz":
        rows, vertex_index = _read_npz(path)
        kind = kind or ("names" if vertex_index else None)
    else:
        raise ConfigurationError(f"{path}: landmarks are a folder of .pts files, or .pts, .csv, .json, .npy or .npz")
    if not rows:
        raise FormatError(f"{path.name} holds no face")
    return replace(_gather(path, rows, kind, origin or 0), vertex_index=vertex_index)


_Row = tuple[str, dict[str, Sequence[float]] | Float64]
"""A photograph's name, and the points of a face: all of them in their order, or some of them by name."""

MAX_NAMES = 5000
"""Of different points in one file."""

LONGEST_NAME = 100


def _gather(path: Path, rows: list[_Row], kind: str | None, first_pixel: int) -> Annotations:
    """All faces with the same points in the same order."""
    for image, points in rows:
        if not PurePosixPath(image).name or not len(points):
            raise FormatError(f"{path.name}: {image!r} is no photograph's name, or has no points")
    named = [points for _, points in rows if isinstance(points, dict)]
    if named and len(named) < len(rows):
        raise FormatError(f"{path.name}: some faces have points by name, others in an order: give one of both")
    if named:
        names = tuple(dict.fromkeys(name for points in named for name in points))
        if any(len(name) > LONGEST_NAME for name in names):
            raise FormatError(f"{path.name}: a point's name has more than {LONGEST_NAME} characters")
        if len(names) > MAX_NAMES:
            raise FormatError(f"{path.name} names {len(names):,} different points, at most {MAX_NAMES:,} are read")
        numbers = all(_NUMBER.fullmatch(name) for name in names)
        names = tuple(sorted(names, key=int)) if numbers else names
        kind = kind or ("ibug68" if numbers else "names")
        count = POINT_COUNTS.get(kind, 0)
        if count and (bad := [n for n in names if not (_NUMBER.fullmatch(n) and int(n) < count)]):
            raise FormatError(f"{path.name}: {kind} has no point {bad[0]!r}: it counts from 0 to {count - 1}")
    else:
        counts = {len(points) for _, points in rows}
        if len(counts) > 1:
            raise FormatError(
                f"{path.name}: faces have {min(counts)} to {max(counts)} points, expected the same number"
            )
        count = counts.pop()
        kind = kind or next((known for known, points in POINT_COUNTS.items() if points == count), "names")
        if count != (expected := POINT_COUNTS.get(kind, count)):
            raise FormatError(f"{path.name}: faces have {count} points in an order, {kind} {expected}: name them")
        names = tuple(map(str, range(count)))
    faces = []
    for image, points in rows:
        if isinstance(points, dict):
            empty = (math.nan, math.nan)
            table = np.array([points.get(name, empty) for name in names], np.float64)
        else:
            table = points
        faces.append(FaceMarks(image, _checked(table, image, path) - [first_pixel, first_pixel, 0][: table.shape[1]]))
    return Annotations(kind, names, tuple(faces), first_pixel)


_NUMBER = re.compile(r"0|[1-9][0-9]{0,3}")


def _checked(points: Float64, image: str, path: Path) -> Float64:
    """The points, those that are not visible as NaN."""
    points = np.array(points, np.float64)
    points[np.isinf(points).any(axis=1)] = np.nan
    points[(points[:, :2] == -1).any(axis=1)] = np.nan  # some tables turned their y around, the marker's with it
    points[np.isnan(points).any(axis=1)] = np.nan
    seen = points[np.isfinite(points).all(axis=1)]
    if points.shape[1] == 3 and len(seen) >= LEAST_DEPTHS:
        across, along, deep = np.ptp(seen, axis=0)
        if deep < FLATTEST * max(across, along):
            least, most = seen[:, 2].min(), seen[:, 2].max()
            raise FormatError(
                f"{path.name}: {image} has third numbers from {least:g} to {most:g}, no depths in pixels: give x and y "
                "alone"
            )
    if (far := np.nanmax(np.abs(points), initial=0.0)) > FARTHEST_PX:
        raise FormatError(f"{path.name}: {image} has a point at {far:g} px, at most {FARTHEST_PX:,}")
    return points


def _read_pts(path: Path) -> Iterator[_Row]:
    files = files_below(path, (".pts",)) if path.is_dir() else [path]
    if not files:
        raise ConfigurationError(f"{path} holds no .pts file")
    for file in files:
        text = read_text(file, "landmark file", MAX_PTS_BYTES)
        head, _, rest = text.partition("{")
        stated = re.search(r"n_points\s*:\s*([0-9]{1,6})\b", head)
        try:
            numbers = np.array([float(word) for word in rest.partition("}")[0].split()]).reshape(-1, 2)
        except ValueError as error:
            raise FormatError(f"{file.name} is not an iBUG landmark file: {error}") from error
        if not rest or (stated and len(numbers) != int(stated[1])):
            said = stated[1] if stated else "nothing"
            raise FormatError(f"{file.name} holds {counted(len(numbers), 'point')}, its head says {said}")
        name = file.relative_to(path) if path.is_dir() else Path(file.name)
        yield name.with_suffix("").as_posix(), numbers


def _read_csv(path: Path) -> Iterator[_Row]:
    text = read_text(path, "table of landmarks", MAX_BYTES).removeprefix("\ufeff")  # as spreadsheets begin it
    reader = csv.reader(io.StringIO(text, newline=""))
    try:
        header = [cell.strip().lower() for cell in next(reader, [])]
        if not header or header[0] not in ("image", "file", "name", "file_name", "image_name"):
            raise FormatError(f"{path.name}: the first column is {str(header[:1])[:60]}, expected 'image'")
        if {"point", "x", "y"} <= set(header):
            yield from _rows_of_points(reader, header, path)
            return
        if len(header) % 2 == 0:
            raise FormatError(f"{path.name}: {len(header) - 1} columns after the image, expected x and y of each point")
        for row in reader:
            if row:
                _check_cells(row, header)
                yield row[0].strip(), np.array([_number(cell) for cell in row[1:]]).reshape(-1, 2)
    except (ValueError, csv.Error) as error:
        raise FormatError(f"{path.name}, line {reader.line_num}: {error}") from error


def _check_cells(row: list[str], header: list[str]) -> None:
    if len(row) != len(header):
        raise ValueError(f"{len(row)} cells, expected {len(header)}")


def _rows_of_points(reader: Any, header: list[str], path: Path) -> Iterator[_Row]:
    """Rows of one point each, in any order.

    A column ``face`` tells several faces of one image apart. Without it a point that comes again is of the image's next
    face, and all of its faces need the same points: of one that is hidden, nobody could say which face misses it.
    """
    columns = [header.index(name) for name in ("point", "x", "y")]
    face_column = header.index("face") if "face" in header else None
    faces: dict[str, dict[str | int, dict[str, Sequence[float]]]] = {}
    times: Counter[tuple[str, str]] = Counter()
    for row in reader:
        if not row:
            continue
        _check_cells(row, header)
        image, (name, x, y) = row[0].strip(), (row[column].strip() for column in columns)
        face = times[image, name] if face_column is None else row[face_column].strip()
        times[image, name] += 1
        points = faces.setdefault(image, {}).setdefault(face, {})
        if name in points:
            raise ValueError(f"the point {name!r} of face {face!r} of {image} stands twice")
        points[name] = (_number(x), _number(y))
    for image, of_image in faces.items():
        for points in of_image.values():
            if face_column is None and len(points) < len(of_image[0]):
                name = next(name for name in of_image[0] if name not in points)
                raise FormatError(
                    f"{path.name}: {image} has {len(of_image)} faces, not all of them the point {name!r}: tell them "
                    "apart in a column 'face'"
                )
            yield image, points


def _number(cell: str) -> float:
    return float(cell) if cell.strip() else math.nan


def _read_json(path: Path) -> Iterator[_Row]:
    data = read_bytes(path, "JSON file of landmarks", MAX_BYTES)
    try:
        contents = json.loads(data, object_pairs_hook=_without_repetition)
    except (ValueError, RecursionError) as error:
        raise FormatError(f"{path.name} is not JSON: {str(error)[:120]}") from error
    if not isinstance(contents, dict):
        raise FormatError(f"{path.name} is not a JSON object of landmarks by file name")
    try:
        if "annotations" in contents and "images" in contents:
            yield from _rows_of_coco(contents)
            return
        for image, value in contents.items():
            several = (isinstance(value, list) and any(isinstance(one, dict) for one in value)) or np.ndim(value) == 3
            for one in value if several else [value]:
                points = one if isinstance(one, dict) else np.array(one, np.float64)
                if isinstance(points, np.ndarray) and (points.ndim != 2 or points.shape[1] not in (2, 3)):
                    raise ValueError(f"{image} has points of shape {points.shape}, expected (N, 2)")
                yield image, _numbers_of(points) if isinstance(points, dict) else points
    except (ValueError, TypeError, KeyError, IndexError, AttributeError, OverflowError) as error:
        raise FormatError(f"{path.name}: {in_short(error)}") from error


def _without_repetition(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    if len({name for name, _ in pairs}) < len(pairs):
        raise ValueError("a name stands twice in one object")
    return dict(pairs)


def _numbers_of(points: dict[str, Any]) -> dict[str, Sequence[float]]:
    for name, place in points.items():
        if not isinstance(place, list) or len(place) < 2 or not all(isinstance(v, int | float) for v in place):
            raise ValueError(f"the point {name!r} is {str(place)[:40]}, expected [x, y]")
    return {name: (float(place[0]), float(place[1])) for name, place in points.items()}


def _rows_of_coco(contents: dict[str, Any]) -> Iterator[_Row]:
    """COCO's keypoints, or the face of COCO-WholeBody; visibility 0 is not labelled."""
    for kind, fields in (("images", ("id", "file_name")), ("annotations", ("image_id",))):
        if not isinstance(contents[kind], list):
            raise ValueError(f"{kind} is no list")
        for number, one in enumerate(contents[kind]):
            if lacking := [field for field in fields if not isinstance(one, dict) or field not in one]:
                raise ValueError(f"{kind[:-1]} {number} has no {lacking[0]!r}")
    images = {image["id"]: str(image["file_name"]) for image in contents["images"]}
    for number, annotation in enumerate(contents["annotations"]):
        flat = annotation.get("face_kpts", annotation.get("keypoints"))
        if flat is None or (annotation.get("face_valid") is False):
            continue
        table = np.array(flat, np.float64)
        if table.ndim != 1 or len(table) % 3:
            raise ValueError(
                f"annotation {number} has {table.size} numbers, expected x, y and visibility of each point"
            )
        table = table.reshape(-1, 3)
        points = np.where(table[:, 2:] > 0, table[:, :2], np.nan)
        if annotation["image_id"] not in images:
            raise ValueError(f"annotation {number} names the image {annotation['image_id']}, which is not listed")
        yield images[annotation["image_id"]], points


def _read_npy(path: Path, names: Path | None) -> Iterator[_Row]:
    if names is None:
        raise ConfigurationError(f"{path.name} names no photographs: give a text file of one a line with --names")
    text = read_text(names, "list of photographs", MAX_BYTES).removeprefix("\ufeff")
    listed = [line.strip() for line in text.splitlines() if line.strip()]
    data = read_bytes(path, "NumPy array of landmarks", MAX_BYTES)
    try:
        table = np.lib.format.read_array(io.BytesIO(data), allow_pickle=False)
    # NumPy raises almost anything for a damaged header.
    except Exception as error:
        raise FormatError(f"{path.name} is not a readable NumPy array: {in_short(error)}") from error
    yield from _rows_of_table(table, listed, path)


def _read_npz(path: Path) -> tuple[list[_Row], str | None]:
    """The rows, and the fingerprint of their vertex index if the file says it."""
    if not path.exists():
        raise ConfigurationError(f"the file of landmarks {path} does not exist")
    optional, what = ("vertex_index",), "file of landmarks"
    archive = read_archive(path, ("names", "landmarks"), what, optional=optional, largest=MAX_BYTES)
    names, index = archive["names"], archive.get("vertex_index")
    if names.ndim != 1 or names.dtype.kind != "U" or (index is not None and (index.ndim or index.dtype.kind != "U")):
        raise FormatError(f"{path.name} is not a {what}: 'names' are no list of texts, or 'vertex_index' no text")
    rows = list(_rows_of_table(archive["landmarks"], names.tolist(), path))
    return rows, None if index is None else str(index)


def _rows_of_table(table: npt.NDArray[Any], listed: list[str], path: Path) -> Iterator[_Row]:
    if table.ndim != 3 or table.dtype.kind not in "fiu" or not {2, 3} & set(table.shape[1:]):
        raise FormatError(f"{path.name} is {table.dtype} of shape {table.shape}, expected (faces, points, 2)")
    if table.shape[2] not in (2, 3):
        table = table.transpose(0, 2, 1)
    if len(table) != len(listed):
        raise FormatError(f"{path.name} has {len(table)} faces and {len(listed)} names")
    yield from zip(listed, table.astype(np.float64), strict=True)
