"""The vertex index: which points of the surface are the landmarks. The file that teams share.

A YAML file lists every landmark with its stable name, region, vertex of the Basel topology (or triangle and weights),
sub-pixel UV position, mirror partner and origin. On a mesh of the index's own topology a landmark is that point, exact
without any map; on another mesh with the same UV layout it is the surface point at its UV position.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from functools import cached_property, lru_cache
from pathlib import Path
from typing import Annotated, Any, Literal, Self, TypeVar

import numpy as np
import numpy.typing as npt
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from densegen.arrays import Float32, Float64, Int64
from densegen.conventions import OWN_INDEX, UV_LAYOUT, UV_SIZE
from densegen.errors import ConfigurationError, FormatError
from densegen.face.regions import on_face
from densegen.files import find_data_file, read_bytes, write_text
from densegen.geometry.surface import SurfacePoints, UvMesh, locate
from densegen.geometry.uv import mirror_pixels, uv_pixels
from densegen.ibug68 import KEYPOINTS, ids_of
from densegen.index.landmark import KnownPoint, Landmark, Line, Subset, Version
from densegen.records import MAX_YAML_BYTES, as_yaml, first_problem, parse_yaml

__all__ = [
    "INDEX_FORMAT_VERSION",
    "VertexIndex",
    "compare_versions",
    "format_index",
    "parse_index",
    "read_index",
    "write_index",
]

INDEX_FORMAT_VERSION = 1

SAME_PLACE_PX = 0.05
"""A landmark's vertex, or its point of a triangle, lies where its ``uv`` says, but for rounding, of weights, too."""

SUBSET_SIZES = {"ibug68": KEYPOINTS, "aflw21": 21}

Number = TypeVar("Number", bound=np.floating[Any])


class VertexIndex(BaseModel):
    """N landmarks on one UV layout, with the subsets that benchmarks ask for.

    version : semantic; a landmark that moved, came or went is a new version, and ``changelog`` says what changed
    topology : ``MorphableModel.topology`` of the mesh whose vertices are named
    subsets : each point of a subset is a landmark's id, or the ids of those whose mean it is

    Made, it is consistent: ids count from 0, names and positions are unique, positions lie on the face (in the layout
    that the project speaks), the mirror is an involution, subsets name landmarks that exist, and ``ibug68`` and
    ``aflw21``, if present, have as many points as their names say.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    format: Literal["densegen vertex index"] = "densegen vertex index"
    format_version: Literal[1] = 1
    name: Line
    version: Version
    description: str = ""
    uv_layout: str
    topology: Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")] | None
    landmarks: Annotated[tuple[Landmark, ...], Field(min_length=2)]
    subsets: dict[str, Subset] = {}
    changelog: tuple[str, ...] = ()

    @model_validator(mode="after")
    def _check_relations(self) -> VertexIndex:
        count = len(self.landmarks)
        if [landmark.id for landmark in self.landmarks] != list(range(count)):
            raise ValueError(f"the ids of the {count} landmarks do not count from 0 to {count - 1}")
        _unique("name", [landmark.name for landmark in self.landmarks])
        _unique("uv position", [landmark.uv for landmark in self.landmarks])
        _unique("vertex", [landmark.vertex for landmark in self.landmarks if landmark.vertex is not None])
        for landmark in self.landmarks:
            partner = landmark.mirror
            if partner is not None and not (0 <= partner < count):
                raise ValueError(f"{landmark.name} names the mirror partner {partner}, which does not exist")
            if partner is not None and self.landmarks[partner].mirror != landmark.id:
                raise ValueError(f"the mirror partner of {landmark.name}'s partner is not {landmark.name}")
        for name, points in self.subsets.items():
            if bad := [i for point in points for i in ids_of(point) if not 0 <= i < count]:
                raise ValueError(f"the subset {name} names landmark {bad[0]}, which does not exist")
            if len(set(points)) < len(points):
                raise ValueError(f"the subset {name} names a point twice")
            if len(points) != SUBSET_SIZES.get(name, len(points)):
                raise ValueError(f"the subset {name} has {len(points)} points, expected {SUBSET_SIZES[name]}")
        if self.uv_layout == UV_LAYOUT and not (inside := on_face(self.uv)).all():
            stray = self.landmarks[int(np.argmin(inside))]
            raise ValueError(f"{stray.name} at {stray.uv} lies outside the face's part of the UV plane")
        if self.topology is None and any(landmark.surface_point() is not None for landmark in self.landmarks):
            raise ValueError("landmarks name vertices, but the index names no topology")
        return self

    def __len__(self) -> int:
        return len(self.landmarks)

    def __eq__(self, other: object) -> bool:
        """Equal in every field: the arrays computed from them, kept once they were asked for, do not count."""
        return isinstance(other, VertexIndex) and self.model_dump() == other.model_dump()

    __hash__ = None  # type: ignore[assignment]  # it holds a dictionary

    def model_copy(self, *, update: Mapping[str, Any] | None = None, deep: bool = False) -> Self:
        """See pydantic; the copy computes anew what this index keeps because it was computed once."""
        copied = super().model_copy(update=update, deep=deep)
        for name in copied.__dict__.keys() - type(self).model_fields.keys():
            del copied.__dict__[name]
        return copied

    @cached_property
    def uv(self) -> Float64:
        """(N, 2) float64, read-only: (column, row) in the 256x256 UV map."""
        return _read_only(np.array([landmark.uv for landmark in self.landmarks]))

    @cached_property
    def mirror(self) -> Int64:
        """(N,) int64, read-only: each landmark's mirror partner, -1 if it has none."""
        partners = [-1 if landmark.mirror is None else landmark.mirror for landmark in self.landmarks]
        return _read_only(np.array(partners, np.int64))

    @property
    def vertices(self) -> list[int]:
        """The vertices of the index's topology that the landmarks are.

        Raises :class:`ConfigurationError` if one lies between vertices.
        """
        vertices = [landmark.vertex for landmark in self.landmarks if landmark.vertex is not None]
        if len(vertices) < len(self):
            raise ConfigurationError(
                f"{len(self) - len(vertices)} landmarks of {self.name} lie between vertices: export it as .csv, .npz, "
                ".json, or as the mesh of its landmarks (.ply, .obj)"
            )
        return vertices

    @property
    def mirror_closed(self) -> bool:
        """Whether every landmark has a partner: only then is a flip a permutation."""
        return bool((self.mirror >= 0).all())

    def subset(self, name: str, landmarks: npt.NDArray[Number]) -> npt.NDArray[Number]:
        """The points of a subset: (..., N, D) landmarks -> (..., M, D), means if the subset asks for them.

        Raises :class:`ConfigurationError` if the index has no such subset.
        """
        if name not in self.subsets:
            raise ConfigurationError(f"{self.name} has no subset {name!r}: it has {', '.join(self.subsets) or 'none'}")
        points = [landmarks[..., ids_of(point), :].mean(axis=-2) for point in self.subsets[name]]
        return np.stack(points, axis=-2)

    @cached_property
    def fingerprint(self) -> str:
        """SHA-256, as hexadecimal, over what decides where landmarks lie and in which order."""
        content = self.model_dump(mode="json", exclude={"description", "version", "name", "changelog"})
        return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()

    def resolve(self, mesh: UvMesh) -> SurfacePoints:
        """The landmarks as surface points of ``mesh``: its vertices if the topology is the index's own.

        Raises :class:`ConfigurationError` if the UV layouts differ or a landmark lies outside the mesh.
        """
        self._check_layout(mesh)
        points = self._place(mesh, self.landmarks, self.uv, Landmark.surface_point)
        if mesh.topology == self.topology:
            places = (points.weights[..., None] * uv_pixels(mesh.uv)[points.vertices]).sum(axis=1)
            if (apart := np.abs(places - self.uv).max(axis=1)).max() > SAME_PLACE_PX:
                stray = int(np.argmax(apart))
                raise ConfigurationError(
                    f"{self.landmarks[stray].name} of {self.name} names {self._known_words(stray)}, which lies "
                    f"{apart[stray]:.2f} pixels of the UV map from its uv"
                )
        return points

    def _known_words(self, row: int) -> str:
        landmark = self.landmarks[row]
        return f"the vertex {landmark.vertex}" if landmark.vertex is not None else f"the triangle {landmark.triangle}"

    def resolve_mirrored(self, mesh: UvMesh) -> SurfacePoints:
        """The surface points that become the landmarks when the face is mirrored.

        A landmark's mirror partner if it has one, else its mirrored vertices or UV position: right for an index
        that is not closed under the mirror, too.
        """
        direct = self.resolve(mesh)

        def across(landmark: Landmark) -> KnownPoint:
            if (known := landmark.surface_point()) is None:
                return None
            (a, b, c), weights = known
            return (int(mesh.mirror[a]), int(mesh.mirror[b]), int(mesh.mirror[c])), weights

        vertices, weights = direct.vertices[self.mirror], direct.weights[self.mirror]
        alone = np.flatnonzero(self.mirror < 0)  # have the last one's so far
        if len(alone):
            landmarks = [self.landmarks[row] for row in alone]
            placed = self._place(mesh, landmarks, mirror_pixels(self.uv[alone]), across)
            vertices[alone], weights[alone] = placed.vertices, placed.weights
        return SurfacePoints(vertices, weights)

    def gather(self, position_map: Float32) -> Float32:
        """Read the landmarks off a position map, bilinear between its pixels.

        position_map : (256, 256, 3) float32, any frame
        returns : (N, 3) float32, the map's frame; exact if a landmark's UV position is a pixel centre
        """
        corner = np.clip(np.floor(self.uv).astype(np.int64), 0, UV_SIZE - 2)
        (x, y), column, row = (self.uv - corner).astype(np.float32).T[..., None], corner[:, 0], corner[:, 1]
        upper = (1 - x) * position_map[row, column] + x * position_map[row, column + 1]
        lower = (1 - x) * position_map[row + 1, column] + x * position_map[row + 1, column + 1]
        landmarks: Float32 = (1 - y) * upper + y * lower
        return landmarks

    def _check_layout(self, mesh: UvMesh) -> None:
        if mesh.uv_layout != self.uv_layout:
            raise ConfigurationError(
                f"the vertex index {self.name} is made for the UV layout {self.uv_layout}, "
                f"but {mesh.name} has {mesh.uv_layout}: use an index made for that layout"
            )

    def _place(
        self,
        mesh: UvMesh,
        landmarks: Sequence[Landmark],
        pixels: Float64,
        known_point: Callable[[Landmark], KnownPoint],
    ) -> SurfacePoints:
        """Landmarks by their vertices if the topology is the index's own, by their (n, 2) UV position elsewhere."""
        vertices, weights = np.empty((len(landmarks), 3), np.int32), np.empty((len(landmarks), 3), np.float32)
        by_position = np.ones(len(landmarks), np.bool_)
        if mesh.topology == self.topology:
            for n, landmark in enumerate(landmarks):
                if (point := known_point(landmark)) is not None:
                    if max(point[0]) >= len(mesh.uv):
                        raise ConfigurationError(
                            f"{landmark.name} is vertex {max(point[0])}, but {mesh.name} has {len(mesh.uv)}"
                        )
                    vertices[n], weights[n], by_position[n] = *point, False
        if by_position.any():
            points, found = locate(pixels[by_position], mesh)
            if not found.all():
                n = int(np.flatnonzero(by_position)[np.argmin(found)])
                raise ConfigurationError(
                    f"{int((~found).sum())} of {len(self)} landmarks lie outside the UV surface of {mesh.name}, "
                    f"the first is {landmarks[n].name} at ({pixels[n][0]:.2f}, {pixels[n][1]:.2f})"
                )
            vertices[by_position], weights[by_position] = points.vertices, points.weights
        return SurfacePoints(vertices, weights)


