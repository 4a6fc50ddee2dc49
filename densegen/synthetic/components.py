"""What the procedural face can vary, component by component: soft displacements over the UV plane, each with a name."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from densegen.arrays import Float64
from densegen.face.regions import MIDLINE
from densegen.geometry.elementary import exponential
from densegen.geometry.uv import mirror_pixels

__all__ = ["EXPRESSIONS", "IDENTITY", "MEAN_DETAIL", "Component", "Part", "displacement", "lower_lip_share"]


@dataclass(frozen=True, slots=True)
class Part:
    """A soft displacement around one place of the right half or the midline; the left half gets its mirror image.

    at : (column, row) of the centre, UV pixels
    radius : (columns, rows), UV pixels, one standard deviation
    move_mm : (x, y, z) at the centre; x to the subject's left, so a negative x widens the face
    stretch : (x, y) relative growth away from ``(0, about_y_mm)``, for widths and lengths
    lips : ``"upper"`` or ``"lower"`` moves one side of the mouth alone, ``"jaw"`` turns the lower side about the jaw
        joint by as many radians as ``move_mm[1]`` says
    """

    at: tuple[float, float]
    radius: tuple[float, float]
    move_mm: tuple[float, float, float] = (0.0, 0.0, 0.0)
    stretch: tuple[float, float] = (0.0, 0.0)
    about_y_mm: float = 0.0
    lips: str = ""


@dataclass(frozen=True, slots=True)
class Component:
    """A named component; a coefficient of 1 applies ``parts`` once, ``std`` is how much faces vary in it."""

    name: str
    std: float
    parts: tuple[Part, ...]


JAW_JOINT_MM = (8.0, 12.0)  # y, z


def displacement(pixels: Float64, mean_mm: Float64, parts: tuple[Part, ...]) -> Float64:
    """The sum of ``parts``: (H, 2) UV pixels of the right half, (H, 3) mm -> (H, 3) mm."""
    total = np.zeros_like(mean_mm)
    for part in parts:
        falloff = _bump(pixels, part)
        # The mirrored bump overlaps this half near the midline: add that share.
        across = _bump(mirror_pixels(pixels), part) * (abs(part.at[0] - MIDLINE) > 1e-6)
        if part.lips == "jaw":
            y, z = mean_mm[:, 1] - JAW_JOINT_MM[0], mean_mm[:, 2] - JAW_JOINT_MM[1]
            turn = (falloff * lower_lip_share(pixels) * part.move_mm[1])[:, None]
            total += turn * np.stack([np.zeros_like(y), -z, y], axis=1)
            continue
        below = lower_lip_share(pixels)
        side = below if part.lips == "lower" else 1 - below if part.lips == "upper" else np.ones_like(below)
        move = np.array(part.move_mm)
        total += (falloff * side)[:, None] * move + (across * side)[:, None] * (move * [-1, 1, 1])
        total[:, 0] += (falloff + across) * side * part.stretch[0] * mean_mm[:, 0]
        total[:, 1] += (falloff + across) * side * part.stretch[1] * (mean_mm[:, 1] - part.about_y_mm)
    return total


def _bump(pixels: Float64, part: Part) -> Float64:
    away = (pixels - part.at) / part.radius
    return exponential(np.maximum(-0.5 * (away[:, 0] ** 2 + away[:, 1] ** 2), -700))


def lower_lip_share(pixels: Float64) -> Float64:
    """How far a UV position belongs to the lower lip and jaw: 0 above the mouth, 1 below it, (H, 2) -> (H,).

    In the middle of the mouth the change happens between the lips; towards its corners, and beyond them over the
    cheek, it widens, so that an open mouth is an oval.
    """
    away = np.abs(pixels[:, 0] - MIDLINE)
    upper = np.interp(away, [0, 5.1, 17.4], [134.5, 135.0, 141.0])
    lower = np.interp(away, [0, 5.1, 17.4], [142.2, 143.1, 141.6])
    reach = 8 + 0.35 * away
    corner = np.clip(away / 18, 0, 1) ** 2
    row = pixels[:, 1]
    lips = _smooth_step((row - upper) / (lower - upper))
    cheek = _smooth_step((row - 141 + reach) / (2 * reach))
    share: Float64 = (1 - corner) * lips + corner * cheek
    return share


def _smooth_step(share: Float64) -> Float64:
    share = np.clip(share, 0, 1)
    smooth: Float64 = share * share * (3 - 2 * share)
    return smooth


WIDE = (400.0, 400.0)

MEAN_DETAIL: tuple[Part, ...] = (
    Part((113, 103), (4.5, 5), (-2.2, 0, 1.5)),  # wings of the nose
    Part((111.5, 110.5), (2.2, 2.6), (0, 0, -2.0)),  # their crease
    Part((122.5, 111.8), (2.0, 1.2), (0, 0.8, -3.0)),  # nostrils
    Part((127.5, 96), (7, 6), (0, 0, 1.5)),  # tip of the nose
    Part((91.5, 64.5), (6.5, 3.6), (0, 0, 2.6)),  # eyeballs
    Part((91, 54.5), (11, 2.2), (0, 0, -2.6)),  # fold of the upper lid
    Part((91, 74), (12, 3.5), (0, 0, -1.6)),  # below the lower lid
    Part((105, 66), (4, 5), (0, 0, -2.5)),  # inner corner of the eye
    Part((84, 41), (17, 3.2), (0, 0, 1.6)),  # ridge of the brows
    Part((118, 131.5), (9, 2.2), (0, 0, 1.6), lips="upper"),
    Part((120, 146.5), (9, 2.2), (0, 0, 2.2), lips="lower"),
    Part((127.5, 123), (2.2, 4), (0, 0, -1.2)),  # groove of the upper lip
    Part((127.5, 155), (12, 2.8), (0, 0, -1.8)),  # below the lower lip
)

IDENTITY: tuple[Component, ...] = (
    Component("face-width", 1.0, (Part((MIDLINE, 100), WIDE, stretch=(0.05, 0)),)),
    Component("face-length", 1.0, (Part((MIDLINE, 100), WIDE, stretch=(0, 0.045), about_y_mm=15),)),
    Component("face-depth", 1.0, (Part((MIDLINE, 95), (60, 70), (0, 0, 3.5)),)),
    Component("jaw-width", 1.0, (Part((MIDLINE, 180), (110, 24), stretch=(0.09, 0)),)),
    Component("chin-length", 1.0, (Part((MIDLINE, 185), (40, 16), (0, -4.0, 0)),)),
    Component("chin-forward", 1.0, (Part((MIDLINE, 178), (22, 11), (0, 0, 3.5)),)),
    Component("forehead-height", 1.0, (Part((MIDLINE, 4), (130, 20), (0, 4.0, -1.5)),)),
    Component("forehead-slope", 1.0, (Part((MIDLINE, 15), (60, 16), (0, 0, 3.0)),)),
    Component("cheekbones", 1.0, (Part((62, 88), (16, 14), (-2.2, 0, 2.2)),)),
    Component("cheek-fullness", 1.0, (Part((68, 135), (18, 18), (-3.0, 0, 3.0)),)),
    Component("brow-height", 1.0, (Part((86, 42), (22, 6), (0, 1.8, 0)),)),
    Component("brow-ridge", 1.0, (Part((90, 45), (22, 6), (0, 0, 2.0)),)),
    Component("eye-distance", 1.0, (Part((91, 64), (17, 12), (-1.6, 0, 0)),)),
    Component("eye-opening", 1.0, (
        Part((91, 59.5), (9, 2.6), (0, 0.8, 0)), Part((91, 69), (9, 2.2), (0, -0.4, 0)))),
    Component("eye-slant", 1.0, (Part((76, 66), (6, 6), (0, 1.1, 0)), Part((103, 66), (5, 6), (0, -0.6, 0)))),
    Component("eye-depth", 1.0, (Part((92, 64), (16, 9), (0, 0, -2.0)),)),
    Component("nose-length", 1.0, (Part((MIDLINE, 104), (14, 12), (0, -2.6, 0.6)),)),
    Component("nose-width", 1.0, (Part((MIDLINE, 106), (16, 9), stretch=(0.14, 0)),)),
    Component("nose-bridge", 1.0, (Part((MIDLINE, 76), (7, 12), (0, 0, 2.2)),)),
    Component("nose-tip", 1.0, (Part((MIDLINE, 97), (9, 8), (0, 0.6, 2.6)),)),
    Component("mouth-width", 1.0, (Part((MIDLINE, 141), (24, 11), stretch=(0.1, 0)),)),
    Component("mouth-height", 1.0, (Part((MIDLINE, 141), (34, 15), (0, 1.8, 0)),)),
    Component("upper-lip", 1.0, (Part((118, 129), (11, 3.4), (0, 1.0, 0.9), lips="upper"),)),
    Component("lower-lip", 1.0, (Part((119, 149), (11, 3.6), (0, -1.1, 1.0), lips="lower"),)),
)  # fmt: skip
"""Components of identity; one coefficient of each is a face's share of it, in standard deviations."""

