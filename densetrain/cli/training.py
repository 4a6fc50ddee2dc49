"""``densetrain fit``, ``augmented`` and ``settings``."""

from __future__ import annotations

import sys
from pathlib import Path

import click

from densegen.console import say
from densegen.outputs import check_output

__all__ = ["augmented", "fit", "schema", "settings"]

PATH = click.Path(path_type=Path)
SETTINGS = click.option(
    "--settings", "source", help="YAML file, or paper, best, fast-gpu, demo  [default: every setting's default]"
)
SET = click.option("--set", "changes", multiple=True, metavar="KEY=VALUE", help="trainer.epochs=5; may be repeated")


@click.command(short_help="Train a network on shards.")
@click.argument("folders", metavar="SHARDS...", nargs=-1, required=True, type=PATH)
@click.option("--out", type=PATH, required=True, help="folder for checkpoints and logs; a stopped run goes on there")
@SETTINGS
@SET
def fit(folders: tuple[Path, ...], out: Path, source: str | None, changes: tuple[str, ...]) -> None:
    """Train on the SHARDS of finished builds.

    Run the same command again after an interruption: it goes on from the last epoch's end, to the same weights. Under
    'torchrun', or with trainer.devices, several processes share the work.

    \b
    reads    SHARDS, as 'densegen build' made them; --settings (YAML)
    writes   OUT/best.ckpt, last.ckpt, fit-settings.yaml, csv/, tensorboard/
    example  densetrain fit shards --out run --settings paper
    """
    from densetrain.config import read_settings

    chosen = read_settings(source, changes)
    from densetrain.training.fit import fit as run_fit

    run_fit(folders, chosen, out, progress=sys.stderr.isatty(), say=say)


@click.command(short_help="Draw what training sees.")
@click.argument("folders", metavar="SHARDS...", nargs=-1, required=True, type=PATH)
@click.option("--out", type=PATH, required=True, help="picture to write (PNG)")
@click.option("--samples", type=click.IntRange(1, 400), default=24, show_default=True)
@SETTINGS
@SET
def augmented(folders: tuple[Path, ...], out: Path, samples: int, source: str | None, changes: tuple[str, ...]) -> None:
    """Draw a contact sheet of augmented training samples with their landmarks.

    \b
    reads    SHARDS, --settings
    writes   --out (PNG)
    example  densetrain augmented shards --out sheet.png
    """
    from densetrain.config import read_settings

    chosen = read_settings(source, changes)
    from densegen.dataset.shard_set import open_dataset
    from densetrain.preview import draw_augmented

    check_output(out, kind=".png")
    draw_augmented(open_dataset(*folders), chosen, samples, out)
    say(str(out))


@click.command(short_help="Print the JSON Schema of a file format.")
@click.argument("what", type=click.Choice(["settings", "prediction", "frame"]))
def schema(what: str) -> None:
    """Print the JSON Schema of settings, of what 'predict' writes of an image, or of a line that it writes of video.

    \b
    reads    nothing
    writes   to standard output
    example  densetrain schema prediction > prediction.schema.json
    """
    import json

    from pydantic import BaseModel

    from densetrain.config import FitSettings
    from densetrain.prediction.results import FrameRecord, ImageRecord

    kinds: dict[str, type[BaseModel]] = {"settings": FitSettings, "prediction": ImageRecord, "frame": FrameRecord}
    say(json.dumps(kinds[what].model_json_schema(), indent=2).replace("``", "`"))


@click.command(short_help="Print the settings of a training.")
@click.argument("source", required=False)
@SET
def settings(source: str | None, changes: tuple[str, ...]) -> None:
    """Print settings, all of them, as YAML: the defaults, those of a file, or paper, best, fast-gpu, demo.

    \b
    reads    SOURCE (YAML)
    writes   to standard output
    example  densetrain settings paper > mine.yaml
    """
    import yaml

    from densetrain.config import read_settings

    say(yaml.safe_dump(read_settings(source, changes).model_dump(mode="json"), sort_keys=False).rstrip("\n"))
