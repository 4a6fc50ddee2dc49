"""Two people's corrections of one index as one file, with what they disagree about named."""

from __future__ import annotations

from dataclasses import dataclass

from densegen.errors import ConfigurationError
from densegen.face.morphable_model import MorphableModel
from densegen.index.candidates import Candidates
from densegen.index.corrections import Addition, Corrections, Move, Removal, count_landmarks
from densegen.index.vertex_index import VertexIndex, compare_versions

__all__ = ["Conflict", "find_conflicts", "merge_corrections"]

Entry = Removal | Move | Addition


@dataclass(frozen=True)
class Conflict:
    """A landmark that both files correct, each in another way."""

    name: str
    first: Entry
    second: Entry

    def __str__(self) -> str:
        return f"{self.name}: the first {_in_words(self.first)}, the second {_in_words(self.second)}"


def _in_words(entry: Entry) -> str:
    if isinstance(entry, Removal):
        return f"removes it ({entry.reason})"
    verb = "moves it to" if isinstance(entry, Move) else "adds it at"
    return f"{verb} ({entry.uv[0]:g}, {entry.uv[1]:g}) ({entry.reason})"


def find_conflicts(first: Corrections, second: Corrections) -> list[Conflict]:
    """The landmarks that both correct, each in another way; equal entries are none, whatever their reasons."""
    theirs = _entries(second)
    return [
        Conflict(name, entry, theirs[name])
        for name, entry in _entries(first).items()
        if name in theirs and _what(entry) != _what(theirs[name])
    ]


def merge_corrections(
    base: Candidates | VertexIndex,
    first: Corrections,
    second: Corrections,
    model: MorphableModel,
    *,
    prefer: Corrections | None = None,
) -> Corrections:
    """One file of the corrections of two, which both begin with ``base``.

    The newer version counts; both changelogs stay. Of two equal entries the first one's reason stays.

    prefer : ``first`` or ``second``, which wins if both correct a landmark differently

    Raises :class:`ConfigurationError` if they correct different indices, or disagree and nothing is preferred.
    """
    if first.index_name != second.index_name:
        raise ConfigurationError(f"one corrects {first.index_name}, the other {second.index_name}")
    conflicts = find_conflicts(first, second)
    if conflicts and prefer is None:
        raise ConfigurationError(
            f"{len(conflicts)} landmarks differ: {'; '.join(map(str, conflicts))}: agree, or prefer one"
        )
    weaker, stronger = (first, second) if prefer is second else (second, first)
    entries = {**_entries(weaker), **_entries(stronger)}
    newer = first if compare_versions(first.index_version, second.index_version) >= 0 else second
    merged = first.model_copy(
        update={
            "index_version": newer.index_version,
            "description": newer.description or first.description or second.description,
            "changelog": tuple(dict.fromkeys((*first.changelog, *second.changelog))),
            "remove": tuple(entry for entry in entries.values() if isinstance(entry, Removal)),
            "move": tuple(entry for entry in entries.values() if isinstance(entry, Move)),
            "add": tuple(entry for entry in entries.values() if isinstance(entry, Addition)),
        }
    )
    return merged.model_copy(update={"count": count_landmarks(base, merged, model)})


def _entries(corrections: Corrections) -> dict[str, Entry]:
    lists: tuple[tuple[Entry, ...], ...] = (corrections.remove, corrections.move, corrections.add)
    return {entry.name: entry for entries in lists for entry in entries}


def _what(entry: Entry) -> tuple[type, object]:
    return type(entry), None if isinstance(entry, Removal) else entry.uv
