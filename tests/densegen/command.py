"""The command line, called as a user calls it."""

from __future__ import annotations

from click.testing import CliRunner, Result

from densegen.cli import main


def run(*arguments: object) -> Result:
    return CliRunner().invoke(main, [str(argument) for argument in arguments])


def fails(*arguments: object) -> str:
    """Run a command that must fail with exit 1 and one line on stderr; return that line."""
    result = run(*arguments)
    assert result.exit_code == 1, result.output
    (line,) = result.stderr.splitlines()
    assert line.startswith("densegen: error: ")
    return line
