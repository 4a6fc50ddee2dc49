"""The command line. Heavy libraries are imported inside the commands that need them, so ``--help`` answers at once."""

from __future__ import annotations

import click

from densegen import __version__
from densegen.cli.dataset import build, export, inspect, rebuild_maps, schema, synth, verify
from densegen.cli.fits import fits
from densegen.cli.index import index
from densegen.cli.machine import doctor, remember
from densegen.cli.manifests import manifest, manifests
from densegen.cli.model import model
from densegen.console import OneLineErrors

__all__ = ["main"]


@click.group(
    "densegen",
    cls=OneLineErrors,
    resumable=("build", "export"),
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
)
@click.version_option(__version__, prog_name="densegen")
def main() -> None:
    """Dense 3D face landmark datasets from 3D morphable model fits.

    \b
    densegen build demo --out shards           all of it, with the embedded face
    densegen model build RAW bfm.safetensors   the Basel model from its downloads
    densegen build 300w_lp --root 300W_LP --model bfm.safetensors --out shards
    """


COMMANDS = (
    build, verify, inspect, export, rebuild_maps, synth, manifests, manifest, schema, model, index, fits,
    remember, doctor,
)  # fmt: skip
for command in COMMANDS:
    main.add_command(command)
