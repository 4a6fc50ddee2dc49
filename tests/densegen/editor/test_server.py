"""The editing page in a browser, and who it answers."""

from __future__ import annotations

import socket
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from urllib.error import HTTPError
from urllib.request import Request, urlopen

import numpy as np
import pytest
from PIL import Image

from densegen.editor.server import is_own_host
from densegen.editor.session import EditSession
from densegen.face.morphable_model import MorphableModel
from densegen.index.corrections import correct, read_corrections
from densegen.index.vertex_index import VertexIndex
from tests.browser import Visit, find_browser, until, visit
from tests.densegen.editor.conftest import vertex_at

WHY, FIND = 0, 1
"""The text boxes of the panel, from the top."""


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


pytestmark_browser = [
    pytest.mark.slow,
    pytest.mark.filterwarnings("ignore"),  # of the libraries between here and the browser
    pytest.mark.skipif(find_browser() is None, reason="no Chromium here"),
    pytest.mark.skipif(find_spec("viser") is None or find_spec("playwright") is None, reason="no viser or playwright"),
]


def in_a_browser(test: Callable[..., None]) -> Callable[..., None]:
    for mark in pytestmark_browser:
        test = mark(test)
    return test


def within(person: Visit, points: np.ndarray) -> bool:
    """Whether all points of the scene are in the window."""
    width, height = person.camera.image_width, person.camera.image_height
    seen = np.array([person.on_screen(point) for point in points[:: max(len(points) // 200, 1)]])
    return bool((seen >= 0).all() and (seen <= [width, height]).all())


@in_a_browser
def test_a_person_edits_in_a_real_browser(
    session: EditSession, base: VertexIndex, model: MorphableModel, tmp_path: Path
) -> None:
    with visit(session, free_port()) as person:
        page, scene = person.page, person.page.scene
        assert person.tab.title() == "plain - densegen index edit"
        until(lambda: within(person, np.concatenate([scene.shown_face, scene.shown_plane])), "all of it in the window")

        def place(landmark: str) -> np.ndarray:
            return scene.face[dict(session.names())[landmark]]

        # Read a landmark, delete it, take that back, delete it again, and say why.
        name = lonely(session)
        person.tab.mouse.move(*person.on_screen(place(f"{name}-r")))
        person.tab.locator("#under").get_by_text(f"{name}-r").wait_for()
        person.click_at(place(f"{name}-r"))
        until(lambda: page.selected == name, f"{name} to be selected")
        person.tab.get_by_text(f"vertex {session.state[name].half}").first.wait_for()
        person.press("Delete")
        until(lambda: name not in session.state, "the deletion")
        person.tab.get_by_text("Why? Write it below.").wait_for()
        person.tab.mouse.click(3, 3)
        person.tab.keyboard.press("Control+z")
        until(lambda: name in session.state, "the undo")
        person.tab.keyboard.press("Control+y")
        until(lambda: name not in session.state, "the redo")
        person.write(WHY, "too near to its neighbour")
        until(lambda: session.reason_of_last_edit == "too near to its neighbour", "the reason")

        # Add one on the forehead of the face, and one on the UV plane.
        person.press("Add")
        until(lambda: page.mode_now == "Add", "the mode")
        person.click_at(scene.face[vertex_at(session, 100, 16)])
        until(lambda: "forehead-edit-01" in session.state, "the addition")
        assert until(lambda: not page.panel.reason.value, "an empty reason")
        person.click_at(scene.plane[vertex_at(session, 60, 20)])
        first = set(session.states[0])
        (moved,) = until(lambda: set(session.state) - first - {"forehead-edit-01"}, "the addition on the plane")
        until(lambda: page.selected == moved, "its selection")  # the page follows the session a moment later
        column, row = session.plane.pixels[session.state["forehead-edit-01"].half]
        assert abs(column - 100) < 8
        assert abs(row - 16) < 8
        # A click on a landmark selects it, in every mode.
        person.click_at(place("nose-30"))
        until(lambda: page.selected == "nose-30", "the landmark to be selected while adding")
        assert len(session.edits) == 3
        person.tab.keyboard.press("Escape")
        until(lambda: page.mode_now == "Look", "the mode")

        # Move the last one: by a click, by a drag, by a key.
        person.write(FIND, f"{moved}-r")
        until(lambda: page.selected == moved, "what was looked for")
        before = session.state[moved].half
        person.press("Move")
        until(lambda: page.mode_now == "Move", "the mode")
        person.click_at(scene.plane[vertex_at(session, 40, 40)])
        until(lambda: session.state[moved].half != before, "the move")
        until(lambda: page.mode_now == "Look", "one move, then Look")
        before = session.state[moved].half
        person.drag(scene.plane[before], scene.plane[vertex_at(session, 50, 36)])
        until(lambda: session.state[moved].half != before, "the drag")
        column, row = session.plane.pixels[session.state[moved].half]
        assert abs(column - 50) < 8
        assert abs(row - 36) < 8
        before = session.state[moved].half
        eye = np.array(person.camera.position)
        person.tab.keyboard.press("ArrowUp")
        until(lambda: session.state[moved].half != before, "the step")
        assert session.plane.pixels[session.state[moved].half, 1] < session.plane.pixels[before, 1]
        assert np.allclose(person.camera.position, eye)
        # The 68 stay.
        edits = len(session.edits)
        person.drag(place("nose-30"), scene.face[vertex_at(session, 110, 110)])
        person.tab.get_by_text("it stays where it is").wait_for()
        assert len(session.edits) == edits

        # Look at a side of the face, and at both again.
        person.press("right")
        until(lambda: person.camera.position[0] < -50, "the camera at the subject's right")
        person.press("both")
        until(lambda: person.camera.position[2] > 90, "the camera in front")
        person.picture(tmp_path / "page.png")
        person.press("Save")
        until(lambda: session.path.exists() and session.is_saved, "the file")
        person.tab.get_by_text("Next: densegen index correct").wait_for()
        seen = [person.on_screen(point) for point in scene.shown_face[::50]]

    saved = read_corrections(session.path)
    assert [removal.name for removal in saved.remove] == [name]
    assert saved.remove[0].reason == "too near to its neighbour"
    made = correct(base, saved, model)
    assert [(m.name, m.vertex) for m in made.landmarks] == session.names()
    # The surface is drawn, not its landmarks alone: they cover a tenth of the part of the page where the face is.
    picture = np.asarray(Image.open(tmp_path / "page.png").convert("RGB"))
    columns, rows = np.array(seen).T
    face = picture[int(rows.min()) : int(rows.max()), int(columns.min()) : int(columns.max())]
    assert (face.min(axis=2) < 250).mean() > 0.6


@in_a_browser
@pytest.mark.parametrize("size", [(800, 600), (1300, 520)])
def test_the_face_fits_the_window_and_the_panel_works(
    session: EditSession, corpus: Path, size: tuple[int, int]
) -> None:
    with visit(session, free_port(), size, fits=corpus) as person:
        page, scene = person.page, person.page.scene
        for view, shown in [("both", [scene.shown_face, scene.shown_plane]), ("front", [scene.shown_face]),
                            ("left", [scene.shown_face]), ("UV", [scene.shown_plane])]:  # fmt: skip
            person.press(view)
            until(lambda view=view: page.view_now == view, "the view")
            until(lambda shown=shown: within(person, np.concatenate(shown)), f"{view} in the window")
        # The plane lies below the face in a narrow window, beside it in a wide one.
        beside = scene.offset[0] > scene.shown_face[:, 0].max()
        assert beside == (size[0] > 1000)

        # The gaps, one after the other, each smaller than the one before.
        person.tab.mouse.click(3, 3)
        for count in (1, 2, 3):
            person.tab.keyboard.press("g")
            until(lambda count=count: len(page.gaps) == count, "a gap")
        places = session.model.mean_mm
        distance = page.coverage.of(page.landmarks.vertices)[1][page.gaps]
        assert (np.diff(distance) <= 1e-9).all()
        assert np.linalg.norm(places[page.gaps[0]] - places[page.gaps[1]]) > 10

        # A region is hidden; its landmarks are neither seen nor hit.
        person.unfold("regions")
        person.tab.get_by_label(
            "cheek", exact=True
        ).click()  # the server answers with its new state, on a busy machine later
        until(lambda: not page.panel.regions["cheek"].value, "the region")
        assert not page.shown[[region == "cheek" for region in page.landmarks.regions]].any()

        # A fit with its photograph; its landmarks are where its surface is.
        person.unfold("regions")
        assert len(page.faces.fits) > 8
        page.panel.sample.value = 3
        page._show_sample()
        colours = page.faces.photograph(3)
        assert colours is not None
        assert len(np.unique(colours, axis=0)) > 100
        np.testing.assert_array_equal(
            scene.drawn["/face_landmarks"].batched_positions, scene.face[page.landmarks.vertices].astype(np.float32)
        )

        # Edits, and back to any of them.
        for column in (90, 100, 110):
            page._edit(lambda column=column: page._add(vertex_at(session, column, 14)))
        assert len(session.edits) == 3
        page.panel.back_to.value = page.panel.back_to.options[1]
        page._go_back()
        assert session.position == 1
        assert session.can_redo


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

    with _own_page_only("127.0.0.1", "<b>", lambda x, y: f"{x + y:g}"):
        server = viser.ViserServer(host="127.0.0.1", port=18417, verbose=False)
    try:
        address, protocol = f"ws://127.0.0.1:{server.get_port()}/", f"viser-v{viser.__version__}"
        with pytest.raises(InvalidStatus, match="403"):
            connect(address, origin="http://evil.example", subprotocols=[protocol])  # type: ignore[list-item]
        own = f"http://127.0.0.1:{server.get_port()}"
        connect(address, origin=own, subprotocols=[protocol]).close()  # type: ignore[arg-type, list-item]
        page = urlopen(own).read().decode()
        assert "<title>&lt;b&gt;</title>" in page  # an index's name is no HTML
        assert urlopen(f"{own}/under?x=0.25&y=0.5").read() == b"0.75"
        with pytest.raises(HTTPError, match="400"):
            urlopen(f"{own}/under?x=nonsense")
        with pytest.raises(HTTPError, match="403"):
            urlopen(Request(f"{own}/under?x=0&y=0", headers={"Origin": "http://evil.example"}))
    finally:
        server.stop()
