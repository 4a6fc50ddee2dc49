"""The commands that make, check and look at datasets."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from densegen.cli.progress import ProgressBar

if TYPE_CHECKING:
    from densegen.build import Plan
    from densegen.manifest import BuildSettings, Manifest

__all__ = ["build", "inspect", "manifests", "rebuild_maps", "schema", "synth", "verify"]

PATH = click.Path(path_type=Path)
DEFAULT_INDEX = "vertex_index_520.yaml"
JOBS = click.option(
    "--jobs",
    type=click.IntRange(1),
    default=lambda: os.cpu_count() or 1,
    show_default="all cores",
    help="processes",
)


@click.command()
@click.argument("manifest")
@click.option("--out", type=PATH, required=True, help="folder for the shards; an interrupted build goes on there")
@click.option("--root", type=PATH, help="folder of the dataset [default: that of a manifest file]")
@click.option("--model", "model_path", type=PATH, help="model file (HDF5) [default: the manifest's]")
@click.option("--index", "index_path", type=PATH, help="vertex index (YAML) [default: densegen's 520 landmarks]")
@JOBS
@click.option("--scheduler", metavar="ADDRESS", help="Dask scheduler, for several machines with a shared disk")
@click.option(
    "--flip",
    type=click.Choice(["mirror", "shipped", "none"]),
    help="make mirror images, use *_Flip, or neither",
)
@click.option("--position-maps/--no-position-maps", default=None, help="store the UV position maps as well")
@click.option("--seed", type=click.IntRange(0), help="seed of the crops [default: 0]")
@click.option("--shard-size", type=click.IntRange(2), help="samples a shard [default: 512]")
@click.option("--limit", type=click.IntRange(1), help="only the first so many fits")
@click.option("--max-rejects", type=click.FloatRange(0, 1), help="share of fits that may be set aside [default: 0.01]")
@click.option("--dry-run", is_flag=True, help="check everything, count, write nothing")
def build(
    manifest: str,
    out: Path,
    root: Path | None,
    model_path: Path | None,
    index_path: Path | None,
    jobs: int,
    scheduler: str | None,
    dry_run: bool,
    **options: Any,
) -> None:
    """Build shards of dense landmarks from the dataset that MANIFEST describes.

    MANIFEST is a YAML file, or the name of one that comes with densegen (see 'densegen manifests').

    Run the same command again after an interruption: complete shards are checked and kept, and the result is the same
    to the last byte.
    """
    from densegen.build import build as run_build
    from densegen.build import plan_build, refuse_foreign
    from densegen.errors import ConfigurationError
    from densegen.files import find_data_file
    from densegen.manifest import read_manifest

    dataset = read_manifest(manifest)
    settings = _settings(dataset, options)
    refuse_foreign(out)
    if dataset.synthetic is not None:
        root = root or out.resolve().with_name(f"{out.resolve().name}-corpus")
        if dry_run and not root.is_dir():
            click.echo(f"{dataset.synthetic.samples} portraits would be drawn into {root} first", err=True)
            return
        if not dry_run:
            _write_missing_corpus(dataset, root, jobs)
    if root is None and Path(manifest).is_file():
        root = Path(manifest).parent
    if root is None:
        raise ConfigurationError(f"where is {dataset.title}? Give its folder with --root")
    if model_path is None:
        if dataset.model is None:
            raise ConfigurationError(
                "which morphable model? Make one with 'densegen model build' or 'convert' and give it with --model"
            )
        model_path = root / dataset.model
    plan = plan_build(dataset, root, model_path, index_path or find_data_file(DEFAULT_INDEX), settings)
    _describe_plan(plan)
    if dry_run:
        return
    with ProgressBar("building", "fits") as bar:
        made = run_build(plan, out, jobs=jobs, scheduler=scheduler, progress=bar)
    size = sum(record["bytes"] for record in made["shards"])
    click.echo(
        f"{out}: {made['samples']:,} samples in {len(made['shards'])} shards, {size / 1e6:,.1f} MB, "
        f"{made['rejected_fits']} fits set aside"
    )


@click.command()
@click.argument("folder", metavar="DIR", type=PATH)
def verify(folder: Path) -> None:
    """Check a finished dataset: checksums, schema, counts, landmarks, mirrored pairs, images."""
    from densegen.shards import read_dataset_manifest
    from densegen.verify import verify_dataset

    with ProgressBar("checking", "samples") as bar:
        bar.start(read_dataset_manifest(folder)["samples"], 0)
        checked = verify_dataset(folder, lambda samples: bar.advance(samples, 0))
    click.echo(f"{folder}: {checked['samples']:,} samples in {len(checked['shards'])} shards, all correct")


@click.command()
@click.argument("folder", metavar="DIR", type=PATH)
@click.option("--sample", "sample_id", required=True, help="id of the sample, AFW/AFW_134212_1_0+mirror")
@click.option("--model", "model_path", type=PATH, help="draws the position map where the shards hold none")
@click.option("--out", type=PATH, help="PNG to write [default: the id, with - for /]")
def inspect(folder: Path, sample_id: str, model_path: Path | None, out: Path | None) -> None:
    """Draw a sample: image, 68, 520, position map, and the texture unwrapped through it."""
    from densegen.morphable_model import read_model
    from densegen.preview import draw_sample

    path = out or Path(f"{sample_id.replace('/', '-')}.png")
    draw_sample(folder, sample_id, path, read_model(model_path) if model_path else None)
    click.echo(str(path))


@click.command("rebuild-maps")
@click.argument("folder", metavar="DIR", type=PATH)
@click.option("--model", "model_path", type=PATH, required=True, help="the model that the shards were made with")
@click.option("--out", type=PATH, required=True, help="folder for the maps, one NumPy file a sample")
@click.option("--sample", "sample_ids", multiple=True, help="only this sample; may be repeated")
def rebuild_maps(folder: Path, model_path: Path, out: Path, sample_ids: tuple[str, ...]) -> None:
    """Render position maps again from the shards and the model: (256, 256, 3) float32, NaN where not valid."""
    from densegen.morphable_model import read_model
    from densegen.rebuild import write_position_maps
    from densegen.shards import read_dataset_manifest

    with ProgressBar("rendering", "maps") as bar:
        bar.start(len(sample_ids) or read_dataset_manifest(folder)["samples"], 0)
        count = write_position_maps(folder, read_model(model_path), out, sample_ids, lambda n: bar.advance(n, 0))
    click.echo(f"{out}: {count:,} position maps")


@click.command()
@click.argument("out", type=PATH)
@click.option("--samples", type=click.IntRange(1), default=96, show_default=True)
@click.option("--seed", type=click.IntRange(0), default=0, show_default=True)
@click.option("--manifest", "write_manifest", is_flag=True, help="write OUT/manifest.yaml for 'densegen build', too")
@JOBS
def synth(out: Path, samples: int, seed: int, write_manifest: bool, jobs: int) -> None:
    """Write a corpus of procedural faces in the 300W-LP layout, and its model, to OUT."""
    _synthesise(out, samples, seed, jobs)
    if write_manifest:
        from densegen.files import find_data_file, write_text

        # The corpus is there: a build draws no other.
        lines = find_data_file("demo.yaml").read_text(encoding="utf-8").splitlines()[1:]
        kept = [line.replace("fits: 96", f"fits: {samples}") for line in lines if not line.startswith("synthetic:")]
        head = f"# Procedural faces, drawn by 'densegen synth --samples {samples} --seed {seed}'."
        write_text(out / "manifest.yaml", "\n".join([head, *kept]) + "\n")
    click.echo(f"{out}: {samples} portraits and model.h5")


@click.command()
def manifests() -> None:
    """List the manifests that come with densegen."""
    from densegen.manifest import named_manifests, read_manifest

    for name in named_manifests():
        manifest = read_manifest(name)
        click.echo(f"{name:14} {sum(s.fits for s in manifest.subsets):>7,} fits  {manifest.title}")


@click.command()
@click.argument("what", type=click.Choice(["manifest", "index", "corrections", "candidates"]))
def schema(what: str) -> None:
    """Print the JSON Schema of a file format, for editors that check while you type."""
    import json

    from pydantic import BaseModel

    from densegen.corrections import Corrections
    from densegen.manifest import Manifest
    from densegen.sampling import Candidates
    from densegen.vertex_index import VertexIndex

    kinds: dict[str, type[BaseModel]] = {
        "manifest": Manifest,
        "index": VertexIndex,
        "corrections": Corrections,
        "candidates": Candidates,
    }
    click.echo(json.dumps(kinds[what].model_json_schema(), indent=2))


def _settings(dataset: Manifest, options: dict[str, Any]) -> BuildSettings:
    """The manifest's defaults, and the options that were given."""
    from pydantic import ValidationError

    from densegen.errors import ConfigurationError
    from densegen.files import first_problem
    from densegen.manifest import BuildSettings

    given = {name: value for name, value in options.items() if value is not None}
    defaults = {"flip": dataset.default_flip} | dataset.build.model_dump(exclude_unset=True)
    try:
        return BuildSettings.model_validate(defaults | given)
    except ValidationError as error:
        raise ConfigurationError(first_problem(error)) from error


