from __future__ import annotations

import dataclasses
import socket
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from densegen.editor.picking import hit_vertex
from densegen.editor.server import is_own_host
from densegen.editor.session import EditSession
from densegen.errors import ConfigurationError
from densegen.face.morphable_model import MorphableModel
from densegen.index.candidates import sample_candidates
from densegen.index.corrections import Corrections, correct, format_corrections, read_corrections
from densegen.index.vertex_index import VertexIndex
from tests.browser import find_browser, until, visit


@pytest.fixture(scope="module")
def model(model: MorphableModel) -> MorphableModel:
    """The procedural face with triangles that run the other way round, as the Basel model's do."""
    return dataclasses.replace(model, triangles=np.ascontiguousarray(model.triangles[:, ::-1]))


@pytest.fixture(scope="module")
def base(model: MorphableModel) -> VertexIndex:
    """An index of vertices of the procedural face."""
    candidates = sample_candidates(model, ("jaw", "brows", "nose-tip"))
    return correct(candidates, Corrections(index_name="plain", index_version="1.0.0", count=520), model)


@pytest.fixture
def session(base: VertexIndex, model: MorphableModel, tmp_path: Path) -> EditSession:
    return EditSession.open(base, model, tmp_path / "corrections.yaml")


def vertex_at(session: EditSession, column: float, row: float) -> int:
    return int(np.argmin(((session.plane.pixels - [column, row]) ** 2).sum(axis=1)))


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
    assert saved.index_version == "1.3.0"


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


def test_a_ray_meets_the_nearest_triangle() -> None:
    square = np.array([[0, 0, 0], [4, 0, 0], [4, 4, 0], [0, 4, 0]], np.float64)
    vertices = np.concatenate([square, square + [0, 0, 2]])
    triangles = np.array([[0, 1, 2], [0, 2, 3], [4, 5, 6], [4, 6, 7]], np.int32)
    hit = hit_vertex(vertices, triangles, np.array([3.5, 0.4, 9.0]), np.array([0.0, 0.0, -1.0]))
    assert hit is not None
    vertex, point = hit
    assert vertex == 5
    np.testing.assert_allclose(point, [3.5, 0.4, 2])
    assert hit_vertex(vertices, triangles, np.array([9.0, 9.0, 9.0]), np.array([0.0, 0.0, -1.0])) is None


def lonely(session: EditSession) -> str:
    """The landmark of the cheek that is farthest from every other, and easy to hit."""
    pixels = session.plane.pixels[[vertex for _, vertex in session.names()]]

    def room(name: str) -> float:
        at = session.plane.pixels[session.state[name].half]
        return float(np.sort(np.linalg.norm(pixels - at, axis=1))[1]) if 60 < at[0] < 110 else 0.0

    return max(session.state, key=room)


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")  # of the libraries between here and the browser
def test_a_person_edits_in_a_real_browser(
    session: EditSession, base: VertexIndex, model: MorphableModel, tmp_path: Path
) -> None:
    pytest.importorskip("viser")
    pytest.importorskip("playwright")
    if find_browser() is None:
        pytest.skip("no Chromium here")
    with visit(session, free_port()) as person:
        page = person.page

        def place(landmark: str) -> np.ndarray:
            return page.face[dict(session.names())[landmark]]

        # Read a landmark, delete it, take that back, delete it again.
        name = lonely(session)
        person.click_at(place(f"{name}-r"))
        until(lambda: page.selected == name, f"{name} to be selected")
        person.tab.get_by_text(f"vertex {session.state[name].half}").first.wait_for()
        person.write_reason("too near to its neighbour")
        person.press("Delete")
        until(lambda: name not in session.state, "the deletion")
        person.press("Undo")
        until(lambda: name in session.state, "the undo")
        person.press("Redo")
        until(lambda: name not in session.state, "the redo")

        # Add one on the forehead of the face, and one on the UV plane.
        person.press("Add")
        until(lambda: page.mode_now == "Add", "the mode")
        person.click_at(page.face[vertex_at(session, 100, 16)])
        until(lambda: "forehead-edit-01" in session.state, "the addition")
        person.click_at(page.plane[vertex_at(session, 60, 20)])
        first = set(session.states[0])
        (moved,) = until(lambda: set(session.state) - first - {"forehead-edit-01"}, "the addition on the plane")
        # The page follows the session a moment later.
        until(lambda: page.selected == moved, "its selection")
        column, row = session.plane.pixels[session.state["forehead-edit-01"].half]
        assert abs(column - 100) < 8
        assert abs(row - 16) < 8

        # Move the last one along the surface.
        before = session.state[moved].half
        person.press("Move")
        until(lambda: page.mode_now == "Move", "the mode")
        person.click_at(page.plane[vertex_at(session, 40, 40)])
        until(lambda: session.state[moved].half != before, "the move")

        # Look at a side of the face, and at both again.
        person.press("right")
        until(lambda: person.camera.position[0] < -50, "the camera at the subject's right")
        until(lambda: abs(person.camera.look_at[0]) < 1, "what it turns about")
        person.press("front")
        until(lambda: person.camera.position[2] > 90, "the camera in front")

        person.check(1)  # coverage as heat
        person.check(2)  # link mirror partners
        person.picture(tmp_path / "page.png")
        person.press("Save")
        until(lambda: session.path.exists() and session.is_saved, "the file")

    saved = read_corrections(session.path)
    assert [removal.name for removal in saved.remove] == [name]
    assert saved.remove[0].reason == "too near to its neighbour"
    made = correct(base, saved, model)
    assert [(m.name, m.vertex) for m in made.landmarks] == session.names()
    # The surface is drawn, not its landmarks alone: they cover a tenth of the part of the page where the face is.
    face = np.asarray(Image.open(tmp_path / "page.png").convert("RGB"))[100:450, 0:260]
    assert (face.min(axis=2) < 250).mean() > 0.8


@pytest.mark.parametrize(
    ("asked", "host", "own"),
    [("127.0.0.1:8080", "127.0.0.1", True), ("localhost:8080", "127.0.0.1", True), ("[::1]:8080", "::1", True),
     ("192.168.1.5:8080", "0.0.0.0", True), ("evil.example:8080", "127.0.0.1", False), ("", "127.0.0.1", False),
     ("localhost.evil.example", "127.0.0.1", False)],
)  # fmt: skip
def test_the_page_answers_to_its_own_names_alone(asked: str, host: str, own: bool) -> None:
    assert is_own_host(asked, host) is own


def test_a_page_of_another_origin_is_refused() -> None:
    import viser
    from websockets.exceptions import InvalidStatus
    from websockets.sync.client import connect

    from densegen.editor.server import _own_page_only

    with _own_page_only("127.0.0.1"):
        server = viser.ViserServer(host="127.0.0.1", port=18417, verbose=False)
    try:
        address, protocol = f"ws://127.0.0.1:{server.get_port()}/", f"viser-v{viser.__version__}"
        with pytest.raises(InvalidStatus, match="403"):
            connect(address, origin="http://evil.example", subprotocols=[protocol])  # type: ignore[list-item]
        own = f"http://127.0.0.1:{server.get_port()}"
        connect(address, origin=own, subprotocols=[protocol]).close()  # type: ignore[arg-type, list-item]
    finally:
        server.stop()
