"""Predictions in images, through the command line as a user does it."""

from __future__ import annotations

import errno
import json
import os
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
from densetrain.network.regressor import Answer, Regressor, answer_in_images
from densetrain.prediction.faces import look_again
from densetrain.prediction.predict import ResultNames, Smoother, draw_faces, predict, read_image
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


def test_a_large_picture_is_drawn_at_its_own_size(monkeypatch: pytest.MonkeyPatch) -> None:
    image = np.zeros((30, 40, 3), np.uint8)
    assert draw_faces(image, [], None).shape == (60, 80, 3)
    monkeypatch.setattr("densetrain.prediction.predict.MAX_DRAWN", image.size * 4 - 1)
    assert draw_faces(image, [], None).shape == (30, 40, 3)


def test_smoothing_calms_noise_and_follows_movement() -> None:
    generator = np.random.default_rng(0)
    smoother, still = Smoother(30.0), np.full((5, 3), 100.0, np.float32)
    noisy = [still + generator.normal(0, 1, still.shape).astype(np.float32) for _ in range(200)]
    calm = np.stack([smoother(points) for points in noisy])[50:]
    assert calm.std() < 0.5 * np.stack(noisy)[50:].std()
    smoother = Smoother(30.0)
    fast = [smoother(still + 40.0 * n) for n in range(20)]
    assert abs(float(fast[-1][0, 0]) - (100 + 40 * 19)) < 40


def test_no_input_is_overwritten_and_no_result_either(run: Path, corpus: Path, tmp_path: Path) -> None:
    from PIL import Image

    photograph = corpus / "SYNTH/SYNTH_00000_0.jpg"
    for folder in "abc":
        (tmp_path / folder).mkdir()
        shutil.copy(photograph, tmp_path / folder / "x.jpg")
    box = ("--box", 120, 120, 330, 330)
    three = [tmp_path / folder / "x.jpg" for folder in "abc"]
    assert call("predict", run, *three, *box, "--out", tmp_path / "out").exit_code == 0
    assert {path.name for path in (tmp_path / "out").glob("*.json")} == {"x.json", "x-2.json", "x-3.json"}
    Image.open(photograph).save(tmp_path / "a/y.png")
    before = (tmp_path / "a/y.png").read_bytes()
    (tmp_path / "a/y.json").write_text('{"y.png": [[120, 120, 330, 330]]}')
    boxes = ("--boxes", tmp_path / "a/y.json")
    assert call("predict", run, tmp_path / "a/y.png", *boxes, "--out", tmp_path / "a").exit_code == 0
    assert "120" in (tmp_path / "a/y.json").read_text()
    assert (tmp_path / "a/y.png").read_bytes() == before
    assert (tmp_path / "a/y-2.png").is_file()


def test_files_of_somebody_elses_beside_the_photographs_stay(run: Path, corpus: Path, tmp_path: Path) -> None:
    for name in ("x", "y"):
        shutil.copy(corpus / "SYNTH/SYNTH_00000_0.jpg", tmp_path / f"{name}.jpg")
    (tmp_path / "x.json").write_text('{"shapes": "marked by hand"}')
    asked = ("predict", run, tmp_path / "x.jpg", tmp_path / "y.jpg", "--box", 120, 120, 330, 330, "--out", tmp_path)
    for _ in range(2):  # what the first call wrote, the second replaces
        assert call(*asked).exit_code == 0
        assert {path.name for path in tmp_path.glob("*.json")} == {"x.json", "x-2.json", "y.json"}
    assert "by hand" in (tmp_path / "x.json").read_text()


def test_results_that_cannot_be_written_do_not_end_the_others(run: Path, corpus: Path, tmp_path: Path) -> None:
    (tmp_path / "out/a.png").mkdir(parents=True)
    names = ["a.jpg", f"{'long' * 62}.jpg", os.fsdecode(b"b\xff.jpg"), "c.jpg"]
    (tmp_path / "in").mkdir()
    for name in names:
        shutil.copy(corpus / "SYNTH/SYNTH_00000_0.jpg", tmp_path / "in" / name)
    made = call("predict", run, tmp_path / "in", "--box", 120, 120, 330, 330, "--out", tmp_path / "out")
    assert made.exit_code == 1
    assert "a.png cannot be written: Is a directory" in made.stderr
    assert "1 of 4 inputs have no result, the first is a.jpg" in made.stderr
    assert len(list((tmp_path / "out").glob("*.json"))) == 3
    record = (tmp_path / "out" / os.fsdecode(b"b\xff.json")).read_text()
    assert json.loads(record)["image"] == "b\\udcff.jpg"


