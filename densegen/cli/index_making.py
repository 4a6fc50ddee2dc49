"""``densegen index sample``, ``suggest``, ``make``, ``correct`` and ``merge``: how an index comes to be."""

from __future__ import annotations

import unicodedata
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import click

from densegen.console import say
from densegen.outputs import check_output
from densegen.remembered import model_option

if TYPE_CHECKING:
    from densegen.index.vertex_index import VertexIndex

__all__ = ["MODEL", "PATH", "correct", "describe", "make", "merge", "one_line_name", "sample", "suggest"]

PATH = click.Path(path_type=Path)
MODEL = model_option("model file")
DEFAULT_CORRECTIONS = "corrections_bfm.yaml"


def one_line_name(context: click.Context, option: click.Parameter, value: str | None) -> str | None:
    """Refuse a name that could not stand in a file: an empty one, one of several lines, or none in UTF-8."""
    if value is not None and (not value or any(unicodedata.category(c) in ("Cc", "Cs") for c in value)):
        raise click.BadParameter(f"{value!a} is no name: give one line of text")
    return value


@click.command("sample", short_help="Sample candidates by triangulation.")
@click.argument("out", type=PATH)
@MODEL
@click.option(
    "--seeds",
    default="jaw,brows,nose-tip",
    show_default=True,
    help="keypoint groups that the triangulation starts from",
)
@click.option("--rounds", default=3, show_default=True, type=click.IntRange(0, 6))
def sample(out: Path, model_path: Path, seeds: str, rounds: int) -> None:
    """Triangulate the seeds in the UV plane, add the centroids, repeat; write every round's points to OUT (YAML).

    \b
    reads    --model
    writes   OUT, a candidates file (YAML)
    example  densegen index sample candidates.yaml --model bfm.safetensors
    """
    from densegen.face.model_file import read_model
    from densegen.index.candidates import sample_candidates, write_candidates

    check_output(out, model_path, holds="candidates")
    candidates = sample_candidates(read_model(model_path), tuple(seeds.split(",")), rounds)
    write_candidates(candidates, out)
    say(f"{out}: {' -> '.join(map(str, candidates.counts))} points")


@click.command("suggest", short_help="Suggest corrections to candidates.")
@click.argument("candidates", type=PATH)
@click.argument("out", type=PATH)
@MODEL
@click.option(
    "--count",
    type=click.IntRange(68),
    help="landmarks that there shall be [default: as many as densegen's own index has]",
)
@click.option("--spacing", type=click.FloatRange(0, 1000), default=9.0, show_default=True, help="mm between candidates")
@click.option("--weight", "weights", multiple=True, metavar="REGION=FACTOR", help="of a region's gaps; may be repeated "
              "[default: lid 1.5, eye 1.3, lip-outer and lip-inner 1.7, brow 1.4, nose 1.3]")  # fmt: skip
@click.option("--name", default="my-landmarks", show_default=True, callback=one_line_name, help="of the index")
def suggest(
    candidates: Path,
    out: Path,
    model_path: Path,
    count: int | None,
    spacing: float,
    weights: tuple[str, ...],
    name: str,
) -> None:
    """Suggest corrections to CANDIDATES: thin out what is too near, fill the largest gaps; write them to OUT (YAML).

    Each entry says its reason. Go over them by hand, in a text editor or with 'index edit', before 'index correct'.

    \b
    reads    CANDIDATES (of 'index sample'), --model
    writes   OUT, a corrections file (YAML)
    example  densegen index suggest candidates.yaml corrections.yaml
    """
    from densegen.face.model_file import read_model
    from densegen.files import write_text
    from densegen.index.candidates import read_candidates
    from densegen.index.corrections import format_corrections
    from densegen.index.suggestions import MOVING, suggest_corrections
    from densegen.index.vertex_index import read_index

    check_output(out, candidates, model_path, holds="corrections")
    count = count or len(read_index())
    chosen = _parse_weights(weights) if weights else MOVING
    made = suggest_corrections(
        read_candidates(candidates), read_model(model_path), name=name, count=count, spacing_mm=spacing, weights=chosen
    )
    write_text(out, format_corrections(made))
    say(f"{out}: {len(made.remove)} to remove, {len(made.add)} to add, {count} landmarks")


def _parse_weights(given: tuple[str, ...]) -> dict[str, float]:
    from densegen.errors import ConfigurationError
    from densegen.face.regions import REGIONS

    weights: dict[str, float] = {}
    for one in given:
        region, _, factor = one.partition("=")
        try:
            weights[region] = float(factor)
        except ValueError as error:
            raise ConfigurationError(f"--weight {one!r} is not REGION=FACTOR") from error
        if region not in REGIONS or not 0 < weights[region] < 100:
            raise ConfigurationError(f"--weight {one!r}: regions are {', '.join(REGIONS)}; factors lie above 0")
    return weights


