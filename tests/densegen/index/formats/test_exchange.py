from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest
import trimesh

from densegen.errors import ConfigurationError, FormatError
from densegen.face.morphable_model import MorphableModel
from densegen.face.regions import valid_uv_region
from densegen.geometry.uv import uv_pixels
from densegen.index.candidates import sample_candidates
from densegen.index.corrections import Corrections, correct
from densegen.index.figures import draw_coverage, draw_difference, draw_sheets, draw_uv, draw_views, face_view
from densegen.index.formats.exchange import export_index, import_index
from densegen.index.formats.mesh import landmark_triangles
from densegen.index.quality import measure
from densegen.index.vertex_index import VertexIndex


@pytest.fixture(scope="module")
def own(model: MorphableModel) -> VertexIndex:
    """An index of vertices of the procedural face."""
    candidates = sample_candidates(model, ("jaw", "brows", "nose-tip"))
    return correct(candidates, Corrections(index_name="own", index_version="1.0.0", count=520), model)


def vertices(index: VertexIndex) -> list[int | None]:
    return [landmark.vertex for landmark in index.landmarks]


@pytest.mark.parametrize("suffix", ["json", "csv", "npz", "ply", "obj"])
def test_an_index_comes_back_from_every_format(
    own: VertexIndex, model: MorphableModel, tmp_path: Path, suffix: str
) -> None:
    path = tmp_path / f"index.{suffix}"
    export_index(own, path, model)
    back = import_index(path, model, "own")
    assert vertices(back) == vertices(own)
    assert back.subsets == own.subsets
    assert (back.mirror[68:] == own.mirror[68:]).all()
    if suffix in ("json", "csv", "npz"):
        assert back.landmarks == own.landmarks


def test_an_archive_holds_numbers_not_text(own: VertexIndex, model: MorphableModel, tmp_path: Path) -> None:
    export_index(own, tmp_path / "i.npz", model)
    with np.load(tmp_path / "i.npz") as archive:
        assert archive["vertex"].tolist() == own.vertices
        assert archive["mirror"].tolist() == own.mirror.tolist()
        np.testing.assert_array_equal(np.stack([archive["uv_column"], archive["uv_row"]], axis=1), own.uv)
        assert archive["triangle"].shape == (520, 3)


def test_marked_vertices_of_the_whole_mesh_are_the_landmarks(
    own: VertexIndex, model: MorphableModel, tmp_path: Path
) -> None:
    for suffix in ("ply", "obj"):
        path = tmp_path / f"whole.{suffix}"
        export_index(own, path, model, whole_mesh=True)
        back = import_index(path, model, "own")
        assert sorted(map(int, filter(None, vertices(back)))) == sorted(map(int, filter(None, vertices(own))))
        assert "ibug68" in back.subsets


def test_the_whole_mesh_faces_outside_in_blender(own: VertexIndex, model: MorphableModel, tmp_path: Path) -> None:
    wound = dataclasses.replace(model, triangles=np.ascontiguousarray(model.triangles[:, ::-1]))
    own = own.model_copy(update={"topology": wound.topology})
    export_index(own, tmp_path / "whole.ply", wound, whole_mesh=True)
    assert (trimesh.load(tmp_path / "whole.ply", process=False).face_normals[:, 2] > 0).mean() > 0.9


def test_points_between_vertices_become_triangle_and_weights(model: MorphableModel, tmp_path: Path) -> None:
    mean_mm = model.mean.astype(np.float64) * model.unit_mm
    corners = model.triangles[[500, 4000]]
    points = (mean_mm[corners] * np.array([0.2, 0.5, 0.3])[:, None]).sum(axis=1)
    trimesh.PointCloud(points).export(tmp_path / "points.ply")
    back = import_index(tmp_path / "points.ply", model, "two")
    np.testing.assert_allclose(back.resolve(model).gather(model.mean) * model.unit_mm, points, atol=1e-3)
    assert [set(m.triangle or ()) for m in back.landmarks] == [set(map(int, c)) for c in corners]
    assert back.subsets == {}
    # And once more through a table.
    export_index(back, tmp_path / "points.csv", model)
    assert import_index(tmp_path / "points.csv", model, "two").landmarks == back.landmarks


def test_prnet_numbers_are_uv_pixels_in_row_major_order(model: MorphableModel, tmp_path: Path) -> None:
    rows, columns = np.nonzero(valid_uv_region())
    pick = [0, 20_000, 43_866]
    (tmp_path / "p.txt").write_text("".join(f"{n:.18e}\n" for n in pick))
    made = import_index(tmp_path / "p.txt", model, "p", numbering="prnet")
    assert made.uv.tolist() == [[columns[n], rows[n]] for n in pick]
    assert made.uv[0].tolist() == [5, 5]
    assert made.topology is None


def test_the_landmark_mesh_is_a_surface_facing_outside(own: VertexIndex, model: MorphableModel) -> None:
    triangles = landmark_triangles(own)
    assert 900 < len(triangles) < 1040  # about two triangles a point
    assert set(triangles.ravel()) == set(range(520))
    places = own.resolve(model).gather(model.mean)[triangles]
    normals = np.cross(places[:, 1] - places[:, 0], places[:, 2] - places[:, 0])
    assert (normals[:, 2] > 0).mean() > 0.9


