"""A command group that ends bad input with one line."""

from __future__ import annotations

import errno
from typing import Any

import click

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
        try:
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
            click.echo("; ".join(filter(None, [f"{ctx.find_root().command.name}: interrupted", then])), err=True)
            ctx.exit(130)


def _fail(ctx: click.Context, message: str) -> None:
    click.echo(f"{ctx.find_root().command.name}: error: {' '.join(message.split())}", err=True)
    ctx.exit(1)
