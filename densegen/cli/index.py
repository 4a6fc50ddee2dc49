"""``densegen index``: make, measure, draw, compare, convert and edit the vertex index."""

from __future__ import annotations

import math
from pathlib import Path
from typing import TYPE_CHECKING

import click

from densegen.cli.index_making import MODEL, PATH, correct, describe, make, merge, one_line_name, sample, suggest
from densegen.console import ProgressBar, refuse_unread, say
from densegen.outputs import check_output

if TYPE_CHECKING:
    from densegen.arrays import Float64
    from densegen.index.quality import IndexQuality
    from densegen.index.vertex_index import VertexIndex

__all__ = ["index"]

SHOWN = 20
"""Lines of what changed only its name."""


@click.group(short_help="Make, measure and correct the vertex index.")
def index() -> None:
    """Make, measure, draw, compare, convert and edit the vertex index: which points are the landmarks."""


for command in (sample, suggest, make, correct, merge):
    index.add_command(command)


@index.command("check", short_help="Measure indices: coverage, spacing, recovery.")
@click.argument("indices", metavar="[INDEX]...", nargs=-1, type=PATH)
@MODEL
@click.option("--fits", type=PATH, help="folder of fits (*.mat): their coefficients' spread is the recovery's prior")
@click.option("--baselines", is_flag=True, help="beside them the iBUG 68 alone, and plain farthest-point sampling")
@click.option("--picture", type=PATH, help="PNG of the coverage to write")
def check_index(
    indices: tuple[Path, ...], model_path: Path, fits: Path | None, baselines: bool, picture: Path | None
) -> None:
    """Measure vertex indices on a model's mean face, in millimetres; without INDEX densegen's own.

    Coverage: distance from a point of the face to its nearest landmark (largest, 99th percentile, mean). Spacing: from
    a landmark to its nearest neighbour. Recovery: mean error of the whole surface when a face is recovered from its
    landmarks alone, with a Gaussian prior on the coefficients and 2 mm of noise on each coordinate.

    \b
    reads    INDEX, --model, the fits in --fits
    writes   to standard output, and --picture (PNG)
    example  densegen index check --model bfm.safetensors --baselines
    """
    from densegen.face.model_file import read_model
    from densegen.index.quality import coefficient_spread, farthest_point_index, measure
    from densegen.index.vertex_index import read_index

    if picture:
        check_output(picture, kind=".png")
    model = read_model(model_path)
    measured = [read_index(path) for path in indices or (None,)]
    if baselines:
        measured += [farthest_point_index(model, len(measured[0])), farthest_point_index(model, 68)]
    std: Float64 | None = coefficient_spread(fits, model) if fits else None
    qualities = []
    with ProgressBar("measuring", "indices") as bar:
        bar.start(len(measured))
        for one in measured:
            qualities.append(measure(one, model, std))
            bar.advance(1)
    for line in _quality_table(qualities):
        say(line)
    if picture:
        from densegen.index.figures import draw_coverage

        draw_coverage(qualities, picture)
        say(str(picture))


@index.command("show", short_help="Draw an index, numbered.")
@click.argument("path", metavar="[INDEX]", type=PATH, required=False)
@MODEL
@click.option("--out", type=PATH, required=True, help="folder for uv.png, views.png and sheets.pdf")
def show_index(path: Path | None, model_path: Path, out: Path) -> None:
    """Draw an index: the UV plane with ids by region, the face from three sides, numbered sheets to print.

    \b
    reads    INDEX, --model
    writes   OUT/uv.png, views.png, sheets.pdf
    example  densegen index show --model bfm.safetensors --out pictures
    """
    from densegen.face.model_file import read_model
    from densegen.index.figures import draw_sheets, draw_uv, draw_views

    shown, model = _read_index(path), read_model(model_path)
    draw_views(shown, model, out / "views.png")
    draw_uv(shown, out / "uv.png")
    draw_sheets(shown, out / "sheets.pdf")
    say(f"{out}: uv.png, views.png and sheets.pdf of {describe(shown)}")