@pytest.mark.parametrize(
    ("name", "text", "options", "words"),
    [
        ("a.txt", "1\n2\n", {}, "say with --numbering what they count, prnet, bfm-53215, bfm-53490"),
        ("a.txt", "1\n43867\n", {"numbering": "prnet"}, r"holds 43867, but prnet counts 43867 \(the valid pixels"),
        ("a.txt", "1\n-1\n", {"numbering": "prnet"}, "holds -1"),
        ("a.txt", "1\n1\n", {"numbering": "prnet"}, "two landmarks have the uv position"),
        ("a.txt", "1.5\n", {"numbering": "prnet"}, "not a list of whole numbers"),
        ("a.txt", "1 2", {"numbering": "bfm-53215"}, "vertices of the Basel model, but .* has 11480"),
        ("a.csv", "x,y\n1,2\n", {}, "not a table of landmarks"),
        ("a.npz", "hello", {}, "not a readable table of landmarks"),
        ("a.ply", "hello", {}, "not a readable mesh|no vertices"),
        ("a.json", "{", {}, "a.json"),
        ("a.xyz", "1", {}, "no import of .xyz"),
    ],
)
def test_what_is_no_index_is_refused_with_a_reason(
    model: MorphableModel, tmp_path: Path, name: str, text: str, options: dict[str, object], words: str
) -> None:
    (tmp_path / name).write_text(text)
    with pytest.raises((FormatError, ConfigurationError), match=words):
        import_index(tmp_path / name, model, "bad", **options)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"name": None}, "name is not a file in the archive"),
        ({"name": np.array("one")}, r"name is <U3 \(\)"),
        ({"name": np.zeros(3)}, r"name is float64 \(3,\)"),
        ({"triangle": np.zeros((520, 2), int)}, r"triangle is int64 \(520, 2\)"),
        ({"name": np.array(["one"])}, "its columns have different lengths"),
        ({"id": np.array(["x"] * 520)}, r"id is <U1 \(520,\)"),
        ({"more": np.zeros(1 << 21)}, r"unpacks to \d+ MiB, at most 8 are read"),
    ],
)
def test_archives_of_something_else_are_refused(
    own: VertexIndex,
    model: MorphableModel,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    changes: dict[str, np.ndarray | None],
    words: str,
) -> None:
    monkeypatch.setattr("densegen.records.MAX_ARCHIVE_BYTES", 8 << 20)
    path = tmp_path / "i.npz"
    export_index(own, path, model)
    with np.load(path) as archive:
        columns = dict(archive) | changes
    np.savez_compressed(path, **{name: column for name, column in columns.items() if column is not None})
    with pytest.raises(FormatError, match=words):
        import_index(path, model, "bad")


def test_landmarks_in_a_line_have_no_surface(own: VertexIndex) -> None:
    few = [landmark.model_copy(update={"id": n, "mirror": None, "uv": (100.0 + n, 100.0)})
           for n, landmark in enumerate(own.landmarks[:5])]  # fmt: skip
    line = own.model_copy(update={"landmarks": tuple(few), "subsets": {}})
    assert landmark_triangles(VertexIndex.model_validate(line.model_dump())).shape == (0, 3)


def test_a_mesh_in_other_units_is_refused(own: VertexIndex, model: MorphableModel, tmp_path: Path) -> None:
    trimesh.PointCloud(model.mean[:50].astype(float)).export(tmp_path / "micrometres.ply")
    with pytest.raises(FormatError, match="mm off the mean face .*: is the file in millimetres"):
        import_index(tmp_path / "micrometres.ply", model, "bad")


def test_text_of_vertices_needs_vertices(
    index: VertexIndex, own: VertexIndex, model: MorphableModel, tmp_path: Path
) -> None:
    export_index(own, tmp_path / "v.txt", model)
    assert [int(line) for line in (tmp_path / "v.txt").read_text().split()] == vertices(own)
    with pytest.raises(ConfigurationError, match="names no vertices"):
        export_index(index, tmp_path / "i.ply", model, whole_mesh=True)
    with pytest.raises(ConfigurationError, match="no export to .doc"):
        export_index(own, tmp_path / "i.doc", model)
    assert not (tmp_path / "i.ply").exists()


def test_pictures_are_drawn(own: VertexIndex, index: VertexIndex, model: MorphableModel, tmp_path: Path) -> None:
    draw_uv(own, tmp_path / "uv.png")
    draw_views(own, model, tmp_path / "views.png")
    draw_sheets(own, tmp_path / "sheets.pdf")
    draw_difference(own, index, tmp_path / "diff.png")
    draw_coverage([measure(own, model), measure(index, model)], tmp_path / "coverage.png")
    for name in ("uv.png", "views.png", "diff.png", "coverage.png"):
        assert (tmp_path / name).read_bytes().startswith(b"\x89PNG")
    assert (tmp_path / "sheets.pdf").read_bytes().startswith(b"%PDF")


def test_a_view_shows_the_side_that_faces_us(model: MorphableModel) -> None:
    outer = model.mean[model.keypoints68[[0, 16]]]  # by the right and by the left ear
    for yaw, expected in ((75.0, [True, False]), (-75.0, [False, True])):
        picture, points, seen = face_view(model, outer, yaw)
        assert seen.tolist() == expected, yaw
        assert picture.shape == (640, 640)
        assert ((points > 0) & (points < 640)).all()
    keypoints = uv_pixels(model.uv[model.keypoints68])
    assert keypoints[0, 0] < keypoints[16, 0]