def test_results_have_names_of_their_own_and_replace_no_input(tmp_path: Path) -> None:
    names = ResultNames(tmp_path, [tmp_path / "b-0-texture.png", tmp_path / "c.jpg", tmp_path / "elsewhere/d.png"])
    assert names.stem_of(Path("x/a.jpg")) == tmp_path / "a"
    assert names.stem_of(Path("y/a.jpg")) == tmp_path / "a-2"
    assert [names.stem_of(Path(f"{name}.jpg")).name for name in "bcd"] == ["b-2", "c", "d"]
    assert [names.stem_of(Path(name)).name for name in ("IMG.jpg", "img.png")] == ["IMG", "img-2"]
    phone = ResultNames(tmp_path, [tmp_path / "PHOTO.PNG"])
    assert phone.stem_of(Path("PHOTO.PNG")).name == "PHOTO-2"  # on some disks PHOTO.png is the same file
    # A record of the same image, by the same command, is replaced; another's is not.
    (tmp_path / "e.jpg").touch()
    for _ in range(2):
        of_surfaces = ResultNames(tmp_path, [tmp_path / "e.jpg"], after_image="faces").stem_of(tmp_path / "e.jpg")
        assert of_surfaces.name == "e"
        (tmp_path / "e.json").write_text('{"image":"e.jpg","faces":[]}')
    assert ResultNames(tmp_path, [tmp_path / "e.jpg"]).stem_of(tmp_path / "e.jpg").name == "e-2"
    # The files of an .obj name each other, and readers split names at spaces.
    plain = ResultNames(tmp_path, [], plain=True)
    assert [plain.stem_of(Path(name)).name for name in ("a b.jpg", "a_b.jpg")] == ["a_b", "a_b-2"]


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


def test_an_image_that_the_disk_does_not_give_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(path: Path, upright: bool) -> None:
        raise PermissionError(errno.EACCES, "Permission denied", str(path))

    monkeypatch.setattr("densetrain.prediction.predict.read_photograph", refuse)
    with pytest.raises(FormatError, match=r"^a\.jpg cannot be read: Permission denied$"):
        read_image(tmp_path / "a.jpg")


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


