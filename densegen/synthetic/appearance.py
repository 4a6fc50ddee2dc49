"""Skin, lips, brows, eyes, hair and backgrounds: how a procedural face looks, from a few random numbers."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
import numpy.typing as npt

from densegen.arrays import Float32, Float64
from densegen.conventions import UV_SIZE
from densegen.geometry.elementary import exponential, sine_cosine, sine_cosine_array
from densegen.geometry.kernels import kernel
from densegen.geometry.uv import mirror_pixels
from densegen.ibug68 import INNER_LIPS, OUTER_LIPS, RIGHT_BROW, RIGHT_EYE
from densegen.synthetic.face import keypoint_pixels

__all__ = ["Appearance", "background", "random_appearance", "texture"]

TEXTURE_SIZE = 512

SKIN_TONES = ((236, 196, 176), (224, 178, 150), (205, 155, 120), (172, 120, 86), (128, 84, 58), (88, 58, 42))
HAIR = ((28, 22, 20), (52, 36, 26), (88, 60, 38), (140, 104, 62), (184, 152, 104), (96, 92, 92))
IRISES = ((70, 44, 26), (92, 66, 36), (84, 102, 62), (80, 112, 142), (108, 122, 128))


@dataclass(frozen=True, eq=False)
class Appearance:
    """What one person looks like; colours are (3,) float32 RGB, 0 to 255."""

    skin: Float32
    lips: Float32
    brows: Float32
    iris: Float32
    hair: Float32
    clothes: Float32
    hairline: float
    redness: float
    freckles: float
    stubble: float
    noise_seed: int


def random_appearance(generator: np.random.Generator) -> Appearance:
    """A person, from a generator."""
    tone = generator.uniform(0, len(SKIN_TONES) - 1)
    low = int(tone)
    tones = np.array(SKIN_TONES, np.float32)
    skin = tones[low] + (tone - low) * (tones[min(low + 1, len(tones) - 1)] - tones[low])
    skin = skin * generator.uniform(0.93, 1.05, 3)
    redder = np.array([generator.uniform(0.85, 1.0), generator.uniform(0.55, 0.75), generator.uniform(0.58, 0.8)])
    hair = np.array(HAIR[generator.integers(len(HAIR) if tone < 3 else 2)], np.float32)
    return Appearance(
        skin=skin.astype(np.float32),
        lips=(skin * redder).astype(np.float32),
        brows=(0.75 * hair + 0.1 * skin).astype(np.float32),
        iris=np.array(IRISES[generator.integers(len(IRISES) if tone < 3 else 2)], np.float32),
        hair=(hair * generator.uniform(0.8, 1.2)).astype(np.float32),
        clothes=_muted(generator),
        hairline=float(generator.uniform(-4, 8)),
        redness=float(generator.uniform(0, 1)),
        freckles=float(max(0.0, generator.uniform(-1.5, 1))),
        stubble=float(max(0.0, generator.uniform(-1.2, 0.8))),
        noise_seed=int(generator.integers(2**31)),
    )


@lru_cache(maxsize=2)
def texture(person: Appearance) -> Float32:
    """The surface over the UV plane: (TEXTURE_SIZE, TEXTURE_SIZE, 4) float32, read-only: albedo, RGB, 0 to 255, and the
    share that it shines with.

    Half of a portrait's time, so it is kept for the next portrait of the same person.
    """
    masks = _masks()
    generator = np.random.default_rng(person.noise_seed)
    albedo = np.broadcast_to(person.skin, (TEXTURE_SIZE, TEXTURE_SIZE, 3)).copy()
    mottle = _noise(generator, TEXTURE_SIZE, (6, 14, 40, 120), (0.5, 0.5, 0.35, 0.35))
    albedo *= 1 + 0.035 * mottle[..., None]
    red = np.array([1.04, 0.86, 0.86], np.float32)
    albedo = _blend(albedo, albedo * red, masks["cheeks"] * (0.3 + 0.7 * person.redness))
    albedo = _blend(albedo, albedo * 0.82, masks["sockets"])
    if person.freckles > 0:
        spots = np.clip(_noise(generator, TEXTURE_SIZE, (130,), (1.0,)) - 1.1, 0, 1) * masks["cheeks"]
        albedo = _blend(albedo, albedo * [0.7, 0.62, 0.55], np.clip(1.5 * spots * person.freckles, 0, 0.8))
    if person.stubble > 0:
        grain = np.clip(0.6 + 0.4 * _noise(generator, TEXTURE_SIZE, (250,), (1.0,)), 0, 1)
        albedo = _blend(albedo, 0.5 * albedo + 0.3 * person.hair, masks["beard"] * grain * 0.7 * person.stubble)
    lip_grain = 1 + 0.05 * _noise(generator, TEXTURE_SIZE, (90,), (1.0,))[..., None]
    albedo = _blend(albedo, person.lips * lip_grain, masks["lips"])
    albedo = _blend(albedo, np.array([58, 22, 22], np.float32), masks["mouth"])
    albedo = _blend(albedo, np.array([222, 214, 200], np.float32), masks["teeth"])
    strands = np.clip(0.75 + 0.45 * _noise(generator, TEXTURE_SIZE, (110,), (1.0,)), 0, 1)
    albedo = _blend(albedo, person.brows, masks["brows"] * strands * 0.9)
    rows, away = masks["rows"], masks["away"]
    line = 10 + person.hairline + 1.5 * _noise(generator, TEXTURE_SIZE, (60,), (1.0,))
    # The hair grows down in front of the ears.
    line = np.maximum(line, 92 - 4.2 * np.maximum(away - 4, 0))
    fringe = np.clip((line - rows) / 4 + 0.5, 0, 1).astype(np.float32)
    waves = 0.85 + 0.2 * _noise(generator, TEXTURE_SIZE, (70,), (1.0,))[..., None]
    albedo = _blend(albedo, person.hair * waves, fringe)
    albedo = _blend(albedo, np.array([228, 222, 216], np.float32), masks["eyes"])
    albedo = _blend(albedo, person.iris * (0.8 + 0.5 * masks["iris-ring"][..., None]), masks["irises"])
    albedo = _blend(albedo, np.array([12, 10, 10], np.float32), masks["pupils"])
    albedo = _blend(albedo, np.array([250, 250, 250], np.float32), masks["glints"])
    albedo = _blend(albedo, 0.35 * person.skin * [0.9, 0.7, 0.7], masks["lashes"])
    albedo = _blend(albedo, 0.45 * person.skin * [1.0, 0.75, 0.7], masks["nostrils"])
    shine = 1 - 0.9 * np.maximum(fringe, masks["brows"])  # hair is matte
    result: Float32 = np.concatenate([np.clip(albedo, 0, 255), shine[..., None]], axis=2, dtype=np.float32)
    result.flags.writeable = False
    return result


def background(generator: np.random.Generator, height: int, width: int) -> Float32:
    """(H, W, 3) float32, 0 to 255: a gradient, blurred lights, bands or a rough surface."""
    base, other = (_muted(generator) for _ in range(2))
    kind = generator.integers(4)
    rows, columns = np.mgrid[0:height, 0:width].astype(np.float32)
    if kind == 0:  # a gradient across the picture
        sine, cosine = sine_cosine(generator.uniform(0, 2 * np.pi))
        share = (cosine * columns / width + sine * rows / height + 1) / 2.5
    elif kind == 1:  # lights out of focus
        share = np.zeros((height, width), np.float32)
        for _ in range(int(generator.integers(8, 25))):
            x, y, r = generator.uniform(0, width), generator.uniform(0, height), generator.uniform(12, 60)
            edge = np.clip((_distance(columns - x, rows - y) - r) / 3, -30, 30)
            share = np.maximum(share, generator.uniform(0.3, 1) / (1 + exponential(edge)))
    elif kind == 2:  # bands: shelves, curtains, fences
        angle, period = generator.choice([0.0, np.pi / 2]), generator.uniform(20, 120)
        phase = (columns if angle == 0 else rows) / period * 2 * np.pi
        waves, _ = sine_cosine_array(phase + generator.uniform(0, 6))
        share = 1 / (1 + exponential(-6 * waves))
    else:  # foliage, plaster
        noise = _noise(generator, max(height, width), (3, 8, 25, 70), (1, 0.7, 0.5, 0.4))[:height, :width]
        share = 1 / (1 + exponential(-1.5 * noise))
    picture = base + np.clip(share, 0, 1)[..., None] * (other - base)
    grain = _noise(generator, max(height, width), (40, 150), (0.6, 0.6))[:height, :width, None]
    picture += generator.uniform(1, 8) * grain
    result: Float32 = np.clip(picture, 0, 255).astype(np.float32)
    return result


def _distance(across: npt.NDArray[Any], down: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """The length of (across, down); ``hypot`` is the C library's, whose last bit differs between processors."""
    length: npt.NDArray[Any] = np.sqrt(across * across + down * down)
    return length


