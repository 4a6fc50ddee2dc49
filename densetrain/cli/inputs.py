"""What ``predict`` and ``reconstruct`` do alike with the images and films that they are given."""

from __future__ import annotations

import errno
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import click

from densegen.console import refuse_unread, say

if TYPE_CHECKING:
    from densegen.arrays import Float64
    from densetrain.prediction.video import Filmed

__all__ = ["first_box", "refuse_failed", "refuse_idle", "refuse_short", "run_each"]


def run_each(inputs: Sequence[Path], run: Callable[[Path], None]) -> list[str]:
    """Run each input, and say which have no result; these are returned, by name.

    Raises what is wrong with the call, and :class:`FormatError` if the only input has no result.
    """
    from densegen.errors import ConfigurationError, FormatError, SampleError
    from densetrain.prediction.inputs import VIDEO_SUFFIXES

    failed = []
    for path in inputs:
        try:
            with _unwritable_is_said():
                run(path)
        except (SampleError, FormatError, ConfigurationError) as error:
            # What video alone needs does not keep the photographs beside it from having their results.
            if isinstance(error, ConfigurationError) and path.suffix.lower() not in VIDEO_SUFFIXES:
                raise
            words = str(error) if isinstance(error, FormatError) else f"{path.name}: {error}"
            if len(inputs) == 1:
                raise FormatError(words) from error
            say(f"densetrain: {words}", err=True)
            failed.append(path.name)
    return failed


@contextmanager
def _unwritable_is_said() -> Iterator[None]:
    """Say as a :class:`FormatError` what keeps the results of one input from being written, and not those of others: a
    name that is too long, a folder in the way.
    """
    from densegen.errors import FormatError

    try:
        yield
    except OSError as error:
        if error.errno not in (errno.ENAMETOOLONG, errno.EISDIR):
            raise
        raise FormatError(f"{error.filename} cannot be written: {error.strerror}") from error


def refuse_failed(failed: Sequence[str], inputs: Sequence[Path]) -> None:
    """Raise :class:`FormatError` if some inputs have no result."""
    from densegen.errors import FormatError

    if failed:
        raise FormatError(f"{len(failed)} of {len(inputs)} inputs have no result, the first is {failed[0]}")


def refuse_idle(box: tuple[float, float, float, float] | None, boxes_file: Path | None, *, filming: bool) -> None:
    """Refuse options that these inputs leave unread.

    filming : whether there is video among the inputs
    """
    if box and boxes_file:
        raise click.UsageError("--box is for every image, --boxes for each its own: give one of them")
    if not filming:
        refuse_unread({"smooth", "limit"}, "images")
        if box or boxes_file:
            refuse_unread({"detector"}, "given boxes")


def first_box(boxes: Float64 | None, source: Path | int) -> Float64 | None:
    """(4,) the box in which a film begins, or None; raises :class:`FormatError` if several are given."""
    from densegen.errors import FormatError

    if boxes is None:
        return None
    if len(boxes) != 1:
        raise FormatError(f"{source}: {len(boxes)} boxes are given, and in video one face is followed: give one")
    start: Float64 = boxes[0]
    return start


def refuse_short(film: Filmed, source: Path | int) -> None:
    """Raise :class:`FormatError` if a film had fewer frames than its file promises."""
    from densegen.errors import FormatError

    if film.ends_early:
        raise FormatError(
            f"{source} ends early: {film.frames:,} of {film.expected:,} frames; what there is was written"
        )
