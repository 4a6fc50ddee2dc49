from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest

from densegen.editor.session import EditSession
from densegen.errors import ConfigurationError
from densegen.face.morphable_model import MorphableModel
from densegen.index.corrections import Corrections, Move, correct, format_corrections, read_corrections
from densegen.index.landmark import without_side
from densegen.index.vertex_index import VertexIndex, format_index, parse_index
from tests.densegen.editor.conftest import vertex_at


def test_edits_are_mirrored_undone_and_redone(session: EditSession) -> None:
    before = session.names()
    name = session.add(vertex_at(session, 165, 15), "a hole in the forehead")
    assert name == "forehead-edit-01"
    added = dict(session.names())
    partner = int(session.model.mirror[added[f"{name}-l"]])
    assert partner == added[f"{name}-r"]
    session.remove("d1-001", "too near")
    assert len(session.names()) == len(before)
    session.undo()
    session.undo()
    assert session.names() == before
    assert not session.can_undo
    session.redo()
    assert dict(session.names()) == added
    # A new edit after an undo forgets what was undone.
    session.move(name, vertex_at(session, 60, 20), "")
    assert not session.can_redo


def test_the_midline_switch_puts_a_landmark_on_the_midline(session: EditSession) -> None:
    name = session.add(vertex_at(session, 110, 15), "", midline=True)
    vertex = dict(session.names())[f"{name}-m"]
    assert session.model.mirror[vertex] == vertex


def test_saved_corrections_make_the_index_that_was_seen(
    session: EditSession, base: VertexIndex, model: MorphableModel
) -> None:
    session.add(vertex_at(session, 200, 15), "a hole")
    session.remove("d1-001", "too near")
    session.move("d1-002", vertex_at(session, 70, 110), "onto the cheek")
    session.save()
    saved = read_corrections(session.path)
    assert (len(saved.add), len(saved.remove), len(saved.move)) == (1, 1, 1)
    assert saved.remove[0].reason == "too near"
    made = correct(base, saved, model)
    assert [(m.name, m.vertex) for m in made.landmarks] == session.names()
    assert (made.version, made.mirror_closed) == ("1.1.0", True)
    # Opened again, the session goes on from the file.
    again = EditSession.open(base, model, session.path)
    assert again.names() == session.names()
    assert again.is_saved
    assert not again.recovered


def test_nothing_is_lost_when_the_process_dies(session: EditSession, base: VertexIndex, model: MorphableModel) -> None:
    session.add(vertex_at(session, 200, 15), "a hole")
    seen = session.names()
    assert not session.path.exists()
    again = EditSession.open(base, model, session.path)  # nothing was closed, nothing was saved
    assert again.recovered
    assert again.names() == seen
    again.save()
    assert not again.unsaved_path.exists()
    assert not EditSession.open(base, model, session.path).recovered


def test_edits_that_cannot_be_are_refused_and_change_nothing(session: EditSession) -> None:
    before = session.names()
    for action, words in [
        (lambda: session.add(int(session.model.keypoints68[30]), ""), "nose-30 is there already"),
        (lambda: session.add(dict(before)["d1-001-l"], ""), "d1-001-r is there already"),
        (lambda: session.remove("nose-30", ""), "one of the iBUG 68, or not there"),
        (lambda: session.move("nobody", 5, ""), "not there"),
        (lambda: session.add(vertex_at(session, 3, 3), ""), "outside the face"),
    ]:
        with pytest.raises(ConfigurationError, match=words):
            action()
    assert session.names() == before
    assert not session.unsaved_path.exists()


def test_a_persons_own_words_in_the_file_stay(session: EditSession, base: VertexIndex, model: MorphableModel) -> None:
    session.add(vertex_at(session, 200, 15), "a hole")
    session.save()
    own = read_corrections(session.path).model_copy(
        update={"index_version": "3.0.0", "changelog": ("3.0.0: wider",), "description": "mine"}
    )
    session.path.write_text(format_corrections(own))
    again = EditSession.open(base, model, session.path)
    again.remove("d1-001", "too near")
    saved = again.save()
    assert (saved.index_version, saved.changelog, saved.description) == ("3.0.0", ("3.0.0: wider",), "mine")
    assert (len(saved.add), len(saved.remove)) == (1, 1)


