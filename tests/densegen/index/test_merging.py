"""Two people's corrections of one index as one file; what the command says is tested with the commands."""

from __future__ import annotations

from typing import Any

import pytest

from densegen.errors import ConfigurationError
from densegen.face.morphable_model import MorphableModel
from densegen.index.candidates import Candidates
from densegen.index.corrections import Addition, Corrections, Move, Removal
from densegen.index.merging import find_conflicts, merge_corrections

GONE = Removal(name="d1-003", reason="too near")
LOWER = Move(name="d1-004", uv=(60.0, 119.0), reason="lower")
HIGHER = Move(name="d1-004", uv=(60.0, 115.0), reason="higher")
HOLE = Addition(name="hole-1", uv=(88.0, 24.0), reason="a hole")
OTHER = Addition(name="hole-1", uv=(60.0, 20.0), reason="another hole")


def corrections(version: str = "1.0.0", **entries: Any) -> Corrections:
    return Corrections(index_name="test", index_version=version, count=1000, changelog=(version,), **entries)


def test_merging_with_oneself_changes_nothing_but_the_count(model: MorphableModel, candidates: Candidates) -> None:
    one = corrections(remove=(GONE,), move=(LOWER,), add=(HOLE,))
    both = merge_corrections(candidates, one, one, model)
    assert both == one.model_copy(update={"count": both.count})
    assert not find_conflicts(one, one)


@pytest.mark.parametrize(("ann", "ben"), [((LOWER,), (HIGHER,)), ((HIGHER,), (LOWER,))])
def test_whose_file_comes_first_does_not_matter_to_who_wins(
    model: MorphableModel, candidates: Candidates, ann: tuple[Move, ...], ben: tuple[Move, ...]
) -> None:
    first, second = corrections(remove=(GONE,), move=ann), corrections("1.1.0", move=ben)
    with pytest.raises(ConfigurationError, match="both correct d1-004: the first moves it to"):
        merge_corrections(candidates, first, second, model)
    one = merge_corrections(candidates, first, second, model, prefer="first")
    other = merge_corrections(candidates, second, first, model, prefer="second")
    assert one.move == other.move == ann
    assert merge_corrections(candidates, first, second, model, prefer="second").move == ben
    assert one.remove == other.remove == (GONE,)
    assert one.index_version == other.index_version == "1.1.0"
    # An equal copy is as good as the object itself.
    assert merge_corrections(candidates, first.model_copy(deep=True), second, model, prefer="first").move == ann


def test_additions_of_one_name_at_two_places_are_both_kept(model: MorphableModel, candidates: Candidates) -> None:
    both = merge_corrections(candidates, corrections(add=(HOLE,)), corrections(add=(OTHER,)), model)
    assert both.add == (HOLE, OTHER.model_copy(update={"name": "hole-1-2"}))
