"""The command line. Heavy libraries are imported inside the commands that need them, so ``--help`` answers at once."""

from __future__ import annotations

import click

from densegen.console import OneLineErrors
from densetrain import __version__
from densetrain.cli.evaluation import evaluate, profile, report
from densetrain.cli.machine import doctor
from densetrain.cli.reconstruct import reconstruct
from densetrain.cli.training import augmented, fit, schema, settings
from densetrain.cli.use import annotate, export, predict

__all__ = ["main"]


@click.group(
    "densetrain",
    cls=OneLineErrors,
    resumable=("fit",),
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
)
@click.version_option(__version__, prog_name="densetrain")
def main() -> None:
    """Train, evaluate and use dense 3D face landmark regressors.

    \b
    densetrain fit shards --out run --settings paper
    densetrain evaluate run --benchmark aflw2000-3d --root AFLW2000
    densetrain predict run photo.jpg --out out
    densetrain export run --out model
    """


for command in (
    fit,
    evaluate,
    report,
    predict,
    annotate,
    reconstruct,
    export,
    profile,
    augmented,
    settings,
    schema,
    doctor,
):
    main.add_command(command)