@index.command("diff", short_help="Compare two indices.")
@click.argument("old", type=PATH)
@click.argument("new", type=PATH)
@click.option("--model", "model_path", type=PATH, help="says how far landmarks moved in mm")
@click.option("--picture", type=PATH, help="PNG of the UV plane to write")
def diff_indices(old: Path, new: Path, model_path: Path | None, picture: Path | None) -> None:
    """Compare two indices: added, removed, moved by name; a landmark of another name at the same place is renamed.

    \b
    reads    OLD, NEW, --model
    writes   to standard output, and --picture (PNG)
    example  densegen index diff old.yaml new.yaml
    """
    from densegen.face.model_file import read_model
    from densegen.index.quality import compare
    from densegen.index.vertex_index import compare_versions, read_index

    if picture:
        check_output(picture, old, new, kind=".png")
    before, after = read_index(old), read_index(new)
    difference = compare(before, after, read_model(model_path) if model_path else None)
    for name in difference.removed:
        say(f"removed  {name}")
    for name in difference.added:
        say(f"added    {name}")
    for name, distance in difference.moved.items():
        say(f"moved    {name}  {distance:.2f} {difference.unit}")
    if len(difference.renamed) <= SHOWN:  # an imported index has other names throughout
        for name, other in difference.renamed.items():
            say(f"renamed  {name}  {other}")
    say(
        f"{before.name} {before.version} -> {after.name} {after.version}: {len(difference.added)} added, "
        f"{len(difference.removed)} removed, {len(difference.moved)} moved, {len(difference.renamed)} renamed, "
        f"{difference.same} the same"
    )
    differs = difference.added or difference.removed or difference.moved
    if before.name == after.name and differs and compare_versions(after.version, before.version) <= 0:
        say(f"note: other landmarks under the name {after.name} need a newer version than {before.version}", err=True)
    if picture:
        from densegen.index.figures import draw_difference

        draw_difference(before, after, picture)
        say(str(picture))


UNREAD_BY_IMPORT = {
    ".json": ("name", "numbering", "ibug68"), ".csv": ("numbering", "ibug68"), ".npz": ("numbering", "ibug68"),
    ".ply": ("numbering",), ".obj": ("numbering",),
}  # fmt: skip
"""Options that say what these files say themselves."""


@index.command("import", short_help="Make an index of numbers, a table or a mesh.")
@click.argument("source", type=PATH)
@click.argument("out", type=PATH)
@MODEL
@click.option("--name", default="imported", show_default=True, callback=one_line_name)
@click.option("--numbering", type=click.Choice(["prnet", "bfm-53215", "bfm-53490", "model"]),
              help="what bare numbers count")  # fmt: skip
@click.option("--ibug68", type=PATH, help="text file of 68 numbers: the rows of the iBUG 68")
def import_file(
    source: Path, out: Path, model_path: Path, name: str, numbering: str | None, ibug68: Path | None
) -> None:
    """Make a vertex index (YAML) of SOURCE: .txt, .csv, .npz, .json, .ply or .obj.

    .txt holds numbers from 0: into PRNet's 43,867 UV pixels, or vertices of the Basel model or of --model. .ply and
    .obj hold the whole mean face with the landmarks' vertices coloured, or the landmarks alone.

    \b
    reads    SOURCE, --ibug68, --model
    writes   OUT, a vertex index (YAML)
    example  densegen index import theirs.txt ours.yaml --numbering prnet
    """
    from typing import cast

    from densegen.face.model_file import read_model
    from densegen.index.formats.exchange import import_index
    from densegen.index.formats.numbers import Numbering
    from densegen.index.vertex_index import write_index

    check_output(out, source, ibug68, model_path, holds="vertex index")
    suffix = source.suffix.lower()
    refuse_unread(UNREAD_BY_IMPORT.get(suffix, ()), f"{suffix} files")
    counted, model = cast(Numbering | None, numbering), read_model(model_path)
    made = import_index(source, model, name, numbering=counted, ibug68=ibug68)
    if made.topology == model.topology:
        made.resolve(model)  # its numbers belong to the model
    write_index(made, out)
    say(f"{out}: {describe(made)}")


@index.command("export", short_help="Write an index as numbers, a table or a mesh.")
@click.argument("path", metavar="INDEX", type=PATH)
@click.argument("out", type=PATH)
@MODEL
@click.option("--whole-mesh", is_flag=True, help=".ply, .obj: the mean face, the landmarks' vertices coloured")
def export_file(path: Path, out: Path, model_path: Path, whole_mesh: bool) -> None:
    """Write an index to OUT: .txt (vertex ids), .csv, .npz, .json, .ply or .obj (the landmark mesh, in mm).

    \b
    reads    INDEX, --model
    writes   OUT
    example  densegen index export index.yaml landmarks.ply
    """
    from densegen.face.model_file import read_model
    from densegen.index.formats.exchange import export_index
    from densegen.index.vertex_index import read_index

    check_output(out, path, model_path)
    export_index(read_index(path), out, read_model(model_path), whole_mesh=whole_mesh)
    say(str(out))


