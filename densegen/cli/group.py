"""A command group that ends bad input with one line."""

from __future__ import annotations

import errno
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import click

from densegen.console import one_line, prepare_streams, say
from densegen.errors import DensegenError

__all__ = ["OneLineErrors"]


class OneLineErrors(click.Group):
    """Bad input ends with exit 1 and one line on stderr; wrong usage, click's own, with exit 2.

    resumable : the commands that go on, after Ctrl-C, where they were
    """

    def __init__(self, *args: Any, resumable: tuple[str, ...] = (), **options: Any) -> None:
        super().__init__(*args, **options)
        self.resumable = resumable

    def invoke(self, ctx: click.Context) -> Any:
        prepare_streams()
        try:
            with _one_interrupt():
                return super().invoke(ctx)
        except DensegenError as error:
            _fail(ctx, str(error))
        except OSError as error:
            if error.errno == errno.EPIPE:
                raise  # whoever read our output has left: click ends quietly
            # Only what the system refuses outright arrives here: permissions, a folder for a file, a full disk.
            _fail(ctx, f"{error.filename}: {error.strerror}" if error.filename else str(error))
        except KeyboardInterrupt as stop:
            then = str(stop) or (
                "the same command goes on from here" if ctx.invoked_subcommand in self.resumable else ""
            )
            say("; ".join(filter(None, [f"{ctx.find_root().command.name}: interrupted", then])), err=True)
            ctx.exit(130)
        except MemoryError as error:
            _fail(ctx, f"out of memory{f': {error}' if str(error) else ''}")


@contextmanager
def _one_interrupt() -> Iterator[None]:
    """Let the first Ctrl-C stop the command, and ignore the next ones, which would break what the first one tidies up:
    a pool of processes that is stopped twice waits for ever.
    """
    if (
        threading.current_thread() is not threading.main_thread()
        or signal.getsignal(signal.SIGINT) is not signal.default_int_handler
    ):
        yield
        return

    def interrupt(number: int, frame: object) -> None:
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        raise KeyboardInterrupt

    signal.signal(signal.SIGINT, interrupt)
    yield
    signal.signal(signal.SIGINT, signal.default_int_handler)


def _fail(ctx: click.Context, message: str) -> None:
    say(one_line(f"{ctx.find_root().command.name}: error: {message}"), err=True)
    ctx.exit(1)