def _read_only(array: npt.NDArray[Any]) -> npt.NDArray[Any]:
    array.flags.writeable = False
    return array


def _unique(what: str, values: list[Any]) -> None:
    seen: set[Any] = set()
    for value in values:
        if value in seen:
            raise ValueError(f"two landmarks have the {what} {value}")
        seen.add(value)


def compare_versions(one: str, other: str) -> int:
    """Compare two semantic versions: below 0 if ``other`` is newer, 0 if they are the same, above 0 if ``one`` is."""
    first, second = ([int(part) for part in version.split(".")] for version in (one, other))
    return (first > second) - (first < second)


def read_index(path: str | Path | None = None) -> VertexIndex:
    """Read and check a vertex index file (YAML); by default densegen's own, of 520 landmarks.

    The same contents give the same object, which is not to be changed (``model_copy`` makes another).

    Raises :class:`ConfigurationError` if it does not exist, :class:`FormatError` if it is no index, has another format
    version or contradicts itself.
    """
    path = find_data_file(OWN_INDEX) if path is None else Path(path)
    return parse_index(read_bytes(path, "vertex index", MAX_YAML_BYTES), path.name)


@lru_cache(maxsize=4)
def parse_index(text: bytes | str, name: str) -> VertexIndex:
    """Parse and check the text of a vertex index; ``name`` stands in the errors. See :func:`read_index`.

    The last few are kept, and given again: an index takes longer to parse than a shard to open.
    """
    return _validate(parse_yaml(text, name), name)


def _validate(contents: Any, name: str) -> VertexIndex:
    if not isinstance(contents, dict) or contents.get("format") != "densegen vertex index":
        raise FormatError(f"{name} is not a vertex index: its 'format' is not 'densegen vertex index'")
    if (found := contents.get("format_version")) != INDEX_FORMAT_VERSION:
        raise FormatError(f"{name} has index format {found}, expected {INDEX_FORMAT_VERSION}: update densegen")
    try:
        return VertexIndex.model_validate(contents)
    except ValidationError as error:
        raise FormatError(f"{name}: {first_problem(error)}") from error


def write_index(index: VertexIndex, path: Path) -> None:
    """Write a vertex index as YAML, one landmark a line, whole or not at all."""
    write_text(path, format_index(index))


def format_index(index: VertexIndex) -> str:
    """The text of an index file: stable, so that a diff of two versions shows what moved."""
    import yaml

    content = index.model_dump(mode="json")
    landmarks, subsets = content.pop("landmarks"), content.pop("subsets")
    lines = [yaml.safe_dump(content, sort_keys=False, width=100).rstrip(), "landmarks:"]
    for landmark in landmarks:
        known = {key: value for key, value in landmark.items() if key not in ("triangle", "weights") or value}
        lines.append(f"  - {as_yaml(json.dumps(known, ensure_ascii=False), ascii_only=True)}")
    lines.append("subsets:" if subsets else "subsets: {}")
    lines += [f"  {name}: {json.dumps(ids)}" for name, ids in subsets.items()]
    return "\n".join(lines) + "\n"
