"""A vertex index as a table of text: CSV and NumPy archives, the writer beside the reader."""

from __future__ import annotations

import csv
import io
from pathlib import Path
from typing import Any

import numpy as np

from densegen.errors import FormatError
from densegen.files import read_text
from densegen.index.landmark import Landmark
from densegen.index.vertex_index import VertexIndex
from densegen.records import read_archive

__all__ = ["COLUMNS", "format_csv", "format_npz", "landmark_fields", "mesh_of_rows", "read_csv", "read_npz"]

LANDMARK = ("id", "name", "region", "vertex", "uv_column", "uv_row", "mirror", "origin", "triangle", "weights")
COLUMNS = (*LANDMARK, "uv_layout", "topology")
"""What a row says: its landmark, then the mesh that the numbers belong to, the same in every row."""

_NUMBERS: dict[str, tuple[str, int]] = {
    "id": ("<i8", 1), "vertex": ("<i8", 1), "uv_column": ("<f8", 1), "uv_row": ("<f8", 1), "mirror": ("<i8", 1),
    "triangle": ("<i8", 3), "weights": ("<f8", 3),
}  # fmt: skip
"""Columns of numbers: their type in a NumPy archive, and how many a row has. What a landmark lacks is -1 there."""


def _cells(landmark: Landmark, index: VertexIndex) -> list[str]:
    def text(value: Any) -> str:
        return "" if value is None else " ".join(map(repr, value)) if isinstance(value, tuple) else str(value)

    column, row = landmark.uv
    known = (
        landmark.id,
        landmark.name,
        landmark.region,
        landmark.vertex,
        column,
        row,
        landmark.mirror,
        landmark.origin,
    )
    return [text(v) for v in (*known, landmark.triangle, landmark.weights, index.uv_layout, index.topology)]


def format_csv(index: VertexIndex) -> str:
    """The landmarks as CSV, a header first."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(COLUMNS)
    writer.writerows([_cells(landmark, index) for landmark in index.landmarks])
    return text.getvalue()


def format_npz(index: VertexIndex) -> bytes:
    """The landmarks as a NumPy archive of one array a column, of numbers or of text; nothing in it is pickled."""
    buffer = io.BytesIO()
    columns: dict[str, Any] = dict(
        zip(COLUMNS, zip(*(_cells(m, index) for m in index.landmarks), strict=True), strict=True)
    )
    for name, (dtype, count) in _NUMBERS.items():
        rows = [cell.split() or ["-1"] * count for cell in columns[name]]
        columns[name] = np.array(rows, float if dtype == "<f8" else int).astype(dtype).reshape(-1, *[3] * (count == 3))
    arrays: dict[str, Any] = {name: np.asarray(column) for name, column in columns.items()}
    np.savez(buffer, **arrays)
    return buffer.getvalue()


MAX_BYTES = 2 << 20


def read_csv(path: Path) -> list[dict[str, str]]:
    """The rows of what :func:`format_csv` made; raises :class:`FormatError` if it is no CSV."""
    text = read_text(path, "table of landmarks", MAX_BYTES).removeprefix("\N{BYTE ORDER MARK}")
    try:
        return list(csv.DictReader(io.StringIO(text)))
    except csv.Error as error:
        raise FormatError(f"{path.name} is not readable CSV: {error}") from error


def read_npz(path: Path) -> list[dict[str, str]]:
    """The rows of what :func:`format_npz` made; raises :class:`FormatError` if it is something else."""
    columns = read_archive(path, COLUMNS, "table of landmarks")
    for name, column in columns.items():
        dtype, count = _NUMBERS.get(name, ("<U0", 1))
        if column.ndim != 1 + (count == 3) or column.shape[1:] not in ((), (count,)) or column.dtype.kind != dtype[-2]:
            raise FormatError(f"{path.name} is not a table of landmarks: {name} is {column.dtype} {column.shape}")
    if len({len(column) for column in columns.values()}) > 1:
        raise FormatError(f"{path.name} is not a table of landmarks: its columns have different lengths")
    return [
        {name: _text_of(cell) for name, cell in zip(COLUMNS, cells, strict=True)}
        for cells in zip(*columns.values(), strict=True)
    ]


def _text_of(cell: Any) -> str:
    """A cell of an archive as the table in text has it."""
    values = np.atleast_1d(cell).tolist()
    return "" if values[0] == -1 else " ".join(value if isinstance(value, str) else repr(value) for value in values)


def mesh_of_rows(rows: list[dict[str, str]], name: str, column: str, default: str | None) -> str | None:
    """What every row says in ``uv_layout`` or ``topology``; ``default`` if a table has no such column.

    Raises :class:`FormatError` if the rows disagree.
    """
    said = {row.get(column, default) for row in rows}
    if len(said) > 1:
        raise FormatError(f"{name} mixes landmarks of {len(said)} meshes: its rows differ in {column}")
    return (said.pop() if said else default) or None


def landmark_fields(rows: list[dict[str, str]], name: str) -> list[dict[str, Any]]:
    """The rows as fields of :class:`~densegen.index.landmark.Landmark`; ``name`` stands in the :class:`FormatError`."""
    try:
        return [
            {
                "id": int(row["id"]),
                "name": row["name"],
                "region": row["region"],
                "vertex": int(row["vertex"]) if row["vertex"] else None,
                "uv": (float(row["uv_column"]), float(row["uv_row"])),
                "mirror": int(row["mirror"]) if row["mirror"] else None,
                "origin": row["origin"],
                "triangle": tuple(map(int, row["triangle"].split())) or None,
                "weights": tuple(map(float, row["weights"].split())) or None,
            }
            for row in rows
        ]
    except (KeyError, ValueError, AttributeError, TypeError) as error:
        raise FormatError(f"{name} is not a table of landmarks: {error}") from error
