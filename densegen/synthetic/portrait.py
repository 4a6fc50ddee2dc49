"""A portrait: the procedural face on a head, posed, lit, and drawn over a background."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from densegen.arrays import Float32, Float64, Image, Int32, Int64
from densegen.geometry.elementary import sine_cosine_array
from densegen.geometry.pose import pose_vertices, rotation_matrix, transform
from densegen.geometry.renderer import rasterise, vertex_normals
from densegen.synthetic.appearance import TEXTURE_SIZE, Appearance, background, texture
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
    face_normals = vertex_normals(points[:count], model.triangles)
    rotation = rotation_matrix(*map(float, pose[:3]))
    if face_normals[:, 2].sum() * rotation[2, 2] < 0:
        face_normals = -face_normals
    head_normals = transform(outward, (rotation.T * [1, -1, 1]).astype(np.float32), np.zeros(3, np.float32))
    # Attributes a pixel needs: u, v, normal, colour of the head, and whether it is face.
    face = np.concatenate([model.uv, face_normals, np.zeros((count, 3)), np.ones((count, 1))], axis=1)
    rest = np.concatenate([np.zeros((len(head), 2)), head_normals, head_colour, np.zeros((len(head), 1))], axis=1)
    values, depth = rasterise(
        zoomed.astype(np.float32),
        np.concatenate([model.triangles, head_triangles + count]).astype(np.int32),
        np.concatenate([face, rest]).astype(np.float32),
        height * SUPERSAMPLING,
        width * SUPERSAMPLING,
    )
    picture = np.repeat(np.repeat(background(generator, height, width), SUPERSAMPLING, 0), SUPERSAMPLING, 1)
    drawn = np.isfinite(depth)
    picture[drawn] = _shade(values[drawn], texture(person), light)
    parts = picture.astype(np.float64).reshape(height, SUPERSAMPLING, width, SUPERSAMPLING, 3)
    # Of the four, pair by pair: the order of a mean over two axes is NumPy's own matter.
    small = ((parts[:, 0, :, 0] + parts[:, 0, :, 1]) + (parts[:, 1, :, 0] + parts[:, 1, :, 1])) / SUPERSAMPLING**2
    small += generator.normal(0, generator.uniform(0.5, 3.5), small.shape)
    portrait: Image = np.clip(small + 0.5, 0, 255).astype(np.uint8)
    return portrait


def _shade(values: Float32, surface: Float32, light: Light) -> Float32:
    u, v, is_face = values[:, 0], values[:, 1], values[:, 8] > 0.5
    column = np.clip(np.rint(u * (TEXTURE_SIZE - 1)), 0, TEXTURE_SIZE - 1).astype(np.int64)
    row = np.clip(np.rint((1 - v) * (TEXTURE_SIZE - 1)), 0, TEXTURE_SIZE - 1).astype(np.int64)
    skin = surface[row, column]
    albedo = np.where(is_face[:, None], skin[:, :3], values[:, 5:8])
    normal = values[:, 2:5] / np.maximum(np.linalg.norm(values[:, 2:5], axis=1, keepdims=True), 1e-6)
    direction = np.array(light.direction)
    lambert = _dot(normal, direction)
    # Skin scatters light, so the terminator is soft (wrapped Lambert).
    diffuse = np.clip((lambert + 0.25) / 1.25, 0, 1)
    sky = 0.85 - 0.15 * normal[:, 1]
    half = direction + [0, 0, 1]
    half /= np.sqrt((half**2).sum())
    cube = np.clip(_dot(normal, half), 0, 1) ** 2 * np.clip(_dot(normal, half), 0, 1)
    shine = light.gloss * np.square(np.square(np.square(cube))) * skin[:, 3] * is_face  # to the power of 24
    colour = albedo * (light.ambient * sky + (1 - light.ambient) * diffuse)[:, None] * np.array(light.colour)
    shaded: Float32 = (colour + 255 * shine[:, None]).astype(np.float32)
    return shaded


def _dot(vectors: Float32, direction: Float64) -> Float64:
    """(n,) products of (n, 3) vectors with one; from left to right, as BLAS does not."""
    x, y, z = vectors.T.astype(np.float64)
    along: Float64 = x * direction[0] + y * direction[1] + z * direction[2]
    return along


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
