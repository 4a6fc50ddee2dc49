"""Pictures of vertex indices: the UV plane, the face from three sides, sheets to print, differences, coverage."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from densegen.arrays import Float32, Mask
from densegen.drawing import REGION_COLOURS, as_label, save_figure
from densegen.face.morphable_model import MorphableModel
from densegen.face.regions import REGIONS
from densegen.files import replace_file
from densegen.geometry.renderer import rasterise, vertex_normals
from densegen.index.quality import IndexQuality, compare
from densegen.index.vertex_index import VertexIndex

__all__ = ["draw_coverage", "draw_difference", "draw_sheets", "draw_uv", "draw_views", "face_view"]

VIEWS = {"right side": 75.0, "front": 0.0, "left side": -75.0}
SHEETS = {
    "the whole face": (0, 255, 0, 210),
    "right brow and eye": (50, 128, 30, 80),
    "left brow and eye": (127, 205, 30, 80),
    "nose": (98, 157, 60, 122),
    "mouth": (98, 157, 115, 165),
    "forehead and temples": (0, 255, 0, 60),
    "right cheek and jaw": (0, 128, 80, 210),
    "left cheek and jaw": (127, 255, 80, 210),
}
"""Pages of the printed sheets: (first, last column, first, last row) of the UV map."""


def draw_uv(index: VertexIndex, path: Path) -> None:
    """The UV plane with every landmark in its region's colour, and its id."""
    figure = _figure(14, 12.5)
    axes = figure.subplots()
    _plot_uv(axes, index, size=6)
    axes.legend(loc="lower left", fontsize=9)
    axes.set_title(f"{as_label(index.name)} {index.version}: {len(index)} landmarks by region", fontsize=12)
    _save(figure, path)


def draw_views(index: VertexIndex, model: MorphableModel, path: Path) -> None:
    """The model's mean face from the right, the front and the left, with the landmarks that can be seen."""
    figure = _figure(15, 6.2)
    places = index.resolve(model)
    colours = np.array([REGION_COLOURS[landmark.region] for landmark in index.landmarks])
    for axes, (title, yaw) in zip(figure.subplots(1, 3), VIEWS.items(), strict=True):
        picture, points, seen = face_view(model, places.gather(model.mean), yaw)
        axes.imshow(picture, cmap="gray", vmin=0, vmax=255)
        axes.scatter(points[seen, 0], points[seen, 1], s=9, c=colours[seen], edgecolors="white", linewidths=0.3)
        axes.set_title(f"{title}: {int(seen.sum())} seen", fontsize=10)
        axes.set_axis_off()
    _save(figure, path)


def draw_sheets(index: VertexIndex, path: Path) -> None:
    """Numbered sheets to print, A4, one page a part of the face: a PDF."""
    from matplotlib.backends.backend_pdf import PdfPages

    with replace_file(path) as temporary, PdfPages(temporary, metadata={"CreationDate": None}) as pages:
        for title, (left, right, top, bottom) in SHEETS.items():
            figure = _figure(11.7, 8.3)
            axes = figure.subplots()
            _plot_uv(axes, index, size=5 if title == "the whole face" else 9)
            axes.set(xlim=(left, right), ylim=(bottom, top))
            axes.set_title(f"{as_label(index.name)} {index.version} · {title}", fontsize=12)
            axes.legend(loc="lower left", fontsize=7)
            pages.savefig(figure)


def draw_difference(old: VertexIndex, new: VertexIndex, path: Path) -> None:
    """The UV plane: what was removed (red), added (green), renamed (purple) and moved (an arrow)."""
    difference = compare(old, new)
    figure = _figure(12, 10.5)
    axes = figure.subplots()
    before, after = ({m.name: m.uv for m in index.landmarks} for index in (old, new))
    kept = [uv for name, uv in after.items() if before.get(name) == uv]
    groups: list[tuple[str, str, list[tuple[float, float]]]] = [
        (f"the same: {len(kept)}", "#bbbbbb", kept),
        ("removed", "#cc3311", [before[name] for name in difference.removed]),
        ("added", "#009944", [after[name] for name in difference.added]),
        ("renamed", "#8855aa", [after[name] for name in difference.renamed.values()]),
    ]
    for label, colour, points in groups:
        if points:
            note = label if ":" in label else f"{label}: {len(points)}"
            axes.plot(*np.array(points).T, ".", color=colour, markersize=9, label=note)
    moved = [(before[name], uv) for name, uv in after.items() if name in before and before[name] != uv]
    for start, end in moved:
        axes.annotate("", xy=end, xytext=start, arrowprops={"arrowstyle": "->", "color": "#0077bb"})
    axes.plot([], [], color="#0077bb", label=f"moved: {len(moved)}")
    _frame(axes)
    axes.legend(loc="lower left", fontsize=9)
    names = [f"{as_label(one.name)} {one.version}" for one in (old, new)]
    axes.set_title(" → ".join(names), fontsize=12)
    _save(figure, path)


