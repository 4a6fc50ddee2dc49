"""The dataset card: a README beside the shards with counts, a yaw histogram and a contact sheet of overlays."""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path

import numpy as np

from densegen.arrays import Float64, Image
from densegen.console import as_markdown, counted, front_matter, one_line
from densegen.conventions import FRAMES, SPLITS, YAW_EDGES_DEG
from densegen.dataset.build_record import EDGE_SHARE, DatasetManifest, Reject
from densegen.dataset.row_reader import RowReader, ShardPlace
from densegen.dataset.sample_index import SampleIndex
from densegen.drawing import contact_sheet, depth_colours, draw_points, save_figure, with_depth_bar, write_png
from densegen.files import write_text
from densegen.geometry.pose import yaw_degrees
from densegen.index.vertex_index import VertexIndex
from densegen.sources.manifest import Manifest

__all__ = ["CONTACT_SHEET", "HUB_FIELDS", "REJECTS", "YAW_HISTOGRAM", "format_rejects", "write_card"]

CONTACT_SHEET = "contact_sheet.png"
YAW_HISTOGRAM = "yaw.png"
REJECTS = "rejected.csv"
HUB_FIELDS = {
    "license": "other",
    "task_categories": ["keypoint-detection"],
    "tags": ["face", "3d-face-landmarks", "dense-landmarks", "densegen"],
}
"""What a card's front matter says of every dataset."""
SHEET_COLUMNS, SHEET_ROWS = 4, 3


def format_rejects(rejects: list[Reject]) -> str:
    """The text of ``rejected.csv``: one fit a line, in the dataset's order."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["sample_id", "image", "reason", "message"])
    writer.writerows([reject.sample_id, reject.image, reject.reason, one_line(reject.message)] for reject in rejects)
    return text.getvalue()


def write_card(
    out: Path,
    dataset: Manifest,
    manifest: DatasetManifest,
    samples: SampleIndex,
    index: VertexIndex,
    model_name: str,
) -> None:
    """Write ``README.md`` and its two pictures into the folder of a finished build."""
    yaw = np.abs(yaw_degrees(samples.pose))
    splits = {name: int((samples.split == n).sum()) for n, name in enumerate(SPLITS) if (samples.split == n).any()}
    groups = {name: len(np.unique(samples.group[samples.split == SPLITS.index(name)])) for name in splits}
    _draw_histogram(yaw, out / YAW_HISTOGRAM)
    places = samples.places(out, manifest.filled, 0)
    write_png(with_depth_bar(contact_sheet(_tiles(places, manifest.samples), SHEET_COLUMNS)), out / CONTACT_SHEET)
    write_text(out / "README.md", _text(dataset, manifest, index, model_name, yaw, splits, groups))


def _draw_histogram(yaw: Float64, path: Path) -> None:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(6, 2.6), layout="constrained")
    axes = figure.subplots()
    last = max(95, 5 * math.ceil(float(yaw.max()) / 5))
    axes.hist(yaw, bins=list(range(0, last + 1, 5)), color="#4477aa", edgecolor="white")
    for edge in YAW_EDGES_DEG[1:-1]:
        axes.axvline(edge, color="#cc3311", linewidth=1)
    axes.set(xlabel="|yaw| in degrees", ylabel="samples", xlim=(0, last))
    save_figure(figure, path, dpi=120)


def _tiles(places: Sequence[ShardPlace], samples: int) -> list[Image]:
    """Overlays of samples spread evenly over the dataset; neighbours in the file are often one photograph."""
    count = min(SHEET_COLUMNS * SHEET_ROWS, samples)
    wanted = sorted({round(position) for position in np.linspace(0, samples - 1, count)})
    reader = RowReader(places)
    pairs = [(reader.image(number), reader.landmarks(number)) for number in wanted]
    reader.close()
    return [draw_points(image, points, depth_colours(points), scale=2, radius=2.2, rim=1.0) for image, points in pairs]


def _text(
    dataset: Manifest,
    manifest: DatasetManifest,
    index: VertexIndex,
    model_name: str,
    yaw: Float64,
    splits: dict[str, int],
    groups: dict[str, int],
) -> str:
    configuration = manifest.configuration
    settings = configuration.settings
    expected = sum(dataset.expected_fits(settings.flip).values())
    bins = [int(((yaw > low if low else yaw >= 0) & (yaw <= high)).sum()) for low, high in pairwise(YAW_EDGES_DEG)]
    bins[-1] += int((yaw > YAW_EDGES_DEG[-1]).sum())
    rows = [f"| {name} | {splits[name]:,} | {groups[name]:,} |" for name in sorted(splits)]
    frames = [f"- **{name}**: {text}" for name, text in FRAMES.items()]
    head = front_matter(pretty_name=f"{one_line(dataset.title)}: dense face landmarks", **HUB_FIELDS)
    return f"""{head}
# {as_markdown(dataset.title)}: {manifest.landmarks} dense 3D landmarks

{manifest.samples:,} samples of a {configuration.crop.size}x{configuration.crop.size} image and \
{manifest.landmarks}x3 landmarks in {counted(len(manifest.shards), "HDF5 shard")}, {manifest.bytes / 1e6:,.1f} MB.
Made by densegen {configuration.densegen_version} from {configuration.fits:,} fits \
(the complete dataset has {expected:,}); {manifest.rejected_fits:,} were set aside, see `rejected.csv`.
Flips: {settings.flip}. Seed: {settings.seed}. Position maps: {"yes" if settings.position_maps else "no"}.
Crops of which more than {EDGE_SHARE:.0%} lies outside of the photograph, and is black: \
{100 * manifest.edges / manifest.samples:.1f} %.

| split | samples | source photographs |
|---|---|---|
{chr(10).join(rows)}

| yaw | 0-30 | 30-60 | 60-90 |
|---|---|---|---|
| samples | {bins[0]:,} | {bins[1]:,} | {bins[2]:,} |

![|yaw| of the samples]({YAW_HISTOGRAM})

![Samples with their landmarks, coloured by depth]({CONTACT_SHEET})

## Frames
{chr(10).join(frames)}

## Provenance
- vertex index {as_markdown(index.name)} {index.version}, fingerprint `{configuration.vertex_index}`
- morphable model {as_markdown(model_name)}, fingerprint `{configuration.model}`
- every shard's SHA-256 stands in `manifest.json`; `densegen verify` checks them

## Licence
{as_markdown(dataset.licence)}

## Citation
{as_markdown(dataset.citation)}
"""
