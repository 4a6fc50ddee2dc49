"""The commands that make, check and look at datasets."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, cast, get_args

import click

from densegen.console import ProgressBar, counted, processors, say
from densegen.conventions import FlipPolicy
from densegen.outputs import check_output, refuse_no_folder
from densegen.remembered import model_option, remembered_model, remembered_root

if TYPE_CHECKING:
    from densegen.dataset.build import Plan

__all__ = ["build", "export", "inspect", "rebuild_maps", "schema", "synth", "verify"]

PATH = click.Path(path_type=Path)

MOST_EDGES = 0.25
"""Share of a build's crops with a black rim. A few percent of whole photographs have one, as AFLW2000-3D's do."""

JOBS = click.option(
    "--jobs", type=click.IntRange(1), default=processors, show_default="all cores",
    help="processes, or threads, that work at a time",
)  # fmt: skip


@click.command(short_help="Build shards of dense landmarks.")
@click.argument("manifest")
@click.option("--out", type=PATH, required=True, help="folder for the shards; an interrupted build goes on there")
@click.option("--root", type=PATH, help="folder of the dataset "
              "[default: that of a manifest file; $DENSEGEN_ROOT, or as 'densegen remember' keeps]")  # fmt: skip
@click.option("--model", "model_path", type=PATH, help="model file "
              "[default: the manifest's; $DENSEGEN_MODEL, or as 'densegen remember' keeps]")  # fmt: skip
@click.option("--index", "index_path", type=PATH, help="vertex index (YAML) [default: densegen's 520 landmarks]")
@JOBS
@click.option("--scheduler", metavar="ADDRESS", help="Dask scheduler, for several machines with a shared disk")
@click.option(
    "--flip",
    type=click.Choice(get_args(FlipPolicy)),
    help="make mirror images, use *_Flip, or neither",
)
@click.option("--position-maps/--no-position-maps", default=None, help="store the UV position maps as well")
@click.option("--seed", type=click.IntRange(0), help="seed of the crops [default: 0]")
@click.option("--shard-size", type=click.IntRange(2), help="samples a shard [default: 512]")
@click.option("--crop-size", type=int, help="side of a crop, pixels [default: 256]")
@click.option("--margin", type=float, help="a crop's side by the face box's [default: 1.5]")
@click.option("--scale-jitter", type=float, help="of a crop's side, a share of it [default: 0.1]")
@click.option("--shift-jitter", type=float, help="of a crop's centre, by the box [default: 0.1]")
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

    \b
    reads    MANIFEST, the fits and photographs below --root, --model, --index
    writes   DIR/shard-*.h5, samples.safetensors, manifest.json, README.md, …
    example  densegen build demo --out shards
    """
    from densegen.dataset.build import build as run_build
    from densegen.dataset.build import default_root, plan_build
    from densegen.dataset.build_folder import BuildFolder
    from densegen.face.model_file import read_model
    from densegen.index.vertex_index import read_index
    from densegen.sources.manifest import choose_settings, read_manifest
    from densegen.synthetic.corpus import MODEL_NAME, check_corpus_folder

    dataset = read_manifest(manifest)
    settings, crop = choose_settings(dataset, **options)
    folder = BuildFolder(out.resolve())
    folder.refuse_foreign()
    if root is None and dataset.synthetic is not None:
        root = folder.path.with_name(f"{folder.path.name}-corpus")
    if root is None:
        root = (None if Path(manifest).is_file() else remembered_root(dataset.name)) or default_root(manifest)
    if model_path is None and dataset.model is None:
        model_path = remembered_model()
    if dataset.synthetic is not None and not (root / MODEL_NAME).is_file():  # written last
        check_corpus_folder(root, dataset.synthetic.samples)
        # What is wrong with the files that were given is said before anything is drawn.
        read_index(index_path)
        if model_path is not None:
            read_model(model_path)
        if dry_run:
            say(f"{dataset.synthetic.samples} portraits would be drawn into {root} first", err=True)
            return
        _synthesise(root, dataset.synthetic.samples, dataset.synthetic.seed, jobs)
    plan = plan_build(dataset, root, model_path, index_path, settings, crop)
    folder.check(plan.configuration)
    _describe_plan(plan)
    if dry_run:
        return
    with ProgressBar("building", "fits") as bar:
        made = run_build(plan, out, jobs=jobs, scheduler=scheduler, progress=bar)
    samples, shards = counted(made.samples, "sample"), counted(len(made.shards), "shard")
    set_aside = counted(made.rejected_fits, "fit")
    say(f"{out}: {samples} in {shards}, {made.bytes / 1e6:,.1f} MB, {set_aside} set aside")
    share = made.edges / made.samples
    if share > MOST_EDGES:
        say(
            f"{100 * share:.0f} % of the crops reach beyond their photographs and have a black rim; if these were cut "
            "out around the faces, the rim says where a face lies, and nothing does elsewhere: a smaller --margin has "
            "less of it",
            err=True,
        )


