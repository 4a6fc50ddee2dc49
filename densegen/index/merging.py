"""Two people's corrections of one index as one file, with what they disagree about named."""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from typing import Literal

from densegen.errors import ConfigurationError
from densegen.face.morphable_model import MorphableModel
from densegen.index.candidates import Candidates
from densegen.index.corrections import Addition, Corrections, Move, Removal, correct, count_landmarks
from densegen.index.vertex_index import VertexIndex, compare_versions

__all__ = ["Conflict", "find_conflicts", "merge_corrections"]

Entry = Removal | Move | Addition


@dataclass(frozen=True)
class Conflict:
    """A landmark of the index that both files correct, each in another way."""

    name: str
    first: tuple[Entry, ...]
    second: tuple[Entry, ...]

    def __str__(self) -> str:
        first, second = (" and ".join(map(_in_words, entries)) for entries in (self.first, self.second))
        return f"{self.name}: the first {first}, the second {second}"


def _in_words(entry: Entry) -> str:
    if isinstance(entry, Removal):
        return f"removes it ({entry.reason})"
    verb = "moves it to" if isinstance(entry, Move) else "adds it at"
    return f"{verb} ({entry.uv[0]:g}, {entry.uv[1]:g}) ({entry.reason})"


def find_conflicts(first: Corrections, second: Corrections) -> list[Conflict]:
    """The landmarks that both correct, each in another way; equal entries are none, whatever their reasons.

    Additions of one name at two places are none either: two people number theirs alike, and both are kept.
    """
    mine, theirs = _by_name(first), _by_name(second)
    return [
        Conflict(name, mine[name], theirs[name])
        for name in mine
        if name in theirs
        and set(map(_what, mine[name])) != set(map(_what, theirs[name]))
        and not all(isinstance(entry, Addition) for entry in (*mine[name], *theirs[name]))
    ]


def merge_corrections(
    base: Candidates | VertexIndex,
    first: Corrections,
    second: Corrections,
    model: MorphableModel,
    *,
    prefer: Literal["first", "second"] | None = None,
) -> Corrections:
    """One file of the corrections of two, which both begin with ``base``; it can be applied.

    The newer version counts; both changelogs stay. Of two equal entries the first one's reason stays. An addition of
    the second that has the name of another one gets a free name.

    prefer : which wins if both correct a landmark differently

    Raises :class:`ConfigurationError` if they correct different indices, disagree and nothing is preferred, or add two
    landmarks at one place.
    """
    if first.index_name != second.index_name:
        raise ConfigurationError(f"one corrects {first.index_name}, the other {second.index_name}")
    conflicts = find_conflicts(first, second)
    if conflicts and prefer is None:
        raise ConfigurationError(f"both correct {'; '.join(map(str, conflicts))}: agree, or prefer one")
    lost = {conflict.name for conflict in conflicts}
    mine = [entry for entry in _entries(first) if prefer != "second" or entry.name not in lost]
    theirs = [entry for entry in _entries(second) if prefer == "second" or entry.name not in lost]
    known = set(map(_what, mine))
    merged = [*mine, *_renamed([entry for entry in theirs if _what(entry) not in known], mine)]
    newer = first if compare_versions(first.index_version, second.index_version) >= 0 else second
    made = first.model_copy(
        update={
            "index_version": newer.index_version,
            "description": newer.description or first.description or second.description,
            "changelog": tuple(dict.fromkeys((*first.changelog, *second.changelog))),
            "remove": tuple(entry for entry in merged if isinstance(entry, Removal)),
            "move": tuple(entry for entry in merged if isinstance(entry, Move)),
            "add": tuple(entry for entry in merged if isinstance(entry, Addition)),
        }
    )
    made = made.model_copy(update={"count": count_landmarks(base, made, model)})
    correct(base, made, model)  # what is written can be applied
    return made


def _renamed(entries: list[Entry], mine: list[Entry]) -> list[Entry]:
    """The entries, with free names for additions whose names the other file has given, too."""
    taken = {entry.name for entry in mine if isinstance(entry, Addition)}
    names = taken | {entry.name for entry in entries}
    made: list[Entry] = []
    for entry in entries:
        if isinstance(entry, Addition) and entry.name in taken:
            name = next(name for n in itertools.count(2) if (name := f"{entry.name}-{n}") not in names)
            names.add(name)
            entry = entry.model_copy(update={"name": name})
        made.append(entry)
    return made


def _entries(corrections: Corrections) -> list[Entry]:
    lists: tuple[tuple[Entry, ...], ...] = (corrections.remove, corrections.move, corrections.add)
    return [entry for entries in lists for entry in entries]


def _by_name(corrections: Corrections) -> dict[str, tuple[Entry, ...]]:
    entries = _entries(corrections)
    return {entry.name: tuple(one for one in entries if one.name == entry.name) for entry in entries}


def _what(entry: Entry) -> tuple[type, str, object]:
    return type(entry), entry.name, None if isinstance(entry, Removal) else entry.uv