def draw_coverage(qualities: list[IndexQuality], path: Path) -> None:
    """How far every place of the face is from its nearest landmark, and how dense each region is."""
    figure = _figure(4.4 * len(qualities) + 5.5, 4.6)
    panels = figure.subplots(1, len(qualities) + 1, width_ratios=[1.0] * len(qualities) + [1.2])
    shown = None
    for axes, quality in zip(panels[:-1], qualities, strict=True):
        shown = axes.imshow(quality.distance_mm, cmap="inferno", vmin=0, vmax=15)
        largest, percentile, mean = quality.coverage_mm
        axes.set_title(f"{as_label(quality.name)}\n{largest:.1f} / {percentile:.1f} / {mean:.2f} mm", fontsize=9)
        axes.set_axis_off()
    figure.colorbar(shown, ax=list(panels[:-1]), label="mm to the nearest landmark", shrink=0.7)
    axes = panels[-1]
    height = 0.8 / len(qualities)
    for number, quality in enumerate(qualities):
        positions = np.arange(len(REGIONS)) + (number - (len(qualities) - 1) / 2) * height
        spacing = [quality.region_spacing_mm.get(region, 0.0) for region in REGIONS]
        axes.barh(positions, spacing, height, label=as_label(quality.name))
    axes.set_yticks(np.arange(len(REGIONS)), REGIONS, fontsize=8)
    axes.invert_yaxis()
    axes.set_xlabel("median distance to the nearest neighbour, mm", fontsize=8)
    axes.legend(fontsize=7)
    _save(figure, path)


def face_view(model: MorphableModel, points: Float32, yaw_deg: float, size: int = 640) -> tuple[Float32, Float32, Mask]:
    """The mean face, turned and shaded, and where points of it are.

    points : (N, 3) float32, model frame
    returns : (size, size) float32 grey 0 to 255; (N, 2) pixels; (N,) bool, whether nothing hides the point
    """
    yaw = np.deg2rad(yaw_deg)
    turn = np.array([[np.cos(yaw), 0, np.sin(yaw)], [0, -1, 0], [-np.sin(yaw), 0, np.cos(yaw)]], np.float32)
    scale = 0.9 * size / float(np.ptp(model.mean, axis=0).max())
    vertices = model.mean @ turn.T * scale
    middle = (vertices.max(axis=0) + vertices.min(axis=0)) / 2
    offset = np.array([size / 2, size / 2, 0], np.float32) - middle * [1, 1, 0]
    vertices, placed = vertices + offset, points @ turn.T * scale + offset
    normals = vertex_normals(model.mean, model.outward_triangles) @ turn.T
    light = 40 + 200 * np.clip(normals @ np.array([0.3, -0.4, 0.87], np.float32), 0, 1)
    shaded, depth = rasterise(
        vertices.astype(np.float32), model.triangles, light[:, None].astype(np.float32), size, size
    )
    picture = np.where(np.isfinite(depth), shaded[..., 0], 255).astype(np.float32)
    columns, rows = np.rint(placed[:, :2]).astype(np.int64).clip(0, size - 1).T
    # Visible unless the surface lies in front of it by more than 2 % of the picture's width.
    seen = placed[:, 2] >= depth[rows, columns] - 0.02 * size
    return picture, placed[:, :2].astype(np.float32), seen


def _figure(width: float, height: float) -> Any:
    from matplotlib.figure import Figure

    return Figure(figsize=(width, height), layout="constrained")


def _save(figure: Any, path: Path) -> None:
    save_figure(figure, path, dpi=100)


def _frame(axes: Any) -> None:
    axes.set(xlim=(0, 255), ylim=(215, 0), aspect="equal", xlabel="UV column", ylabel="UV row")


def _plot_uv(axes: Any, index: VertexIndex, *, size: float) -> None:
    for region, colour in REGION_COLOURS.items():
        points = np.array([m.uv for m in index.landmarks if m.region == region]).reshape(-1, 2)
        if len(points):
            axes.plot(*points.T, "o", color=colour, markersize=size * 0.6, label=f"{region}: {len(points)}")
    _frame(axes)
    for landmark in index.landmarks:
        axes.annotate(
            str(landmark.id),
            landmark.uv,
            fontsize=size,
            xytext=(1.5, 1.5),
            textcoords="offset points",
            clip_on=True,
        )
