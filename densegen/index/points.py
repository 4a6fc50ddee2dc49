"""Bare points of the face, and how they become the landmarks of a vertex index: names, regions, partners, the 68."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from pydantic import ValidationError

from densegen.arrays import Float64
from densegen.errors import FormatError
from densegen.face.morphable_model import MorphableModel
from densegen.face.regions import region_of
from densegen.geometry.uv import mirror_pixels
from densegen.ibug68 import AFLW21, KEYPOINT_MIRROR, KEYPOINTS, REGIONS_OF_KEYPOINTS, ids_of
from densegen.index.landmark import origin_of_keypoint
from densegen.index.vertex_index import VertexIndex
from densegen.records import first_problem

__all__ = ["BarePoint", "checked_index", "name_points", "subsets_of"]


SAME_PLACE_PX = 1e-3
"""UV pixels; files keep four digits behind the point."""


VERTEX_OFF_PX = 0.75
"""UV pixels; the Basel model's mouth corners are 0.48 and 0.62 off."""


class BarePoint(NamedTuple):
    """A landmark without a name: see :class:`~densegen.index.landmark.Landmark`."""

    uv: tuple[float, float]
    vertex: int | None = None
    triangle: tuple[int, int, int] | None = None
    weights: tuple[float, float, float] | None = None


def name_points(
    points: Sequence[BarePoint], model: MorphableModel, name: str, source: str, ibug68: Sequence[int] | None = None
) -> VertexIndex:
    """Give bare points ids, names, regions, mirror partners and, if they can be found, the 68.

    source : the origin of every other point, ``import:FILE`` or a word
    ibug68 : the rows of the iBUG 68; if None, a point within a UV pixel of each of the model's is looked for

    Raises :class:`FormatError` if the points are no consistent index.
    """
    uv = np.array([point.uv for point in points]).reshape(-1, 2)
    keypoints = model.keypoint_pixels
    rows = _rows_of_keypoints(uv, keypoints) if ibug68 is None else list(ibug68)
    if rows is not None and (len(rows) != KEYPOINTS or not all(0 <= row < len(points) for row in rows)):
        raise FormatError(f"the 68 are not 68 rows of the {len(points)} landmarks of {_file(source)}")
    number_of = {row: k for k, row in enumerate(rows or [])}
    mirror = _partners(points, uv, model)
    # The Basel model's mouth corners lie a vertex off their mirror images, and are each other's partners all the same.
    row_of = {point.vertex: row for row, point in enumerate(points) if point.vertex is not None}
    corners = [row_of.get(int(vertex)) for vertex in model.keypoints68] if rows is None else rows
    for row, partner in zip(corners, (corners[k] for k in KEYPOINT_MIRROR), strict=True):
        if row is None or partner is None or mirror[row] is not None or mirror[partner] not in (None, row):
            continue
        if np.linalg.norm(mirror_pixels(uv[[partner]])[0] - uv[row]) <= VERTEX_OFF_PX:
            mirror[row] = partner
    landmarks = [
        {
            "id": row,
            "name": f"p-{row:03d}",
            "region": REGIONS_OF_KEYPOINTS[number_of[row]] if row in number_of else region_of(uv[row], keypoints),
            "mirror": mirror[row],
            "origin": origin_of_keypoint(number_of[row]) if row in number_of else source,
            **point._asdict(),
        }
        for row, point in enumerate(points)
    ]
    placed = any(point.vertex is not None or point.triangle is not None for point in points)
    return checked_index(
        source,
        name=name,
        uv_layout=model.uv_layout,
        topology=model.topology if placed else None,
        landmarks=landmarks,
        subsets={} if rows is None else subsets_of(rows),
    )


def checked_index(source: str, **content: Any) -> VertexIndex:
    """An index of these contents; raises :class:`FormatError`, which names ``source``, if they contradict."""
    try:
        return VertexIndex.model_validate({"version": "1.0.0", "changelog": [f"1.0.0: {source}"], **content})
    except ValidationError as error:
        raise FormatError(f"{_file(source)}: {first_problem(error)}") from error


def _file(source: str) -> str:
    return source.removeprefix("import:")


def subsets_of(ibug68: Sequence[int]) -> dict[str, list[Any]]:
    """The subsets that follow from the rows of the 68."""
    aflw21 = [[ibug68[k] for k in ids_of(point)] for point in AFLW21]
    return {"ibug68": list(ibug68), "aflw21": [rows[0] if len(rows) == 1 else rows for rows in aflw21]}


def _rows_of_keypoints(uv: Float64, keypoints: Float64) -> list[int] | None:
    from scipy.spatial import cKDTree

    if not len(uv):
        return None
    distance, row = cKDTree(uv).query(keypoints)
    if (distance > 1.0).any() or len(set(row.tolist())) < KEYPOINTS:
        return None
    return [int(r) for r in row]


def _partners(points: Sequence[BarePoint], uv: Float64, model: MorphableModel) -> list[int | None]:
    """Mirror partners: the mirrored vertex, or the point at the mirrored UV position, but for rounding."""
    from scipy.spatial import cKDTree

    if not points:
        return []
    vertex_row = {point.vertex: row for row, point in enumerate(points) if point.vertex is not None}
    distance, nearest = cKDTree(uv).query(mirror_pixels(uv))
    partner: list[int | None] = []
    for row, point in enumerate(points):
        if point.vertex is not None:
            partner.append(vertex_row.get(int(model.mirror[point.vertex])))
        else:
            partner.append(int(nearest[row]) if distance[row] <= SAME_PLACE_PX else None)
    return [p if p is not None and partner[p] == row else None for row, p in enumerate(partner)]
