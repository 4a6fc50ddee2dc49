"""An editing session: a vertex index, the edits made to it, and the corrections file that they amount to.

The session knows nothing of the page. Every state is a plain mapping from names to vertices, so undo is a step back in
a list, and the corrections are the difference between the index that was opened and the state at hand.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, TypeVar

from densegen.errors import ConfigurationError
from densegen.face.morphable_model import MorphableModel
from densegen.face.regions import region_of
from densegen.files import read_text, sha256_of, write_text
from densegen.index.corrections import (
    Addition,
    Corrections,
    Draft,
    Move,
    Removal,
    apply_corrections,
    correct,
    drafts_near_index,
    drafts_of_index,
    format_corrections,
    read_corrections,
)
from densegen.index.half_plane import FacePlane
from densegen.index.landmark import name_on, origin_of_person, reason_of, without_side
from densegen.index.vertex_index import VertexIndex, compare_versions
from densegen.records import MAX_YAML_BYTES

__all__ = ["BY_HAND", "Edit", "EditSession"]

UNSAVED_SUFFIX = ".unsaved"
OF_FILE = "# unsaved edits of the file with the SHA-256 "

State = dict[str, Draft]

Entry = TypeVar("Entry", Move, Addition)

BY_HAND = "by hand"
"""The reason of an edit for which none was given."""


@dataclass(frozen=True)
class Edit:
    """One step of the history.

    verb : ``added``, ``moved``, ``deleted``, or ``read`` for the corrections that the session began with
    name : the landmark's, without its side; for ``read`` the file's
    """

    verb: Literal["added", "moved", "deleted", "read"]
    name: str


@dataclass(eq=False)
class EditSession:
    """Edits to ``base``, each mirrored at once; the iBUG 68 are the model's own and stay.

    model : whose vertices are clicked on: the one that the index was made on, or another of its UV layout, on which
        landmarks stand on the nearest vertices
    path : the corrections file
    states, edits : every state so far, and the edit that led to each but the first
    position : the state at hand
    recovered : whether unsaved edits of an earlier session were found beside ``path``
    kept : the corrections that the session began with, or None: what no edit changes is taken from them
    read : the state that they led to; a landmark that is the same there stands in the file as it stood
    file_digest : SHA-256 of the file at ``path`` when it was read or written; empty if there was none
    """

    base: VertexIndex
    model: MorphableModel
    path: Path
    plane: FacePlane
    states: list[State]
    edits: list[Edit] = field(default_factory=list)
    position: int = 0
    recovered: bool = False
    saved_position: int | None = 0
    removal_reasons: dict[str, str] = field(default_factory=dict)
    kept: Corrections | None = None
    read: State = field(default_factory=dict)
    file_digest: str = ""

    @classmethod
    def open(cls, base: VertexIndex, model: MorphableModel, path: Path) -> EditSession:
        """Start on ``base``, going on from the corrections in ``path`` and from unsaved edits, if there are any.

        Raises :class:`ConfigurationError` if the index is not one of mirrored vertices, the corrections there do not
        belong to it, or they were changed after the unsaved edits.
        """
        plane = FacePlane(model)
        own = base.topology == model.topology
        start = drafts_of_index(base, model) if own else drafts_near_index(base, plane)
        session = cls(base, model, path, plane, [start])
        unsaved, session.file_digest = session.unsaved_path, _digest(path)
        if path.is_file():
            session._apply(read_corrections(path))
            session.saved_position = session.position
        if unsaved.is_file():
            session._refuse_newer_file()
            session.states, session.edits, session.position = [start], [], 0
            session._apply(read_corrections(unsaved))
            session.recovered, session.saved_position = True, None
        return session

    @property
    def unsaved_path(self) -> Path:
        """Where every edit is kept until it is saved."""
        return self.path.with_name(self.path.name + UNSAVED_SUFFIX)

    @property
    def state(self) -> State:
        return self.states[self.position]

    @property
    def can_undo(self) -> bool:
        return self.position > 0

    @property
    def can_redo(self) -> bool:
        return self.position < len(self.states) - 1

    @property
    def is_saved(self) -> bool:
        return self.saved_position == self.position

    def add(self, vertex: int, reason: str, *, midline: bool = False) -> str:
        """Add the landmark at ``vertex`` and its mirror image; returns its name without a side.

        midline : put it onto the nearest vertex of the midline instead
        """
        half = self._half(vertex, midline)
        self._free(half)
        region = self.region_of(half)
        number = 1
        while f"{region}-edit-{number:02d}" in self.state or f"{region}-edit-{number:02d}" in self.states[0]:
            number += 1
        name = f"{region}-edit-{number:02d}"
        self._push(self.state | {name: Draft(name, half, origin_of_person(_reason(reason)))}, Edit("added", name))
        return name

    def move(self, name: str, vertex: int, reason: str, *, on: bool = False) -> bool:
        """Move a landmark, named without its side, and its mirror image; returns whether it was elsewhere before.

        on : whether the last edit goes on, if it moved this landmark: both are one step to undo
        """
        self._known(name)
        half = self._half(vertex)
        if half == self.state[name].half:
            return False
        self._free(half, name)
        if on and self.position and self.edits[self.position - 1] == Edit("moved", name):
            reason = reason or self.reason_of_last_edit
            self.position -= 1
        draft = Draft(name, half, origin_of_person(_reason(reason)))
        self._push(self.state | {name: draft}, Edit("moved", name))
        return True

    def remove(self, name: str, reason: str) -> None:
        """Take a landmark, named without its side, and its mirror image out."""
        self._known(name)
        self.removal_reasons[name] = _reason(reason)
        left = {other: draft for other, draft in self.state.items() if other != name}
        self._push(left, Edit("deleted", name))

    def undo(self) -> None:
        self.go_to(self.position - 1)

    def redo(self) -> None:
        self.go_to(self.position + 1)

    def go_to(self, position: int) -> None:
        """Go back or forth to a state of the history."""
        self.position = min(max(position, 0), len(self.states) - 1)
        self._keep()

    @property
    def last_edit(self) -> Edit | None:
        """The edit that led to the state at hand; None at the start."""
        return self.edits[self.position - 1] if self.position else None

    @property
    def reason_of_last_edit(self) -> str:
        """Its reason; empty if none was given."""
        edit = self.last_edit
        if edit is None or edit.verb == "read":
            return ""
        known = self.removal_reasons[edit.name] if edit.verb == "deleted" else reason_of(self.state[edit.name].origin)
        return "" if known == BY_HAND else known

    def give_reason(self, text: str) -> None:
        """Say why the last edit was made."""
        edit = self.last_edit
        if edit is None or edit.verb == "read" or text.strip() == self.reason_of_last_edit:
            return
        saved = self.states[self.saved_position] if self.saved_position is not None else {}
        if edit.verb == "deleted":
            self.removal_reasons[edit.name] = _reason(text)
        else:
            old = self.state[edit.name]
            new = Draft(edit.name, old.half, origin_of_person(_reason(text)))
            # States that were undone hold the same landmark, too.
            self.states = [state | {edit.name: new} if state.get(edit.name) == old else state for state in self.states]
        saved_later = self.states[self.saved_position] if self.saved_position is not None else saved
        if saved_later != saved or (edit.verb == "deleted" and edit.name not in saved):
            self.saved_position = None
        self._keep()

    def corrections(self) -> Corrections:
        """What the edits amount to, as a corrections file for ``index correct INDEX``."""
        before, after = self.states[0], self.state
        removed = [name for name in before if name not in after]
        moved = [move for name, draft in after.items() if name in before and (move := self._move(draft)) is not None]
        added = [self._addition(draft) for name, draft in after.items() if name not in before]
        start = self.kept
        if start is None or compare_versions(start.index_version, self.base.version) <= 0:
            version = _next_version(self.base.version, moved=bool(removed or moved or added))
            earlier = () if start is None else start.changelog
            lines = tuple(line for line in earlier if line not in self.base.changelog)
            start = Corrections(
                index_name=self.base.name,
                index_version=version,
                description=(start and start.description) or self.base.description,
                changelog=(*lines, f"{version}: corrected by hand"),
                count=len(self.names()),
            )
        return start.model_copy(
            update={
                "count": len(self.names()),
                "remove": tuple(Removal(name=n, reason=self.removal_reasons.get(n, BY_HAND)) for n in removed),
                "move": tuple(moved),
                "add": tuple(added),
            }
        )

    def _move(self, draft: Draft) -> Move | None:
        """The entry of a landmark of the base; None if it stands where it stood."""
        if self.kept is not None and (as_read := self._as_read(draft, self.kept.move)) is not None:
            return as_read
        if self.states[0][draft.name].half == draft.half:
            return None
        return Move(name=draft.name, uv=self._uv(draft), reason=reason_of(draft.origin))

    def _addition(self, draft: Draft) -> Addition:
        if self.kept is not None and (as_read := self._as_read(draft, self.kept.add)) is not None:
            return as_read
        return Addition(name=draft.name, uv=self._uv(draft), reason=reason_of(draft.origin))

    def _as_read(self, draft: Draft, entries: tuple[Entry, ...]) -> Entry | None:
        """The file's entry of a landmark that nobody touched: the model that is shown may be coarser than the one that
        the entry was made on, so it is not put anew.
        """
        if self.read.get(draft.name) != draft:
            return None
        return next((entry for entry in entries if entry.name == draft.name), None)

    def _uv(self, draft: Draft) -> tuple[float, float]:
        column, row = self.plane.pixels[draft.half].tolist()
        return round(column, 4), round(row, 4)

    def save(self) -> Corrections:
        """Write the corrections file, whole or not at all; the index itself is never touched.

        Raises :class:`ConfigurationError` if somebody else changed the file.
        """
        if _digest(self.path) != self.file_digest:
            edits = (
                "start again to see how"
                if self.is_saved
                else f"the page's edits are in {self.unsaved_path}, put what you want of both into one, delete the "
                "other, and start again"
            )
            raise ConfigurationError(f"{self.path.name} was changed since the page read it: {edits}")
        corrections = self.corrections()
        if self.base.topology == self.model.topology:
            correct(self.base, corrections, self.model)  # what is saved can be applied
        write_text(self.path, format_corrections(corrections))
        self.file_digest = _digest(self.path)
        self.unsaved_path.unlink(missing_ok=True)
        self.saved_position = self.position
        return corrections

    def names(self) -> list[tuple[str, int]]:
        """Every landmark with its side and its vertex: the iBUG 68, then the others."""
        count = len(self.model.keypoints68)
        rows = [(self.base.landmarks[k].name, int(self.model.keypoints68[k])) for k in range(count)]
        for draft in self.state.values():
            partner = int(self.model.mirror[draft.half])
            if partner == draft.half:
                rows.append((name_on("middle", draft.name), draft.half))
            else:
                rows += [(name_on("right", draft.name), draft.half), (name_on("left", draft.name), partner)]
        return rows

    def region_of(self, vertex: int) -> str:
        """The region of the face that a vertex lies in."""
        return region_of(self.plane.pixels[vertex], self.plane.pixels[self.model.keypoints68])

    def _half(self, vertex: int, midline: bool = False) -> int:
        """The vertex as one on the right half or on the midline, inside the face."""
        column, row = self.plane.pixels[vertex]
        if midline:
            return self.plane.nearest_on_midline(float(row), "the place")
        return self.plane.nearest((float(column), float(row)), "the place")

    def _free(self, half: int, moved: str | None = None) -> None:
        for name, vertex in self.names():
            if vertex in (half, int(self.model.mirror[half])) and without_side(name) != moved:
                raise ConfigurationError(f"{name} is there already")

    def _known(self, name: str) -> None:
        if name not in self.state:
            raise ConfigurationError(f"{name} cannot be edited: it is one of the iBUG 68, or not there")

    def _push(self, state: State, edit: Edit) -> None:
        self.states = [*self.states[: self.position + 1], state]
        self.edits = [*self.edits[: self.position], edit]
        self.position += 1
        if self.saved_position is not None and self.saved_position >= self.position:
            self.saved_position = None
        self._keep()

    def _keep(self) -> None:
        """Keep what is not saved yet beside the file, so that nothing is lost when the process dies."""
        if self.is_saved:
            self.unsaved_path.unlink(missing_ok=True)
        else:
            heading = f"{OF_FILE}{self.file_digest}\n"
            write_text(self.unsaved_path, heading + format_corrections(self.corrections()))

    def _refuse_newer_file(self) -> None:
        """Unsaved edits of an earlier session are those of the file as it was then."""
        heading = read_text(self.unsaved_path, "corrections file", MAX_YAML_BYTES).partition("\n")[0]
        if heading.startswith(OF_FILE) and heading.removeprefix(OF_FILE) != self.file_digest:
            raise ConfigurationError(
                f"{self.unsaved_path} holds unsaved edits, and {self.path.name} was changed after them: put what you "
                "want of both into one, and delete the other"
            )

    def _refuse_applied(self, corrections: Corrections) -> None:
        """Corrections that the index holds already cannot be made twice."""
        gone = [removal.name for removal in corrections.remove if removal.name not in self.state]
        come = [added.name for added in corrections.add if added.name in self.state]
        if gone or come:
            raise ConfigurationError(
                f"{self.path.name} leads to {corrections.index_version}, which {self.base.name} {self.base.version} "
                "holds already: choose another file with --corrections"
            )

    def _apply(self, corrections: Corrections) -> None:
        """Make the edits of a corrections file one state."""
        if corrections.index_name != self.base.name:
            raise ConfigurationError(
                f"{self.path.name} corrects {corrections.index_name}, not {self.base.name}: choose another file with "
                "--corrections"
            )
        if compare_versions(corrections.index_version, self.base.version) <= 0:
            self._refuse_applied(corrections)
        self.kept = corrections
        self.removal_reasons |= {removal.name: removal.reason for removal in corrections.remove}
        state = apply_corrections(dict(self.state), corrections, self.plane)
        self.states.append(state)
        self.edits.append(Edit("read", self.path.name))
        self.position = len(self.states) - 1
        self.read = state


def _digest(path: Path) -> str:
    return sha256_of(path) if path.is_file() else ""


def _reason(text: str) -> str:
    return text.strip() or BY_HAND


def _next_version(version: str, *, moved: bool) -> str:
    """A landmark that came, went or moved is a new minor version."""
    major, minor, patch = map(int, version.split("."))
    return f"{major}.{minor + 1}.0" if moved else f"{major}.{minor}.{patch}"
