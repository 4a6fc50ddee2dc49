"""The page on a port of this machine, until Ctrl-C."""

from __future__ import annotations

import ipaddress
import logging
import socket
import time
import webbrowser
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from densegen.editor.page import EditorPage
from densegen.editor.sample_faces import SampleFaces
from densegen.editor.session import EditSession
from densegen.editor.web import ANSWER_PATH, answer, with_own_head
from densegen.errors import ConfigurationError
from densegen.extras import install_line

__all__ = ["is_own_host", "open_page", "serve"]


def serve(
    session: EditSession,
    host: str,
    port: int,
    say: Callable[[str], None],
    faces: SampleFaces,
    *,
    opened: bool = False,
) -> None:
    """Serve the page until Ctrl-C.

    opened : whether to show it in this machine's browser

    Raises :class:`ConfigurationError` if viser is not installed or the port is taken.
    """
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError as error:
            raise ConfigurationError(
                f"cannot listen at {host}:{port}: {error.strerror}: choose another --port or --host"
            ) from error
    page = open_page(session, host, port, faces)
    say(f"The page is at http://{host}:{port} - Ctrl-C ends it; what is not saved stays in {session.unsaved_path}")
    if opened:
        webbrowser.open(f"http://{host}:{port}")
    try:
        while True:
            time.sleep(0.25)
            page.step()
    except KeyboardInterrupt:
        say(
            "nothing is unsaved"
            if session.is_saved
            else f"not saved: the next 'index edit' goes on from {session.unsaved_path}"
        )
    finally:
        page.server.stop()


def open_page(session: EditSession, host: str, port: int, faces: SampleFaces) -> EditorPage:
    """Start the server and the page of a session; raises :class:`ConfigurationError` if viser is not installed."""
    try:
        import viser
    except ImportError as error:
        raise ConfigurationError(f"the page needs viser: {install_line('editor')}") from error
    logging.getLogger("websockets").setLevel(logging.CRITICAL)  # a stranger's broken messages are no news
    pages: list[EditorPage] = []
    title = f"{session.base.name} - densegen index edit"
    with _own_page_only(host, title, lambda x, y: pages[0].name_under(x, y) if pages else ""):
        server = viser.ViserServer(host=host, port=port, label=session.base.name, verbose=False)
    pages.append(EditorPage(session, server, faces))
    return pages[0]


@contextmanager
def _own_page_only(host: str, title: str, name_under: Callable[[float, float], str]) -> Iterator[None]:
    """Let servers that start in this block take their own page alone, and give it our head.

    Any page that is open in the same browser could talk to a port of this machine, read the scene and change it; and a
    stranger's name can be made to mean this machine (DNS rebinding). viser asks for neither.
    """
    from websockets.asyncio import server

    serve_all: Any = server.serve

    def serve(handler: Any, *args: Any, process_request: Any = None, **options: Any) -> Any:
        def checked(connection: Any, request: Any) -> Any:
            asked, origin = request.headers.get("Host", ""), request.headers.get("Origin")
            if not is_own_host(asked, host) or origin not in (None, f"http://{asked}", f"https://{asked}"):
                return connection.respond(403, "this page is for who started it\n")
            if request.path.partition("?")[0] == ANSWER_PATH:
                return answer(connection, request.path, name_under)
            response = None if process_request is None else process_request(connection, request)
            return None if response is None else with_own_head(response, title)

        return serve_all(handler, *args, process_request=checked, **options)

    server.serve = serve  # type: ignore[misc, assignment]
    try:
        yield
    finally:
        server.serve = serve_all  # type: ignore[misc]


def is_own_host(asked: str, host: str) -> bool:
    """Whether a request's ``Host`` names this machine: by a number, as localhost, or by a name of its own.

    asked : the header, with or without a port
    host : the address that the page listens at
    """
    name = asked.rsplit(":", 1)[0] if not asked.endswith("]") else asked
    try:
        ipaddress.ip_address(name.strip("[]"))
    except ValueError:
        return name.lower() in {"localhost", host.lower(), socket.gethostname().lower()}
    return True
