"""The console of both commands: plain lines of whatever a file is called or holds, errors in one line, progress."""

from __future__ import annotations

import errno
import os
import re
import signal
import sys
import threading
import time
import unicodedata
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from typing import Any

import click

from densegen.errors import DensegenError
from densegen.extras import EXTRAS_OF, install_line

__all__ = [
    "OneLineErrors",
    "ProgressBar",
    "as_markdown",
    "counted",
    "front_matter",
    "one_line",
    "plain",
    "prepare_streams",
    "refuse_unread",
    "say",
]

LONGEST_LINE = 600

# Format characters that turn text around (the bidirectional overrides and isolates).
_TURNING = frozenset(map(chr, (*range(0x202A, 0x202F), *range(0x2066, 0x206A))))


def plain(text: str) -> str:
    """Text without characters that a terminal acts on: control characters other than a line's end are spelt out."""
    if text.isprintable():
        return text
    return "".join(
        c if c in "\n\t" or not (unicodedata.category(c) in ("Cc", "Cs") or c in _TURNING) else _spelt(c) for c in text
    )


def one_line(text: str) -> str:
    """Text as one plain line of at most ``LONGEST_LINE`` characters; of a longer one the middle is left out."""
    line = plain(" ".join(text.split()))
    half = LONGEST_LINE // 2
    return line if len(line) <= LONGEST_LINE else f"{line[:half]} […] {line[-half:]}"


def as_markdown(text: str) -> str:
    """A stranger's text for a Markdown page: one plain line in which nothing is a tag, a link, a heading or a table."""
    return re.sub(r"([\\`*<>\[\]|!#])", r"\\\1", one_line(text))


def say(text: str, *, err: bool = False) -> None:
    """Print plain text to standard output, or to standard error."""
    click.echo(plain(text), err=err)


def front_matter(**fields: Any) -> str:
    """The YAML between two lines of dashes with which a card begins, for hubs that read it."""
    import yaml

    return f"---\n{yaml.safe_dump(fields, sort_keys=False, allow_unicode=True, width=1000)}---\n"


def processors() -> int:
    """How many processors this process may use; a cluster allots some of a machine's."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def counted(count: int, noun: str) -> str:
    """A number and its noun: ``1 shard``, ``1,024 shards``."""
    return f"{count:,} {noun}{'' if count == 1 else 's'}"


def refuse_unread(names: Collection[str], what: str) -> None:
    """Refuse options of the command that is running if they were given and ``what`` does not read them: the result
    would look as if they had been applied.

    names : of the options' parameters
    """
    context = click.get_current_context()
    for option in context.command.params:
        given = context.get_parameter_source(option.name or "") is click.core.ParameterSource.COMMANDLINE
        if given and option.name in names:
            raise click.UsageError(f"{option.opts[0]} means nothing to {what}")


def prepare_streams() -> None:
    """Let a console or a pipe that cannot hold a character (Windows' code pages) get its number instead of an error."""
    for stream in (sys.stdout, sys.stderr):
        reconfigure = getattr(stream, "reconfigure", None)
        if reconfigure is not None:
            reconfigure(errors="backslashreplace")


def _spelt(character: str) -> str:
    return f"\\x{ord(character):02x}" if ord(character) < 256 else f"\\u{ord(character):04x}"


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
        except ModuleNotFoundError as error:
            name = (error.name or "").partition(".")[0]
            if name not in EXTRAS_OF:
                raise
            command = " ".join(filter(None, [ctx.find_root().command.name, ctx.invoked_subcommand]))
            _fail(ctx, f"'{command}' needs {name}: {install_line(EXTRAS_OF[name][0])}")
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


LINE_EVERY_S = 30.0


class ProgressBar:
    """A progress bar with rate, time left and rejects; if stderr is no terminal, a line every half minute."""

    def __init__(self, verb: str, unit: str) -> None:
        from rich.console import Console
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

        console = Console(stderr=True)
        self.set_aside, self.verb, self.unit = 0, verb, unit
        self.said = time.monotonic()
        self.progress = Progress(
            TextColumn("[bold]{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn(unit),
            TextColumn("{task.fields[rate]}"),
            TimeRemainingColumn(),
            TextColumn("{task.fields[note]}"),
            console=console,
            transient=True,
            disable=not console.is_terminal,
        )
        self.task = self.progress.add_task(verb, total=None, rate="", note="")

    def __enter__(self) -> ProgressBar:
        self.progress.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.progress.stop()

    @property
    def total(self) -> float | None:
        return self.progress.tasks[0].total

    def start(self, total: int, done: int = 0) -> None:
        """``total`` of them there are, ``done`` of them were done before."""
        self.progress.update(self.task, total=total, completed=done)

    def advance_of(self, done: int, total: int | None) -> None:
        """``done`` more, of so many in all, if that is known."""
        if total is not None and self.total is None:
            self.start(total)
        self.advance(done)

    def advance(self, done: int, set_aside: int = 0) -> None:
        """``done`` more, ``set_aside`` of them unusable."""
        self.set_aside += set_aside
        note = f"{self.set_aside} set aside" if self.set_aside else ""
        self.progress.advance(self.task, done)
        speed = self.progress.tasks[0].finished_speed or self.progress.tasks[0].speed
        self.progress.update(self.task, rate=f"{speed:,.0f}/s" if speed else "", note=note)
        if self.progress.disable and time.monotonic() - self.said > LINE_EVERY_S:
            self.said = time.monotonic()
            task = self.progress.tasks[0]
            of = f" of {task.total:,.0f}" if task.total is not None else ""
            self.progress.console.print(f"{self.verb}: {task.completed:,.0f}{of} {self.unit} {note}".rstrip())