def _muted(generator: np.random.Generator) -> Float32:
    colour = generator.uniform(15, 240, 3)
    muted: Float32 = (colour + generator.uniform(0.2, 0.9) * (colour.mean() - colour)).astype(np.float32)
    return muted


def _blend(under: Float32, over: npt.ArrayLike, share: npt.NDArray[np.floating]) -> Float32:
    """``under + (over - under) share``, (H, W, 3) float32; features are small, so only in the box around the share."""
    over, mixed = np.broadcast_to(over, under.shape), under.copy()
    rows, columns = np.flatnonzero(share.any(axis=1)), np.flatnonzero(share.any(axis=0))
    if len(rows):
        box = np.s_[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
        mixed[box] = under[box] + (over[box] - under[box]) * share[box][..., None]
    return mixed


def _noise(
    generator: np.random.Generator, size: int, frequencies: tuple[int, ...], weights: tuple[float, ...]
) -> Float32:
    """(size, size) float32 smooth noise of about unit spread: a few octaves of interpolated random grids."""
    total = np.zeros((size, size), np.float32)
    for frequency, weight in zip(frequencies, weights, strict=True):
        grid = generator.normal(size=(frequency + 3, frequency + 3)).astype(np.float32)
        _add_stretched(
            total, grid, (frequency + 2) / (round((frequency + 3) * size / frequency) - 1), np.float32(weight)
        )
    return total


@kernel
def _add_stretched(total: Any, grid: Any, step: float, weight: Any) -> None:
    """Add ``weight`` times the bilinear values of a grid, a pixel being ``step`` of its cells, to an image."""
    height, width = total.shape
    for row in range(height):
        i, down = int(row * step), row * step - int(row * step)
        for column in range(width):
            j, across = int(column * step), column * step - int(column * step)
            value = np.float64(grid[i, j]) * (1 - down) * (1 - across)
            value += np.float64(grid[i, j + 1]) * (1 - down) * across
            value += np.float64(grid[i + 1, j]) * down * (1 - across)
            value += np.float64(grid[i + 1, j + 1]) * down * across
            total[row, column] += weight * np.float32(value)


def _blur(mask: Float32, sigma: float) -> Float32:
    """A Gaussian blur, cut off at four sigma; SciPy's own takes its weights from NumPy's exponential."""
    from scipy.ndimage import correlate1d

    reach = int(4 * sigma + 0.5)
    weights = exponential(-0.5 * (np.arange(-reach, reach + 1) / sigma) ** 2)
    weights /= weights.sum()
    blurred: Float32 = correlate1d(correlate1d(mask, weights, axis=0), weights, axis=1)
    return blurred


@lru_cache(maxsize=1)
def _masks() -> dict[str, Float32]:
    """Where each feature lies on the texture: (TEXTURE_SIZE, TEXTURE_SIZE) float32, 0 to 1, symmetric."""
    from skimage.draw import polygon2mask

    k = keypoint_pixels()
    zoom = (TEXTURE_SIZE - 1) / (UV_SIZE - 1)
    rows, columns = np.mgrid[0:TEXTURE_SIZE, 0:TEXTURE_SIZE] / zoom
    away = np.minimum(columns, UV_SIZE - 1 - columns)  # as if on the right half

    def area(outline: Float64, blur_px: float, both: bool = True) -> Float32:
        mask = np.asarray(polygon2mask((TEXTURE_SIZE, TEXTURE_SIZE), outline[:, ::-1] * zoom), np.float32)
        if both:
            mirrored = mirror_pixels(outline)
            mask = np.maximum(mask, polygon2mask(mask.shape, mirrored[:, ::-1] * zoom).astype(np.float32))
        return _blur(mask, blur_px * zoom)

    def disc(column: float, row: float, radius: float, soft: float, squeeze: float = 1.0) -> Float32:
        distance = _distance(away - column, (rows - row) * squeeze)
        return np.asarray(1 / (1 + exponential(np.clip((distance - radius) / soft, -40, 40))), np.float32)

    def bump(column: float, row: float, wide: float, high: float) -> Float32:
        falloff = -0.5 * (((away - column) / wide) ** 2 + ((rows - row) / high) ** 2)
        return np.asarray(exponential(np.maximum(falloff, -700)), np.float32)

    eye, lips = k[RIGHT_EYE], k[OUTER_LIPS]
    centre = eye.mean(axis=0)
    open_eye = area(eye, 0.35)
    lash_line = np.clip(area(eye + [0, -0.9], 0.35) - open_eye, 0, 1)
    brow = np.concatenate(
        [
            k[RIGHT_BROW] + [[0, 0.6], [0, -1.4], [0, -1.8], [0, -1.9], [1.5, -2.2]],
            (k[RIGHT_BROW] + [[0, 1.8], [0, 2.2], [0, 2.6], [0, 3.0], [1.0, 3.4]])[::-1],
        ]
    )
    inside = area(k[INNER_LIPS], 0.25, both=False)
    iris = disc(centre[0], centre[1] - 0.4, 3.5, 0.25)
    beard = np.clip(bump(127.5, 172, 42, 18) * 1.4 + bump(80, 172, 24, 14) + bump(112, 125, 12, 4), 0, 1)
    return {
        "rows": np.asarray(rows, np.float32),
        "away": np.asarray(away, np.float32),
        "cheeks": bump(80, 100, 15, 14) + 0.7 * bump(127.5, 97, 9, 7),
        "sockets": np.clip(area(eye + (eye - centre) * 0.35, 2.2) * 0.6, 0, 1),
        "beard": beard * (1 - np.clip(area(lips + (lips - lips.mean(0)) * 0.1, 1.0, both=False), 0, 1)),
        "lips": np.clip(area(lips, 0.9, both=False), 0, 1),
        "mouth": inside,
        "teeth": inside * np.clip(1.3 - np.abs(rows - 136.8) / 1.5, 0, 0.85) * (np.abs(columns - 127.5) < 12),
        "brows": np.clip(area(brow, 0.9), 0, 1),
        "eyes": open_eye,
        "irises": iris * open_eye,
        "iris-ring": disc(centre[0], centre[1] - 0.4, 2.3, 0.6),
        "pupils": disc(centre[0], centre[1] - 0.4, 1.35, 0.2) * open_eye,
        "glints": (disc(centre[0] + 1.2, centre[1] - 1.8, 0.55, 0.12) * open_eye).astype(np.float32),
        "lashes": lash_line * 0.85,
        "nostrils": disc(122.4, 112.0, 1.3, 0.35, squeeze=1.9),
    }  # fmt: skip
