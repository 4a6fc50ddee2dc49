"""Predictions in images, through the command line as a user does it."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import simplejpeg
import trimesh
from skimage.transform import resize

from densegen.arrays import Float64, Image
from densegen.dataset.build import build, plan_build
from densegen.errors import ConfigurationError, FormatError
from densegen.geometry.crop import box_around, crop_of_box, warp
from densegen.geometry.flip import flip_points
from densegen.sources.fits import read_fit
from densegen.sources.photograph import read_photograph
from densegen.synthetic.corpus import write_corpus
from densetrain import load
from densetrain.network.checkpoint import load_regressor
from densetrain.prediction.predict import predict
from densetrain.prediction.results import ImageRecord
from densetrain.training.fit import fit
from tests.densetrain.command import call


def test_what_is_predicted_is_written_in_the_images_frame(run: Path, corpus: Path, tmp_path: Path) -> None:
    photograph = corpus / "SYNTH/SYNTH_00000_0.jpg"
    boxes = tmp_path / "boxes.json"
    boxes.write_text(json.dumps({photograph.name: [[120, 120, 330, 330], [100, 110, 300, 310]]}))
    kinds = [word for kind in ("png", "json", "csv", "ply", "obj") for word in ("--write", kind)]
    made = call("predict", run, photograph, "--boxes", boxes, "--out", tmp_path / "out", *kinds)
    assert made.exit_code == 0, made.output
    first, second = json.loads((tmp_path / "out/SYNTH_00000_0.json").read_text())["faces"]
    assert set(first["pose_deg"]) == {"pitch", "yaw", "roll"}
    # By hand: crop, network, and back.
    from densegen.sources.photograph import read_photograph

    network = load_regressor(run)
    crop = crop_of_box(np.array([100.0, 110, 300, 310]), network.about.margin, 256)
    assert crop.scale == pytest.approx(255 / 300)
    points = crop.invert(network(warp(read_photograph(photograph), crop)[None]))[0]
    np.testing.assert_allclose(second["landmarks"], points, atol=2e-3)
    np.testing.assert_allclose(second["keypoints68"], points[:68], atol=2e-3)
    rows = (tmp_path / "out/SYNTH_00000_0.csv").read_text().splitlines()
    assert len(rows) == 1 + 2 * 520
    for suffix in ("ply", "obj"):
        mesh: Any = trimesh.load(tmp_path / f"out/SYNTH_00000_0-1.{suffix}", process=False)
        np.testing.assert_allclose(mesh.vertices * [1, -1, 1], points, atol=2e-3)
        assert len(mesh.faces) > 900


def test_one_bad_image_does_not_end_the_others(run: Path, corpus: Path, tmp_path: Path) -> None:
    photograph = corpus / "SYNTH/SYNTH_00000_0.jpg"
    (tmp_path / "a.jpg").write_bytes(photograph.read_bytes()[:3000])
    shutil.copy(photograph, tmp_path / "b.jpg")
    made = call("predict", run, tmp_path, "--box", 120, 120, 330, 330, "--out", tmp_path / "out")
    assert made.exit_code == 1
    assert [line.split(": ")[:2] for line in made.stderr.splitlines()] == [
        ["densetrain", "a.jpg is cut off"], ["densetrain", "error"]
    ]  # fmt: skip
    assert "1 of 2 inputs have no result, the first is a.jpg" in made.stderr
    assert (tmp_path / "out/b.json").is_file()


def test_an_image_without_a_face_in_the_file_of_boxes_does_not_end_the_others(
    exported: Path, corpus: Path, tmp_path: Path
) -> None:
    one, two = (corpus / f"SYNTH/SYNTH_00000_{n}.jpg" for n in range(2))
    (tmp_path / "boxes.json").write_text(json.dumps({one.name: [], two.name: [120, 110, 330, 340]}))
    made = call(
        "predict", "--onnx", exported / "model.onnx", one, two, "--boxes", tmp_path / "boxes.json", "--write", "json",
        "--out", tmp_path / "out",
    )  # fmt: skip
    assert made.exit_code == 1
    assert f"boxes.json says there is no face in {one.name}" in made.stderr
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["SYNTH_00000_1.json"]


@pytest.mark.parametrize(
    "image",
    [
        np.zeros((90, 90, 3), np.float32),
        np.zeros((90, 90, 3), np.uint16),
        np.zeros((3, 90, 90), np.uint8),
        np.zeros((90, 90), np.uint8),
    ],
)
def test_pixels_of_another_kind_are_refused(exported: Path, image: Any) -> None:
    with pytest.raises(ValueError, match=r"expected \(H, W, 3\) uint8, RGB"):
        predict(load(exported / "model.onnx"), image, [[10, 10, 60, 60]])


def test_a_box_beside_the_image_is_refused(exported: Path, corpus: Path, tmp_path: Path) -> None:
    image = corpus / "SYNTH/SYNTH_00000_0.jpg"
    for box in ((450, 10, 600, 90), (-90, 10, -1, 90)):
        made = call("predict", exported, image, "--out", tmp_path / "out", "--box", *box)
        assert made.exit_code == 1
        assert "lies outside of the 450x450 image" in made.stderr
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (("--flip-test", "--drop-above", 4, "--box", 1, 2, 30, 40), "not for given boxes"),
        (("--prior", "faces"), "--prior is for --write fit"),
        (("--box", 1, 2, 30, 40, "--boxes", "b.json"), "give one of them"),
        (("--limit", 3), "--limit means nothing to images"),
        (("--no-smooth",), "--smooth means nothing to images"),
        (("--box", 1, 2, 30, 40, "--detector", "cascade"), "--detector means nothing to given boxes"),
    ],
)
def test_options_that_would_do_nothing_are_refused(
    run: Path, corpus: Path, options: tuple[object, ...], words: str
) -> None:
    made = call("predict", run, corpus / "SYNTH/SYNTH_00000_0.jpg", *options)
    assert made.exit_code == 2
    assert words in made.stderr


def test_two_answers_of_a_flip_test_say_how_far_they_are_apart(exported: Path, corpus: Path, tmp_path: Path) -> None:
    photograph, box = corpus / "SYNTH/SYNTH_00000_0.jpg", (120, 110, 330, 340)
    asked = (
        "predict",
        "--onnx",
        exported / "model.onnx",
        photograph,
        "--box",
        *box,
        "--write",
        "json",
        "--out",
        tmp_path,
    )
    for extra in ((), ("--flip-test",)):
        assert call(*asked, "--out", tmp_path, *extra).exit_code == 0
        (face,) = json.loads((tmp_path / "SYNTH_00000_0.json").read_text())["faces"]
        assert (face["flip_distance_percent"] is None) == (extra == ())
    # By hand: the two answers, in the image's pixels.
    network = load(exported / "model.onnx")
    crop = crop_of_box(np.array(box), network.about.margin, 256)
    image = warp(read_photograph(photograph), crop)
    one, mirrored = network(np.stack([image, image[:, ::-1]]))
    other = flip_points(mirrored)[network.index.mirror]
    apart = np.linalg.norm((crop.invert(one) - crop.invert(other))[:, :2], axis=1).mean()
    mean = network.index.subset("ibug68", crop.invert((one + other) / 2))
    distance = 100 * apart / np.sqrt(np.prod(np.ptp(mean[:, :2], axis=0)))
    assert face["flip_distance_percent"] == pytest.approx(distance, abs=2e-3)
    assert network.about.flip_line is not None
    height, slope = network.about.flip_line
    assert face["expected_nme_percent"] == pytest.approx(height + slope * distance, abs=1e-2)


def test_faces_are_left_out_by_what_is_expected_of_them(exported: Path, corpus: Path, tmp_path: Path) -> None:
    network, image = load(exported / "model.onnx", flip_test=True), corpus / "SYNTH/SYNTH_00000_0.jpg"

    def detector(image: Any) -> Any:
        return np.array([[120.0, 110, 330, 340], [20, 20, 60, 60]])

    faces = predict(network, image, detector=detector, refine=0)
    expected = sorted(face.expected_nme for face in faces if face.expected_nme is not None)
    assert len(expected) == 2
    between = sum(expected) / 2
    (kept,) = predict(network, image, detector=detector, refine=0, drop_above=between)
    assert kept.expected_nme == expected[0]
    with pytest.raises(FormatError, match="nothing is expected to be within"):
        predict(network, image, detector=detector, refine=0, drop_above=expected[0] / 2)
    with pytest.raises(ConfigurationError, match="needs a flip test"):
        predict(load(exported / "model.onnx"), image, detector=detector, drop_above=between)
    given = predict(network, image, [[20, 20, 60, 60]], drop_above=expected[0] / 2)
    assert len(given) == 1  # what a person gives stays


def test_a_prediction_is_a_record_of_its_schema(exported: Path, corpus: Path, tmp_path: Path) -> None:
    photograph = corpus / "SYNTH/SYNTH_00000_0.jpg"
    onnx = exported / "model.onnx"
    made = call(
        "predict", "--onnx", onnx, photograph, "--box", 120, 110, 330, 340, "--write", "json", "--out", tmp_path
    )
    assert made.exit_code == 0, made.output
    text = (tmp_path / "SYNTH_00000_0.json").read_text()
    record = ImageRecord.model_validate_json(text)  # unknown and missing fields are refused
    assert (record.image, record.image_size.width, len(record.faces)) == (photograph.name, 450, 1)
    assert record.faces[0].score is None  # the box was given
    assert np.array(record.triangles).max() < len(record.faces[0].landmarks) == 520
    schema = json.loads(call("schema", "prediction").stdout)
    assert set(json.loads(text)) == set(schema["properties"])
    face = schema["$defs"]["FaceRecord"]["properties"]
    assert all("description" in field for field in face.values())
    assert set(json.loads(call("schema", "frame").stdout)["properties"]) >= {"number", "time_s", "image"}


def test_a_detectors_confidence_stands_beside_its_face(exported: Path, corpus: Path) -> None:
    def detector(image: Image) -> Float64:
        return np.array([[120.0, 110, 330, 340, 0.75]])

    (face,) = predict(load(exported / "model.onnx"), corpus / "SYNTH/SYNTH_00000_0.jpg", detector=detector)
    assert face.score == 0.75
    assert face.box.shape == (4,)


@pytest.fixture(scope="module")
def demo(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What ``make demo`` makes: it takes a network that has learnt to look at its input."""
    out = tmp_path_factory.mktemp("demo")
    write_corpus(out / "corpus", 1000, seed=0)
    build(plan_build("demo", out / "corpus"), out / "shards")
    fit([out / "shards"], "demo", out / "run")
    return out


@pytest.mark.long
def test_a_portrait_in_eight_times_the_pixels_has_the_same_landmarks(
    demo: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A phone's picture: eight pixels in each direction for one of ours, a sensor's noise in every one of them."""
    network = load_regressor(demo / "run")
    small = read_photograph(demo / "corpus/SYNTH/SYNTH_00003_0.jpg")
    keypoints = read_fit(demo / "corpus/SYNTH/SYNTH_00003_0.mat").keypoints_3d
    assert keypoints is not None
    box = box_around(keypoints.T - 1)
    height, width, _ = small.shape
    large = resize(small.astype(float), (8 * height, 8 * width), order=3, preserve_range=True)
    noisy = np.clip(np.rint(large + np.random.default_rng(3).normal(0, 25, large.shape)), 0, 255).astype(np.uint8)
    (tmp_path / "large.jpg").write_bytes(simplejpeg.encode_jpeg(noisy, 95, "RGB", "420"))

    def apart() -> float:
        """Mean distance of the landmarks in the two pictures, percent of the face's width."""
        (here,) = predict(network, small, [box])
        (there,) = predict(network, tmp_path / "large.jpg", [8 * box + 3.5])  # pixel 0 is pixels 0 to 7, about 3.5
        distances = np.linalg.norm(((there.landmarks - 3.5) / 8 - here.landmarks)[:, :2], axis=1)
        return float(100 * distances.mean() / (box[2] - box[0]))

    averaged = apart()
    assert averaged < 2
    monkeypatch.setattr("densegen.geometry.crop.AVERAGED_ABOVE", np.inf)  # two pixels in each direction, as it was
    assert apart() > 2 * averaged
