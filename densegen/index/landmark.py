"""A landmark: one point of the face with its name; and the shape of a subset of them."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

from densegen.conventions import UV_SIZE
from densegen.face.regions import MIDLINE, REGIONS

__all__ = [
    "KnownPoint",
    "Landmark",
    "Line",
    "Side",
    "Subset",
    "Version",
    "name_on",
    "origin_of_keypoint",
    "origin_of_person",
    "origin_of_round",
    "reason_of",
    "without_side",
]

Line = Annotated[str, Field(pattern=r"^[^\x00-\x1f\x7f]+$")]
Version = Annotated[str, Field(pattern=r"^[0-9]{1,9}\.[0-9]{1,9}\.[0-9]{1,9}$")]
Pixel = Annotated[float, Field(ge=0, le=UV_SIZE - 1)]
Vertex = Annotated[int, Field(ge=0)]
Share = Annotated[float, Field(ge=0, le=1)]
Subset = tuple[int | Annotated[tuple[int, ...], Field(min_length=1)], ...]

KnownPoint = tuple[tuple[int, int, int], tuple[float, float, float]] | None


Side = Literal["right", "middle", "left"]
"""Of the face, the subject's own."""


def name_on(side: Side, name: str) -> str:
    """A landmark's full name: that of a mirrored pair, or of a point on the midline, and its side."""
    return f"{name}-{side[0]}"


def without_side(name: str) -> str:
    """The reverse of :func:`name_on`; the iBUG 68 have no side in their names."""
    return name[:-2] if name[-2:] in ("-r", "-m", "-l") else name


def origin_of_keypoint(number: int) -> str:
    """The origin of a landmark that is one of the iBUG 68."""
    return f"ibug68:{number}"


def origin_of_round(number: int) -> str:
    """The origin of a landmark that a round of triangulation gave."""
    return f"delaunay:{number}"


def origin_of_person(reason: str) -> str:
    """The origin of a landmark that a person put where it is."""
    return f"manual: {reason}"


def reason_of(origin: str) -> str:
    """The reason that a person gave, or the origin itself if nobody did."""
    return origin.removeprefix("manual: ")


class Landmark(BaseModel):
    """One landmark of an index.

    uv : (column, row) in the 256x256 UV map, sub-pixel; the face's midline lies at 127.5
    vertex : the vertex of the index's topology that it is, or None for a point between vertices
    triangle, weights : for a point between vertices, the three vertices around it and their shares, or None: then the
        UV position says where it is
    mirror : id of the landmark on the other half of the face, its own id on the midline, None without a partner
    origin : ``ibug68:K``, ``delaunay:ROUND``, ``manual: REASON``, ``import:FILE``, or the name of a method
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    id: Annotated[int, Field(ge=0)]
    name: Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9-]*$")]
    region: Literal[REGIONS]  # type: ignore[valid-type]
    vertex: Annotated[int, Field(ge=0)] | None
    uv: tuple[Pixel, Pixel]
    mirror: int | None
    origin: str
    triangle: tuple[Vertex, Vertex, Vertex] | None = None
    weights: tuple[Share, Share, Share] | None = None

    @model_validator(mode="after")
    def _is_one_point(self) -> Landmark:
        if (self.triangle is None) != (self.weights is None):
            raise ValueError(f"{self.name} has a triangle or weights, expected both or neither")
        if self.triangle is not None and self.vertex is not None:
            raise ValueError(f"{self.name} is a vertex and a point of a triangle, expected one of them")
        if self.weights is not None and abs(sum(self.weights) - 1) > 1e-4:
            raise ValueError(f"the weights of {self.name} add up to {sum(self.weights):g}, expected 1")
        return self

    @property
    def is_keypoint(self) -> bool:
        """Whether it is one of the iBUG 68."""
        return self.origin.startswith("ibug68:")

    @property
    def side(self) -> Side:
        """Where it lies: on the midline if it is its own mirror image, else by its column."""
        if self.mirror == self.id:
            return "middle"
        return "right" if self.uv[0] < MIDLINE else "left"

    def surface_point(self) -> KnownPoint:
        """Three vertices of the index's topology and their weights, or None if only the UV position is known."""
        if self.vertex is not None:
            return (self.vertex, self.vertex, self.vertex), (1.0, 0.0, 0.0)
        if self.triangle is not None and self.weights is not None:
            return self.triangle, self.weights
        return None
