"""What the browser draws: the face, its UV plane, the landmarks on both, and what is selected."""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from typing import Any

import numpy as np

from densegen.arrays import Float64, Image, Int32, Int64, Mask
from densegen.drawing import REGION_COLOURS
from densegen.editor.picking import hit_vertex
from densegen.editor.sample_faces import PLASTER, SampleFaces
from densegen.editor.session import EditSession
from densegen.editor.views import PLANE_WIDTH, plane_offset
from densegen.face.regions import valid_uv_region

__all__ = ["HEAT_MM", "EditorScene", "Landmarks"]

SCENE_MM = 10.0
"""Millimetres in a unit of the scene."""

HEAT_MM = 12.0
"""The distance from a landmark that is drawn white."""

BALL = 0.14
SELECT_WITHIN = 0.6
IDS_AROUND = 60
"""Ids shown at once: those nearest to the selected landmark."""

WHITE = (255, 255, 255)


class Landmarks:
    """The landmarks of a state by row: names with their sides, vertices, regions."""

    def __init__(self, session: EditSession, region_of: Any) -> None:
        rows = session.names()
        self.names = [name for name, _ in rows]
        self.vertices: Int64 = np.array([vertex for _, vertex in rows])
        self.regions = [region_of(vertex) for vertex in self.vertices.tolist()]