def test_a_landmark_moved_away_and_back_is_no_new_version(session: EditSession) -> None:
    home = session.state["d1-002"].half
    session.move("d1-002", vertex_at(session, 70, 110), "")
    session.move("d1-002", home, "")
    corrections = session.corrections()
    assert (corrections.move, corrections.index_version) == ((), "1.0.0")


def test_corrections_of_another_index_are_refused(
    session: EditSession, base: VertexIndex, model: MorphableModel
) -> None:
    other = Corrections(index_name="another", index_version="7.0.0", count=520)
    session.path.write_text(format_corrections(other))
    with pytest.raises(ConfigurationError, match="corrections.yaml corrects another, not plain"):
        EditSession.open(base, model, session.path)


def test_our_index_is_edited_on_another_model_of_its_layout(
    index: VertexIndex, model: MorphableModel, tmp_path: Path
) -> None:
    session = EditSession.open(index, model, tmp_path / "c.yaml")
    assert [name for name, _ in session.names()][:68] == [landmark.name for landmark in index.landmarks[:68]]
    assert {name for name, _ in session.names()} == {landmark.name for landmark in index.landmarks}
    assert session.corrections().move == ()  # standing on the nearest vertex is no edit
    session.move("forehead-add-01", vertex_at(session, 127.5, 14), "lower")
    saved = session.save()
    assert [(move.name, move.reason) for move in saved.move] == [("forehead-add-01", "lower")]
    np.testing.assert_allclose(saved.move[0].uv, (127.5, 14), atol=1.5)
    assert saved.index_version == "1.4.0"


def test_an_index_of_points_between_vertices_is_not_edited(
    index: VertexIndex, model: MorphableModel, tmp_path: Path
) -> None:
    content = index.model_dump(mode="json")
    content["landmarks"][200]["vertex"] = None
    with pytest.raises(ConfigurationError, match="is no vertex with a mirror partner: it cannot be corrected"):
        EditSession.open(VertexIndex.model_validate(content), model, tmp_path / "c.yaml")
    spherical = dataclasses.replace(model, uv_layout="spherical")
    with pytest.raises(ConfigurationError, match="made for the UV layout bfm-3dmmasstn, .* has spherical"):
        EditSession.open(index, spherical, tmp_path / "c.yaml")


def test_the_history_leads_to_any_state_and_each_edit_has_its_reason(session: EditSession) -> None:
    name = session.add(vertex_at(session, 100, 15), "")
    assert session.reason_of_last_edit == ""
    session.give_reason("a hole in the forehead")
    session.remove("d1-001", "")
    session.give_reason("too near")
    session.move(name, vertex_at(session, 90, 15), "")
    assert [(edit.verb, edit.name) for edit in session.edits] == [
        ("added", name), ("deleted", "d1-001"), ("moved", name)
    ]  # fmt: skip
    session.go_to(1)
    assert session.reason_of_last_edit == "a hole in the forehead"
    assert "d1-001" in session.state
    session.go_to(3)
    saved = session.save()
    assert saved.remove[0].reason == "too near"
    assert saved.add[0].reason == "by hand"  # it was moved since, for no reason that was given
    session.give_reason("nearer to the hairline")
    assert not session.is_saved
    assert session.save().add[0].reason == "nearer to the hairline"


def test_steps_of_one_landmark_are_one_edit(session: EditSession) -> None:
    home = session.state["d1-002"].half
    for column in (70, 71, 72):
        session.move("d1-002", vertex_at(session, column, 110), "", on=True)
    assert len(session.edits) == 1
    session.undo()
    assert session.state["d1-002"].half == home


