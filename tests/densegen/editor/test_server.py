"""The editing page in a browser, and who it answers."""

from __future__ import annotations

import socket
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from densegen.editor.server import is_own_host
from densegen.editor.session import EditSession
from densegen.face.morphable_model import MorphableModel
from densegen.index.corrections import correct, read_corrections
from densegen.index.vertex_index import VertexIndex
from tests.browser import find_browser, until, visit
from tests.densegen.editor.conftest import vertex_at


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
