"""The page: a panel beside the drawn scene, and what a person's clicks, drags and keys do.

Clicks arrive as rays; what they hit is decided here, so that the browser only draws. The UV plane is the same mesh laid
flat: a click on either names a vertex.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any

import numpy as np

from densegen.arrays import Mask
from densegen.editor import words
from densegen.editor.coverage import Coverage
from densegen.editor.panel import Panel
from densegen.editor.picking import camera_ray
from densegen.editor.sample_faces import SampleFaces
from densegen.editor.scene import IDS_AROUND, EditorScene, Landmarks
from densegen.editor.session import EditSession
from densegen.editor.views import FIELD_OF_VIEW, View, camera_of, plane_offset
from densegen.editor.words import ADD, LOOK, MODES, MOVE
from densegen.errors import DensegenError
from densegen.face.regions import MIDLINE
from densegen.index.landmark import without_side

__all__ = ["EditorPage"]

KEYS = (
    ("Undo", "Z", "cmd/ctrl"), ("Redo", "Y", "cmd/ctrl"), ("Save", "S", "cmd/ctrl"), ("Delete", "delete", None),
    ("Delete ", "backspace", None), ("Look", "escape", None), ("Look ", "1", None), ("Move", "2", None),
    ("Add", "3", None), ("Next largest gap", "G", None), ("Left", "arrowleft", None), ("Right", "arrowright", None),
    ("Up", "arrowup", None), ("Down", "arrowdown", None),
)  # fmt: skip
"""Commands, each with its key and what is held with it; a space tells two keys of one command apart."""

STEPS = {"Left": (-1.0, 0.0), "Right": (1.0, 0.0), "Up": (0.0, -1.0), "Down": (0.0, 1.0)}
"""Directions of the arrow keys in the UV plane, (column, row)."""


class EditorPage:
    """The page of one session; ``server`` is a ``viser.ViserServer``."""

    def __init__(self, session: EditSession, server: Any, faces: SampleFaces) -> None:
        self.session, self.server, self.faces = session, server, faces
        self.lock = threading.RLock()
        self.mode_now = LOOK
        self.view_now: View = "both"
        self.selected: str | None = None
        """The landmark's name without its side."""
        self.selected_on_left = False
        self.asked_at = -1
        """The step of the history that the box for the reason is about."""
        self.gaps: list[int] = []
        """Vertices that 'next largest gap' has shown."""
        self.aspects: dict[int, float] = {}
        self.coverage = Coverage(session.model)
        # Drags are followed by one thread, in the order in which they arrive.
        self.drags = ThreadPoolExecutor(1, "drags")
        self.scene = EditorScene(session, server, faces, self._queue_drag)
        self.landmarks = Landmarks(session, self.scene.region_of)
        self.panel = Panel(server.gui, faces)
        self._listen()
        self._add_keys()
        # Of the scene, not of its meshes: a click must not get lost while the browser replaces what was redrawn.
        server.scene.on_click()(self._clicked)
        server.on_client_connect(self._welcome)
        self._say("Unsaved edits of an earlier session are back." if session.recovered else "")
        self.draw()

    # What the person sees

    def _listen(self) -> None:
        self.panel.mode.on_click(lambda _: self._set_mode(self.panel.mode.value))
        self.panel.view.on_click(lambda event: self._look_from(self.panel.view.value, event.client))
        acts: dict[str, Callable[[], str]] = {"Undo": self._undo, "Redo": self._redo, "Delete": self._delete}
        self.panel.steps.on_click(lambda _: self._edit(acts[self.panel.steps.value]))
        self.panel.save.on_click(lambda _: self._edit(self._save))
        self.panel.next_gap.on_click(lambda _: self._show_next_gap())
        self.panel.find.on_update(_by_a_person(lambda: self._find(self.panel.find.value)))
        self.panel.reason.on_update(_by_a_person(self._give_reason))
        self.panel.back_to.on_update(_by_a_person(self._go_back))
        for box in (
            self.panel.heat,
            self.panel.links,
            self.panel.ids,
            self.panel.photograph,
            *self.panel.regions.values(),
        ):
            box.on_update(lambda _: self.draw())
        self.panel.sample.on_update(lambda _: self._show_sample())

    def _add_keys(self) -> None:
        acts: dict[str, Callable[[], None]] = {
            "Undo": lambda: self._edit(self._undo),
            "Redo": lambda: self._edit(self._redo),
            "Save": lambda: self._edit(self._save),
            "Delete": lambda: self._edit(self._delete),
            "Next largest gap": self._show_next_gap,
            **{mode: partial(self._set_mode, mode) for mode in MODES},
            **{name: partial(self._edit, partial(self._step, name)) for name in STEPS},
        }
        for label, key, held in KEYS:
            act = acts[label.strip()]
            command = self.server.gui.add_command(label, hotkey=key, modifier=held)
            command.on_trigger(lambda _, act=act: act())

    def _welcome(self, client: Any) -> None:
        """A new page begins with looking, and with all of the face in its window."""
        self._set_mode(LOOK)
        client.camera.fov = FIELD_OF_VIEW
        client.camera.up_direction = (0.0, 1.0, 0.0)
        client.camera.on_update(lambda _: self._fit_window(client))
        self._fit_window(client)

    def _fit_window(self, client: Any) -> None:
        """Show all of the view again if the window has another shape than before."""
        width, height = client.camera.image_width, client.camera.image_height
        if width <= 0 or height <= 0:
            return
        aspect = width / height
        if abs(self.aspects.get(client.client_id, 0.0) - aspect) > 0.02:
            self.aspects[client.client_id] = aspect
            self._look_from(self.view_now, client)

    def _look_from(self, view: View, client: Any) -> None:
        with self.lock:
            self.view_now = view
            aspect = self.aspects.get(client.client_id, 1.5)
            offset = plane_offset(aspect, self.scene.shown_face)
            if offset != self.scene.offset:
                self.scene.offset = offset
                self.draw()
            camera = camera_of(view, aspect, self.scene.shown_face, self.scene.shown_plane)
        with client.atomic():
            client.camera.up_direction = (0.0, 1.0, 0.0)
            client.camera.position, client.camera.look_at = camera.position, camera.look_at

    @property
    def shown(self) -> Mask:
        """(N,) bool: the landmarks whose region is shown."""
        return np.array([bool(self.panel.regions[region].value) for region in self.landmarks.regions])

    def draw(self) -> None:
        """Draw the state at hand: the face, the plane, the landmarks, and what is selected."""
        with self.lock:
            self.landmarks = Landmarks(self.session, self.scene.region_of)
            coverage, distance = self.coverage.of(self.landmarks.vertices)
            heat = distance if self.panel.heat.value else None
            with self.server.atomic():
                self.scene.draw(self.landmarks, self.shown, self.selected, heat, bool(self.panel.photograph.value))
                self.scene.draw_links(self._pairs(), bool(self.panel.links.value))
                self.scene.label(self._labels())
            self.panel.heat_scale.visible = bool(self.panel.heat.value)
            self.panel.about.content = words.about(
                self.session, len(self.landmarks.names), coverage, self._selected_lines()
            )
            self.panel.legend.content = words.legend(self.landmarks.regions)
            self.panel.mode_shown.content = words.mode(self.mode_now)
            self._draw_history()

    def _draw_history(self) -> None:
        entries = words.history(self.session)
        self.panel.history.content = words.history_list(entries, self.session.position)
        if tuple(self.panel.back_to.options) != tuple(entries):
            self.panel.back_to.options = tuple(entries)
        if self.panel.back_to.value != entries[self.session.position]:
            self.panel.back_to.value = entries[self.session.position]

    def _pairs(self) -> Any:
        pairs = [(d.half, int(self.session.model.mirror[d.half])) for d in self.session.state.values()]
        return np.array([pair for pair in pairs if pair[0] != pair[1]]).reshape(-1, 2)

    def _rows_of_selected(self) -> list[int]:
        return [row for row, name in enumerate(self.landmarks.names) if without_side(name) == self.selected]

    def _labels(self) -> list[tuple[str, int]]:
        rows = self._rows_of_selected()
        if self.panel.ids.value:
            centre = self.session.plane.pixels[self.landmarks.vertices[rows[0]]] if rows else np.array([127.5, 128.0])
            away = np.linalg.norm(self.session.plane.pixels[self.landmarks.vertices] - centre, axis=1)
            away[~self.shown] = np.inf
            rows = sorted({*rows, *np.argsort(away)[:IDS_AROUND].tolist()})
        chosen = set(self._rows_of_selected())
        texts = {row: f"{row} {self.landmarks.names[row]}" if row in chosen else str(row) for row in rows}
        return [(text, int(self.landmarks.vertices[row])) for row, text in texts.items()]

    def _selected_lines(self) -> list[str]:
        rows = self._rows_of_selected()
        if not rows:
            return []
        drafted = self.session.state.get(str(self.selected))
        origin = "one of the iBUG 68: it stays" if drafted is None else drafted.origin
        lines = [f"{self.selected} · {self.landmarks.regions[rows[0]]} · {origin}"]
        for row in rows:
            vertex = int(self.landmarks.vertices[row])
            column, line = self.session.plane.pixels[vertex]
            lines.append(f"id {row}, {self.landmarks.names[row]}: vertex {vertex}, UV ({column:.1f}, {line:.1f})")
        return lines

    def name_under(self, x: float, y: float) -> str:
        """The landmark under a pointer: its id, name and region; empty if there is none.

        x, y : shares of the scene's width and height, from its upper left corner
        """
        if not self.lock.acquire(blocking=False):  # whoever asks serves every page: it does not wait for one
            return ""
        try:
            clients = list(self.server.get_clients().values())
            if not clients:
                return ""
            # Of several pages the last one is taken: a question does not say whose it is.
            camera = clients[-1].camera
            origin, direction = camera_ray(camera, x, y)
            met = self.scene.meets(origin, direction)
            row = None if met is None else self.scene.nearest_row(self.landmarks, self.shown, met[1], met[2])
            return "" if row is None else f"{row} · {self.landmarks.names[row]} · {self.landmarks.regions[row]}"
        finally:
            self.lock.release()

    # What the person does

    def _set_mode(self, mode: str) -> None:
        with self.lock:
            self.mode_now = mode
            self.panel.mode_shown.content = words.mode(mode)
            if mode == LOOK:
                self.scene.mark(None)

    def _clicked(self, event: Any) -> None:
        met = self.scene.meets(np.array(event.ray_origin), np.array(event.ray_direction))
        if met is None:
            return
        vertex, point, surface = met
        with self.lock:
            row = self.scene.nearest_row(self.landmarks, self.shown, point, surface)
        if row is not None:  # a click on a landmark selects it, whatever the mode
            self.select(self.landmarks.names[row])
        elif self.mode_now == ADD:
            self._edit(lambda: self._add(vertex))
        elif self.mode_now == MOVE and self.selected is not None:
            name = self.selected
            self._edit(lambda: self._move(name, vertex))
            self._set_mode(LOOK)
        else:
            self.select(None)

    def select(self, name: str | None) -> None:
        """Select a landmark by its name, or none."""
        with self.lock:
            self.selected = None if name is None else without_side(name)
            self.selected_on_left = name is not None and name.endswith("-l")
            self.draw()

    async def _queue_drag(self, event: Any) -> None:
        self.drags.submit(self._dragged, event)

    def _dragged(self, event: Any) -> None:
        """Let a landmark and its mirror image follow the pointer along the surface; one edit when it is let go."""
        with self.lock:
            row = event.instance_index
            if row is None or row >= len(self.landmarks.names):
                return
            name = without_side(self.landmarks.names[row])
            if event.phase == "start":
                self.select(self.landmarks.names[row])
            eye = np.array(event.client.camera.position)
            met = self.scene.meets(eye, np.array(event.end_position) - eye)
            if name not in self.session.state:
                self._say(words.failed(f"{name} is one of the iBUG 68: it stays where it is"))
            elif event.phase == "end":
                self._edit(lambda: self._move(name, met[0]) if met else "Not moved: that is beside the face.")
            elif met is not None:
                self._preview(name, met[0])

    def _preview(self, name: str, vertex: int) -> None:
        mirrored = int(self.session.model.mirror[vertex])
        right = self.session.plane.pixels[vertex, 0] <= self.session.plane.pixels[mirrored, 0]
        vertices = self.landmarks.vertices.copy()
        for row in self._rows_of_selected():
            side = self.landmarks.names[row][-2:]
            vertices[row] = vertex if side == "-m" or (side == "-r") == right else mirrored
        with self.server.atomic():
            for place, places in (("/face", self.scene.face), ("/plane", self.scene.plane)):
                self.scene.draw_landmarks(
                    f"{place}_landmarks", places[vertices], self.landmarks, self.shown, self.selected
                )

    def _edit(self, action: Callable[[], str]) -> None:
        with self.lock:
            before = self.session.last_edit, self.session.position
            try:
                done = action()
                changed = (self.session.last_edit, self.session.position) != before
                self._ask_for_reason(done, changed)
            except (DensegenError, OSError) as error:
                self._say(words.failed(str(error)))
            self.draw()

    def _ask_for_reason(self, done: str, changed: bool) -> None:
        edit = self.session.last_edit
        asked = edit is not None and edit.verb != "read"
        self.asked_at = self.session.position
        with self.server.atomic():  # the box is emptied before one can write into it: what is written stays
            if changed or not asked:
                self.panel.reason.value = self.session.reason_of_last_edit
            self.panel.reason.disabled = not asked
        self._say(words.done(done, ask=changed and asked and not self.session.reason_of_last_edit))

    def _give_reason(self) -> None:
        with self.lock:
            if self.asked_at == self.session.position:  # else it is about an edit that is not the last one any more
                self.session.give_reason(self.panel.reason.value)
                self._draw_history()

    def _add(self, vertex: int) -> str:
        self.selected = self.session.add(vertex, "", midline=bool(self.panel.midline.value))
        self.selected_on_left = bool(self.session.plane.pixels[vertex, 0] > MIDLINE) and not self.panel.midline.value
        self.scene.mark(None)
        return f"Added {self.selected} and its mirror image."

    def _move(self, name: str, vertex: int) -> str:
        moved = self.session.move(name, vertex, "")
        return f"Moved {name} and its mirror image." if moved else f"{name} was there already."

    def _step(self, key: str) -> str:
        """Move the selected landmark to the next vertex, as an arrow key says, as the UV plane is seen."""
        if self.selected is None or self.selected not in self.session.state:
            return "Select a landmark that is none of the iBUG 68, and the arrow keys move it."
        half = self.session.state[self.selected].half
        direction = np.array(STEPS[key])
        vertex = self.scene.neighbour(half, direction * [-1, 1] if self.selected_on_left else direction)
        if vertex is None:
            return "Not moved: there is no vertex in that direction."
        moved = self.session.move(self.selected, vertex, "", on=True)
        return f"Moved {self.selected} and its mirror image by a vertex." if moved else "That is its mirror image."

    def _delete(self) -> str:
        if self.selected is None:
            return "Select a landmark first."
        self.session.remove(self.selected, "")
        name, self.selected = self.selected, None
        return f"Deleted {name} and its mirror image."

    def _undo(self) -> str:
        return self._went(self.session.undo, "Undone.") if self.session.can_undo else "There is nothing to undo."

    def _redo(self) -> str:
        return self._went(self.session.redo, "Redone.") if self.session.can_redo else "There is nothing to redo."

    def _go_back(self) -> None:
        with self.lock:
            entries = words.history(self.session)
            if self.panel.back_to.value in entries:
                position = entries.index(self.panel.back_to.value)
                self._edit(lambda: self._went(partial(self.session.go_to, position), "Went there."))

    def _went(self, go: Callable[[], None], done: str) -> str:
        """Walk in the history, and select what the last step changed, so that one sees what happened."""
        before = self.session.position
        go()
        after = self.session.position
        if after != before:
            changed = self.session.edits[after - 1 if after > before else after].name
            self.selected, self.selected_on_left = changed if changed in self.session.state else None, False
        return done

    def _save(self) -> str:
        return words.saved(self.session, self.session.save())

    def _find(self, text: str) -> None:
        wanted = text.strip().lower()
        names = self.landmarks.names
        if wanted.isdecimal() and int(wanted) < len(names):
            self.select(names[int(wanted)])
        elif wanted:
            found = [name for name in names if name == wanted] or [name for name in names if name.startswith(wanted)]
            found = found or [name for name in names if wanted in name]
            if found:
                self.select(found[0])
            self._say(words.done(f"{len(found)} landmarks are called like that." if len(found) != 1 else ""))

    def _show_next_gap(self) -> None:
        """Mark the place of the face that is farthest from every landmark, then the next one."""
        with self.lock:
            vertex, distance = self.coverage.next_gap(self.landmarks.vertices, self.gaps, self.scene.used)
            if distance <= 0:
                self.gaps = []
                self._say(words.done("Those were all; the next one is the largest again."))
                return
            self.gaps.append(vertex)
            self.scene.mark(vertex)
            region = self.scene.region_of(vertex)
            self._say(words.done(f"{distance:.1f} mm from the nearest landmark: {region}, marked in green."))

    def _show_sample(self) -> None:
        with self.lock:
            number = int(self.panel.sample.value)
            try:
                self.scene.choose_face(number)
                self._say(words.done(f"Face {number}: {self.faces.describe(number)}"))
            except (DensegenError, OSError) as error:
                self._say(words.failed(str(error)))
            self.draw()

    def step(self) -> None:
        """Show the next sample face, if the person lets them play."""
        if self.panel.play.value:
            self.panel.sample.value = (int(self.panel.sample.value) + 1) % (
                self.faces.count + 1
            )  # its callback shows it

    def _say(self, html: str) -> None:
        self.panel.note.content = html


def _by_a_person(act: Callable[[], None]) -> Callable[[Any], None]:
    """Pass over changes that the page itself makes to a field."""

    def changed(event: Any) -> None:
        if event.client is not None:
            act()

    return changed
