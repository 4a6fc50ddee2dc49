"""Landmarks drawn on images, as arrays."""

from __future__ import annotations

import io
import warnings
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from densegen.arrays import Float32, Float64, Image, UInt8
from densegen.face.regions import REGIONS
from densegen.files import replace_file, write_bytes

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = [
    "KEYPOINT_COLOUR",
    "REGION_COLOURS",
    "as_label",
    "contact_sheet",
    "depth_colours",
    "draw_lines",
    "draw_points",
    "png_bytes",
    "save_figure",
    "sigma_colours",
    "with_depth_bar",
    "write_png",
]

SOFTWARE = ("Software", "densegen")
"""In every PNG that is written; by it the file may be replaced again (``outputs``)."""

KEYPOINT_COLOUR = (255, 255, 255)
RIM_COLOUR = np.array([25, 25, 25], np.uint8)
BAR_PX = 26

REGION_COLOURS = dict(
    zip(
        REGIONS,
        ["#1f77b4", "#17becf", "#ff7f0e", "#8c564b", "#2ca02c", "#7fbf3f", "#d62728", "#ff9896", "#9467bd", "#c5a3e0",
         "#7f7f7f", "#bcbd22"],
        strict=True,
    )
)  # fmt: skip
"""A colour a region, the same in every picture and on the page."""


def draw_points(
    image: Image, points: Float32, colours: npt.ArrayLike, *, scale: int = 2, radius: float = 1.6, rim: float = 0.0
) -> Image:
    """The image enlarged ``scale`` times with a disc at every point.

    image : (H, W, 3) uint8
    points : (N, 2) or (N, 3) float32, pixels, frame of ``image``; points outside the image are allowed
    colours : (3,) or (N, 3) uint8, RGB
    scale : pixels of the result per pixel of ``image``
    radius : of the discs, in pixels of the result
    rim : width of a dark ring around each disc, in pixels of the result: it is seen on skin of any colour
    """
    canvas = np.repeat(np.repeat(image, scale, axis=0), scale, axis=1)
    colour = np.broadcast_to(np.asarray(colours, np.uint8), (len(points), 3))
    places = (points[:, :2].astype(np.float64) + 0.5) * scale - 0.5
    shown = (np.abs(places) < 2 * max(canvas.shape[:2])).all(axis=1)  # NaN is not
    if rim:
        _draw_discs(canvas, places[shown], np.broadcast_to(RIM_COLOUR, (int(shown.sum()), 3)), radius + rim)
    _draw_discs(canvas, places[shown], colour[shown], radius)
    return canvas


def _draw_discs(canvas: Image, places: Float64, colours: npt.NDArray[np.uint8], radius: float) -> None:
    height, width = canvas.shape[:2]
    reach = int(np.ceil(radius)) + 1
    offsets = np.mgrid[-reach : reach + 1, -reach : reach + 1].reshape(2, -1).T
    for (x, y), rgb in zip(places, colours, strict=True):
        pixels = offsets + [round(float(y)), round(float(x))]
        near = np.hypot(pixels[:, 0] - y, pixels[:, 1] - x) <= radius
        inside = ((pixels >= 0) & (pixels < [height, width])).all(axis=1)
        rows, columns = pixels[near & inside].T
        canvas[rows, columns] = rgb


def draw_lines(image: Image, starts: Float32, ends: Float32, colour: tuple[int, int, int], *, scale: int = 2) -> Image:
    """The image enlarged ``scale`` times with a line from each start to its end, (P, 2 or 3), pixels of ``image``."""
    from PIL import Image, ImageDraw

    canvas = Image.fromarray(np.repeat(np.repeat(image, scale, axis=0), scale, axis=1))
    pen = ImageDraw.Draw(canvas)
    for ends_of_line in np.stack([starts[:, :2], ends[:, :2]], axis=1).astype(np.float64):
        if np.isfinite(ends_of_line).all():
            pen.line([tuple(point) for point in (ends_of_line + 0.5) * scale - 0.5], fill=colour, width=2)
    return np.asarray(canvas, np.uint8)


