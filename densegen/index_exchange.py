"""The vertex index in other formats: numbers, tables, and meshes for Blender and MeshLab; both ways."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
from pydantic import ValidationError

from densegen.errors import ConfigurationError, FormatError
from densegen.files import find_data_file, first_problem, read_yaml, write_bytes, write_text
from densegen.index_table import format_csv, format_npz, landmark_fields, mesh_of_rows, read_csv, read_npz
from densegen.morphable_model import MorphableModel, count_words
from densegen.regions import region_of, valid_uv_region
from densegen.schema import KEYPOINTS
from densegen.uv import mirror_pixels, uv_pixels
from densegen.vertex_index import AFLW21, VertexIndex, parse_index

__all__ = ["NUMBERINGS", "Numbering", "export_index", "import_index", "landmark_triangles"]

FloatArray = npt.NDArray[np.float64]

Numbering = Literal["prnet", "bfm-53215", "bfm-53490"]
NUMBERINGS: tuple[Numbering, ...] = ("prnet", "bfm-53215", "bfm-53490")
"""What bare numbers can count: PRNet's 43,867 valid UV pixels, the trimmed or the raw Basel model's vertices; from
0."""

VERTICES, RAW_VERTICES = 53_215, 53_490
MARKED_RGB = (220, 40, 40)
ON_VERTEX_MM = 1e-3
OFF_SURFACE_MM = 1.0
MAX_BYTES = 256 << 20


def import_index(
    path: Path,
    model: MorphableModel,
    name: str,
    *,
    numbering: Numbering | None = None,
    ibug68: Path | None = None,
) -> VertexIndex:
    """Read an index from another format, by the file's suffix.

    ``.txt``: bare numbers, which ``numbering`` explains. ``.json``, ``.csv``, ``.npz``: what :func:`export_index`
    writes. ``.ply``, ``.obj``: the model's whole mesh with the landmarks' vertices coloured, or the landmarks alone as
    vertices, on the mean face in millimetres.

    ibug68 : a text file of 68 numbers, the rows of the iBUG 68 among the landmarks; without it a landmark on each of
    the
        model's 68 keypoint vertices (or within a UV pixel of it) is looked for

    Raises :class:`ConfigurationError` or :class:`FormatError` where the file does not exist, is no such thing, or a
    number or point does not belong to the model.
    """
    if not path.is_file():
        raise ConfigurationError(f"{path} does not exist")
    if path.stat().st_size > MAX_BYTES:
        raise FormatError(f"{path.name} is larger than {MAX_BYTES >> 20} MiB: not an index")
    suffix = path.suffix.lower()
    if suffix == ".json":
        return parse_index(path.read_bytes(), path.name)
    if suffix == ".csv":
        return _from_rows(read_csv(path), path, model, name)
    if suffix == ".npz":
        return _from_rows(read_npz(path), path, model, name)
    if suffix in (".ply", ".obj"):
        points = _points_of_mesh(path, model)
    elif suffix == ".txt":
        points = _points_of_numbers(_read_numbers(path), path, model, numbering)
    else:
        raise ConfigurationError(f"{path.name}: there is no import of {suffix or 'files without a suffix'}")
    rows = None if ibug68 is None else _read_numbers(ibug68)
    return _name_points(points, model, name, path, rows)


def export_index(index: VertexIndex, path: Path, model: MorphableModel, *, whole_mesh: bool = False) -> None:
    """Write an index in another format, by the file's suffix: ``.txt``, ``.json``, ``.csv``, ``.npz``, ``.ply``,
    ``.obj``.

    ``.txt`` holds vertex ids, for an index of vertices. ``.ply`` and ``.obj`` hold the landmark mesh (landmarks on
    the mean face in millimetres, joined by UV Delaunay triangles), or with ``whole_mesh`` the model's mean face with
    the landmarks' vertices coloured. Raises :class:`ConfigurationError` where the index has points that the format
    cannot hold.
    """
    suffix = path.suffix.lower()
    if suffix == ".txt":
        vertices = _vertices_only(index, path)
        write_text(path, "".join(f"{vertex}\n" for vertex in vertices))
    elif suffix == ".json":
        write_text(path, index.model_dump_json(indent=1) + "\n")
    elif suffix == ".csv":
        write_text(path, format_csv(index))
    elif suffix == ".npz":
        write_bytes(path, format_npz(index))
    elif suffix in (".ply", ".obj"):
        write_bytes(path, _mesh_bytes(index, model, suffix[1:], whole_mesh=whole_mesh, path=path))
    else:
        raise ConfigurationError(f"{path.name}: there is no export to {suffix or 'files without a suffix'}")


def landmark_triangles(index: VertexIndex) -> npt.NDArray[np.int64]:
    """The landmark mesh: (F, 3) ids, the Delaunay triangulation of the UV positions inside the face's outline."""
    from scipy.spatial import Delaunay

    triangles = Delaunay(index.uv).simplices.astype(np.int64)
    corners = index.uv[triangles]
    columns, rows = np.rint(corners.mean(axis=1)).astype(np.int64).T
    (x0, y0), (x1, y1), (x2, y2) = (corners[:, corner].T for corner in range(3))
    area = (x1 - x0) * (y2 - y0) - (x2 - x0) * (y1 - y0)
    triangles[area > 0] = triangles[area > 0][:, ::-1]  # outside to the front
    inside: npt.NDArray[np.int64] = triangles[valid_uv_region()[rows, columns] & (np.abs(area) > 1e-6)]
    return inside


