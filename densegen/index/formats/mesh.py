"""Landmarks as meshes, for Blender and MeshLab: read from one, and written as one."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from densegen.arrays import Float64, Int64, UInt8
from densegen.errors import ConfigurationError, FormatError, in_short
from densegen.face.morphable_model import MorphableModel
from densegen.face.regions import valid_uv_region
from densegen.files import read_bytes
from densegen.geometry.uv import uv_pixels
from densegen.index.points import BarePoint
from densegen.index.vertex_index import VertexIndex

__all__ = ["index_as_mesh", "landmark_triangles", "mesh_bytes", "points_of_mesh"]

MARKED_RGB = (220, 40, 40)
ON_VERTEX_MM = 1e-3
OFF_SURFACE_MM = 1.0

MAX_BYTES = 64 << 20
MAX_POINTS = 4000
MAX_MM = 1e6


def landmark_triangles(index: VertexIndex) -> Int64:
    """The landmark mesh: (F, 3) ids, the Delaunay triangulation of the UV positions inside the face's outline.

    Landmarks that are too few, or lie in a line, have no triangles.
    """
    from scipy.spatial import Delaunay, QhullError

    try:
        triangles = Delaunay(index.uv).simplices.astype(np.int64)
    except QhullError:  # fewer than three, or all in a line
        return np.empty((0, 3), np.int64)
    corners = index.uv[triangles]
    columns, rows = np.rint(corners.mean(axis=1)).astype(np.int64).T
    (x0, y0), (x1, y1), (x2, y2) = (corners[:, corner].T for corner in range(3))
    area = (x1 - x0) * (y2 - y0) - (x2 - x0) * (y1 - y0)
    triangles[area > 0] = triangles[area > 0][:, ::-1]  # outside to the front
    inside: Int64 = triangles[valid_uv_region()[rows, columns] & (np.abs(area) > 1e-6)]
    return inside


def points_of_mesh(path: Path, model: MorphableModel) -> list[BarePoint]:
    """The landmarks in a PLY or OBJ file, on the mean face in millimetres.

    The whole mesh with the landmarks' vertices painted, or the landmarks alone as vertices: those become vertices of
    the model if they are some, else points of its triangles.

    Raises :class:`FormatError` if it is no mesh, nothing in it is painted, or a vertex lies off the face.
    """
    vertices, colours = _read_mesh(path)
    pixels = uv_pixels(model.uv)
    if colours is not None and len(vertices) == model.vertex_count:
        plain, counts = np.unique(colours, axis=0, return_counts=True)
        marked = np.flatnonzero((colours != plain[np.argmax(counts)]).any(axis=1))
        if not marked.size:
            raise FormatError(f"{path.name} is the whole mesh, but none of its vertices has a colour of its own")
        return [_vertex(v, pixels) for v in marked]
    return _points_on_surface(vertices, path, model, pixels)


def _read_mesh(path: Path) -> tuple[Float64, UInt8 | None]:
    """Vertices in file order, millimetres, and their colours if all have some."""
    data = read_bytes(path, "mesh", MAX_BYTES)
    try:
        vertices, colours = (_read_obj if path.suffix.lower() == ".obj" else _read_ply)(data)
    # trimesh's readers raise whatever a broken file makes them raise.
    except Exception as error:
        raise FormatError(f"{path.name} is not a readable mesh: {in_short(error)}") from error
    if vertices.ndim != 2 or vertices.shape[1] != 3 or not len(vertices):
        raise FormatError(f"{path.name} holds no vertices")
    if not (np.abs(vertices) <= MAX_MM).all():  # NaN is not
        raise FormatError(f"{path.name} holds vertices beyond {MAX_MM} mm: is the file in millimetres?")
    return vertices, colours


def _read_obj(data: bytes) -> tuple[Float64, UInt8 | None]:
    """The ``v`` lines of a Wavefront OBJ and nothing else: ``v x y z``, or ``v x y z r g b`` with colours of 0 to 1.

    A reader of the whole format opens the materials that a file names, and with a material or texture coordinates it
    takes no colour of a vertex for one.
    """
    rows = [line.split()[1:7] for line in data.splitlines() if line.startswith((b"v ", b"v\t"))]
    vertices = np.array([[float(number) for number in row[:3]] for row in rows], np.float64).reshape(len(rows), -1)
    if not rows or any(len(row) < 6 for row in rows):
        return vertices, None
    return vertices, _as_bytes(np.array([[float(number) for number in row[3:]] for row in rows]))


def _read_ply(data: bytes) -> tuple[Float64, UInt8 | None]:
    import trimesh

    loaded: Any = trimesh.load(
        io.BytesIO(data), file_type="ply", process=False, maintain_order=True, resolver=None, skip_materials=True
    )
    vertices = np.asarray(loaded.vertices, np.float64)
    colours = getattr(getattr(loaded, "visual", None), "vertex_colors", getattr(loaded, "colors", None))
    if colours is None or np.shape(colours)[0] != len(vertices):
        # With texture coordinates trimesh makes a texture of the mesh; the colours are still in what it read.
        raw = loaded.metadata.get("_ply_raw", {}).get("vertex", {}).get("data")
        names = getattr(getattr(raw, "dtype", None), "names", None) or ()
        if not {"red", "green", "blue"} <= set(names):
            return vertices, None
        colours = np.stack([np.asarray(raw[name]).ravel() for name in ("red", "green", "blue")], axis=1)
    return vertices, np.asarray(colours, np.uint8)[:, :3]


def _as_bytes(shares: Float64) -> UInt8:
    return np.rint(255 * np.clip(np.nan_to_num(shares), 0, 1)).astype(np.uint8)


def _vertex(vertex: np.integer[Any], pixels: Float64) -> BarePoint:
    return BarePoint((float(pixels[vertex, 0]), float(pixels[vertex, 1])), vertex=int(vertex))


def _points_on_surface(points: Float64, path: Path, model: MorphableModel, pixels: Float64) -> list[BarePoint]:
    """The nearest points of the mean face, as vertices if they are vertices."""
    import trimesh
    from scipy.spatial import cKDTree

    mean_mm = model.mean_mm
    if len(points) > MAX_POINTS:
        raise FormatError(
            f"{path.name} has {len(points):,} vertices: neither the whole mesh of {model.name}, "
            f"{model.vertex_count:,}, nor at most {MAX_POINTS:,} landmarks"
        )
    # Only triangles about the nearest vertices can hold the nearest point.
    near, around = cKDTree(mean_mm).query(points, k=8)
    found: list[BarePoint] = []
    for point, distance, vertices in zip(points, near[:, 0], around, strict=True):
        if distance <= ON_VERTEX_MM:
            found.append(_vertex(vertices[0], pixels))
            continue
        faces = model.triangles[np.isin(model.triangles, vertices).any(axis=1)]
        closest = trimesh.triangles.closest_point(mean_mm[faces], np.repeat(point[None], len(faces), axis=0))
        offset = np.linalg.norm(closest - point, axis=1)
        best = int(np.argmin(offset))
        if offset[best] > OFF_SURFACE_MM:
            place = ", ".join(f"{value:.1f}" for value in point)
            raise FormatError(
                f"{path.name}: the vertex at ({place}) lies {offset[best]:.1f} mm off the mean face of {model.name}: "
                "is the file in millimetres?"
            )
        corners = faces[best]
        weights = trimesh.triangles.points_to_barycentric(mean_mm[corners][None], closest[best][None])[0].clip(0, 1)
        a, b, c = map(float, np.round(weights / weights.sum(), 9))
        u, v = map(float, np.array([a, b, c]) @ pixels[corners])
        i, j, k = map(int, corners)
        found.append(BarePoint((u, v), triangle=(i, j, k), weights=(a, b, c)))
    return found


def index_as_mesh(index: VertexIndex, model: MorphableModel, kind: str, *, whole: bool) -> bytes:
    """The landmark mesh on the mean face in millimetres, or, ``whole``, that face with the landmarks' vertices painted.

    Raises :class:`ConfigurationError` if the whole mesh is asked for and a landmark is no vertex of it.
    """
    mean_mm, points = model.mean_mm, index.resolve(model)
    if not whole:
        return mesh_bytes(points.gather(mean_mm.astype(np.float32)), landmark_triangles(index), kind)
    if index.topology != model.topology:
        raise ConfigurationError(f"{index.name} names no vertices of {model.name}: export the landmarks alone")
    colours = np.full((model.vertex_count, 4), (200, 200, 200, 255), np.uint8)
    colours[index.vertices, :3] = MARKED_RGB
    return mesh_bytes(mean_mm, model.outward_triangles, kind, colours)


def mesh_bytes(
    vertices: npt.NDArray[np.floating],
    triangles: npt.NDArray[np.integer],
    kind: str,
    colours: UInt8 | None = None,
) -> bytes:
    """The bytes of a mesh file.

    vertices : (V, 3) floating point, y up, in the unit that the file shall have
    triangles : (F, 3) integers
    kind : ``ply`` or ``obj``
    colours : (V, 4) uint8 RGBA, or None
    """
    import trimesh

    mesh = trimesh.Trimesh(vertices, triangles, vertex_colors=colours, process=False)
    data: Any = mesh.export(file_type="obj", digits=6) if kind == "obj" else mesh.export(file_type=kind)
    return data.encode() if isinstance(data, str) else bytes(data)
