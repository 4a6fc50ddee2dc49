"""The page: the face in 3D and its UV plane in a browser, on which a person clicks.

Clicks arrive as rays; what they hit is decided here, so that the browser only draws. The UV plane is the same mesh laid
flat: a click on either names a vertex.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from functools import lru_cache
from typing import Any

import numpy as np
import numpy.typing as npt

from densegen.arrays import Float64, Int32, Int64
from densegen.drawing import REGION_COLOURS
from densegen.editor.picking import hit_vertex
from densegen.editor.session import EditSession
from densegen.errors import DensegenError
from densegen.face.regions import valid_uv_region
from densegen.index.landmark import without_side
from densegen.index.quality import face_surface

__all__ = ["EditorPage"]

SCENE_MM = 10.0
"""Millimetres in a unit of the scene."""

PLANE_OFFSET = (21.0, 0.0, 0.0)
PLANE_WIDTH = 17.0
SELECT_WITHIN = 0.6
SAMPLE_FACES = 24
HEAT_MM = 12.0
VIEWS = {
    "front": ((10.5, -1.0, 100.0), (10.5, -1.0, 5.0)),
    "right": ((-87.0, -1.0, 28.0), (0.0, -1.0, 5.0)),
    "left": ((87.0, -1.0, 28.0), (0.0, -1.0, 5.0)),
    "UV": ((21.0, 0.0, 75.0), (21.0, 0.0, 0.0)),
}
"""Camera position and the point that it looks at, in units of the scene, for each button of the panel."""

LOOK, MOVE, ADD = "Look", "Move", "Add"
HINTS = {
    LOOK: "Click a landmark to read its numbers.",
    MOVE: "Click where the selected landmark shall go.",
    ADD: "Click the face or the plane to add a landmark there.",
}


class EditorPage:
    """The page of one session; ``server`` is a ``viser.ViserServer``.

    std : (Ks + Ke,) spread of the raw coefficients, for the sample faces
    """

    def __init__(self, session: EditSession, server: Any, std: npt.NDArray[np.floating]) -> None:
        self.session, self.server, self.std = session, server, std
        self.lock = threading.RLock()
        self.selected: str | None = None
        self.surface, _ = face_surface(session.model)
        self.triangles = _face_triangles(session)
        self.face = self._face_vertices(0)
        pixels = session.plane.pixels / 255 - 0.5
        flat = np.column_stack([pixels[:, 0], -pixels[:, 1], np.zeros(len(pixels))]) * PLANE_WIDTH
        self.plane: Float64 = flat + PLANE_OFFSET
        self.region_of = lru_cache(maxsize=None)(session.region_of)
        self._build_panel()
        self._build_scene()
        self._say("Unsaved edits of an earlier session are back." if session.recovered else "")
        self.draw()

    # What the person sees

    def _build_panel(self) -> None:
        gui = self.server.gui
        gui.configure_theme(control_layout="fixed", show_logo=False, show_share_button=False)
        self.about = gui.add_markdown("")
        self.mode = gui.add_button_group("click to", (LOOK, MOVE, ADD))
        self.mode_now = LOOK
        self.view = gui.add_button_group("view from", tuple(VIEWS))
        self.reason = gui.add_text("reason", "", hint="stands in the corrections file")
        self.midline = gui.add_checkbox("on the midline", False, hint="put the next landmark onto the midline")
        self.delete = gui.add_button("Delete", color="red")
        self.undo = gui.add_button("Undo")
        self.redo = gui.add_button("Redo")
        self.save = gui.add_button("Save", color="green")
        self.heat = gui.add_checkbox("coverage as heat", False, hint=f"black: near a landmark, white: {HEAT_MM:.0f} mm")
        self.links = gui.add_checkbox("link mirror partners", False)
        self.sample = gui.add_slider("sample face", min=0, max=SAMPLE_FACES, step=1, initial_value=0)
        self.play = gui.add_checkbox("play", False)
        self.note = gui.add_markdown("")
        self.mode.on_click(lambda _: self._set_mode(self.mode.value))
        self.view.on_click(lambda event: self._place_camera(event.client, self.view.value))
        self.delete.on_click(lambda _: self._edit(self._delete))
        self.undo.on_click(lambda _: self._edit(self._undo))
        self.redo.on_click(lambda _: self._edit(self._redo))
        self.save.on_click(lambda _: self._edit(self._save))
        for box in (self.heat, self.links):
            box.on_update(lambda _: self.draw())
        self.sample.on_update(lambda _: self._show_sample())

    def _build_scene(self) -> None:
        self.server.scene.set_up_direction("+y")
        # Of the scene, not of its meshes: a click must not get lost while the browser replaces what was redrawn.
        self.server.scene.on_click()(self._clicked)
        self.server.on_client_connect(self._place_camera)

    @staticmethod
    def _place_camera(client: Any, view: str = "front") -> None:
        # From afar through a long lens: both cheeks are seen, as in a passport photograph.
        client.camera.fov = 0.29
        client.camera.position, client.camera.look_at = VIEWS[view]
        client.camera.up_direction = (0.0, 1.0, 0.0)

    def draw(self) -> None:
        """Draw the state at hand: the face, the plane, the landmarks, and what is selected."""
        with self.lock:
            names = self.session.names()
            vertices = np.array([vertex for _, vertex in names])
            largest, percentile, mean, distance = self._coverage(vertices)
            self._draw_mesh("/face", self.face, distance)
            self._draw_mesh("/plane", self.plane, distance)
            self._draw_landmarks("/landmarks", self.face[vertices], names)
            self._draw_landmarks("/plane_landmarks", self.plane[vertices], names)
            self._draw_links()
            saved = "saved" if self.session.is_saved else "**not saved**"
            self.about.content = (
                f"**{self.session.base.name}** from {self.session.base.version}: {len(names)} landmarks, {saved}\n\n"
                f"coverage {largest:.1f} / {percentile:.1f} / {mean:.2f} mm\n\n{self._describe_selected(names)}"
            )
            self.undo.disabled, self.redo.disabled = not self.session.can_undo, not self.session.can_redo
            self.delete.disabled = self.selected is None

    def _draw_mesh(self, name: str, vertices: Float64, distance_mm: Float64) -> None:
        import trimesh

        if self.heat.value:
            from matplotlib import colormaps

            colours = colormaps["inferno"](np.clip(distance_mm / HEAT_MM, 0, 1))
        else:
            colours = np.tile([0.78, 0.74, 0.70, 1.0], (len(vertices), 1))
        mesh = trimesh.Trimesh(vertices, self.triangles, vertex_colors=(colours * 255).astype(np.uint8), process=False)
        self.server.scene.add_mesh_trimesh(name, mesh)

    def _draw_landmarks(self, name: str, places: Float64, names: list[tuple[str, int]]) -> None:
        import trimesh

        ball = trimesh.creation.icosphere(subdivisions=1, radius=0.14)
        colours = np.array([_rgb(REGION_COLOURS[self.region_of(vertex)]) for _, vertex in names], np.uint8)
        chosen = np.array([without_side(landmark) == self.selected for landmark, _ in names])
        colours[chosen] = (255, 255, 255)
        sizes = np.where(chosen, 2.0, 1.0)
        self.server.scene.add_batched_meshes_simple(
            name,
            ball.vertices,
            ball.faces,
            batched_wxyzs=np.tile([1.0, 0.0, 0.0, 0.0], (len(names), 1)),
            batched_positions=places,
            batched_scales=sizes,
            batched_colors=colours,
            lod="off",
        )

    def _draw_links(self) -> None:
        pairs = [(d.half, int(self.session.model.mirror[d.half])) for d in self.session.state.values()]
        ends = np.array([pair for pair in pairs if pair[0] != pair[1]])
        for name, places in (("/links", self.face), ("/plane_links", self.plane)):
            self.server.scene.add_line_segments(
                name, places[ends], (90, 160, 220), thickness=0.02, visible=bool(self.links.value)
            )

    def _describe_selected(self, names: list[tuple[str, int]]) -> str:
        rows = [(name, vertex) for name, vertex in names if without_side(name) == self.selected]
        if not rows:
            return "Click a landmark."
        origin = self.session.state[str(self.selected)].origin if self.selected in self.session.state else "iBUG 68"
        lines = [f"**{self.selected}** · {self.region_of(rows[0][1])} · {origin}"]
        for name, vertex in rows:
            column, row = self.session.plane.pixels[vertex]
            lines.append(f"{name}: vertex {vertex}, UV ({column:.1f}, {row:.1f})")
        return "\n\n".join(lines)

    def _coverage(self, vertices: Int64) -> tuple[float, float, float, Float64]:
        """Largest, 99th percentile and mean distance of the face in mm, and (V,) each vertex's own."""
        from scipy.spatial import cKDTree

        mean_mm = self.session.model.mean_mm.astype(np.float32)
        tree = cKDTree(mean_mm[vertices])
        face = tree.query(self.surface.gather(mean_mm))[0]
        return float(face.max()), float(np.percentile(face, 99)), float(face.mean()), tree.query(mean_mm)[0]

    # What the person does

    def _set_mode(self, mode: str) -> None:
        self.mode_now = mode
        self._say(HINTS[mode])

    def _clicked(self, event: Any) -> None:
        origin, direction = np.array(event.ray_origin), np.array(event.ray_direction)
        hits = [(shown, hit_vertex(shown, self.triangles, origin, direction)) for shown in (self.face, self.plane)]
        met = [(np.linalg.norm(hit[1] - origin), shown, *hit) for shown, hit in hits if hit is not None]
        if not met:
            return
        _, shown, vertex, point = min(met, key=lambda hit: float(hit[0]))
        if self.mode_now == ADD:
            self._edit(lambda: self._add(vertex))
        elif self.mode_now == MOVE and self.selected is not None:
            self._edit(lambda: self._move(vertex))
        else:
            self._select(shown, point)

    def _select(self, shown: Float64, point: Float64) -> None:
        with self.lock:
            names = self.session.names()
            places = shown[[vertex for _, vertex in names]]
            distance = np.linalg.norm(places - point, axis=1)
            nearest = int(np.argmin(distance))
            self.selected = without_side(names[nearest][0]) if distance[nearest] <= SELECT_WITHIN else None
            self.draw()

    def _edit(self, action: Callable[[], str]) -> None:
        with self.lock:
            try:
                self._say(f"{action()} {HINTS[self.mode_now]}")
            except (DensegenError, OSError) as error:
                self._say(f"**Not done:** {error}")
            self.draw()

    def _add(self, vertex: int) -> str:
        self.selected = self.session.add(vertex, self.reason.value, midline=self.midline.value)
        return f"Added {self.selected}."

    def _move(self, vertex: int) -> str:
        name = str(self.selected)
        self.session.move(name, vertex, self.reason.value, midline=self.midline.value)
        return f"Moved {name}."

    def _delete(self) -> str:
        if self.selected is None:
            return "Click a landmark first."
        name, self.selected = self.selected, None
        self.session.remove(name, self.reason.value)
        return f"Deleted {name}."

    def _undo(self) -> str:
        self.session.undo()
        return "Undone."

    def _redo(self) -> str:
        self.session.redo()
        return "Redone."

    def _save(self) -> str:
        corrections = self.session.save()
        return (
            f"Saved {self.session.path.name}: {len(corrections.add)} added, {len(corrections.remove)} removed, "
            f"{len(corrections.move)} moved."
        )

    def _show_sample(self) -> None:
        with self.lock:
            self.face = self._face_vertices(int(self.sample.value))
            self.draw()

    def step(self) -> None:
        """Show the next sample face, if the person lets them play."""
        if self.play.value:
            self.sample.value = (int(self.sample.value) + 1) % (SAMPLE_FACES + 1)
            self._show_sample()

    def _face_vertices(self, number: int) -> Float64:
        """(V, 3) sample face ``number`` in units of the scene; 0 is the mean."""
        model = self.session.model
        generator = np.random.default_rng(number)
        coefficients = generator.normal(0, self.std * (number > 0)).astype(np.float32)[None]
        shapes = len(model.shape_basis)
        vertices = model.vertices(coefficients[0, :shapes], coefficients[0, shapes:])
        places: Float64 = vertices.astype(np.float64) * model.unit_mm / SCENE_MM
        return places

    def _say(self, text: str) -> None:
        self.note.content = text


def _face_triangles(session: EditSession) -> Int32:
    """The triangles that lie in the face's part of the UV plane."""
    columns, rows = np.rint(session.plane.pixels).astype(np.int64).T
    inside = valid_uv_region()[rows, columns]
    triangles = session.model.outward_triangles
    face: Int32 = triangles[inside[triangles].any(axis=1)]
    return face


def _rgb(colour: str) -> tuple[int, int, int]:
    return (int(colour[1:3], 16), int(colour[3:5], 16), int(colour[5:7], 16))
