"""A landmark: one point of the face with its name; and the shape of a subset of them."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

from densegen.conventions import UV_SIZE
from densegen.face.regions import REGIONS

__all__ = ["KnownPoint", "Landmark", "Subset"]

Pixel = Annotated[float, Field(ge=0, le=UV_SIZE - 1)]
Vertex = Annotated[int, Field(ge=0)]
Share = Annotated[float, Field(ge=0, le=1)]
Subset = tuple[int | Annotated[tuple[int, ...], Field(min_length=1)], ...]

KnownPoint = tuple[tuple[int, int, int], tuple[float, float, float]] | None


class Landmark(BaseModel):
    """One landmark of an index.

    uv : (column, row) in the 256x256 UV map, sub-pixel; the face's midline lies at 127.5
    vertex : the vertex of the index's topology that it is, or None for a point between vertices
    triangle, weights : for a point between vertices, the three vertices around it and their shares, or None: then the
        UV position says where it is
    mirror : id of the landmark on the other half of the face, its own id on the midline, None without a partner
    origin : ``ibug68:K``, ``delaunay:ROUND`` or ``manual: REASON``
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

    def surface_point(self) -> KnownPoint:
        """Three vertices of the index's topology and their weights, or None where only the UV position is known."""
        if self.vertex is not None:
            return (self.vertex, self.vertex, self.vertex), (1.0, 0.0, 0.0)
        if self.triangle is not None and self.weights is not None:
            return self.triangle, self.weights
        return None
