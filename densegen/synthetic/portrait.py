"""A portrait: the procedural face on a head, posed, lit, and drawn over a background."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np

from densegen.arrays import Float32, Float64, Image, Int32, Int64
from densegen.geometry.elementary import sine_cosine_array
from densegen.geometry.kernels import kernel
from densegen.geometry.pose import pose_vertices, rotation_matrix, transform
from densegen.geometry.renderer import interpolate, nearest_triangles, vertex_normals
from densegen.synthetic.appearance import Appearance, background, texture
from densegen.synthetic.face import UNITS_PER_MM, face_model

__all__ = ["Light", "draw_portrait", "random_light"]

SUPERSAMPLING = 2

BEHIND_MM = 14.0
"""How far skull and neck stand back where depths are compared: those of a narrow face would pierce its cheeks."""


@dataclass(frozen=True, slots=True)
class Light:
    """One lamp and the light of the surroundings.

    direction : unit vector towards the lamp, image frame
    colour : RGB factors
    ambient : share of the light that has no direction, 0 to 1
    gloss : strength of the highlight on skin, 0 to 1
    """

    direction: tuple[float, float, float]
    colour: tuple[float, float, float]
    ambient: float
    gloss: float


def random_light(generator: np.random.Generator) -> Light:
    """A lamp somewhere in front, above or beside the face."""
    direction = np.array([generator.uniform(-1, 1), generator.uniform(-0.9, 0.3), generator.uniform(0.5, 1.2)])
    direction /= np.sqrt((direction**2).sum())
    warm = generator.uniform(-0.1, 0.1)
    power = generator.uniform(0.85, 1.2)
    return Light(
        (float(direction[0]), float(direction[1]), float(direction[2])),
        (power * (1 + warm), power, power * (1 - warm)),
        float(generator.uniform(0.35, 0.65)),
        float(generator.uniform(0.0, 0.22)),
    )


def draw_portrait(
    vertices: Float32,
    pose: Float32,
    person: Appearance,
    light: Light,
    generator: np.random.Generator,
    height: int = 450,
    width: int = 450,
) -> Image:
    """Draw a face: (H, W, 3) uint8, RGB.

    vertices : (V, 3) float32, model frame, of :func:`~densegen.synthetic.face.face_model`
    pose : (7,) float32, as in a fit
    """
    model = face_model()
    head, head_triangles, head_colour, outward, behind = _head(person)
    points = pose_vertices(np.concatenate([vertices, head]), pose, height)
    zoomed = (points + [0.5, 0.5, 0]) * SUPERSAMPLING - [0.5, 0.5, 0]
    count = model.vertex_count
    zoomed[count:, 2] -= behind * (UNITS_PER_MM * pose[6] * SUPERSAMPLING)
    # The triangles are counter-clockwise seen from outside, and the image frame is a mirror image of the model's.
    face_normals = -vertex_normals(points[:count], model.triangles)
    rotation = rotation_matrix(*map(float, pose[:3]))
    head_normals = transform(outward, (rotation.T * [1, -1, 1]).astype(np.float32), np.zeros(3, np.float32))
    # Attributes a pixel needs: u, v, normal, colour of the head, and whether it is face.
    face = np.concatenate([model.uv, face_normals, np.zeros((count, 3)), np.ones((count, 1))], axis=1)
    rest = np.concatenate([np.zeros((len(head), 2)), head_normals, head_colour, np.zeros((len(head), 1))], axis=1)
    mesh = (zoomed.astype(np.float32), np.concatenate([model.triangles, head_triangles + count]).astype(np.int32))
    nearest, _ = nearest_triangles(*mesh, height * SUPERSAMPLING, width * SUPERSAMPLING)
    values = interpolate(*mesh, np.concatenate([face, rest]).astype(np.float32), nearest)
    small = _averaged(background(generator, height, width), nearest >= 0, _shade(values, texture(person), light))
    small += generator.normal(0, generator.uniform(0.5, 3.5), small.shape)
    portrait: Image = np.clip(small + 0.5, 0, 255).astype(np.uint8)
    return portrait


def _shade(values: Float32, surface: Float32, light: Light) -> Float32:
    """(n, 3) float32: the colours of n points with the attributes of :func:`draw_portrait`."""
    direction = np.array(light.direction)
    half = direction + [0, 0, 1]
    half /= np.sqrt((half**2).sum())
    ambient = np.float32(light.ambient), 1 - light.ambient
    shaded: Float32 = _shaded(values, surface, direction, half, np.array(light.colour), ambient, light.gloss)
    return shaded


@kernel
def _shaded(values: Any, surface: Any, direction: Any, half: Any, colour: Any, ambient: Any, gloss: float) -> Any:
    """Textures are looked up in float32, as attributes are; light is added up in float64."""
    out, last = np.empty((len(values), 3), np.float32), np.float32(surface.shape[0] - 1)
    for n in range(len(values)):
        u, v, x, y, z = values[n, 0], values[n, 1], values[n, 2], values[n, 3], values[n, 4]
        column = int(min(max(np.rint(u * last), np.float32(0)), last))
        row = int(min(max(np.rint((np.float32(1) - v) * last), np.float32(0)), last))
        length = max(np.sqrt(x * x + y * y + z * z), np.float32(1e-6))
        x, y, z = x / length, y / length, z / length
        # Skin scatters light, so the terminator is soft (wrapped Lambert).
        lambert = np.float64(x) * direction[0] + np.float64(y) * direction[1] + np.float64(z) * direction[2]
        diffuse = min(max((lambert + 0.25) / 1.25, 0.0), 1.0)
        sky = np.float32(0.85) - np.float32(0.15) * y
        lit = np.float64(ambient[0] * sky) + ambient[1] * diffuse
        shine = 0.0
        if values[n, 8] > 0.5:  # face
            along = np.float64(x) * half[0] + np.float64(y) * half[1] + np.float64(z) * half[2]
            along = min(max(along, 0.0), 1.0)
            power = along * along * along
            for _ in range(3):
                power *= power  # to the 24th in the end
            shine = 255 * (gloss * power * surface[row, column, 3])
        for channel in range(3):
            albedo = surface[row, column, channel] if values[n, 8] > 0.5 else values[n, 5 + channel]
            out[n, channel] = np.float64(albedo) * lit * colour[channel] + shine
    return out


@kernel
def _averaged(behind: Any, drawn: Any, colours: Any) -> Any:
    """(H, W, 3) float64: the mean of each pixel's parts, which show one of the colours, in row-major order, or what is
    behind.

    behind : (H, W, 3) float32
    drawn : (H SUPERSAMPLING, W SUPERSAMPLING) bool, SUPERSAMPLING being 2
    """
    height, width, _ = behind.shape
    out, upper = np.empty((height, width, 3), np.float64), 0
    for row in range(height):
        above, below = drawn[2 * row], drawn[2 * row + 1]
        lower = upper + int(np.count_nonzero(above))
        for column in range(width):
            left, right = 2 * column, 2 * column + 1
            a, b = upper, upper + above[left]
            c, d = lower, lower + below[left]
            for channel in range(3):
                back = np.float64(behind[row, column, channel])
                top = np.float64(colours[a, channel]) if above[left] else back
                top += np.float64(colours[b, channel]) if above[right] else back
                bottom = np.float64(colours[c, channel]) if below[left] else back
                bottom += np.float64(colours[d, channel]) if below[right] else back
                out[row, column, channel] = (top + bottom) / 4
            upper, lower = b + above[right], d + below[right]
        upper = lower
    return out


@lru_cache(maxsize=1)
def _head_mesh() -> tuple[Float32, Int32, Float32, Float32]:
    """A skull, a neck and shoulders behind the face, so that a turned head is one.

    returns : (H, 3) float32 vertices and (F, 3) int32 triangles, model frame and units; (H, 3) float32 normals; (H,)
        float32, how far a vertex stands back where depths are compared, mm
    """
    skull = _ellipsoid((0, 22, -6), (75, 100, 92), 40, 60)
    neck = _ellipsoid((0, -130, -14), (51, 130, 54), 30, 40)
    ear_l, ear_r = (_ellipsoid((side * 78, 10, -14), (7, 30, 17), 14, 18) for side in (1, -1))
    shoulders = _ellipsoid((0, -262, -30), (215, 100, 85), 40, 60)
    vertices, triangles, normals, behind, first = [], [], [], [], 0
    for (points, faces, outward), back in (
        (skull, BEHIND_MM), (neck, BEHIND_MM), (ear_l, 0.0), (ear_r, 0.0), (shoulders, 0.0),
    ):  # fmt: skip
        behind.append(np.full(len(points), back))
        vertices.append(points)
        triangles.append(faces + first)
        normals.append(outward)
        first += len(points)
    return (
        np.concatenate(vertices).astype(np.float32) * UNITS_PER_MM,
        np.concatenate(triangles).astype(np.int32),
        np.concatenate(normals).astype(np.float32),
        np.concatenate(behind).astype(np.float32),
    )


def _head(person: Appearance) -> tuple[Float32, Int32, Float32, Float32, Float32]:
    vertices, triangles, normals, behind = _head_mesh()
    x, y, z = vertices.T / UNITS_PER_MM
    hairline = (np.abs(x) < 77) & (y > -60) & ((z < 22 - 0.28 * (60 - y)) | (y > 58))
    across, along = sine_cosine_array(x * 0.9 + 3 * sine_cosine_array(z * 0.05)[0])[0], sine_cosine_array(z * 0.31)[1]
    streaks = 0.85 + 0.15 * across * along
    colour = np.where(hairline[:, None], person.hair * streaks[:, None], person.skin * 0.93)
    colour = np.where((y < -155)[:, None], person.clothes, colour)
    return vertices, triangles, colour.astype(np.float32), normals, behind


def _ellipsoid(
    centre: tuple[float, float, float], radii: tuple[float, float, float], rings: int, spokes: int
) -> tuple[Float64, Int64, Float64]:
    polar, around = np.meshgrid(np.linspace(0, np.pi, rings), np.linspace(0, 2 * np.pi, spokes), indexing="ij")
    (sin_polar, cos_polar), (sin_around, cos_around) = sine_cosine_array(polar), sine_cosine_array(around)
    unit = np.stack([sin_polar * sin_around, cos_polar, sin_polar * cos_around], -1).reshape(-1, 3)
    corner = (np.arange(rings - 1)[:, None] * spokes + np.arange(spokes - 1)).ravel()
    first = np.stack([corner, corner + spokes, corner + 1], axis=1)
    second = np.stack([corner + 1, corner + spokes, corner + spokes + 1], axis=1)
    normals = unit / np.array(radii)
    normals /= np.linalg.norm(normals, axis=1, keepdims=True)
    return unit * radii + centre, np.concatenate([first, second]), normals