class EditorScene:
    """The drawn scene of one session; ``server`` is a ``viser.ViserServer``.

    dragged : is told of each drag of a landmark
    face, plane : (V, 3) float64 vertices of the face and of its UV plane, units of the scene
    triangles : (F, 3) of the face's part
    """

    def __init__(self, session: EditSession, server: Any, faces: SampleFaces, dragged: Callable[[Any], Any]) -> None:
        self.session, self.server, self.faces, self.dragged = session, server, faces, dragged
        self.triangles = _face_triangles(session)
        self.used: Int64 = np.unique(self.triangles).astype(np.int64)
        self.number = 0
        self.face = self._vertices(0)
        pixels = session.plane.pixels / 255 - 0.5
        self.flat: Float64 = np.column_stack([pixels[:, 0], -pixels[:, 1], np.zeros(len(pixels))]) * PLANE_WIDTH
        self.offset = plane_offset(2.0, self.face[self.used])
        self.region_of = lru_cache(maxsize=None)(session.region_of)
        self.drawn: dict[str, Any] = {}
        self.marked: int | None = None
        self.labelled = 0
        self.meshes: dict[str, tuple[Float64, Image]] = {}
        server.scene.set_up_direction("+y")

    @property
    def plane(self) -> Float64:
        placed: Float64 = self.flat + np.array(self.offset)
        return placed

    @property
    def shown_face(self) -> Float64:
        """The face's vertices that are drawn."""
        return self.face[self.used]

    @property
    def shown_plane(self) -> Float64:
        return self.plane[self.used]

    def _vertices(self, number: int) -> Float64:
        model = self.session.model
        places: Float64 = self.faces.vertices(number).astype(np.float64) * model.unit_mm / SCENE_MM
        return places

    def choose_face(self, number: int) -> None:
        self.number, self.face = number, self._vertices(number)

    def draw(
        self, landmarks: Landmarks, shown: Mask, chosen: str | None, distance_mm: Float64 | None, photograph: bool
    ) -> None:
        """Draw all of it in one update, so that landmarks never hang beside the face.

        shown : (N,) bool, which landmarks are drawn
        chosen : the selected landmark's name without its side
        distance_mm : (V,) distance to the nearest landmark, drawn as heat; None for the face's own colour
        photograph : whether a fit's photograph colours its face
        """
        with self.server.atomic():
            colours = self._colours(distance_mm, photograph)
            for name, places in (("/face", self.face), ("/plane", self.plane)):
                self._draw_mesh(name, places, colours)
                self.draw_landmarks(f"{name}_landmarks", places[landmarks.vertices], landmarks, shown, chosen)
            if self.marked is not None:
                self.mark(self.marked)  # where its vertex is now

    def _colours(self, distance_mm: Float64 | None, photograph: bool) -> Image:
        if distance_mm is not None:
            from matplotlib import colormaps

            heat: Image = (colormaps["inferno"](np.clip(distance_mm / HEAT_MM, 0, 1))[:, :3] * 255).astype(np.uint8)
            return heat
        taken = self.faces.photograph(self.number) if photograph else None
        return np.tile(PLASTER, (len(self.face), 1)) if taken is None else taken

    def _draw_mesh(self, name: str, vertices: Float64, colours: Image) -> None:
        import trimesh

        kept = self.meshes.get(name)
        if kept is not None and np.array_equal(kept[0], vertices) and np.array_equal(kept[1], colours):
            return  # megabytes that the browser has
        self.meshes[name] = (vertices, colours)
        opaque = np.concatenate([colours, np.full((len(colours), 1), 255, np.uint8)], axis=1)
        mesh = trimesh.Trimesh(vertices, self.triangles, vertex_colors=opaque, process=False)
        self.server.scene.add_mesh_trimesh(name, mesh)

    def draw_landmarks(self, name: str, places: Float64, landmarks: Landmarks, shown: Mask, chosen: str | None) -> None:
        """Balls at ``places``, (N, 3); the chosen pair white and larger."""
        from densegen.index.landmark import without_side

        picked = np.array([without_side(landmark) == chosen for landmark in landmarks.names])
        colours = np.array([_rgb(REGION_COLOURS[region]) for region in landmarks.regions], np.uint8)
        colours[picked] = WHITE
        scales = np.where(shown | picked, np.where(picked, 1.8, 1.0), 1e-4).astype(np.float32)
        handle = self.drawn.get(name)
        if handle is not None and len(handle.batched_positions) == len(places):
            handle.batched_positions = places.astype(np.float32)
            handle.batched_colors, handle.batched_scales = colours, scales
            return
        ball = _ball()
        self.drawn[name] = self.server.scene.add_batched_meshes_simple(
            name,
            ball.vertices,
            ball.faces,
            batched_wxyzs=np.tile([1.0, 0.0, 0.0, 0.0], (len(places), 1)),
            batched_positions=places,
            batched_scales=scales,
            batched_colors=colours,
            lod="off",
        )
        self.drawn[name].on_drag("left")(self.dragged)

    def draw_links(self, pairs: Int64, visible: bool) -> None:
        """Lines between mirror partners, (n, 2) vertices."""
        for name, places in (("/face_links", self.face), ("/plane_links", self.plane)):
            self.server.scene.add_line_segments(name, places[pairs], (90, 160, 220), thickness=0.02, visible=visible)

    def label(self, texts: list[tuple[str, int]]) -> None:
        """Names beside vertices, on the face and on the plane; those of the last call go."""
        for key in [key for key in self.drawn if key.startswith("/label")]:
            self.drawn.pop(key).remove()
        self.labelled += 1  # a name is used once: what goes and what comes travel together
        for number, (text, vertex) in enumerate(texts):
            for place, vertices in (("face", self.face), ("plane", self.plane)):
                key = f"/label/{self.labelled}/{place}/{number}"
                raised = vertices[vertex] + np.array([0.0, 0.0, 3 * BALL])
                self.drawn[key] = self.server.scene.add_label(key, text, position=raised, anchor="bottom-left")

    def mark(self, vertex: int | None) -> None:
        """A ring of light at the place of a gap."""
        self.marked = vertex
        for place, vertices in (("face", self.face), ("plane", self.plane)):
            key = f"/gap/{place}"
            if vertex is None:
                if key in self.drawn:
                    self.drawn.pop(key).remove()
                continue
            self.drawn[key] = self.server.scene.add_icosphere(
                key, radius=2.2 * BALL, color=(20, 200, 120), position=vertices[vertex], opacity=0.75
            )

    def meets(self, origin: Float64, direction: Float64) -> tuple[int, Float64, Float64] | None:
        """The vertex that a ray meets first, the point of contact, and the vertices of the mesh it belongs to."""
        hits = [(shown, hit_vertex(shown, self.triangles, origin, direction)) for shown in (self.face, self.plane)]
        met = [(float(np.linalg.norm(hit[1] - origin)), shown, *hit) for shown, hit in hits if hit is not None]
        if not met:
            return None
        _, shown, vertex, point = min(met, key=lambda hit: hit[0])
        return vertex, point, shown

    def nearest_row(self, landmarks: Landmarks, shown: Mask, point: Float64, vertices: Float64) -> int | None:
        """The row of the drawn landmark at a point of the surface, if one is near enough."""
        distance = np.linalg.norm(vertices[landmarks.vertices] - point, axis=1)
        distance[~shown] = np.inf
        row = int(np.argmin(distance))
        return row if distance[row] <= SELECT_WITHIN else None

    def neighbour(self, vertex: int, direction: Float64) -> int | None:
        """The vertex joined to ``vertex`` that lies most nearly in a direction of the UV plane, (column, row)."""
        around = np.unique(self.triangles[(self.triangles == vertex).any(axis=1)])
        around = around[around != vertex]
        pixels = self.session.plane.pixels
        steps = pixels[around] - pixels[vertex]
        along = steps @ direction / np.maximum(np.linalg.norm(steps, axis=1), 1e-9)
        return int(around[np.argmax(along)]) if len(around) and along.max() > 0.5 else None


@lru_cache(maxsize=1)
def _ball() -> Any:
    import trimesh

    return trimesh.creation.icosphere(subdivisions=1, radius=BALL)


def _face_triangles(session: EditSession) -> Int32:
    """The triangles that lie in the face's part of the UV plane; those that reach over its edge are left out."""
    columns, rows = np.rint(session.plane.pixels).astype(np.int64).T
    inside = valid_uv_region()[rows, columns]
    triangles = session.model.outward_triangles
    face: Int32 = triangles[inside[triangles].any(axis=1)]
    return face


def _rgb(colour: str) -> tuple[int, int, int]:
    return (int(colour[1:3], 16), int(colour[3:5], 16), int(colour[5:7], 16))
