"""Landmarks of people's files."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from densegen.errors import ConfigurationError, DensegenError, FormatError
from densegen.sources.annotations import read_annotations

POINTS = np.arange(136, dtype=float).reshape(68, 2) + 10


def as_pts(points: np.ndarray) -> str:
    return f"version: 1\nn_points:  {len(points)}\n{{\n" + "\n".join(f"{x} {y}" for x, y in points) + "\n}\n"


def test_pts_files_count_from_one_and_are_named_as_their_photographs(tmp_path: Path) -> None:
    (tmp_path / "deep").mkdir()
    (tmp_path / "deep/a b.pts").write_text(as_pts(POINTS))
    (tmp_path / "._c.pts").write_text("rubbish of macOS")
    found = read_annotations(tmp_path)
    assert (found.kind, found.first_pixel, len(found.faces)) == ("ibug68", 1, 1)
    assert found.faces[0].image == "deep/a b"
    np.testing.assert_array_equal(found.faces[0].points, POINTS - 1)
    np.testing.assert_array_equal(read_annotations(tmp_path / "deep/a b.pts", first_pixel=0).faces[0].points, POINTS)


def test_one_face_in_every_format_is_the_same(tmp_path: Path) -> None:
    wide = ["image," + ",".join(f"x{k},y{k}" for k in range(68)), "a.jpg," + ",".join(map(str, POINTS.ravel()))]
    (tmp_path / "wide.csv").write_text("\n".join(wide) + "\n")
    long = ["image,point,x,y", *(f"a.jpg,{k},{x},{y}" for k, (x, y) in enumerate(POINTS))]
    (tmp_path / "long.csv").write_text("\n".join(long) + "\n")
    (tmp_path / "list.json").write_text(json.dumps({"a.jpg": POINTS.tolist()}))
    (tmp_path / "named.json").write_text(json.dumps({"a.jpg": {str(k): p for k, p in enumerate(POINTS.tolist())}}))
    flat = np.concatenate([POINTS, np.full((68, 1), 2)], axis=1).ravel().tolist()
    coco = {"images": [{"id": 5, "file_name": "a.jpg"}], "annotations": [{"image_id": 5, "keypoints": flat}]}
    (tmp_path / "coco.json").write_text(json.dumps(coco))
    np.save(tmp_path / "points.npy", POINTS[None])
    np.save(tmp_path / "across.npy", POINTS.T[None])
    (tmp_path / "names.txt").write_text("a.jpg\n")
    np.savez(tmp_path / "both.npz", names=["a.jpg"], landmarks=POINTS[None])
    for name in (
        "wide.csv",
        "long.csv",
        "list.json",
        "named.json",
        "coco.json",
        "points.npy",
        "across.npy",
        "both.npz",
    ):
        found = read_annotations(tmp_path / name, names=tmp_path / "names.txt")
        assert found.kind == "ibug68", name
        assert [face.image for face in found.faces] == ["a.jpg"], name
        np.testing.assert_array_equal(found.faces[0].points, POINTS, err_msg=name)


def test_points_that_are_not_visible_are_nan(tmp_path: Path) -> None:
    rows = [
        "image,point,x,y",
        "a.jpg,0,1,2",
        "a.jpg,1,-1,-1",
        "a.jpg,2,,",
        "a.jpg,3,nan,1",
        "a.jpg,4,-1,452",
        "b.jpg,0,3,4",
    ]
    (tmp_path / "a.csv").write_text("\n".join(rows))
    first, second = read_annotations(tmp_path / "a.csv").faces
    assert np.isnan(first.points[:, 0]).tolist() == [False, True, True, True, True]
    assert np.isnan(second.points[:, 0]).tolist() == [False, True, True, True, True]
    coco = {
        "images": [{"id": 1, "file_name": "a.jpg"}],
        "annotations": [{"image_id": 1, "keypoints": [5, 6, 1, 7, 8, 0]}, {"image_id": 1, "bbox": [0, 0, 1, 1]}],
    }
    (tmp_path / "coco.json").write_text(json.dumps(coco))
    (face,) = read_annotations(tmp_path / "coco.json").faces
    assert np.isnan(face.points[:, 0]).tolist() == [False, True]


def test_a_point_that_comes_again_is_of_the_next_face(tmp_path: Path) -> None:
    by_face = ["a.jpg,0,1,2", "a.jpg,1,3,4", "a.jpg,0,5,6", "a.jpg,1,7,8"]
    for rows in (by_face, sorted(by_face)):
        (tmp_path / "a.csv").write_text("\n".join(["image,point,x,y", *rows]))
        first, second = read_annotations(tmp_path / "a.csv").faces
        assert first.points.tolist() == [[1, 2], [3, 4]]
        assert second.points.tolist() == [[5, 6], [7, 8]]


def test_faces_with_other_points_hidden_are_told_apart_by_their_column(tmp_path: Path) -> None:
    rows = ["a.jpg,0,1,2,left", "a.jpg,1,7,8,right", "a.jpg,2,3,4,left", "a.jpg,2,9,9,right"]
    (tmp_path / "a.csv").write_text("\n".join(["image,point,x,y,face", *rows]))
    left, right = read_annotations(tmp_path / "a.csv").faces
    assert left.points[[0, 2]].tolist() == [[1, 2], [3, 4]]
    assert right.points[[1, 2]].tolist() == [[7, 8], [9, 9]]
    assert np.isnan(left.points[1]).all()
    assert np.isnan(right.points[0]).all()


@pytest.mark.parametrize(
    ("name", "contents", "message"),
    [
        ("a.txt", "1 2", "landmarks are a folder of .pts files"),
        ("a.pts", as_pts(POINTS)[:80], "holds .* points, its head says 68|cannot reshape"),
        ("a.pts", "version: 1\n", "holds 0 points|is not an iBUG"),
        ("a.csv", "x,y\n1,2\n", "the first column is"),
        ("a.csv", "image,x0,y0,x1\na.jpg,1,2,3\n", "expected x and y of each point"),
        ("a.csv", "image,x0,y0\na.jpg,1\n", "line 2: 2 cells, expected 3"),
        ("a.csv", "image,x0,y0\na.jpg,1,zwei\n", "line 2: could not convert"),
        ("a.csv", "image,point,x,y\na.jpg,0,1e9,2\n", "at 1e\\+09 px, at most"),
        ("a.csv", "image,x0,y0\n", "holds no face"),
        ("a.csv", "image,point,x,y\na.jpg,0,1,2\na.jpg,1,3,4\na.jpg,0,5,6\n", "a.jpg has 2 faces, not all .* '1'"),
        ("a.csv", "image,face,point,x,y\na.jpg,f,0,1,2\na.jpg,f,0,3,4\n", "line 3: the point '0' of face 'f'"),
        ("a.json", "[1, 2]", "not a JSON object"),
        (
            "a.json",
            json.dumps({"a.jpg": [[x, y, 0.9 + x / 1e5] for x, y in POINTS]}),
            "a.jpg has third numbers from 0.9",
        ),
        ("a.json", '{"a.jpg": [[1, 2], [3]]}', "a.json: "),
        ("a.json", '{"a.jpg": [[1, 2]], "b.jpg": [[1, 2], [3, 4]]}', "faces have 1 to 2 points"),
        ("a.json", '{"a.jpg": [[1, 2]], "b.jpg": {"0": [3, 4]}}', "some faces have points by name"),
        ("a.json", '{"images": [], "annotations": [{"image_id": 1, "keypoints": [1, 2, 1]}]}', "names the image 1"),
        ("a.json", '{"images": [], "annotations": [{"image_id": 1, "keypoints": [1, 2]}]}', "expected x, y and"),
        ("a.json", "{", "is not JSON"),
        ("a.npy", "no array", "is not a readable NumPy array"),
    ],
)
def test_what_is_no_file_of_landmarks_says_why(tmp_path: Path, name: str, contents: str, message: str) -> None:
    (tmp_path / name).write_text(contents)
    (tmp_path / "names.txt").write_text("a.jpg\n")
    with pytest.raises(DensegenError, match=message):
        read_annotations(tmp_path / name, names=tmp_path / "names.txt")


@pytest.mark.parametrize(
    ("name", "contents"),
    [
        ("a.json", '{"a.jpg": {"30": [5]}}'),
        ("a.json", '{"a.jpg": {"30": "12"}}'),
        ("a.json", '{"a.jpg": {}}'),
        ("a.json", '{"": [[1, 2]]}'),
        ("a.json", '{"./": {"3": [1, 2]}}'),
        ("a.json", '{"a.jpg": {"3": [1, 2], "3": [3, 4]}}'),
        ("a.json", '{"a.jpg": {"' + "9" * 5000 + '": [1, 2]}}'),
        ("a.json", '{"a.jpg": [[1, 2], [3, 4]], "a.jpg": [[1, 2], [3, 4]]}'),
        ("a.json", '{"a.jpg": 5}'),
        ("a.json", '{"images": 3, "annotations": [1]}'),
        ("a.pts", "n_points 68\n{\n1 2\n3\n}"),
        ("a.csv", "image,x0,y0\ra.jpg,1"),
        ("a.csv", "image," + "x" * 200_000),
    ],
)
def test_hostile_files_are_refused_in_one_line(tmp_path: Path, name: str, contents: str) -> None:
    (tmp_path / name).write_bytes(contents.encode())
    with pytest.raises(DensegenError) as caught:
        read_annotations(tmp_path / name)
    assert len(str(caught.value)) < 400


def test_a_table_of_a_spreadsheet_sorted_by_point_is_read(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text(
        "\ufeffimage,point,x,y\na.jpg,0,1,2\nb.jpg,0,3,4\na.jpg,1,5,6\nb.jpg,1,7,8\n", "utf-8"
    )
    first, second = read_annotations(tmp_path / "a.csv").faces
    assert (first.image, first.points.tolist()) == ("a.jpg", [[1, 2], [5, 6]])
    assert (second.image, second.points.tolist()) == ("b.jpg", [[3, 4], [7, 8]])


def test_points_in_an_order_are_as_many_as_their_kind_has(tmp_path: Path) -> None:
    (tmp_path / "a.json").write_text(json.dumps({"a.jpg": POINTS[:51].tolist()}))
    with pytest.raises(FormatError, match="faces have 51 points in an order, ibug68 68: name them"):
        read_annotations(tmp_path / "a.json", kind="ibug68")


def test_a_number_beyond_the_kind_is_refused(tmp_path: Path) -> None:
    (tmp_path / "a.json").write_text('{"a.jpg": {"68": [1, 2]}}')
    with pytest.raises(FormatError, match="ibug68 has no point '68': it counts from 0 to 67"):
        read_annotations(tmp_path / "a.json")


def test_an_array_needs_names_as_many_as_faces(tmp_path: Path) -> None:
    np.save(tmp_path / "a.npy", POINTS[None])
    with pytest.raises(ConfigurationError, match="give a text file of one a line with --names"):
        read_annotations(tmp_path / "a.npy")
    (tmp_path / "names.txt").write_text("a.jpg\nb.jpg\n")
    with pytest.raises(FormatError, match="has 1 faces and 2 names"):
        read_annotations(tmp_path / "a.npy", names=tmp_path / "names.txt")
    np.save(tmp_path / "a.npy", np.array([[None]]), allow_pickle=True)
    with pytest.raises(FormatError, match="not a readable NumPy array"):
        read_annotations(tmp_path / "a.npy", names=tmp_path / "names.txt")


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"images": 5}, "images is no list"),
        ({"images": [{"id": 1}]}, "image 0 has no 'file_name'"),
        ({"annotations": [5]}, "annotation 0 has no 'image_id'"),
    ],
)
def test_what_a_coco_file_lacks_is_named(tmp_path: Path, change: dict[str, object], words: str) -> None:
    flat = [1, 2, 2] * 68
    coco = {"images": [{"id": 5, "file_name": "a.jpg"}], "annotations": [{"image_id": 5, "keypoints": flat}]}
    (tmp_path / "c.json").write_text(json.dumps(coco | change))
    with pytest.raises(FormatError, match=f"c.json: {words}"):
        read_annotations(tmp_path / "c.json")