@index.command("edit", short_help="Correct an index by hand, in a browser.")
@click.argument("path", metavar="[INDEX]", type=PATH, required=False)
@MODEL
@click.option("--corrections", type=PATH, default=Path("corrections.yaml"), show_default=True, help="file to save to")
@click.option(
    "--fits", type=PATH, help="folder of fits (*.mat) with their photographs: the sample faces [default: drawn ones]"
)
@click.option("--host", default="127.0.0.1", show_default=True, help="address to listen at; others can then edit, too")
@click.option("--port", default=8080, show_default=True, type=click.IntRange(1, 65535))
@click.option("--open", "opened", is_flag=True, help="show the page in this machine's browser")
def edit_index(
    path: Path | None,
    model_path: Path,
    corrections: Path,
    fits: Path | None,
    host: str,
    port: int,
    opened: bool,
) -> None:
    """Correct an index by hand on a page in the browser: click, move, add and delete landmarks on the 3D face.

    Saves a corrections file, never the index: 'densegen index correct INDEX corrections.yaml OUT' makes the next
    version.

    \b
    reads    INDEX, --model, --corrections, the fits in --fits
    writes   --corrections (YAML), and beside it .unsaved until it is saved
    example  densegen index edit --model bfm.safetensors --open
    """
    import numpy as np

    from densegen.editor.sample_faces import SampleFaces
    from densegen.editor.server import serve
    from densegen.editor.session import EditSession
    from densegen.face.model_file import read_model
    from densegen.files import only_one
    from densegen.index.quality import coefficient_spread

    model = read_model(model_path)
    std = coefficient_spread(fits, model) if fits else np.concatenate([model.shape_std, model.expression_std])
    faces = SampleFaces(model, std, fits)
    if corrections.is_dir():
        raise click.UsageError(f"--corrections {corrections} is a folder: name a file")
    busy = f"another page edits {corrections}: close it, or choose another --corrections"
    with only_one(corrections.resolve().parent, busy, name=f".{corrections.name}.lock"):
        session = EditSession.open(_read_index(path), model, corrections)
        serve(session, host, port, lambda line: say(line, err=True), faces, opened=opened)


def _read_index(path: Path | None) -> VertexIndex:
    from densegen.index.vertex_index import read_index

    return read_index(path)


def _quality_table(qualities: list[IndexQuality]) -> list[str]:
    def joined(values: tuple[float, ...], digits: int = 2) -> str:
        return " / ".join(f"{value:.{digits}f}" for value in values)

    rows: list[tuple[str, list[str]]] = [
        ("", [quality.name for quality in qualities]),
        ("landmarks", [str(quality.landmarks) for quality in qualities]),
        ("coverage, mm: largest / 99 % / mean", [joined(quality.coverage_mm) for quality in qualities]),
        ("spacing, mm: smallest / median", [joined(quality.spacing_mm) for quality in qualities]),
        (
            "spacing of added points, mm: smallest",
            [
                "-" if math.isnan(quality.added_spacing_mm) else f"{quality.added_spacing_mm:.2f}"
                for quality in qualities
            ],
        ),
        ("with a mirror partner", [f"{quality.mirrored} of {quality.landmarks}" for quality in qualities]),
        ("recovery, mm: identity / with expression", [joined(quality.recovery_mm, 3) for quality in qualities]),
        ("subsets", [" ".join(quality.subsets) or "-" for quality in qualities]),
    ]
    regions = list(dict.fromkeys(region for quality in qualities for region in quality.regions))
    rows += [(f"  {region}", [str(q.regions.get(region, 0)) for q in qualities]) for region in regions]
    widths = [max(len(cells[column]) for _, cells in rows) for column in range(len(qualities))]
    return [
        f"{title:42}" + "  ".join(f"{cell:>{width}}" for cell, width in zip(cells, widths, strict=True))
        for title, cells in rows
    ]