def test_a_version_that_stands_still_goes_forward_when_it_is_saved(
    session: EditSession, base: VertexIndex, model: MorphableModel
) -> None:
    session.path.write_text(
        "index_name: plain\nindex_version: 0.5.0\ncount: 520\ndescription: by Ann\nchangelog: ['0.5.0: a first look']\n"
    )
    again = EditSession.open(base, model, session.path)
    again.remove("d1-001", "too near \N{WAVING HAND SIGN}\x7f")
    saved = again.save()
    assert (saved.index_version, saved.description) == ("1.1.0", "by Ann")
    assert saved.changelog == ("0.5.0: a first look", "1.1.0: corrected by hand")
    assert read_corrections(session.path) == saved
    made = correct(base, saved, model)
    assert parse_index(format_index(made), "x") == made


def test_a_reason_that_is_given_after_going_back_stays(session: EditSession) -> None:
    session.add(vertex_at(session, 100, 15), "")
    session.remove("d1-001", "too near")
    session.go_to(1)
    session.give_reason("a hole")
    session.go_to(2)
    assert session.save().add[0].reason == "a hole"


def test_corrections_that_the_index_holds_already_are_refused_by_name(
    session: EditSession, base: VertexIndex, model: MorphableModel
) -> None:
    session.remove("d1-001", "too near")
    made = correct(base, session.save(), model)
    with pytest.raises(ConfigurationError, match=r"which plain 1.1.0 holds already: choose another file"):
        EditSession.open(made, model, session.path)
    # An addition of a name that is there is refused, as 'index correct' does.
    session.path.write_text(
        "index_name: plain\nindex_version: 2.0.0\ncount: 520\nadd: [{name: d1-002, uv: [90.0, 20.0], reason: x}]\n"
    )
    with pytest.raises(ConfigurationError, match="add names d1-002, which exists already"):
        EditSession.open(base, model, session.path)


def test_what_nobody_touched_stands_in_the_file_as_it_stood(
    index: VertexIndex, model: MorphableModel, tmp_path: Path
) -> None:
    """The face that is shown is coarser than the one that the file was made on."""
    others = [mark.name for mark in index.landmarks if mark.name.endswith("-r") and "add" in mark.name][:6]
    moves = tuple(
        Move(name=without_side(name), uv=(round(column + 0.137, 4), round(row + 0.0731, 4)), reason="by eye")
        for name in others
        for column, row in index.uv[[mark.name for mark in index.landmarks].index(name)][None].tolist()
    )
    version = "9.0.0"
    own = Corrections(index_name=index.name, index_version=version, count=len(index), move=moves, changelog=("9: x",))
    (tmp_path / "c.yaml").write_text(format_corrections(own))
    session = EditSession.open(index, model, tmp_path / "c.yaml")
    assert session.corrections() == own
    session.move(moves[0].name, vertex_at(session, 100, 15), "nearer")
    saved = session.save()
    assert set(saved.move) - set(own.move) == {saved.move[0]}
    assert saved.move[1:] == own.move[1:]


def test_a_file_that_somebody_else_changed_is_not_overwritten(
    session: EditSession, base: VertexIndex, model: MorphableModel
) -> None:
    session.add(vertex_at(session, 100, 15), "a hole")
    session.save()
    theirs = session.path.read_text().replace("a hole", "their words")
    session.path.write_text(theirs)
    with pytest.raises(ConfigurationError, match="was changed since the page read it: start again to see how"):
        session.save()
    session.remove("d1-001", "too near")
    with pytest.raises(ConfigurationError, match="was changed since the page read it: the page's edits are in"):
        session.save()
    assert session.path.read_text() == theirs
    with pytest.raises(ConfigurationError, match="holds unsaved edits, and corrections.yaml was changed after them"):
        EditSession.open(base, model, session.path)
    session.unsaved_path.unlink()
    assert EditSession.open(base, model, session.path).corrections().add[0].reason == "their words"


def test_a_reason_given_to_an_edit_that_is_saved_is_unsaved(session: EditSession) -> None:
    session.add(vertex_at(session, 100, 15), "")
    session.remove("d1-001", "")
    session.save()
    session.undo()
    session.give_reason("a hole")
    session.redo()
    assert not session.is_saved
    assert session.save().add[0].reason == "a hole"
    # One that the file does not hold leaves what is saved as it is.
    session.add(vertex_at(session, 140, 60), "")
    session.give_reason("another")
    session.undo()
    assert session.is_saved