def _from_rows(rows: list[dict[str, str]], path: Path, model: MorphableModel, name: str) -> VertexIndex:
    """Landmarks from a table; the 68 are those whose origin says so."""
    landmarks = landmark_fields(rows, path.name)
    origins = {str(landmark["origin"]): row for row, landmark in enumerate(landmarks)}
    ibug68 = [origins.get(f"ibug68:{k}") for k in range(KEYPOINTS)]
    placed = any(landmark["vertex"] is not None or landmark["triangle"] is not None for landmark in landmarks)
    return _checked(
        path,
        name=name,
        uv_layout=mesh_of_rows(rows, path.name, "uv_layout", model.uv_layout),
        topology=mesh_of_rows(rows, path.name, "topology", model.topology) if placed else None,
        landmarks=landmarks,
        subsets={} if None in ibug68 else _subsets([row for row in ibug68 if row is not None]),
    )


def _checked(path: Path, **content: Any) -> VertexIndex:
    try:
        return VertexIndex.model_validate({"version": "1.0.0", "changelog": ["1.0.0: imported"], **content})
    except ValidationError as error:
        raise FormatError(f"{path.name}: {first_problem(error)}") from error


def _subsets(ibug68: list[int]) -> dict[str, list[Any]]:
    aflw21 = [ibug68[p] if isinstance(p, int) else [ibug68[k] for k in p] for p in AFLW21]
    return {"ibug68": ibug68, "aflw21": aflw21}


def _read_numbers(path: Path) -> list[int]:
    if not path.is_file():
        raise ConfigurationError(f"{path} does not exist")
    try:
        numbers = [float(word) for word in path.read_text(encoding="utf-8").split()]
        if any(number != int(number) for number in numbers):
            raise ValueError("a number is not whole")
    except (UnicodeDecodeError, ValueError, OverflowError) as error:
        raise FormatError(f"{path.name} is not a list of whole numbers: {error}") from error
    return [int(number) for number in numbers]


_Point = tuple[int | None, tuple[float, float], tuple[int, int, int] | None, tuple[float, float, float] | None]
"""A landmark without a name: vertex, UV pixel, triangle, weights."""


def _points_of_numbers(
    numbers: list[int], path: Path, model: MorphableModel, numbering: Numbering | None
) -> list[_Point]:
    if numbering is None:
        raise ConfigurationError(f"{path.name} holds bare numbers: say what they count, {', '.join(NUMBERINGS)}")
    count = {"prnet": int(valid_uv_region().sum()), "bfm-53215": VERTICES, "bfm-53490": RAW_VERTICES}[numbering]
    if outside := [number for number in numbers if not 0 <= number < count]:
        raise FormatError(f"{path.name} holds {outside[0]}, but {numbering} counts {count_words(count)} from 0")
    if numbering == "prnet":
        rows, columns = np.nonzero(valid_uv_region())
        return [(None, (float(columns[n]), float(rows[n])), None, None) for n in numbers]
    if model.vertex_count != VERTICES:
        raise ConfigurationError(
            f"{numbering} counts vertices of the Basel model, but {model.name} has {count_words(model.vertex_count)}"
        )
    if numbering == "bfm-53490":
        numbers = _trimmed(numbers, path)
    pixels = uv_pixels(model.uv)
    return [(n, (float(pixels[n, 0]), float(pixels[n, 1])), None, None) for n in numbers]


