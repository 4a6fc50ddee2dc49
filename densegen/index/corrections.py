"""A person's corrections: from sampled candidates to a vertex index, and from one version of it to the next.

A corrections file adds, removes and moves landmarks, each entry with its reason, and is all that tells two versions
apart. Every entry is mirrored; the iBUG 68 are the model's own and stay.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

from densegen.errors import ConfigurationError, did_you_mean
from densegen.face.morphable_model import MorphableModel
from densegen.face.regions import MIDLINE, region_of
from densegen.ibug68 import AFLW21, KEYPOINT_MIRROR, KEYPOINTS, NAMES, REGIONS_OF_KEYPOINTS, ids_of
from densegen.index.candidates import Candidates, Position, read_candidates
from densegen.index.half_plane import FacePlane
from densegen.index.landmark import (
    Landmark,
    Line,
    Subset,
    Version,
    name_on,
    origin_of_keypoint,
    origin_of_person,
    origin_of_round,
    without_side,
)
from densegen.index.vertex_index import VertexIndex, compare_versions, read_index
from densegen.records import as_yaml, read_validated, read_yaml

__all__ = [
    "Addition",
    "Corrections",
    "Draft",
    "Move",
    "Removal",
    "apply_corrections",
    "correct",
    "count_landmarks",
    "drafts_near_index",
    "drafts_of_candidates",
    "drafts_of_index",
    "format_corrections",
    "read_base",
    "read_corrections",
]


class _Settings(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Addition(_Settings):
    """A landmark that a person adds: with its mirror image, unless it lies on the midline."""

    name: Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9-]*$")]
    uv: Position
    reason: Annotated[str, Field(min_length=1)]


class Removal(_Settings):
    """A landmark that a person takes out, and its mirror image with it."""

    name: str
    reason: Annotated[str, Field(min_length=1)]


class Move(_Settings):
    """A landmark that a person puts elsewhere, and its mirror image with it."""

    name: str
    uv: Position
    reason: Annotated[str, Field(min_length=1)]


class Corrections(_Settings):
    """A person's corrections to sampled candidates or to an index.

    count : how many landmarks there must be in the end
    remove, move, add : applied in this order; ``name`` is a landmark's name without its side (``-r``, ``-m``, ``-l``)
    """

    format: Literal["densegen corrections"] = "densegen corrections"
    format_version: Literal[1] = 1
    index_name: Line
    index_version: Version
    description: str = ""
    changelog: tuple[str, ...] = ()
    count: Annotated[int, Field(ge=KEYPOINTS)]
    remove: tuple[Removal, ...] = ()
    move: tuple[Move, ...] = ()
    add: tuple[Addition, ...] = ()

    @model_validator(mode="after")
    def _names_are_unique(self) -> Corrections:
        for what in ("remove", "move", "add"):
            names = [entry.name for entry in getattr(self, what)]
            if twice := {name for name in names if names.count(name) > 1}:
                raise ValueError(f"{what} names {min(twice)} twice")
        return self


@dataclass(frozen=True)
class Draft:
    """A landmark in the making; ``half`` is its vertex on the right half of the face or on the midline."""

    name: str
    half: int
    origin: str


def correct(base: Candidates | VertexIndex, corrections: Corrections, model: MorphableModel) -> VertexIndex:
    """Make a vertex index from sampled candidates, or a new version of one from an index, by a person's corrections.

    From candidates: the iBUG 68, and the candidates on their nearest vertices, each vertex once. The right half of them
    (the subject's right, columns below 127.5) is kept and mirrored, so the index is closed under the model's mirror;
    points within a pixel of the midline go onto it. From an index: its landmarks, which must be vertices of the model
    and mirrored; the iBUG 68 stay where the model has them.

    A description that the corrections do not give stays that of the index.

    Raises :class:`ConfigurationError` if a correction names no landmark, puts one onto another or outside the face,
    the result has not ``corrections.count`` landmarks, or another set of points would not have a newer version.
    """
    if base.uv_layout != model.uv_layout:
        raise ConfigurationError(
            f"the landmarks are made for the UV layout {base.uv_layout}, {model.name} has {model.uv_layout}"
        )
    plane = FacePlane(model)
    drafts = _corrected(base, corrections, plane)
    if isinstance(base, VertexIndex):
        _check_version(base, corrections)
        description, changelog = corrections.description or base.description, base.changelog
    else:
        description, changelog = corrections.description, ()
    made = _finish(drafts, corrections, description, changelog + corrections.changelog, plane)
    return _with_subsets_of(base, made) if isinstance(base, VertexIndex) else made


def _with_subsets_of(base: VertexIndex, made: VertexIndex) -> VertexIndex:
    """The index with the further subsets that its base has, of the same landmarks."""
    row_of = {landmark.name: landmark.id for landmark in made.landmarks}
    # A landmark that moved onto the midline has another side in its name.
    row_of = {name_on(side, without_side(name)): row for name, row in row_of.items() if name.endswith("-m")
              for side in ("right", "left")} | row_of  # fmt: skip
    further: dict[str, Subset] = {}
    for name, points in base.subsets.items():
        if name in made.subsets:
            continue
        names = [tuple(base.landmarks[row].name for row in ids_of(point)) for point in points]
        if gone := [one for of_point in names for one in of_point if one not in row_of]:
            raise ConfigurationError(
                f"the corrections take out {gone[0]}, which the subset {name} holds: take it out of that first"
            )
        rows = [tuple(row_of[one] for one in of_point) for of_point in names]
        further[name] = tuple(
            ids[0] if isinstance(point, int) else ids for ids, point in zip(rows, points, strict=True)
        )
    return made.model_copy(update={"subsets": made.subsets | further})


def count_landmarks(base: Candidates | VertexIndex, corrections: Corrections, model: MorphableModel) -> int:
    """How many landmarks the corrections lead to, whatever they promise; raises as :func:`apply_corrections` does."""
    drafts = _corrected(base, corrections, FacePlane(model))
    return KEYPOINTS + sum(1 if int(model.mirror[draft.half]) == draft.half else 2 for draft in drafts)


def _corrected(base: Candidates | VertexIndex, corrections: Corrections, plane: FacePlane) -> list[Draft]:
    drafts = drafts_of_index(base, plane.model) if isinstance(base, VertexIndex) else drafts_of_candidates(base, plane)
    thinned = _each_vertex_once if isinstance(base, Candidates) else None
    return list(apply_corrections(drafts, corrections, plane, thinned).values())


def apply_corrections(
    drafts: dict[str, Draft],
    corrections: Corrections,
    plane: FacePlane,
    thinned: Callable[[dict[str, Draft], FacePlane], dict[str, Draft]] | None = None,
) -> dict[str, Draft]:
    """The drafts with the corrections applied: removals, then moves, then additions.

    thinned : what is done to the drafts between removals and moves

    Raises :class:`ConfigurationError` if a correction names no landmark, or adds one that exists.
    """
    drafts = dict(drafts)
    for removal in corrections.remove:
        _known(removal.name, drafts, "remove")
        del drafts[removal.name]
    if thinned is not None:
        drafts = thinned(drafts, plane)
    for move in corrections.move:
        draft = _known(move.name, drafts, "move")
        drafts[move.name] = Draft(draft.name, plane.nearest(move.uv, move.name), origin_of_person(move.reason))
    for addition in corrections.add:
        if addition.name in drafts:
            raise ConfigurationError(f"add names {addition.name}, which exists already")
        half = plane.nearest(addition.uv, addition.name)
        drafts[addition.name] = Draft(addition.name, half, origin_of_person(addition.reason))
    return drafts


def _check_version(base: VertexIndex, corrections: Corrections) -> None:
    """A release goes forward: other points of the same name have a newer version."""
    if corrections.index_name != base.name:
        return
    order = compare_versions(corrections.index_version, base.version)
    if order < 0 or (order == 0 and (corrections.remove or corrections.move or corrections.add)):
        raise ConfigurationError(
            f"index_version {corrections.index_version} is not newer than {base.version}, which {base.name} has: "
            "landmarks that come, go or move make a new version"
        )


def drafts_of_index(index: VertexIndex, model: MorphableModel) -> dict[str, Draft]:
    """The landmarks of an index beyond the iBUG 68, one a mirrored pair, by their names without a side.

    Raises :class:`ConfigurationError` if one is no vertex of the model, has no mirror partner, or its name does not
    say its side.
    """
    if index.topology != model.topology:
        raise ConfigurationError(
            f"{index.name} names no vertices of {model.name}: only an index made on it is corrected"
        )
    index.resolve(model)  # its vertices are the model's
    for landmark in index.landmarks:
        if landmark.is_keypoint:  # they stay; the Basel model's mouth corners lie a vertex off their mirror images
            continue
        partner = None if landmark.mirror is None else index.landmarks[landmark.mirror].vertex
        if None not in (landmark.vertex, partner) and model.mirror[landmark.vertex] != partner:
            raise ConfigurationError(
                f"{landmark.name} is vertex {landmark.vertex}, and its mirror partner is not the mirrored one, "
                f"{model.mirror[landmark.vertex]}: it cannot be corrected"
            )
    return _drafts_of_landmarks(index, lambda landmark: landmark.vertex)


def drafts_near_index(index: VertexIndex, plane: FacePlane) -> dict[str, Draft]:
    """The same on a model of another topology with the same UV layout: landmarks on the vertices nearest to them."""
    if index.uv_layout != plane.model.uv_layout:
        raise ConfigurationError(
            f"{index.name} is made for the UV layout {index.uv_layout}, {plane.model.name} has {plane.model.uv_layout}"
        )
    return _drafts_of_landmarks(index, lambda landmark: plane.nearest(landmark.uv, landmark.name))


def _drafts_of_landmarks(index: VertexIndex, vertex_of: Callable[[Landmark], int | None]) -> dict[str, Draft]:
    drafts: dict[str, Draft] = {}
    for landmark in index.landmarks:
        name = without_side(landmark.name)
        if landmark.vertex is None or landmark.mirror is None:
            raise ConfigurationError(f"{landmark.name} is no vertex with a mirror partner: it cannot be corrected")
        if landmark.is_keypoint or landmark.side == "left":
            continue
        if landmark.name != name_on(landmark.side, name):
            raise ConfigurationError(f"{landmark.name} does not say its side: names end in -r, -m or -l")
        vertex = vertex_of(landmark)
        assert vertex is not None  # checked above
        drafts[name] = Draft(name, vertex, landmark.origin)
    if [one.origin for one in index.landmarks[:KEYPOINTS]] != [origin_of_keypoint(k) for k in range(KEYPOINTS)]:
        raise ConfigurationError(f"the first {KEYPOINTS} landmarks of {index.name} are not the iBUG 68, in their order")
    return drafts


def drafts_of_candidates(candidates: Candidates, plane: FacePlane) -> dict[str, Draft]:
    """The candidates on the right half of the face and on the midline, beyond the seeds, on their nearest vertices."""
    drafts: dict[str, Draft] = {}
    for number, points in enumerate(candidates.rounds[1:], start=1):
        for position, (x, y) in enumerate(points):
            if x <= MIDLINE + 1 and plane.valid[int(y), int(x)]:
                name = f"d{number}-{position:03d}"
                drafts[name] = Draft(name, plane.nearest((min(x, MIDLINE), y), name), origin_of_round(number))
    return drafts


def _known(name: str, drafts: dict[str, Draft], verb: str) -> Draft:
    if name not in drafts:
        raise ConfigurationError(
            f"{verb} names {name!r}, but there is no such landmark to start from{did_you_mean(name, drafts)}"
        )
    return drafts[name]


def _each_vertex_once(drafts: dict[str, Draft], plane: FacePlane) -> dict[str, Draft]:
    """Drop what falls on a keypoint or on an earlier draft, or on the mirror image of one."""
    taken = set(map(int, plane.model.keypoints68))
    kept: dict[str, Draft] = {}
    for name, draft in drafts.items():
        if draft.half not in taken:
            kept[name] = draft
            taken |= {draft.half, int(plane.model.mirror[draft.half])}
    return kept


def _finish(
    drafts: list[Draft], corrections: Corrections, description: str, changelog: tuple[str, ...], plane: FacePlane
) -> VertexIndex:
    model = plane.model
    rows: list[tuple[str, int, int, str]] = [  # name, vertex, mirror partner, origin
        (f"{NAMES[k]}-{k:02d}", int(model.keypoints68[k]), int(KEYPOINT_MIRROR[k]), origin_of_keypoint(k))
        for k in range(KEYPOINTS)
    ]
    for draft in drafts:
        partner = int(model.mirror[draft.half])
        first = len(rows)
        if partner == draft.half:
            rows.append((name_on("middle", draft.name), draft.half, first, draft.origin))
        else:
            rows.append((name_on("right", draft.name), draft.half, first + 1, draft.origin))
            rows.append((name_on("left", draft.name), partner, first, draft.origin))
    if len(rows) != corrections.count:
        raise ConfigurationError(f"the corrections lead to {len(rows)} landmarks, they promise {corrections.count}")
    owner: dict[int, str] = {}
    for name, vertex, _, _ in rows:
        if vertex in owner:
            raise ConfigurationError(f"{name} and {owner[vertex]} fall on the same vertex {vertex}")
        owner[vertex] = name
    keypoints = plane.pixels[model.keypoints68]
    return VertexIndex(
        name=_own_name(corrections.index_name, model.topology),
        version=corrections.index_version,
        description=description,
        uv_layout=model.uv_layout,
        topology=model.topology,
        landmarks=tuple(
            Landmark(
                id=row,
                name=name,
                region=region_of(plane.pixels[vertex], keypoints) if row >= KEYPOINTS else REGIONS_OF_KEYPOINTS[row],
                vertex=vertex,
                uv=(round(float(plane.pixels[vertex, 0]), 4), round(float(plane.pixels[vertex, 1]), 4)),
                mirror=mirror,
                origin=origin,
            )
            for row, (name, vertex, mirror, origin) in enumerate(rows)
        ),
        subsets={"ibug68": tuple(range(KEYPOINTS)), "aflw21": AFLW21},
        changelog=changelog,
    )


def _own_name(name: str, topology: str) -> str:
    """An index of another topology must not pass for densegen's own: its name ends in the topology's first digits."""
    own = read_index()
    return f"{name}-{topology[:8]}" if name == own.name and topology != own.topology else name


def read_corrections(path: Path) -> Corrections:
    """Read a corrections file; raises :class:`FormatError` with the first thing that is wrong in it."""
    return read_validated(Corrections, path, "corrections file")


def read_base(path: Path) -> Candidates | VertexIndex:
    """Read what corrections can start from: sampled candidates or a vertex index."""
    contents = read_yaml(path, "candidates file or vertex index")
    if isinstance(contents, dict) and contents.get("format") == "densegen vertex index":
        return read_index(path)
    return read_candidates(path)


def format_corrections(corrections: Corrections) -> str:
    """The text of a corrections file, one entry a line."""
    content = corrections.model_dump(mode="json")
    lists = {what: content.pop(what) for what in ("remove", "move", "add")}
    lines = [f"{key}: {as_yaml(json.dumps(value, ensure_ascii=False))}" for key, value in content.items()]
    for what, entries in lists.items():
        lines.append(f"{what}:" if entries else f"{what}: []")
        lines += [f"  - {as_yaml(json.dumps(entry, ensure_ascii=False))}" for entry in entries]
    return "\n".join(lines) + "\n"
