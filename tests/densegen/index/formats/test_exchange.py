from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import trimesh

from densegen.errors import ConfigurationError, FormatError
from densegen.face.morphable_model import MorphableModel
from densegen.index.formats.exchange import export_index, import_index
from densegen.index.vertex_index import VertexIndex


@pytest.mark.parametrize("suffix", ["json", "csv", "npz", "ply", "obj"])
def test_an_index_comes_back_from_every_format(
    own: VertexIndex, model: MorphableModel, tmp_path: Path, suffix: str
) -> None:
    path = tmp_path / f"index.{suffix}"
    export_index(own, path, model)
    back = import_index(path, model, "own")
    assert back.vertices == own.vertices
    assert back.subsets == own.subsets
    assert (back.mirror[68:] == own.mirror[68:]).all()
    if suffix in ("json", "csv", "npz"):
        assert back.landmarks == own.landmarks


@pytest.mark.parametrize("suffix", ["ply", "obj"])
def test_a_mesh_of_points_between_vertices_keeps_partners_and_regions(
    index: VertexIndex, model: MorphableModel, tmp_path: Path, suffix: str
) -> None:
    export_index(index, tmp_path / f"i.{suffix}", model)
    back = import_index(tmp_path / f"i.{suffix}", model, "back")
    assert back.mirror_closed
    assert back.mirror.tolist() == index.mirror.tolist()
    assert [mark.region for mark in back.landmarks[:68]] == [mark.region for mark in index.landmarks[:68]]


def test_an_archive_holds_numbers_not_text(own: VertexIndex, model: MorphableModel, tmp_path: Path) -> None:
    export_index(own, tmp_path / "i.npz", model)
    with np.load(tmp_path / "i.npz") as archive:
        assert archive["vertex"].tolist() == own.vertices
        assert archive["mirror"].tolist() == own.mirror.tolist()
        np.testing.assert_array_equal(np.stack([archive["uv_column"], archive["uv_row"]], axis=1), own.uv)
        assert archive["triangle"].shape == (520, 3)


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
    of_excel = "\N{BYTE ORDER MARK}" + (tmp_path / "points.csv").read_text()
    (tmp_path / "points.csv").write_text(of_excel, encoding="utf-8")
    assert import_index(tmp_path / "points.csv", model, "two").landmarks == back.landmarks


@pytest.mark.parametrize(
    ("name", "text", "options", "words"),
    [
        ("a.txt", "1\n2\n", {}, "say with --numbering what they count, prnet, bfm-53215, bfm-53490, model"),
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