def _trimmed(numbers: list[int], path: Path) -> list[int]:
    """Vertices of the raw Basel model as vertices of the trimmed one."""
    runs = read_yaml(find_data_file("bfm_removed_vertices.yaml"), "list of removed vertices")["runs"]
    removed = np.concatenate([np.arange(first, last + 1) for first, last in runs])
    if gone := [number for number in numbers if number in set(removed.tolist())]:
        raise FormatError(f"{path.name} holds vertex {gone[0]} of the raw model, which trimming removes")
    return [int(number - np.searchsorted(removed, number)) for number in numbers]


def _points_of_mesh(path: Path, model: MorphableModel) -> list[_Point]:
    vertices, colours = _read_mesh(path)
    pixels = uv_pixels(model.uv)
    if colours is not None and len(vertices) == model.vertex_count:
        plain, counts = np.unique(colours, axis=0, return_counts=True)
        marked = np.flatnonzero((colours != plain[np.argmax(counts)]).any(axis=1))
        if not marked.size:
            raise FormatError(f"{path.name} is the whole mesh, but none of its vertices has a colour of its own")
        return [(int(v), (float(pixels[v, 0]), float(pixels[v, 1])), None, None) for v in marked]
    return _points_on_surface(vertices, path, model, pixels)


def _read_mesh(path: Path) -> tuple[FloatArray, npt.NDArray[np.uint8] | None]:
    """Vertices in file order, and their colours where there are any."""
    import trimesh

    try:
        loaded: Any = trimesh.load(path, process=False, maintain_order=True)
        vertices = np.asarray(loaded.vertices, np.float64)
    # trimesh's readers raise whatever a broken file makes them raise.
    except Exception as error:
        raise FormatError(f"{path.name} is not a readable mesh: {' '.join(str(error).split())[:120]}") from error
    if vertices.ndim != 2 or vertices.shape[1] != 3 or not len(vertices) or not np.isfinite(vertices).all():
        raise FormatError(f"{path.name} holds no vertices")
    colours = getattr(getattr(loaded, "visual", None), "vertex_colors", getattr(loaded, "colors", None))
    if colours is None or np.shape(colours)[0] != len(vertices):
        return vertices, None
    return vertices, np.asarray(colours, np.uint8)


def _points_on_surface(points: FloatArray, path: Path, model: MorphableModel, pixels: FloatArray) -> list[_Point]:
    """The nearest points of the mean face, as vertices where they are vertices."""
    import trimesh
    from scipy.spatial import cKDTree

    mean_mm = model.mean.astype(np.float64) * model.unit_mm
    near, vertex = cKDTree(mean_mm).query(points)
    found: list[_Point] = []
    mesh = trimesh.Trimesh(mean_mm, model.triangles, process=False)
    for point, distance, v in zip(points, near, vertex, strict=True):
        if distance <= ON_VERTEX_MM:
            found.append((int(v), (float(pixels[v, 0]), float(pixels[v, 1])), None, None))
            continue
        # Only triangles about the nearest vertices can hold the nearest point.
        around = cKDTree(mean_mm).query(point, k=8)[1]
        faces = np.flatnonzero(np.isin(model.triangles, around).any(axis=1))
        closest = trimesh.triangles.closest_point(mesh.triangles[faces], np.repeat(point[None], len(faces), axis=0))
        offset = np.linalg.norm(closest - point, axis=1)
        best = int(np.argmin(offset))
        if offset[best] > OFF_SURFACE_MM:
            place = ", ".join(f"{value:.1f}" for value in point)
            raise FormatError(
                f"{path.name}: the vertex at ({place}) lies {offset[best]:.1f} mm off the mean face of {model.name}: "
                "is the file in millimetres?"
            )
        corners = model.triangles[faces[best]]
        weights = trimesh.triangles.points_to_barycentric(mean_mm[corners][None], closest[best][None])[0].clip(0, 1)
        weights = np.round(weights / weights.sum(), 9)
        uv = weights @ pixels[corners]
        triangle = (int(corners[0]), int(corners[1]), int(corners[2]))
        found.append(
            (None, (float(uv[0]), float(uv[1])), triangle, (float(weights[0]), float(weights[1]), float(weights[2])))
        )
    return found


