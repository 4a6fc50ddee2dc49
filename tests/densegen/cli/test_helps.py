"""Every command's help: it fits a terminal, and says what is read, what is written, and how to call it."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import get_args

import click
import pytest
from click.testing import CliRunner

import densegen.cli
import densetrain.cli
from densegen.dataset.interchange import SAMPLES_A_PART, Format
from densegen.fitting.fitter import FitterSettings
from densegen.geometry.crop import CropRecipe
from densegen.index.formats.numbers import Numbering
from densegen.index.suggestions import MOVING
from densegen.sources.annotations import POINT_COUNTS
from densegen.sources.manifest import BuildSettings

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


def command_of(*words: str) -> click.Command:
    """A command of densegen."""
    return next(command for main, names, command in ALL if main == "densegen" and names == words)


def stated(*words: str) -> dict[str, str]:
    """The defaults that the options of a command state in their help, which loads nothing that knows them."""
    options = [option for option in command_of(*words).params if isinstance(option, click.Option)]
    found = {option.opts[-1]: re.search(r"\[default: (.*)\]", option.help or "") for option in options}
    return {name: match[1] for name, match in found.items() if match}


def test_defaults_that_helps_state_are_those_of_the_code() -> None:
    build, settings, crop = stated("build"), BuildSettings(), CropRecipe()
    assert {name: float(build[f"--{name}"]) for name in ("seed", "shard-size", "max-rejects")} == {
        "seed": settings.seed, "shard-size": settings.shard_size, "max-rejects": settings.max_rejects,
    }  # fmt: skip
    assert {name: float(build[f"--{name}"]) for name in ("crop-size", "margin", "scale-jitter", "shift-jitter")} == {
        "crop-size": crop.size, "margin": crop.margin, "scale-jitter": crop.scale_jitter,
        "shift-jitter": crop.shift_jitter,
    }  # fmt: skip
    refine, fitter = stated("fits", "refine"), FitterSettings()
    assert (float(refine["--sigma"]),) == fitter.sigma
    assert float(refine["--max-residual"]) == fitter.max_residual
    assert refine["--jaw"] == fitter.jaw
    weights = re.sub(r"([\w-]+) and ([\w-]+) ([\d.]+)", r"\1 \3, \2 \3", stated("index", "suggest")["--weight"])
    assert {name: float(one) for name, one in (pair.split() for pair in weights.split(", "))} == dict(MOVING)
    samples = next(option for option in command_of("export").params if option.name == "samples")
    assert samples.default == SAMPLES_A_PART


def test_choices_of_options_are_those_of_the_code() -> None:
    found = {
        option.opts[-1]: set(option.type.choices)
        for main, _, command in ALL
        if main == "densegen"
        for option in command.params
        if isinstance(option.type, click.Choice)
    }
    assert found["--format"] == set(get_args(Format))
    assert found["--numbering"] == set(get_args(Numbering))
    assert found["--points"] == {*POINT_COUNTS, "names"}