EXPRESSIONS: tuple[Component, ...] = (
    Component("mouth-open", 0.35, (Part((MIDLINE, 160), (90, 60), (0, 0.28, 0), lips="jaw"),)),
    Component("smile", 0.4, (
        Part((109, 141.5), (8, 6), (-6.5, 5.0, -4.5)), Part((84, 118), (14, 14), (-1.6, 3.0, 2.4)),
        Part((118, 134), (8, 4), (-1.0, 1.0, -1.5), lips="upper"),
        Part((118, 147), (8, 4), (-1.0, 0.8, -1.5), lips="lower"))),
    Component("frown", 0.35, (
        Part((109, 142.5), (7, 6), (0.5, -5.0, -0.5)), Part((MIDLINE, 156), (14, 6), (0, 1.2, 0.6)))),
    Component("pucker", 0.35, (
        Part((109, 141.5), (8, 7), (6.0, 0, 4.5)), Part((MIDLINE, 131), (11, 5), (0, 0, 4.5), lips="upper"),
        Part((MIDLINE, 148), (11, 5), (0, 0, 4.5), lips="lower"))),
    Component("lips-apart", 0.3, (
        Part((119, 131), (11, 6), (0, 2.2, 0), lips="upper"), Part((119, 147), (11, 6), (0, -2.6, 0), lips="lower"))),
    Component("brow-raise", 0.45, (Part((86, 41), (23, 8), (0, 5.5, 0.6)), Part((91, 54), (13, 4), (0, 1.6, 0)))),
    Component("brow-furrow", 0.4, (Part((104, 43), (10, 7), (2.2, -3.2, 1.0)),)),
    Component("inner-brow-raise", 0.35, (Part((106, 42), (8, 7), (0.4, 4.2, 0.4)),)),
    Component("blink", 0.4, (Part((91, 58.5), (10, 3.2), (0, -6.6, 1.2)), Part((91, 69.5), (9, 2.0), (0, 0.7, 0.2)))),
    Component("squint", 0.35, (
        Part((91, 70), (12, 3.4), (0, 1.9, 0.6)), Part((91, 59), (10, 2.6), (0, -1.4, 0.3)),
        Part((82, 82), (14, 8), (0, 1.6, 1.2)))),
    Component("nose-wrinkle", 0.35, (
        Part((112, 104), (7, 8), (-0.9, 2.6, 1.0)), Part((113, 72), (7, 8), (0, 0.8, 1.0)))),
    Component("cheek-puff", 0.3, (Part((84, 140), (15, 13), (-3.5, 0, 5.0)),)),
)  # fmt: skip
"""Components of expression; a coefficient of 1 is the expression in full, 0 the neutral face."""
