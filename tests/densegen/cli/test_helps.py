"""Every command's help: it fits a terminal, and says what is read, what is written, and how to call it."""

from __future__ import annotations

from collections.abc import Iterator

import click
import pytest
from click.testing import CliRunner

import densegen.cli
import densetrain.cli

WIDTH = 80


def commands(group: click.Group, *before: str) -> Iterator[tuple[tuple[str, ...], click.Command]]:
    yield before, group
    for name, command in group.commands.items():
        if isinstance(command, click.Group):
            yield from commands(command, *before, name)
        else:
            yield (*before, name), command


MAINS = {"densegen": densegen.cli.main, "densetrain": densetrain.cli.main}
ALL = [(main, words, command) for main in MAINS for words, command in commands(MAINS[main])]


@pytest.mark.parametrize(("main", "words", "command"), ALL, ids=str)
def test_a_help_fits_the_terminal_and_shows_an_example(
    main: str, words: tuple[str, ...], command: click.Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", str(WIDTH))
    made = CliRunner().invoke(MAINS[main], [*words, "--help"])
    assert made.exit_code == 0
    assert max(map(len, made.output.splitlines())) <= WIDTH
    if isinstance(command, click.Group):
        summaries = made.output.split("Commands:")[1]
        assert "..." not in summaries  # cut in the middle of a sentence
        return
    lines = [line.strip() for line in made.output.splitlines()]
    for word in ("reads ", "writes ", "example "):
        assert any(line.startswith(word) for line in lines), word
    (example,) = (line.split(None, 1)[1] for line in lines if line.startswith("example "))
    given = example.split()
    assert given[: 1 + len(words)] == [main, *words]
    options = {option for parameter in command.params for option in parameter.opts}
    assert {word for word in given if word.startswith("--")} <= options