def _name_points(
    points: list[_Point], model: MorphableModel, name: str, path: Path, ibug68: list[int] | None
) -> VertexIndex:
    """Give bare points ids, names, regions, mirror partners and, where they can be found, the 68."""
    uv = np.array([point[1] for point in points]).reshape(-1, 2)
    keypoints = uv_pixels(model.uv[model.keypoints68])
    rows = ibug68 if ibug68 is not None else _rows_of_keypoints(uv, keypoints)
    if rows is not None and (len(rows) != KEYPOINTS or not all(0 <= row < len(points) for row in rows)):
        raise FormatError(f"the 68 are not 68 rows of the {len(points)} landmarks of {path.name}")
    number_of = {row: k for k, row in enumerate(rows or [])}
    mirror = _partners(points, uv, model)
    landmarks = [
        {
            "id": row,
            "name": f"p-{row:03d}",
            "region": region_of(uv[row], keypoints),
            "vertex": vertex,
            "uv": position,
            "mirror": mirror[row],
            "origin": f"ibug68:{number_of[row]}" if row in number_of else f"import:{path.name}",
            "triangle": triangle,
            "weights": weights,
        }
        for row, (vertex, position, triangle, weights) in enumerate(points)
    ]
    placed = any(vertex is not None or triangle is not None for vertex, _, triangle, _ in points)
    return _checked(
        path,
        name=name,
        uv_layout=model.uv_layout,
        topology=model.topology if placed else None,
        landmarks=landmarks,
        subsets={} if rows is None else _subsets(rows),
    )


def _rows_of_keypoints(uv: FloatArray, keypoints: FloatArray) -> list[int] | None:
    from scipy.spatial import cKDTree

    if not len(uv):
        return None
    distance, row = cKDTree(uv).query(keypoints)
    if (distance > 1.0).any() or len(set(row.tolist())) < KEYPOINTS:
        return None
    return [int(r) for r in row]


def _partners(points: list[_Point], uv: FloatArray, model: MorphableModel) -> list[int | None]:
    """Mirror partners: the mirrored vertex, or the point at exactly the mirrored UV position."""
    vertex_row = {vertex: row for row, (vertex, _, _, _) in enumerate(points) if vertex is not None}
    place_row = {(round(x, 3), round(y, 3)): row for row, (x, y) in enumerate(uv)}
    partner: list[int | None] = []
    for (vertex, _, _, _), (x, y) in zip(points, mirror_pixels(uv), strict=True):
        if vertex is not None:
            partner.append(vertex_row.get(int(model.mirror[vertex])))
        else:
            partner.append(place_row.get((round(x, 3), round(y, 3))))
    return [p if p is not None and partner[p] == row else None for row, p in enumerate(partner)]


def _vertices_only(index: VertexIndex, path: Path) -> list[int]:
    vertices = [landmark.vertex for landmark in index.landmarks if landmark.vertex is not None]
    if len(vertices) < len(index):
        raise ConfigurationError(f"{path.name}: {len(index) - len(vertices)} landmarks are no vertices: export .csv")
    return vertices


def _mesh_bytes(index: VertexIndex, model: MorphableModel, kind: str, *, whole_mesh: bool, path: Path) -> bytes:
    import trimesh

    mean_mm = model.mean.astype(np.float64) * model.unit_mm
    if whole_mesh:
        if index.topology != model.topology:
            raise ConfigurationError(f"{path.name}: the index names no vertices of {model.name}: export the landmarks")
        colours = np.full((model.vertex_count, 4), (200, 200, 200, 255), np.uint8)
        colours[_vertices_only(index, path), :3] = MARKED_RGB
        mesh = trimesh.Trimesh(mean_mm, model.triangles, vertex_colors=colours, process=False)
    else:
        places = index.resolve(model).gather(model.mean).astype(np.float64) * model.unit_mm
        mesh = trimesh.Trimesh(places, landmark_triangles(index), process=False)
    data: Any = mesh.export(file_type="obj", digits=6) if kind == "obj" else mesh.export(file_type=kind)
    return data.encode() if isinstance(data, str) else bytes(data)