@click.command(short_help="Check a finished dataset.")
@click.argument("folder", metavar="DIR", type=PATH)
@click.option("--every-image", is_flag=True, help="decode all images and maps, not every 15th")
@JOBS
def verify(folder: Path, every_image: bool, jobs: int) -> None:
    """Check a finished dataset: checksums, schema, counts, landmarks, mirrored pairs, images.

    \b
    reads    DIR, as 'densegen build' made it
    writes   nothing
    example  densegen verify shards
    """
    from densegen.dataset.build_record import MANIFEST_NAME, read_dataset_manifest
    from densegen.dataset.verify import verify_dataset
    from densegen.files import sha256_of

    with ProgressBar("checking", "samples") as bar:
        bar.start(read_dataset_manifest(folder).samples)
        checked = verify_dataset(folder, bar.advance, jobs=jobs, every_image=every_image)
    say(f"{folder}: {counted(checked.samples, 'sample')} in {counted(len(checked.shards), 'shard')}, all correct")
    say(f"SHA-256 of {MANIFEST_NAME}: {sha256_of(folder / MANIFEST_NAME)}")


@click.command(short_help="Draw a sample, or list all.")
@click.argument("folder", metavar="DIR", type=PATH)
@click.option("--sample", "sample_id", help="id of the sample, AFW/AFW_134212_1_0+mirror  [default: the first]")
@click.option("--list", "listed", is_flag=True, help="print every sample's id, split and yaw instead")
@click.option("--model", "model_path", type=PATH, help="draws the position map if the shards hold none")
@click.option("--out", type=PATH, help="PNG to write [default: the id, with - for /]")
def inspect(folder: Path, sample_id: str | None, listed: bool, model_path: Path | None, out: Path | None) -> None:
    """Draw a sample: image, 68, 520, position map, and the texture unwrapped through it.

    \b
    reads    DIR, as 'densegen build' made it, and --model
    writes   a PNG
    example  densegen inspect shards --out sample.png
    """
    from densegen.dataset.preview import draw_sample, list_samples
    from densegen.face.model_file import read_model

    if listed and (sample_id or model_path or out):
        raise click.UsageError("--list stands alone")
    if listed:
        for name, split, yaw_deg in list_samples(folder):
            say(f"{name}  {split}  yaw {yaw_deg:.0f}")
        return
    sample_id = sample_id or next(list_samples(folder))[0]
    path = out or Path(f"{sample_id.replace('/', '-')}.png")
    check_output(path, model_path, kind=".png")
    draw_sample(folder, sample_id, path, read_model(model_path) if model_path else None)
    say(str(path))


@click.command(short_help="Write a build for other tools.")
@click.argument("folder", metavar="DIR", type=PATH)
@click.option("--format", "kind", type=click.Choice(["webdataset", "parquet"]), required=True, help="of the files")
@click.option("--out", type=PATH, required=True, help="folder for them; an interrupted export goes on there")
@click.option("--samples", type=click.IntRange(1), default=2048, show_default=True, help="samples a file")
def export(folder: Path, kind: str, out: Path, samples: int) -> None:
    """Write a finished build as WebDataset tars or Parquet, with a card for a dataset hub and a Croissant description.

    \b
    reads    DIR, as 'densegen build' made it
    writes   OUT/data/*, README.md, croissant.json
    example  densegen export shards --format parquet --out hub
    """
    from densegen.dataset.build_record import read_dataset_manifest
    from densegen.dataset.interchange import Format, export_dataset

    refuse_no_folder(out)
    with ProgressBar("exporting", "samples") as bar:
        bar.start(read_dataset_manifest(folder).samples)
        made = export_dataset(folder, out, cast(Format, kind), samples_a_part=samples, progress=bar.advance)
    say(f"{out}: {counted(made.samples, 'sample')} in {counted(len(made.files), 'file')}, {made.bytes / 1e6:,.1f} MB")


