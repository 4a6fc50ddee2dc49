"""What reaches a terminal: plain text, one line for an error, whatever a file's name or contents are."""

from __future__ import annotations

import re
import sys
import unicodedata

import click

__all__ = ["as_markdown", "one_line", "plain", "prepare_streams", "say"]

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


def prepare_streams() -> None:
    """Let a console or a pipe that cannot hold a character (Windows' code pages) get its number instead of an error."""
    for stream in (sys.stdout, sys.stderr):
        reconfigure = getattr(stream, "reconfigure", None)
        if reconfigure is not None:
            reconfigure(errors="backslashreplace")


def _spelt(character: str) -> str:
    return f"\\x{ord(character):02x}" if ord(character) < 256 else f"\\u{ord(character):04x}"