def _write_missing_corpus(dataset: Manifest, root: Path, jobs: int) -> None:
    from densegen.synthetic.corpus import MODEL_NAME

    assert dataset.synthetic is not None
    if not (root / MODEL_NAME).is_file():  # written last
        _synthesise(root, dataset.synthetic.samples, dataset.synthetic.seed, jobs)


def _synthesise(out: Path, samples: int, seed: int, jobs: int) -> None:
    from densegen.executors import open_executor
    from densegen.synthetic.corpus import write_corpus

    with ProgressBar("drawing", "portraits") as bar, open_executor(jobs) as executor:
        bar.start(samples, 0)
        write_corpus(out, samples, seed, executor, lambda n: bar.advance(n, 0))


def _describe_plan(plan: Plan) -> None:
    settings, expected = plan.settings, plan.manifest.expected_fits(plan.settings.flip)
    found = dict.fromkeys(expected, 0)
    for entry in plan.entries:
        found[entry.group.split("/", 1)[0]] += 1
    for name, count in found.items():
        note = "" if count == expected[name] else f" of {expected[name]:,}"
        click.echo(f"{name}: {count:,}{note} fits", err=True)
    click.echo(
        f"{len(plan.entries):,} fits, flips: {settings.flip}, {len(plan.entries) * settings.samples_per_fit:,} samples "
        f"in {len(plan.shards)} shards; {plan.model.name}, {plan.index.name} {plan.index.version}",
        err=True,
    )