def test_many_faces_are_asked_for_in_parts(exported: Path, corpus: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    image = read_photograph(corpus / "SYNTH/SYNTH_00000_0.jpg")
    boxes = np.array([[120, 110, 330, 340]], float) + np.arange(5)[:, None] * [4, 2, -3, 5]
    network = load(exported / "model.onnx", flip_test=True)
    whole = answer_in_images(network, [image] * 5, boxes)
    monkeypatch.setattr("densetrain.network.regressor.TOGETHER", 2)
    parts = answer_in_images(network, [image] * 5, boxes)
    np.testing.assert_allclose(parts.landmarks, whole.landmarks, atol=1e-3)
    assert parts.flip_distance is not None
    assert whole.flip_distance is not None
    np.testing.assert_allclose(parts.flip_distance, whole.flip_distance, atol=1e-3)
    assert parts.sigma_px is whole.sigma_px is None


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


class Seeing:
    """A regressor whose 68 lie in a fixed box, moved from the crop's middle by half of what the light is off."""

    def __init__(self, index: Any, about: Any) -> None:
        self.index, self.about, self.asked = index, about, list[int]()

    def with_sigma(self, crops: Image) -> tuple[Any, None]:
        self.asked.append(len(crops))
        size = self.about.crop_size
        light = crops[..., 0].astype(np.float64).sum(axis=1)
        middle = (light * np.arange(size)).sum(axis=1) / light.sum(axis=1)
        answer = np.zeros((len(crops), len(self.index), 3), np.float32)
        centre = (size - 1) / 2  # a box fills two thirds of its crop
        answer[:, ::2, :2], answer[:, 1::2, :2] = centre * (1 - 2 / 3), centre * (1 + 2 / 3)
        answer[..., 0] += (middle - centre)[:, None] / 2
        return answer, None


def test_a_crop_is_laid_again_until_its_box_rests_and_each_face_by_itself(exported: Path) -> None:
    """The middle of a bright patch is found by halves: the box that starts far off is looked at more often."""
    network = load(exported)
    image = np.zeros((300, 300, 3), np.uint8)
    image[140:160, 140:160] = 255
    near, far = np.array([100.0, 100, 200, 200]), np.array([70.0, 100, 170, 200])
    seeing: Any = Seeing(network.index, network.about)
    boxes, answer = look_again(seeing, [image, image], np.stack([far, near]), 9)
    assert seeing.asked[0] == 2
    assert seeing.asked[1:] == [1] * (len(seeing.asked) - 1)
    assert 3 < len(seeing.asked) < 9
    for start, box, landmarks in zip((far, near), boxes, answer.landmarks, strict=True):
        alone: Any = Seeing(network.index, network.about)
        (only,), of_it = look_again(alone, [image], start[None], 9)
        np.testing.assert_array_equal(only, box)
        np.testing.assert_array_equal(of_it.landmarks[0], landmarks)
        # Without a flip test the last answer counts, to the bit.
        last = answer_in_images(alone, [image], only[None]).landmarks
        np.testing.assert_array_equal(of_it.landmarks, last)
    never: Any = Seeing(network.index, network.about)
    assert (look_again(never, [image], far[None], 0)[0] == far).all()
    assert never.asked == [1]


def test_with_a_flip_test_the_answers_to_all_crops_count_by_how_well_each_agrees(
    exported: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two crops of a face, flip distances of 4 and 2 %: the second answer counts four times as much as the first."""
    network = load(exported)
    answers: list[tuple[float, float | None]] = [(0.0, 4.0), (10.0, 2.0), (12.0, 0.1)]
    face = np.zeros((1, len(network.index), 3), np.float32)
    face[:, ::2, :2] = 100

    def answer(regressor: Regressor, images: list[Image], boxes: Float64) -> Answer:
        place, distance = answers[len(asked)]
        asked.append(boxes)
        apart = None if distance is None else np.array([distance])
        return Answer(face + np.float32(place), np.full((1, len(network.index)), place), apart)

    asked: list[Float64] = []
    monkeypatch.setattr("densetrain.prediction.faces.answer_in_images", answer)
    start = np.array([[50.0, 50, 90, 90]])
    boxes, found = look_again(network, [np.zeros((9, 9, 3), np.uint8)], start, 1)
    np.testing.assert_array_equal(boxes, [[0, 0, 100, 100]])
    np.testing.assert_allclose(found.landmarks, face + 8, rtol=1e-6)
    assert found.sigma_px is not None
    assert found.flip_distance is not None
    np.testing.assert_allclose(found.sigma_px, 8)
    np.testing.assert_allclose(found.flip_distance, [0.2 * 4 + 0.8 * 2])
    # A third crop is laid around the second's answer, not around the mean; below half a percent, surer is no surer.
    asked.clear()
    boxes, found = look_again(network, [np.zeros((9, 9, 3), np.uint8)], start, 2)
    np.testing.assert_array_equal(boxes, [[10, 10, 110, 110]])
    np.testing.assert_allclose(found.landmarks, face + (10 / 4 + 12 / 0.25) / (1 / 16 + 1 / 4 + 4), rtol=1e-5)
    # Without a flip test the last answer alone counts, to the bit, however far off the first was.
    asked.clear()
    answers[:] = [(1e9, None), (0.1, None)]
    found = look_again(network, [np.zeros((9, 9, 3), np.uint8)], start, 1)[1]
    np.testing.assert_array_equal(found.landmarks, face + np.float32(0.1))


@pytest.mark.parametrize(("wide_distance", "taken"), [(1.0, True), (2.0, False)])
def test_an_unsure_network_looks_around_a_detectors_box(
    exported: Path, monkeypatch: pytest.MonkeyPatch, wide_distance: float, taken: bool
) -> None:
    """An ear in a box of 40 px, flip distance 4 %, or with a box of 62 px the face: it counts if it is three times as
    sure; a face that the network is sure of is not looked at again, nor is one in a box that was given.
    """
    network = load(exported)
    network.about = network.about.model_copy(update={"validation_nme": 3.0})
    shape = np.zeros((len(network.index), 3), np.float32)
    shape[::2, :2] = 1
    asked: list[list[float]] = []

    def answer(regressor: Regressor, images: list[Image], boxes: Float64) -> Answer:
        side = boxes[:, 2] - boxes[:, 0]
        asked.append(side.tolist())
        is_ear = side < 50
        size, distance = np.where(is_ear, side, 100), np.where(is_ear, np.where(boxes[:, 0] < 500, 4, 1), wide_distance)
        corner = np.pad(boxes[:, None, :2], ((0, 0), (0, 0), (0, 1)))
        return Answer((corner + shape * size[:, None, None]).astype(np.float32), None, distance)

    monkeypatch.setattr("densetrain.prediction.faces.answer_in_images", answer)
    boxes = np.array([[100.0, 100, 140, 140], [600, 600, 640, 640]])
    image = np.zeros((9, 9, 3), np.uint8)
    _, found = look_again(network, [image, image], boxes, 1)
    assert asked == [[40, 40], [62], [100]]
    assert [float(np.ptp(points[:, 0])) for points in found.landmarks] == [100 if taken else 40, 40]
    assert found.flip_distance is not None
    np.testing.assert_allclose(found.flip_distance, [wide_distance if taken else 4, 1])
    asked.clear()
    look_again(network, [image, image], boxes, 0)
    assert asked == [[40, 40]]
