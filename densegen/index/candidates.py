"""How the landmarks were chosen: Delaunay sampling of the UV plane, then a person's corrections.

The published procedure starts from a few keypoints in the 256x256 UV map, triangulates them, adds every triangle's
centroid, and repeats; three rounds. What it yields is raw: uneven, not quite symmetric, and empty beyond the convex
hull of the keypoints; the corrections say the rest.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Literal

import numpy as np
from pydantic import BaseModel, ConfigDict, Field

from densegen.conventions import UV_SIZE
from densegen.errors import ConfigurationError
from densegen.face.morphable_model import MorphableModel
from densegen.files import write_text
from densegen.ibug68 import BROWS, JAW, KEYPOINTS, NOSE_TIP
from densegen.records import read_validated

__all__ = ["SEEDS", "Candidates", "Position", "read_candidates", "sample_candidates", "write_candidates"]

SEEDS: dict[str, tuple[int, ...]] = {
    "jaw": tuple(range(KEYPOINTS))[JAW],
    "brows": tuple(range(KEYPOINTS))[BROWS],
    "nose-tip": (NOSE_TIP,),
}
"""Groups of the iBUG 68 that the triangulation can start from."""

Pixel = Annotated[float, Field(ge=0, le=UV_SIZE - 1)]
Position = tuple[Pixel, Pixel]


class Candidates(BaseModel):
    """What the triangulation yields: the seeds (round 0) and the centroids of each round, in UV pixels."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    format: Literal["densegen candidates"] = "densegen candidates"
    format_version: Literal[1] = 1
    uv_layout: str
    seeds: tuple[str, ...]
    rounds: tuple[tuple[Position, ...], ...]

    @property
    def counts(self) -> list[int]:
        """Points after the seeds and after each round: 28, 65, 173, 492 for the Basel layout."""
        return [int(n) for n in np.cumsum([len(points) for points in self.rounds])]


def sample_candidates(model: MorphableModel, seeds: tuple[str, ...], rounds: int = 3) -> Candidates:
    """Run the published procedure on the model's UV layout.

    Each round triangulates all points so far (Delaunay) and adds the triangles' centroids, rounded to whole pixels of
    the 256x256 map; a pixel counts once.

    Raises :class:`ConfigurationError` if a seed group is unknown.
    """
    from scipy.spatial import Delaunay

    if unknown := [name for name in seeds if name not in SEEDS]:
        raise ConfigurationError(f"there is no seed group {unknown[0]!r}: use {', '.join(SEEDS)}")
    if sum(len(SEEDS[name]) for name in set(seeds)) < 4:
        raise ConfigurationError(f"the seeds {', '.join(seeds)} are too few to triangulate: add another group")
    keypoints = np.rint(model.keypoint_pixels)
    points = keypoints[sorted(k for name in set(seeds) for k in SEEDS[name])]
    steps = [points]
    for _ in range(rounds):
        everything = np.unique(np.concatenate(steps), axis=0)
        centroids = np.unique(np.rint(everything[Delaunay(everything).simplices].mean(axis=1)), axis=0)
        known = {tuple(point) for point in everything}
        steps.append(np.array([point for point in centroids if tuple(point) not in known]).reshape(-1, 2))
    return Candidates(
        uv_layout=model.uv_layout,
        seeds=seeds,
        rounds=tuple(tuple((float(x), float(y)) for x, y in step) for step in steps),
    )


def read_candidates(path: Path) -> Candidates:
    """Read what ``densegen index sample`` wrote; raises :class:`FormatError` if it is something else."""
    return read_validated(Candidates, path, "candidates file")


def write_candidates(candidates: Candidates, path: Path) -> None:
    """Write candidates as YAML, one round a block."""
    content = candidates.model_dump(mode="json")
    rounds = content.pop("rounds")
    lines = [f"{key}: {json.dumps(value)}" for key, value in content.items()]
    lines.append("rounds: # UV pixels: the seeds, then the centroids of each round")
    for number, points in enumerate(rounds):
        lines.append(f"  - # round {number}: {len(points)} points")
        lines += [f"    - {json.dumps(point)}" for point in points]
    write_text(path, "\n".join(lines) + "\n")
