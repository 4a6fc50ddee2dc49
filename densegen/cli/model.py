"""``densegen model``: make and look at a morphable model."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from densegen.console import ProgressBar, say
from densegen.outputs import check_output

if TYPE_CHECKING:
    from densegen.face.morphable_model import MorphableModel

__all__ = ["model"]

PATH = click.Path(path_type=Path)


@click.group()
def model() -> None:
    """Make and look at a morphable model."""


@model.command("build", short_help="Assemble the Basel model from its downloads.")
@click.argument("raw", type=PATH)
@click.argument("out", type=PATH)
def build_model(raw: Path, out: Path) -> None:
    """Assemble the Basel Face Model from the downloads in the folder RAW.

    Needs 01_MorphableModel.mat, model_info.mat, Model_Expression.mat, Model_tri_mouth.mat and BFM_UV.mat; a missing
    one is named with the place where users get it.

    \b
    reads    RAW/*.mat
    writes   OUT, a model file (.safetensors)
    example  densegen model build downloads bfm.safetensors
    """
    from densegen.face.basel import RAW_FILES, assemble_model
    from densegen.face.model_file import write_model

    check_output(out, kind=".safetensors")
    with ProgressBar("assembling", "files") as bar:
        bar.start(len(RAW_FILES))
        assembled = assemble_model(raw, bar.advance)
    _check_mirror(assembled)
    write_model(assembled, out)
    _describe(assembled)


@model.command("convert", short_help="Convert face3d's BFM.mat.")
@click.argument("bfm", type=PATH)
@click.option("--uv", "uv_path", type=PATH, required=True, help="BFM_UV.mat, 53215 rows")
@click.argument("out", type=PATH)
def convert_model_file(bfm: Path, uv_path: Path, out: Path) -> None:
    """Convert face3d's BFM.mat.

    \b
    reads    BFM and --uv (.mat)
    writes   OUT, a model file (.safetensors)
    example  densegen model convert BFM.mat --uv BFM_UV.mat bfm.safetensors
    """
    from densegen.face.basel import convert_model
    from densegen.face.model_file import write_model

    check_output(out, bfm, uv_path, kind=".safetensors")
    converted = convert_model(bfm, uv_path)
    _check_mirror(converted)
    write_model(converted, out)
    _describe(converted)


@model.command("info", short_help="Print what a model file holds.")
@click.argument("path", metavar="MODEL", type=PATH)
def model_info(path: Path) -> None:
    """Print counts, components, UV range, symmetry, memory and fingerprint.

    \b
    reads    MODEL
    writes   to standard output
    example  densegen model info bfm.safetensors
    """
    from densegen.face.model_file import read_model

    _describe(read_model(path))


def _check_mirror(model: MorphableModel) -> None:
    """Raise :class:`FormatError` if the UV layout is not symmetric, before a file is written."""
    _ = model.mirror


def _describe(model: MorphableModel) -> None:
    import numpy as np

    from densegen.face.morphable_model import BASEL_VERTICES, count_words
    from densegen.index.vertex_index import read_index

    # Half the way to the mirror image is the way to the symmetric face between them; where x = 0 lies is no matter.
    half_way = (model.mean[model.mirror] * [-1, 1, 1] - model.mean) / 2
    half_way -= half_way.mean(axis=0)
    asymmetry = float(np.linalg.norm(half_way, axis=1).mean()) * model.unit_mm
    midline = int((model.mirror == np.arange(model.vertex_count)).sum())
    low, high = model.uv.min(axis=0), model.uv.max(axis=0)
    extent = np.ptp(model.mean_mm, axis=0)
    rows = {
        "name": model.name,
        "vertices": count_words(model.vertex_count),
        "triangles": len(model.triangles),
        "shape components": len(model.shape_basis),
        "expression components": len(model.expression_basis),
        "mean face": f"{extent[0]:.1f} x {extent[1]:.1f} x {extent[2]:.1f} mm",
        "UV layout": f"{model.uv_layout}, u {low[0]:.4f} to {high[0]:.4f}, v {low[1]:.4f} to {high[1]:.4f}",
        "symmetry": f"mirror pairs every vertex, {midline} on the midline; mean asymmetry {asymmetry:.3f} mm",
        "bases in memory": f"{model.basis.nbytes / 2**20:.0f} MiB",
        "topology": model.topology,
        "fingerprint": model.fingerprint,
    }
    for name, value in rows.items():
        say(f"{name:22} {value}")
    if model.vertex_count == BASEL_VERTICES and model.topology != read_index().topology:
        say(
            "note: its triangles or its UV are not those that densegen's own index was made on: is the UV map upside "
            "down, or from elsewhere?",
            err=True,
        )
