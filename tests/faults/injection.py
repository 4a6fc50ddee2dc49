"""A disk that fails at a chosen moment: kills, full disks and read errors at the Nth time a folder is touched.

Python announces every file that is opened, renamed, removed or listed to its audit hooks (PEP 578), and an exception
that a hook raises takes the place of the call.
"""

from __future__ import annotations

import errno
import faulthandler
import hashlib
import os
import signal
import sys
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from densegen.errors import DensegenError

Kind = Literal["none", "kill", "full", "error"]

EVENTS = {
    "open", "os.link", "os.rename", "os.remove", "os.mkdir", "os.rmdir", "os.listdir", "os.scandir", "shutil.rmtree"
}  # fmt: skip
WRITING = os.O_WRONLY | os.O_RDWR | os.O_CREAT
ONE_LINE, ESCAPED = 1, 70


@dataclass(frozen=True)
class Ended:
    """How a run ended: its exit code (negative: of a signal), the times a folder was touched, and what it said."""

    code: int
    touched: int
    said: str


def run_with_fault(
    function: Callable[[], object], watched: tuple[Path, ...], log: Path, kind: Kind = "none", at: int = 0
) -> Ended:
    """Run ``function`` in a child process whose ``at``-th touch of a watched folder fails.

    kind : ``kill`` is SIGKILL, ``error`` one EIO, ``full`` ENOSPC for every touch that writes from there on
    """
    child = os.fork()
    if child == 0:
        _run(function, tuple(str(path) for path in watched), log, kind, at)
    _, status = os.waitpid(child, 0)
    lines = log.read_text(errors="replace").splitlines() if log.exists() else []
    touched = int(lines[0]) if lines and lines[0].isdigit() else 0
    code = -os.WTERMSIG(status) if os.WIFSIGNALED(status) else os.WEXITSTATUS(status)
    return Ended(code, touched, "\n".join(lines[1:]))


def _run(function: Callable[[], object], watched: tuple[str, ...], log: Path, kind: Kind, at: int) -> None:
    faulthandler.disable()
    silent = os.open(os.devnull, os.O_WRONLY)
    os.dup2(silent, 1)
    os.dup2(silent, 2)
    log.unlink(missing_ok=True)
    touched = 0
    done = False

    def hook(event: str, arguments: tuple[object, ...]) -> None:
        nonlocal touched
        if done or event not in EVENTS:
            return
        names = [os.fsdecode(a) for a in arguments[:2] if isinstance(a, str | bytes | os.PathLike)]
        if not any(name.startswith(watched) for name in names):
            return
        touched += 1
        writes = event != "open" or bool(isinstance(arguments[2], int) and arguments[2] & WRITING)
        if event in ("os.listdir", "os.scandir", "os.remove", "os.rmdir", "shutil.rmtree"):
            writes = False
        if kind == "kill" and touched == at:
            os.kill(os.getpid(), signal.SIGKILL)
        if kind == "error" and touched == at:
            raise OSError(errno.EIO, os.strerror(errno.EIO), names[0])
        if kind == "full" and touched >= at and writes:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), names[0])

    sys.addaudithook(hook)
    code, said = 0, ""
    try:
        function()
    except (DensegenError, OSError) as error:
        code, said = ONE_LINE, str(error)
    except BaseException:
        code, said = ESCAPED, traceback.format_exc()
    done = True
    log.write_text(f"{touched}\n{said}")
    os._exit(code)


def digests(folder: Path) -> dict[str, str]:
    """SHA-256 of every file below a folder, by its path."""
    return {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }
