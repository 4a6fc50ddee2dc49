"""``densetrain reconstruct`` as a user calls it."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from densegen.errors import ConfigurationError
from densegen.geometry.crop import box_around
from densegen.sources.fits import read_fit
from tests.densetrain.command import call, fails


@pytest.fixture
def boxes(corpus: Path, tmp_path: Path) -> Path:
    """The true boxes of the portraits."""
    found = {}
    for path in sorted((corpus / "SYNTH").glob("*.mat")):
        points = read_fit(path).keypoints_3d
        assert points is not None
        found[f"{path.stem}.jpg"] = [box_around(points.T - 1).tolist()]
    (tmp_path / "boxes.json").write_text(json.dumps(found))
    return tmp_path / "boxes.json"


def test_a_network_gives_surfaces_from_checkpoint_and_onnx_alike(
    run: Path, exported: Path, corpus: Path, boxes: Path, tmp_path: Path
) -> None:
    photo = corpus / "SYNTH/SYNTH_00000_0.jpg"
    shared = ("--model", corpus / "model.safetensors", "--boxes", boxes)
    for network, out in ((run, "torch"), (exported / "model.onnx", "onnx")):
        made = call("reconstruct", network, photo, *shared, "--out", tmp_path / out)
        assert made.exit_code == 0, made.output
    names = sorted(path.name for path in (tmp_path / "torch").iterdir())
    assert names == ["SYNTH_00000_0-0.glb", "SYNTH_00000_0-0.mat", "SYNTH_00000_0.json", "SYNTH_00000_0.png"]
    one, other = (read_fit(tmp_path / out / "SYNTH_00000_0-0.mat") for out in ("torch", "onnx"))
    np.testing.assert_allclose(one.pose, other.pose, rtol=1e-3, atol=1e-3)
    written = call(
        "predict", run, photo, "--boxes", boxes, "--model", corpus / "model.safetensors", "--write", "fit",
        "--out", tmp_path / "predicted",
    )  # fmt: skip
    assert written.exit_code == 0, written.output
    same = read_fit(tmp_path / "predicted/SYNTH_00000_0-0.mat")
    np.testing.assert_array_equal(same.pose, one.pose)
    np.testing.assert_array_equal(same.shape, one.shape)


def test_anybodys_landmarks_give_the_true_face(corpus: Path, tmp_path: Path) -> None:
    true = read_fit(corpus / "SYNTH/SYNTH_00000_0.mat")
    assert true.keypoints_3d is not None
    (tmp_path / "marks.json").write_text(json.dumps({"SYNTH_00000_0.jpg": (true.keypoints_3d[:2].T - 1).tolist()}))
    made = call(
        "reconstruct", corpus / "SYNTH/SYNTH_00000_0.jpg", "--landmarks", tmp_path / "marks.json",
        "--model", corpus / "model.safetensors", "--out", tmp_path / "out", "--write", "mat", "--write", "obj",
    )  # fmt: skip
    assert made.exit_code == 0, made.output
    found = read_fit(tmp_path / "out/SYNTH_00000_0-0.mat")
    assert found.keypoints_3d is not None
    off = np.linalg.norm(found.keypoints_3d[:2] - true.keypoints_3d[:2], axis=0)
    assert off.mean() < 1  # px of a face of 200
    assert {path.suffix for path in (tmp_path / "out").iterdir()} == {".mat", ".obj", ".mtl", ".png"}


def test_of_two_photographs_of_one_name_each_has_its_own_landmarks(corpus: Path, tmp_path: Path) -> None:
    (tmp_path / "p/sub").mkdir(parents=True)
    marks, true = {}, {}
    for number, name in enumerate(("a", "sub/a")):
        fit = read_fit(corpus / f"SYNTH/SYNTH_0000{number}_0.mat")
        assert fit.keypoints_3d is not None
        (tmp_path / f"p/{name}.jpg").symlink_to(corpus / f"SYNTH/SYNTH_0000{number}_0.jpg")
        marks[f"{name}.png"] = (fit.keypoints_3d[:2].T - 1).tolist()  # another suffix
        true[name] = fit.pose
    (tmp_path / "marks.json").write_text(json.dumps(marks))
    made = call(
        "reconstruct", tmp_path / "p/a.jpg", tmp_path / "p/sub/a.jpg", "--landmarks", tmp_path / "marks.json",
        "--model", corpus / "model.safetensors", "--out", tmp_path / "out", "--write", "mat",
    )  # fmt: skip
    assert made.exit_code == 0, made.output
    assert made.output.count("1 face, ") == 2
    for stem, name in (("a", "a"), ("a-2", "sub/a")):
        assert read_fit(tmp_path / f"out/{stem}-0.mat").pose[1] == pytest.approx(true[name][1], abs=0.05)


def test_a_face_without_a_surface_does_not_take_the_others_with_it(corpus: Path, tmp_path: Path) -> None:
    true = read_fit(corpus / "SYNTH/SYNTH_00000_0.mat")
    assert true.keypoints_3d is not None
    faces = [[[5, 5]] * 68, (true.keypoints_3d[:2].T - 1).tolist()]
    (tmp_path / "marks.json").write_text(json.dumps({"SYNTH_00000_0.jpg": faces}))
    line = fails(
        "reconstruct", corpus / "SYNTH/SYNTH_00000_0.jpg", "--landmarks", tmp_path / "marks.json",
        "--model", corpus / "model.safetensors", "--out", tmp_path / "out", "--write", "mat",
    )  # fmt: skip
    assert "face 0: the 68 points lie on a line" in line
    assert "of 2 faces 1 were written" in line
    assert read_fit(tmp_path / "out/SYNTH_00000_0-0.mat").pose[1] == pytest.approx(true.pose[1], abs=0.05)


def test_no_file_that_was_given_is_overwritten(corpus: Path, tmp_path: Path) -> None:
    (tmp_path / "p.jpg").write_bytes((corpus / "SYNTH/SYNTH_00000_0.jpg").read_bytes())
    points = read_fit(corpus / "SYNTH/SYNTH_00000_0.mat").keypoints_3d
    assert points is not None
    text = json.dumps({"p.jpg": (points[:2].T - 1).tolist()})
    (tmp_path / "p.json").write_text(text)
    made = call(
        "reconstruct", tmp_path / "p.jpg", "--landmarks", tmp_path / "p.json", "--model", corpus / "model.safetensors",
        "--out", tmp_path, "--write", "json",
    )  # fmt: skip
    assert made.exit_code == 0, made.output
    assert (tmp_path / "p.json").read_text() == text
    assert (tmp_path / "p-2.json").is_file()


def test_video_shares_one_identity(exported: Path, corpus: Path, tmp_path: Path) -> None:
    cv2 = pytest.importorskip("cv2")
    from densegen.sources.photograph import read_photograph

    film = cv2.VideoWriter(str(tmp_path / "film.mp4"), cv2.VideoWriter.fourcc(*"mp4v"), 25.0, (450, 450))
    for number in (0, 0, 0, 0):
        film.write(read_photograph(corpus / f"SYNTH/SYNTH_00000_{number}.jpg")[..., ::-1])
    film.release()
    points = read_fit(corpus / "SYNTH/SYNTH_00000_0.mat").keypoints_3d
    assert points is not None
    (tmp_path / "boxes.json").write_text(json.dumps({"film.mp4": [box_around(points.T - 1).tolist()]}))
    made = call(
        "reconstruct", exported / "model.onnx", tmp_path / "film.mp4", "--model", corpus / "model.safetensors",
        "--boxes", tmp_path / "boxes.json", "--out", tmp_path / "out",
    )  # fmt: skip
    assert made.exit_code == 0, made.output
    fits = json.loads((tmp_path / "out/film-fits.json").read_text())
    assert len(fits["identity"]) > 0
    assert [frame["number"] for frame in fits["frames"]] == list(range(len(fits["frames"])))
    assert {path.name for path in (tmp_path / "out").iterdir()} == {
        "film.mp4", "film.jsonl", "film-fits.json", "film-identity.ply"
    }  # fmt: skip


def test_a_film_that_cannot_be_followed_does_not_end_the_photographs(
    exported: Path, corpus: Path, boxes: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def missing() -> None:
        raise ConfigurationError("video needs OpenCV")

    monkeypatch.setattr("densetrain.prediction.video._import_opencv", missing)
    (tmp_path / "a.mp4").write_bytes(b"a film")
    made = call(
        "reconstruct", exported / "model.onnx", tmp_path / "a.mp4", corpus / "SYNTH/SYNTH_00000_0.jpg",
        "--box", 120, 110, 330, 340, "--model", corpus / "model.safetensors", "--out", tmp_path / "out",
    )  # fmt: skip
    assert made.exit_code == 1
    assert "densetrain: a.mp4: video needs OpenCV\n" in made.stderr
    assert (tmp_path / "out/SYNTH_00000_0.json").is_file()


def test_wrong_inputs_are_one_line(run: Path, corpus: Path, boxes: Path, tmp_path: Path) -> None:
    photo, model = corpus / "SYNTH/SYNTH_00000_0.jpg", corpus / "model.safetensors"

    def fails(*arguments: object) -> str:
        made = call("reconstruct", *arguments, "--out", tmp_path / "out")
        assert (made.exit_code, made.stderr.count("\n")) == (1, 1), made.output
        assert not (tmp_path / "out").exists()
        return made.stderr

    assert "does not exist" in fails(run, photo, "--model", tmp_path / "none.safetensors")
    assert "does not exist" in fails(run, tmp_path / "none.jpg", "--model", model)
    (tmp_path / "other.json").write_text(json.dumps({"b.jpg": [[1, 2]] * 68}))
    assert "has no landmarks of SYNTH_00000_0.jpg" in fails(
        photo, "--landmarks", tmp_path / "other.json", "--model", model
    )
    (tmp_path / "line.json").write_text(json.dumps({photo.name: [[n, n] for n in range(68)]}))
    assert "lie on a line" in fails(photo, "--landmarks", tmp_path / "line.json", "--model", model)
    assert "--box: a box's right and bottom lie" in fails(run, photo, "--box", 10, 10, 5, 5, "--model", model)
    (tmp_path / "none.json").write_text("{}")
    assert "has no box for" in fails(run, photo, "--boxes", tmp_path / "none.json", "--model", model)
    assert call("reconstruct", run, "--model", model).exit_code == 2
    assert "means nothing to a RUN" in call("reconstruct", run, photo, "--first-pixel", 1, "--model", model).stderr
    assert call("reconstruct", photo, "--landmarks", boxes, "--flip-test", "--model", model).exit_code == 2
    assert call("predict", run, photo, "--write", "fit").exit_code == 2
    assert "--limit means nothing to images" in call("reconstruct", run, photo, "--limit", 1, "--model", model).stderr
