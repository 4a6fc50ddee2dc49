"""The index as a mesh."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest
import trimesh

from densegen.errors import FormatError
from densegen.face.morphable_model import MorphableModel
from densegen.index.formats.exchange import export_index, import_index
from densegen.index.formats.mesh import landmark_triangles
from densegen.index.vertex_index import VertexIndex


def test_marked_vertices_of_the_whole_mesh_are_the_landmarks(
    own: VertexIndex, model: MorphableModel, tmp_path: Path
) -> None:
    for suffix in ("ply", "obj"):
        path = tmp_path / f"whole.{suffix}"
        export_index(own, path, model, whole_mesh=True)
        back = import_index(path, model, "own")
        assert sorted(back.vertices) == sorted(own.vertices)
        assert "ibug68" in back.subsets


def test_the_whole_mesh_faces_outside_in_blender(own: VertexIndex, model: MorphableModel, tmp_path: Path) -> None:
    wound = dataclasses.replace(model, triangles=np.ascontiguousarray(model.triangles[:, ::-1]))
    own = own.model_copy(update={"topology": wound.topology})
    export_index(own, tmp_path / "whole.ply", wound, whole_mesh=True)
    assert (trimesh.load(tmp_path / "whole.ply", process=False).face_normals[:, 2] > 0).mean() > 0.9


def test_the_landmark_mesh_is_a_surface_facing_outside(own: VertexIndex, model: MorphableModel) -> None:
    triangles = landmark_triangles(own)
    assert 900 < len(triangles) < 1040  # about two triangles a point
    assert set(triangles.ravel()) == set(range(520))
    places = own.resolve(model).gather(model.mean)[triangles]
    normals = np.cross(places[:, 1] - places[:, 0], places[:, 2] - places[:, 0])
    assert (normals[:, 2] > 0).mean() > 0.9


def test_landmarks_in_a_line_have_no_surface(own: VertexIndex) -> None:
    few = [landmark.model_copy(update={"id": n, "mirror": None, "uv": (100.0 + n, 100.0)})
           for n, landmark in enumerate(own.landmarks[:5])]  # fmt: skip
    line = own.model_copy(update={"landmarks": tuple(few), "subsets": {}})
    assert landmark_triangles(VertexIndex.model_validate(line.model_dump())).shape == (0, 3)


def test_a_mesh_in_other_units_is_refused(own: VertexIndex, model: MorphableModel, tmp_path: Path) -> None:
    trimesh.PointCloud(model.mean[:50].astype(float)).export(tmp_path / "micrometres.ply")
    with pytest.raises(FormatError, match="mm off the mean face .*: is the file in millimetres"):
        import_index(tmp_path / "micrometres.ply", model, "bad")
