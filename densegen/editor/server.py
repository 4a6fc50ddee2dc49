"""The page on a port of this machine, until Ctrl-C."""

from __future__ import annotations

import socket
import time
from collections.abc import Callable

import numpy as np
import numpy.typing as npt

from densegen.editor.page import EditorPage
from densegen.editor.session import EditSession
from densegen.errors import ConfigurationError

__all__ = ["serve"]


def serve(
    session: EditSession, host: str, port: int, say: Callable[[str], None], std: npt.NDArray[np.floating] | None = None
) -> None:
    """Serve the page until Ctrl-C.

    Raises :class:`ConfigurationError` where viser is not installed or the port is taken.
    """
    try:
        import viser
    except ImportError as error:
        raise ConfigurationError("the page needs viser: pip install 'densegen[editor]'") from error
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError as error:
            raise ConfigurationError(
                f"cannot listen at {host}:{port}: {error.strerror}: choose another --port"
            ) from error
    model = session.model
    server = viser.ViserServer(host=host, port=port, label="densegen index edit", verbose=False)
    page = EditorPage(session, server, np.concatenate([model.shape_std, model.expression_std]) if std is None else std)
    say(f"The page is at http://{host}:{port} - Ctrl-C ends it; what is not saved stays in {session.unsaved_path}")
    try:
        while True:
            time.sleep(0.25)
            page.step()
    except KeyboardInterrupt:
        say("saved" if session.is_saved else f"not saved: the next 'index edit' goes on from {session.unsaved_path}")
    finally:
        server.stop()
