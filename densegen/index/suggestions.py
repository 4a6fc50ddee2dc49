"""Suggested corrections: thin sampled candidates out, then fill the largest gaps of the face, each with its reason."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import numpy as np

from densegen.errors import ConfigurationError
from densegen.face.morphable_model import MorphableModel
from densegen.face.regions import region_of
from densegen.ibug68 import KEYPOINTS
from densegen.index.candidates import Candidates
from densegen.index.corrections import Addition, Corrections, Draft, Removal, drafts_of_candidates
from densegen.index.half_plane import FacePlane

__all__ = ["MOVING", "suggest_corrections"]


MOVING: Mapping[str, float] = {"lid": 1.5, "eye": 1.3, "lip-outer": 1.7, "lip-inner": 1.7, "brow": 1.4, "nose": 1.3}
"""How much more a gap weighs where the face moves with expression, by region."""


CLOSEST_PX = 2.5
"""How near landmarks may come in the UV plane: folds hold many millimetres in a pixel, and nobody sees into them."""


def suggest_corrections(
    candidates: Candidates,
    model: MorphableModel,
    *,
    name: str,
    count: int,
    spacing_mm: float,
    weights: Mapping[str, float] = MOVING,
) -> Corrections:
    """Corrections that lead from candidates to an even index of ``count`` landmarks, for a person to go over.

    Distances are those on the mean face. Candidates nearer than ``spacing_mm`` to a keypoint or to an earlier candidate
    are removed. Then landmarks are added, one mirrored pair or one point of the midline at a time, at the vertex of the
    face whose distance to the nearest landmark, times its region's weight, is the largest (farthest-point sampling,
    Gonzalez 1985), and at least half of ``spacing_mm`` and 2.5 pixels of the UV map from every other.

    Raises :class:`ConfigurationError` if the face has no room for so many, or more candidates are left.
    """
    plane = FacePlane(model)
    taken = _Taken(plane)
    removed = _thin(drafts_of_candidates(candidates, plane), taken, spacing_mm)
    if len(taken) > count:
        raise ConfigurationError(
            f"{len(taken)} landmarks are left at a spacing of {spacing_mm:g} mm, not {count}: make the spacing larger"
        )
    added = _fill(taken, count, spacing_mm / 2, weights)
    return Corrections(
        index_name=name,
        index_version="1.0.0",
        changelog=("1.0.0: first release",),
        count=count,
        remove=removed,
        add=added,
    )


class _Taken:
    """The landmarks so far: their vertices and their names."""

    def __init__(self, plane: FacePlane) -> None:
        self.plane = plane
        self.vertices = list(map(int, plane.model.keypoints68))
        self.names = [f"keypoint {k}" for k in range(KEYPOINTS)]

    def __len__(self) -> int:
        return len(self.vertices)

    def nearest(self, vertex: int) -> tuple[float, str]:
        """Distance in mm from a vertex to the nearest landmark, its own mirror image counted, and whose it is."""
        places, partner = self.plane.points_mm, int(self.plane.model.mirror[vertex])
        distance = np.linalg.norm(places[self.vertices] - places[vertex], axis=1)
        first = int(np.argmin(distance))
        across = float(np.linalg.norm(places[partner] - places[vertex])) if partner != vertex else np.inf
        return (across, "its mirror image") if across < distance[first] else (float(distance[first]), self.names[first])

    def take(self, vertex: int, name: str) -> list[int]:
        """Take a vertex and its mirror image; returns both."""
        both = list(dict.fromkeys((vertex, int(self.plane.model.mirror[vertex]))))
        self.vertices += both
        self.names += [name] * len(both)
        return both


def _thin(drafts: dict[str, Draft], taken: _Taken, spacing_mm: float) -> tuple[Removal, ...]:
    removed = []
    for name, draft in drafts.items():
        distance, whose = taken.nearest(draft.half)
        if distance < spacing_mm or distance == 0:
            removed.append(Removal(name=name, reason=f"{distance:.1f} mm from {whose}"))
        else:
            taken.take(draft.half, name)
    return tuple(removed)


def _fill(taken: _Taken, count: int, closest_mm: float, weights: Mapping[str, float]) -> tuple[Addition, ...]:
    plane = taken.plane
    vertices = np.concatenate([plane.right, plane.middle])
    places, alone = plane.points_mm[vertices], np.arange(len(vertices)) >= len(plane.right)
    keypoints = plane.pixels[plane.model.keypoints68]
    regions = np.array([region_of(pixel, keypoints) for pixel in plane.pixels[vertices]])
    weight = np.array([weights.get(region, 1.0) for region in regions])
    partners = plane.model.mirror[vertices]
    across = np.linalg.norm(plane.points_mm[partners] - places, axis=1)
    across_px = np.linalg.norm(plane.pixels[partners] - plane.pixels[vertices], axis=1)
    usable = alone | ((across >= closest_mm) & (across_px >= CLOSEST_PX))
    distance = np.full(len(vertices), np.inf)

    def see(landmarks: Iterable[int]) -> None:
        for one in landmarks:
            np.minimum(distance, np.linalg.norm(places - plane.points_mm[one], axis=1), out=distance)
            usable[np.linalg.norm(plane.pixels[vertices] - plane.pixels[one], axis=1) < CLOSEST_PX] = False

    see(taken.vertices)
    added: list[Addition] = []
    numbers: dict[str, int] = {}
    while len(taken) < count:
        fits = usable & (distance >= closest_mm)
        if len(taken) == count - 1:
            fits &= alone
        if not fits.any():
            raise ConfigurationError(
                f"the face has room for {len(taken)} landmarks at least {closest_mm:g} mm apart, not for {count}"
            )
        chosen = int(np.argmax(np.where(fits, weight * distance, -1)))
        uv = (round(float(plane.pixels[vertices[chosen], 0]), 2), round(float(plane.pixels[vertices[chosen], 1]), 2))
        if plane.nearest(uv, "a suggestion") != vertices[chosen]:  # beside the midline, or two vertices at one place
            usable[chosen] = False
            continue
        region = str(regions[chosen])
        numbers[region] = numbers.get(region, 0) + 1
        name = f"{region}-add-{numbers[region]:02d}"
        moves = "; moves with expression" if weight[chosen] > 1 else ""
        added.append(
            Addition(
                name=name,
                uv=uv,
                reason=f"{distance[chosen]:.1f} mm to the nearest landmark{moves}",
            )
        )
        see(taken.take(int(vertices[chosen]), name))
    return tuple(sorted(added, key=lambda addition: addition.name))