def with_depth_bar(image: Image) -> Image:
    """The image above a bar of the colours of :func:`depth_colours`, with ``far`` and ``near`` at its ends."""
    from PIL import Image, ImageDraw

    height, width = image.shape[:2]
    canvas = Image.new("RGB", (width, height + BAR_PX), (255, 255, 255))
    canvas.paste(Image.fromarray(image))
    bar = depth_colours(np.linspace([0, 0, 0], [0, 0, 1], 256, dtype=np.float32))
    long = min(300, width // 2)
    strip = Image.fromarray(np.broadcast_to(bar, (BAR_PX // 2, 256, 3)).astype(np.uint8)).resize((long, BAR_PX // 2))
    left, top = (width - long) // 2, height + BAR_PX // 4
    canvas.paste(strip, (left, top))
    pen = ImageDraw.Draw(canvas)
    pen.text((left - 6, top), "far", fill=(0, 0, 0), anchor="ra")
    pen.text((left + long + 6, top), "near", fill=(0, 0, 0), anchor="la")
    return np.asarray(canvas, np.uint8)


def depth_colours(points: Float32) -> UInt8:
    """Colours by depth: red for the largest z (near), blue for the smallest (far).

    points : (N, 3) float32, any frame whose z points to the viewer
    returns : (N, 3) uint8, RGB
    """
    from matplotlib import colormaps

    z = points[:, 2]
    share = (z - z.min()) / max(float(np.ptp(z)), 1e-6)
    # Both ends of the map are nearly black: without them.
    return np.asarray(colormaps["turbo"](0.1 + 0.8 * share)[:, :3] * 255, np.uint8)


UNSURE = 0.08
"""Share of a face's size at which a landmark has the last colour of :func:`sigma_colours`."""


def sigma_colours(shares: Float64) -> UInt8:
    """Colours by uncertainty: green for a sigma of 0, yellow for 4 % of the face's size, red from 8 % on.

    shares : (N,) float64, standard deviations by the face's size
    returns : (N, 3) uint8, RGB
    """
    from matplotlib import colormaps

    return np.asarray(colormaps["RdYlGn_r"](np.clip(shares / UNSURE, 0, 1))[:, :3] * 255, np.uint8)


def contact_sheet(tiles: list[Image], columns: int) -> Image:
    """Tiles of equal size, row by row, on black."""
    height, width = tiles[0].shape[:2]
    rows = -(-len(tiles) // columns)
    sheet = np.zeros((rows * height, min(columns, len(tiles)) * width, 3), np.uint8)
    for number, tile in enumerate(tiles):
        row, column = divmod(number, columns)
        sheet[row * height : (row + 1) * height, column * width : (column + 1) * width] = tile
    return sheet


def png_bytes(image: Image) -> bytes:
    """An (H, W, 3) uint8 image as a PNG file."""
    from PIL import Image, PngImagePlugin

    buffer, about = io.BytesIO(), PngImagePlugin.PngInfo()
    about.add_text(*SOFTWARE)
    Image.fromarray(image).save(buffer, format="PNG", optimize=False, pnginfo=about)
    return buffer.getvalue()


def as_label(text: str) -> str:
    """Text that matplotlib takes neither for a formula nor, in a legend, for what shall not be seen."""
    text = text.replace("$", r"\$")
    return f"\N{ZERO WIDTH SPACE}{text}" if text.startswith("_") else text


def save_figure(figure: Figure, path: Path, *, dpi: int = 110) -> None:
    """Write a matplotlib figure as PNG, whole or not at all; letters that its font lacks are boxes, not warnings."""
    with replace_file(path) as temporary, warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Glyph .* missing from")
        figure.savefig(temporary, format="png", dpi=dpi, metadata=dict([SOFTWARE]))


def write_png(image: Image, path: Path) -> None:
    """Write an (H, W, 3) uint8 image as PNG, whole or not at all."""
    write_bytes(path, png_bytes(image))
