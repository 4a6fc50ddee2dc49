"""The errors that densegen raises on purpose, all of them.

::

    DensegenError
    ├── ConfigurationError   settings, a manifest or a combination of files that cannot work: nothing is started
    ├── FormatError          a file is not what its name promises: truncated, another schema, wrong counts
    ├── SampleError          one fit or photograph is unusable; a build sets it aside and goes on
    ├── BuildError           a build had to stop: too many rejects, no space left, another build in the folder
    └── VerificationError    a finished dataset does not hold what its manifest says

Each message says what is, what was expected and, if there is one, what to do. The command line prints it on
one line and exits with 1.
"""

import difflib
from collections.abc import Iterable

__all__ = [
    "BuildError",
    "ConfigurationError",
    "DensegenError",
    "FormatError",
    "SampleError",
    "VerificationError",
    "did_you_mean",
    "in_short",
]


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """The end of a message about an unknown word: ``; did you mean resnet18?``, or nothing if none resembles it."""
    near = difflib.get_close_matches(word, list(known), n=1)
    return f"; did you mean {near[0]}?" if near else ""


def in_short(error: BaseException, most: int = 160) -> str:
    """What an error of a library says, on one line of at most so many characters, its class if it says nothing. Of more
    the middle is left out: some begin with a path and end with the reason.
    """
    words = " ".join(str(error).split()) or type(error).__name__
    return words if len(words) <= most else f"{words[: most // 2]} … {words[3 - most // 2 :]}"


class DensegenError(Exception):
    """Base of every error that densegen raises on purpose."""


class ConfigurationError(DensegenError):
    """Settings, a manifest or a combination of files that cannot work."""


class FormatError(DensegenError):
    """A file is not what its name promises."""


class SampleError(DensegenError):
    """One fit or photograph is unusable.

    ``reason`` is a short stable word for tables (``"image-missing"``), the message says the rest.
    """

    def __init__(self, reason: str, message: str) -> None:
        super().__init__(message)
        self.reason = reason

    def __reduce__(self) -> tuple[type["SampleError"], tuple[str, str]]:
        return (SampleError, (self.reason, str(self)))


class BuildError(DensegenError):
    """A build had to stop; complete shards stay, and the same command goes on from them."""


class VerificationError(DensegenError):
    """A finished dataset does not hold what its manifest says."""