@click.command("make", short_help="Make an index from the start.")
@click.argument("out", type=PATH)
@MODEL
@click.option("--corrections", type=PATH, help="corrections file [default: that of densegen's own index]")
@click.option(
    "--name",
    callback=one_line_name,
    help="of the index [default: as the corrections say, on another topology with its first digits]",
)
def make(out: Path, model_path: Path, corrections: Path | None, name: str | None) -> None:
    """Make an index from the start: sample, then correct, and write it to OUT (YAML).

    On the Basel model the default corrections give densegen's own index, byte for byte; on another model of its UV
    layout the same landmarks on that model's vertices.

    \b
    reads    --model, --corrections
    writes   OUT, a vertex index (YAML)
    example  densegen index make index.yaml --model bfm.safetensors
    """
    from densegen.face.model_file import read_model
    from densegen.files import find_data_file
    from densegen.index.candidates import SEEDS, sample_candidates
    from densegen.index.corrections import correct as apply
    from densegen.index.corrections import read_corrections
    from densegen.index.vertex_index import write_index

    check_output(out, corrections, model_path, holds="vertex index")
    model = read_model(model_path)
    chosen = read_corrections(corrections or find_data_file(DEFAULT_CORRECTIONS))
    made = apply(sample_candidates(model, tuple(SEEDS)), chosen, model)
    made = made.model_copy(update={"name": name or made.name})
    write_index(made, out)
    say(f"{out}: {describe(made)}")


@click.command("correct", short_help="Apply corrections: the next version.")
@click.argument("base", type=PATH)
@click.argument("corrections", type=PATH)
@click.argument("out", type=PATH)
@MODEL
def correct(base: Path, corrections: Path, out: Path, model_path: Path) -> None:
    """Apply a corrections file (add, remove, move, each with its reason) and write the vertex index to OUT (YAML).

    BASE is what 'index sample' wrote, or a vertex index whose next version this makes.

    \b
    reads    BASE (candidates or vertex index), CORRECTIONS, --model
    writes   OUT, a vertex index (YAML)
    example  densegen index correct old.yaml corrections.yaml new.yaml
    """
    from densegen.face.model_file import read_model
    from densegen.index.corrections import correct as apply
    from densegen.index.corrections import read_base, read_corrections
    from densegen.index.vertex_index import write_index

    check_output(out, base, corrections, model_path, holds="vertex index")
    made = apply(read_base(base), read_corrections(corrections), read_model(model_path))
    write_index(made, out)
    say(f"{out}: {describe(made)}")


@click.command("merge", short_help="Merge two people's corrections.")
@click.argument("base", type=PATH)
@click.argument("first", type=PATH)
@click.argument("second", type=PATH)
@click.argument("out", type=PATH)
@MODEL
@click.option("--prefer", type=click.Choice(["first", "second"]), help="which file wins if they disagree")
def merge(
    base: Path, first: Path, second: Path, out: Path, model_path: Path, prefer: Literal["first", "second"] | None
) -> None:
    """Merge two corrections files of BASE into one; landmarks that both correct differently are named.

    \b
    reads    BASE (candidates or vertex index), FIRST, SECOND, --model
    writes   OUT, a corrections file (YAML)
    example  densegen index merge index.yaml ann.yaml ben.yaml both.yaml
    """
    from densegen.face.model_file import read_model
    from densegen.files import write_text
    from densegen.index.corrections import format_corrections, read_base, read_corrections
    from densegen.index.merging import find_conflicts, merge_corrections

    check_output(out, base, first, second, model_path, holds="corrections")
    one, other = read_corrections(first), read_corrections(second)
    merged = merge_corrections(read_base(base), one, other, read_model(model_path), prefer=prefer)
    for conflict in find_conflicts(one, other):
        say(f"{conflict}: the {prefer} wins", err=True)
    write_text(out, format_corrections(merged))
    say(
        f"{out}: {len(merged.add)} added, {len(merged.remove)} removed, {len(merged.move)} moved, {merged.count} "
        f"landmarks, version {merged.index_version}"
    )


def describe(made: VertexIndex) -> str:
    """An index in one line."""
    partners = int((made.mirror >= 0).sum())
    closed = "closed under the mirror" if made.mirror_closed else f"{partners} with a mirror partner"
    return f"{made.name} {made.version}, {len(made)} landmarks, {closed}, fingerprint {made.fingerprint}"