@click.command("rebuild-maps", short_help="Render position maps from shards again.")
@click.argument("folder", metavar="DIR", type=PATH)
@model_option("the model that the shards were made with")
@click.option("--out", type=PATH, required=True, help="folder for the maps, one NumPy file a sample")
@click.option("--sample", "sample_ids", multiple=True, help="only this sample; may be repeated")
def rebuild_maps(folder: Path, model_path: Path, out: Path, sample_ids: tuple[str, ...]) -> None:
    """Render position maps again from the shards and the model: (256, 256, 3) float32, NaN if not valid.

    \b
    reads    DIR, as 'densegen build' made it, and --model
    writes   OUT/SAMPLE.npy
    example  densegen rebuild-maps shards --model bfm.safetensors --out maps
    """
    from densegen.dataset.build_record import read_dataset_manifest
    from densegen.dataset.rebuild import write_position_maps
    from densegen.face.model_file import read_model

    refuse_no_folder(out)
    with ProgressBar("rendering", "maps") as bar:
        bar.start(len(sample_ids) or read_dataset_manifest(folder).samples)
        count = write_position_maps(folder, read_model(model_path), out, sample_ids, bar.advance)
    say(f"{out}: {counted(count, 'position map')}")


@click.command(short_help="Draw a corpus of procedural faces.")
@click.argument("out", type=PATH)
@click.option("--samples", type=click.IntRange(1), default=96, show_default=True)
@click.option("--seed", type=click.IntRange(0), default=0, show_default=True)
@click.option("--manifest", "write_manifest", is_flag=True, help="write OUT/manifest.yaml for 'densegen build', too")
@JOBS
def synth(out: Path, samples: int, seed: int, write_manifest: bool, jobs: int) -> None:
    """Write a corpus of procedural faces in the 300W-LP layout, and its model, to OUT.

    A smaller or equal corpus in OUT is drawn again; a folder that holds anything else is refused.

    \b
    reads    nothing
    writes   OUT/SYNTH/*.jpg and *.mat, model.safetensors, manifest.yaml
    example  densegen synth corpus --samples 1000 --manifest
    """
    from densegen.synthetic.corpus import write_corpus_manifest

    _synthesise(out, samples, seed, jobs)
    if write_manifest:
        write_corpus_manifest(out, samples, seed)
    say(f"{out}: {samples} portraits and model.safetensors")


@click.command(short_help="Print the JSON Schema of a file format.")
@click.argument("what", type=click.Choice(["manifest", "index", "corrections", "candidates"]))
def schema(what: str) -> None:
    """Print the JSON Schema of a file format, for editors that check while you type.

    \b
    reads    nothing
    writes   to standard output
    example  densegen schema manifest > manifest.schema.json
    """
    import json

    from pydantic import BaseModel

    from densegen.index.candidates import Candidates
    from densegen.index.corrections import Corrections
    from densegen.index.vertex_index import VertexIndex
    from densegen.sources.manifest import Manifest

    kinds: dict[str, type[BaseModel]] = {
        "manifest": Manifest,
        "index": VertexIndex,
        "corrections": Corrections,
        "candidates": Candidates,
    }
    say(json.dumps(kinds[what].model_json_schema(), indent=2).replace("``", "`"))


def _synthesise(out: Path, samples: int, seed: int, jobs: int) -> None:
    from densegen.executors import open_pool
    from densegen.synthetic.corpus import write_corpus

    with ProgressBar("drawing", "portraits") as bar, open_pool(jobs) as pool:
        bar.start(samples)
        write_corpus(out, samples, seed, pool, bar.advance)


def _describe_plan(plan: Plan) -> None:
    settings, expected = plan.settings, plan.manifest.expected_fits(plan.settings.flip)
    found = dict.fromkeys(expected, 0)
    for entry in plan.entries:
        found[entry.group.split("/", 1)[0]] += 1
    for name, count in found.items():
        note = "" if count == expected[name] else f", the manifest says {expected[name]:,}"
        say(f"{name}: {counted(count, 'fit')}{note}", err=True)
    samples = counted(len(plan.entries) * settings.samples_per_fit, "sample")
    say(
        f"{counted(len(plan.entries), 'fit')}, flips: {settings.flip}, {samples} in "
        f"{counted(len(plan.shards), 'shard')}; {plan.model.name}, {plan.index.name} {plan.index.version}",
        err=True,
    )
