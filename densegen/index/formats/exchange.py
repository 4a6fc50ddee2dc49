"""The vertex index in other formats: numbers, tables, and meshes for Blender and MeshLab; both ways."""

from __future__ import annotations

from pathlib import Path

from densegen.errors import ConfigurationError
from densegen.face.morphable_model import MorphableModel
from densegen.files import write_bytes, write_text
from densegen.ibug68 import KEYPOINTS
from densegen.index.formats.mesh import index_as_mesh, points_of_mesh
from densegen.index.formats.numbers import Numbering, points_of_numbers, read_numbers
from densegen.index.formats.table import format_csv, format_npz, landmark_fields, mesh_of_rows, read_csv, read_npz
from densegen.index.landmark import origin_of_keypoint
from densegen.index.points import checked_index, name_points, subsets_of
from densegen.index.vertex_index import VertexIndex, read_index
from densegen.records import as_yaml

__all__ = ["export_index", "import_index"]

SUFFIXES = (".txt", ".csv", ".npz", ".json", ".ply", ".obj")


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

    ibug68 : a text file of 68 numbers, the rows of the iBUG 68 among the landmarks; without it a landmark within a UV
        pixel of each of the model's 68 keypoint vertices is looked for

    Raises :class:`ConfigurationError` or :class:`FormatError` if the file does not exist, is no such thing, or a
    number or point does not belong to the model.
    """
    if not path.exists():
        raise ConfigurationError(f"{path} does not exist")
    suffix = path.suffix.lower()
    if suffix == ".json":
        return read_index(path)
    if suffix == ".csv":
        return _from_rows(read_csv(path), path, model, name)
    if suffix == ".npz":
        return _from_rows(read_npz(path), path, model, name)
    if suffix in (".ply", ".obj"):
        points = points_of_mesh(path, model)
    elif suffix == ".txt":
        points = points_of_numbers(path, model, numbering)
    else:
        raise ConfigurationError(
            f"{path.name}: there is no import of {_named(suffix)}: give one of {', '.join(SUFFIXES)}"
        )
    rows = None if ibug68 is None else read_numbers(ibug68)
    return name_points(points, model, name, f"import:{path.name}", rows)


def _named(suffix: str) -> str:
    return suffix or "files without a suffix"


def export_index(index: VertexIndex, path: Path, model: MorphableModel, *, whole_mesh: bool = False) -> None:
    """Write an index in another format, by the file's suffix: ``.txt``, ``.json``, ``.csv``, ``.npz``, ``.ply``,
    ``.obj``.

    ``.txt`` holds vertex ids, for an index of vertices. ``.ply`` and ``.obj`` hold the landmark mesh (landmarks on
    the mean face in millimetres, joined by UV Delaunay triangles), or with ``whole_mesh`` the model's mean face with
    the landmarks' vertices coloured. Raises :class:`ConfigurationError` if the index has points that the format
    cannot hold.
    """
    suffix = path.suffix.lower()
    if suffix == ".txt":
        write_text(path, "".join(f"{vertex}\n" for vertex in index.vertices))
    elif suffix == ".json":
        write_text(path, as_yaml(index.model_dump_json(indent=1)) + "\n")
    elif suffix == ".csv":
        write_text(path, format_csv(index))
    elif suffix == ".npz":
        write_bytes(path, format_npz(index))
    elif suffix in (".ply", ".obj"):
        write_bytes(path, index_as_mesh(index, model, suffix[1:], whole=whole_mesh))
    else:
        raise ConfigurationError(
            f"{path.name}: there is no export to {_named(suffix)}: name it one of {', '.join(SUFFIXES)}"
        )


def _from_rows(rows: list[dict[str, str]], path: Path, model: MorphableModel, name: str) -> VertexIndex:
    """Landmarks from a table; the 68 are those whose origin says so."""
    landmarks = landmark_fields(rows, path.name)
    origins = {str(landmark["origin"]): row for row, landmark in enumerate(landmarks)}
    ibug68 = [origins.get(origin_of_keypoint(k)) for k in range(KEYPOINTS)]
    placed = any(landmark["vertex"] is not None or landmark["triangle"] is not None for landmark in landmarks)
    return checked_index(
        f"import:{path.name}",
        name=name,
        uv_layout=mesh_of_rows(rows, path.name, "uv_layout", model.uv_layout),
        topology=mesh_of_rows(rows, path.name, "topology", model.topology) if placed else None,
        landmarks=landmarks,
        subsets={} if None in ibug68 else subsets_of([row for row in ibug68 if row is not None]),
    )
