"""The command line, called as a user calls it."""

from __future__ import annotations

from typing import Any

from click.testing import CliRunner, Result

from densetrain.cli import main


def call(*arguments: Any) -> Result:
    return CliRunner().invoke(main, [str(argument) for argument in arguments])


def fails(*arguments: Any) -> str:
    """The one line of wrong input."""
    result = call(*arguments)
    assert result.exit_code == 1, result.output
    assert isinstance(result.exception, SystemExit)
    (line,) = result.stderr.strip().splitlines()
    return line


def misused(*arguments: Any) -> str:
    """The last line of wrong usage."""
    result = call(*arguments)
    assert result.exit_code == 2, result.output
    return result.stderr.strip().splitlines()[-1]
