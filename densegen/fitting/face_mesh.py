"""A reconstructed face as a mesh with its photograph for texture, and drawn over that photograph."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from typing import Any

import numpy as np

from densegen.arrays import Float32, Float64, Image
from densegen.console import plain
from densegen.drawing import png_bytes
from densegen.face.morphable_model import MorphableModel
from densegen.fitting.reconstruction import Reconstruction, Reconstructor, reconstruction_as_json
from densegen.geometry.renderer import rasterise, vertex_normals
from densegen.index.formats.mesh import mesh_bytes
from densegen.sources.fits import fit_bytes

__all__ = ["draw_reconstruction", "mesh_files", "reconstruction_files"]

MAKER = "densetrain reconstruct"

SURFACE_RGB = np.array([205.0, 200.0, 192.0])
SHARE = 0.85
"""Weight of the surface's colour in a pixel that it covers."""


def mesh_files(found: Reconstruction, model: MorphableModel, image: Image, kind: str, stem: str) -> dict[str, bytes]:
    """The files of a mesh by name: the whole face, upright, with the photograph as texture.

    OBJ (with its material and texture beside it) and PLY (with a colour at each vertex) are in millimetres, GLB is in
    metres, as glTF has it. Parts that the photograph does not show carry whatever hides them there.

    image : (H, W, 3) uint8, the photograph; the texture is the part of it that the face covers
    kind : ``obj``, ``ply`` or ``glb``
    stem : of the files' names
    """
    import trimesh
    from PIL import Image as Picture
    from trimesh.visual.material import PBRMaterial
    from trimesh.visual.texture import TextureVisuals

    millimetres = found.vertices.astype(np.float64) * model.unit_mm
    triangles = model.outward_triangles
    if kind == "ply":
        return {f"{stem}.ply": mesh_bytes(millimetres, triangles, "ply", _colours_at(found.vertices_image, image))}
    cut, corner = _around(found.vertices_image, image)
    picture = Picture.fromarray(cut)
    places = _texture_places(found.vertices_image - corner, cut)
    if kind == "glb":
        material: Any = PBRMaterial(baseColorTexture=picture, metallicFactor=0.0, roughnessFactor=1.0)
        mesh = trimesh.Trimesh(
            millimetres / 1000, triangles, visual=TextureVisuals(uv=places, material=material), process=False
        )
        return {f"{stem}.glb": _exported(mesh, "glb")}
    stem = re.sub(r"[^\w.-]", "_", stem)  # the files name each other, and readers split names at spaces
    lines = [f"mtllib {stem}.mtl", "usemtl photograph"]
    lines += [f"v {x:.4f} {y:.4f} {z:.4f}" for x, y, z in millimetres]
    lines += [f"vt {u:.6f} {v:.6f}" for u, v in places]
    lines += [f"f {a}/{a} {b}/{b} {c}/{c}" for a, b, c in triangles + 1]
    material_lines = f"newmtl photograph\nKa 1 1 1\nKd 1 1 1\nKs 0 0 0\nmap_Kd {stem}-texture.png\n"
    return {
        f"{stem}.obj": ("\n".join(lines) + "\n").encode(),
        f"{stem}.mtl": material_lines.encode(),
        f"{stem}-texture.png": png_bytes(cut),
    }


MARGIN_PX = 4


def _around(points_image: Float32, image: Image) -> tuple[Image, Float32]:
    """The part of a photograph that a face covers, (h, w, 3), and the (3,) place of its first pixel."""
    height, width = image.shape[:2]
    low = np.floor(points_image[:, :2].min(axis=0)).astype(np.int64) - MARGIN_PX
    high = np.ceil(points_image[:, :2].max(axis=0)).astype(np.int64) + MARGIN_PX + 1
    left, top = np.clip(low, 0, [width - 1, height - 1])
    right, bottom = np.clip(high, [left + 1, top + 1], [width, height])
    return np.ascontiguousarray(image[top:bottom, left:right]), np.array([left, top, 0], np.float32)


def _exported(mesh: Any, kind: str) -> bytes:
    return bytes(mesh.export(file_type=kind))


def _texture_places(points_image: Float32, image: Image) -> Float64:
    """(V, 2) float64 texture coordinates, v up: where each vertex lies in the photograph."""
    height, width = image.shape[:2]
    x, y = points_image[:, 0].astype(np.float64), points_image[:, 1].astype(np.float64)
    return np.stack([(x + 0.5) / width, 1 - (y + 0.5) / height], axis=1).clip(0, 1)


def _colours_at(points_image: Float32, image: Image) -> Image:
    """(V, 4) uint8 RGBA: the photograph's nearest pixel at each vertex."""
    height, width = image.shape[:2]
    columns = np.rint(points_image[:, 0]).clip(0, width - 1).astype(np.int64)
    rows = np.rint(points_image[:, 1]).clip(0, height - 1).astype(np.int64)
    opaque = np.full((len(points_image), 1), 255, np.uint8)
    return np.concatenate([image[rows, columns], opaque], axis=1)


def draw_reconstruction(image: Image, faces: list[Reconstruction], model: MorphableModel) -> Image:
    """The photograph, and beside it the same with the surfaces over it, lit from the viewer: (H, 2 W, 3) uint8."""
    drawn = image.copy()
    for face in faces:
        normals = vertex_normals(face.vertices_image * np.array([1, -1, 1], np.float32), model.outward_triangles)
        cut, corner = _around(face.vertices_image, drawn)
        values, depth = rasterise(face.vertices_image - corner, model.triangles, normals, *cut.shape[:2])
        seen = np.isfinite(depth)
        light = np.clip(np.abs(values[..., 2]) * 0.9 + 0.1 * values[..., 1], 0, 1)
        surface = SURFACE_RGB * (0.25 + 0.75 * light[..., None])
        cut[seen] = np.clip((1 - SHARE) * cut[seen] + SHARE * surface[seen] + 0.5, 0, 255).astype(np.uint8)
        left, top = int(corner[0]), int(corner[1])
        drawn[top : top + cut.shape[0], left : left + cut.shape[1]] = cut
    return np.concatenate([image, drawn], axis=1)


def _record(name: str, faces: list[dict[str, Any]]) -> bytes:
    """JSON of a photograph's faces; it begins as those of ``densetrain predict`` do."""
    image = json.dumps(name, ensure_ascii=False)
    return f'{{"image":{image},"faces":{json.dumps(faces)}}}\n'.encode()


def reconstruction_files(
    faces: Sequence[Reconstruction], reconstructor: Reconstructor, image: Image, stem: str, kinds: Sequence[str],
    name: str,
) -> dict[str, bytes]:  # fmt: skip
    """The files of one photograph's faces by name: ``STEM.png``, ``STEM.json``, ``STEM-0.glb``, ``.obj``, ``.ply``,
    ``.mat``.

    name : of the photograph's file
    """
    files: dict[str, bytes] = {}
    if "png" in kinds:
        files[f"{stem}.png"] = png_bytes(draw_reconstruction(image, list(faces), reconstructor.model))
    if "json" in kinds:
        contents = [reconstruction_as_json(face, reconstructor.points, reconstructor.model) for face in faces]
        files[f"{stem}.json"] = _record(plain(name), contents)
    for number, face in enumerate(faces):
        for kind in ("glb", "obj", "ply"):
            if kind in kinds:
                files |= mesh_files(face, reconstructor.model, image, kind, f"{stem}-{number}")
        if "mat" in kinds:
            files[f"{stem}-{number}.mat"] = fit_bytes(face.fit, MAKER)
    return files
