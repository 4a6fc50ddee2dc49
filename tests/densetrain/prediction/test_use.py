"""Evaluation, export and prediction, through the command line as a user does it."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
import trimesh
from click.testing import CliRunner, Result

from densegen.errors import FormatError
from densegen.geometry.crop import crop_of_box
from densetrain.cli import main
from densetrain.evaluation.evaluate import read_result
from densetrain.network.checkpoint import TorchRegressor, load_regressor
from densetrain.network.export import ParityError, export_onnx
from densetrain.network.regressor import OnnxRegressor, open_regressor
from densetrain.prediction.predict import Smoother, draw_faces, find_faces
from densetrain.prediction.video import Filmed, Follower, process_video


def call(*arguments: Any) -> Result:
    return CliRunner().invoke(main, [str(argument) for argument in arguments])


def fails(*arguments: Any) -> str:
    result = call(*arguments)
    assert result.exit_code == 1, result.output
    assert isinstance(result.exception, SystemExit)
    (line,) = result.stderr.strip().splitlines()
    return line


def misused(*arguments: Any) -> str:
    result = call(*arguments)
    assert result.exit_code == 2, result.output
    return result.stderr.strip().splitlines()[-1]


@pytest.fixture(scope="module")
def exported(run: Path, dataset: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("exported")
    made = call(
        "export", run, "--out", out, "--variant", "fp16", "--variant", "int8", "--calibrate", dataset, "--samples", 6
    )
    assert made.exit_code == 0, made.output
    return out


@pytest.mark.slow
def test_every_form_of_a_network_scores_alike(
    run: Path, exported: Path, dataset: Path, corpus: Path, tmp_path: Path
) -> None:
    numbers = []
    for number, form in enumerate((run, run / "best.ckpt", exported / "model.onnx", exported / "model.safetensors")):
        out = tmp_path / str(number)
        root = corpus / "SYNTH"
        made = call("evaluate", form, "--benchmark", "aflw2000-3d", "--root", root, "--out", out)
        assert made.exit_code == 0, made.output
        assert (out / "aflw2000-3d-original-truth-worst.png").stat().st_size > 10_000
        numbers.append(read_result(out / "aflw2000-3d-original-truth.json").score.mean)
    assert np.ptp(numbers) < 0.005


@pytest.mark.slow
def test_shards_are_scored_beside_the_constant_prediction_and_reported(
    run: Path, dataset: Path, tmp_path: Path
) -> None:
    shutil.copytree(run, tmp_path / "run")
    made = call("evaluate", tmp_path / "run", "--shards", dataset)
    assert made.exit_code == 0, made.output
    assert "mean landmarks of the training set" in made.output
    assert "region: " in made.output
    assert "expression strength: weakest third" in made.output
    result = read_result(tmp_path / "run/evaluation/shards-validation.json")
    assert len(result.errors) == 8
    assert result.score.all_images == pytest.approx(np.mean(result.errors))
    report = call("report", tmp_path / "run", "--out", tmp_path / "report", "--profile", "mobilenet_v2")
    assert report.exit_code == 0, report.output
    text = (tmp_path / "report/report.md").read_text()
    assert f"| {result.score.mean:.3f} |" in text
    assert "| mobilenet_v2 | 256 | 4.222 | 0.393 |" in text
    assert "<table>" in (tmp_path / "report/report.html").read_text()
    assert (tmp_path / "report/ced-0.png").is_file()
    for picture in re.findall(r"!\[.*\]\((.*)\)", text):
        assert (tmp_path / "report" / picture).is_file()
    assert "Worst cases: evaluation/shards-validation" in text.replace(str(tmp_path / "run") + "/", "")


@pytest.mark.slow
def test_no_evaluation_takes_the_place_of_another(run: Path, dataset: Path, corpus: Path, tmp_path: Path) -> None:
    asked = ("evaluate", run, "--shards", dataset, "--out", tmp_path / "out")
    for extra in ((), (), ("--threshold", 20), ("--split", "train")):
        assert call(*asked, *extra).exit_code == 0
    names = {path.name for path in (tmp_path / "out").glob("*.json")}
    assert names == {f"shards-{stem}{suffix}.json" for suffix in ("", "-constant")
                     for stem in ("validation", "validation-2", "train")}  # fmt: skip
    # Two runs of one name keep their places beside their names in a report.
    for folder in "ab":
        shutil.copytree(run, tmp_path / folder / "run")
        copied = tmp_path / folder / "run"
        assert call("evaluate", copied, "--shards", dataset, "--threshold", 5).exit_code == 0
    report = call("report", tmp_path / "a/run", tmp_path / "b/run", "--out", tmp_path / "report")
    assert report.exit_code == 0, report.output
    text = (tmp_path / "report/report.md").read_text()
    for folder in "ab":
        assert f"| run/best.ckpt in {tmp_path / folder / 'run'} |" in text
    assert len(list((tmp_path / "report").glob("worst-*.png"))) == 2


def test_somebody_elses_worst_cases_are_drawn(corpus: Path, tmp_path: Path) -> None:
    from densetrain.evaluation.benchmarks import aflw2000

    benchmark = aflw2000(corpus / "SYNTH", None)
    off = np.arange(len(benchmark))[:, None, None].astype(float)
    np.savez(tmp_path / "theirs.npz", names=np.array(benchmark.names), landmarks=benchmark.truth + off)
    asked = ("--benchmark", "aflw2000-3d", "--root", corpus / "SYNTH", "--out", tmp_path / "out")
    made = call("evaluate", "--predictions", tmp_path / "theirs.npz", *asked)
    assert made.exit_code == 0, made.output
    result = read_result(tmp_path / "out/aflw2000-3d-original-theirs.json")
    expected = 100 * np.sqrt(2) * np.arange(len(benchmark)) / benchmark.normaliser
    np.testing.assert_allclose(result.errors, expected, rtol=1e-9)
    assert (tmp_path / "out/aflw2000-3d-original-theirs-worst.png").stat().st_size > 10_000


def test_exported_files_describe_themselves_and_agree(run: Path, exported: Path, corpus: Path) -> None:
    network, onnx = load_regressor(run), OnnxRegressor.open(exported / "model.onnx")
    assert onnx.index.fingerprint == network.index.fingerprint
    assert onnx.about == network.about
    crops = np.random.default_rng(0).integers(0, 256, (3, 256, 256, 3), dtype=np.uint8)
    for count in (1, 3):  # the batch is dynamic
        np.testing.assert_allclose(onnx(crops[:count]), network(crops[:count]), atol=1e-3)
    again = load_regressor(exported / "model.safetensors")
    assert (again(crops) == network(crops)).all()
    card = (exported / "README.md").read_text()
    assert "`model-int8.onnx`" in card
    assert (exported / "model-fp16.onnx").stat().st_size < 0.7 * (exported / "model.onnx").stat().st_size


def test_a_file_that_computes_something_else_is_not_left(
    run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plain = TorchRegressor.__call__
    monkeypatch.setattr(TorchRegressor, "__call__", lambda self, crops: plain(self, crops) + np.float32(0.01))
    with pytest.raises(ParityError, match="differ from torch's by 0.01 px, at most 0.001"):
        export_onnx(load_regressor(run), tmp_path)
    assert not list(tmp_path.iterdir())


@pytest.mark.slow
def test_onnx_needs_no_torch(exported: Path, dataset: Path, corpus: Path, tmp_path: Path) -> None:
    photograph = corpus / "SYNTH/SYNTH_00000_0.jpg"
    code = (
        "import sys\n"
        "sys.modules['torch'] = None\n"
        "from densetrain.cli import main\n"
        f"main(['predict', '--onnx', {str(exported / 'model.onnx')!r}, {str(photograph)!r}, '--box', '120', '120', "
        f"'330', '330', '--out', {str(tmp_path)!r}], standalone_mode=False)\n"
        f"main(['evaluate', {str(exported / 'model.onnx')!r}, '--shards', {str(dataset)!r}, '--out', "
        f"{str(tmp_path)!r}])\n"
    )
    made = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert made.returncode == 0, made.stderr
    assert (tmp_path / "SYNTH_00000_0.json").is_file()
    assert "protocol: shards of demo (" in made.stdout


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
    from densegen.geometry.crop import warp
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


@pytest.mark.slow
def test_video_is_followed_and_smoothed(exported: Path, corpus: Path, tmp_path: Path) -> None:
    cv2 = pytest.importorskip("cv2")
    frame = cv2.imread(str(corpus / "SYNTH/SYNTH_00000_0.jpg"))
    writer = cv2.VideoWriter(str(tmp_path / "in.mp4"), cv2.VideoWriter.fourcc(*"mp4v"), 10, frame.shape[1::-1])
    for _ in range(4):
        writer.write(frame)
    writer.release()
    made = call("predict", "--onnx", exported / "model.onnx", tmp_path / "in.mp4", "--out", tmp_path / "out")
    assert made.exit_code == 0, made.output
    lines = [json.loads(line) for line in (tmp_path / "out/in.json").read_text().splitlines()]
    assert [line["number"] for line in lines] == [0, 1, 2, 3]
    reader = cv2.VideoCapture(str(tmp_path / "out/in.mp4"))
    assert int(reader.get(cv2.CAP_PROP_FRAME_COUNT)) == 4
    reader.release()
    given = ("--box", 120, 120, 330, 330, "--limit", 2, "--out", tmp_path / "boxed")
    made = call("predict", "--onnx", exported / "model.onnx", tmp_path / "in.mp4", *given)
    assert json.loads((tmp_path / "boxed/in.json").read_text().splitlines()[0])["faces"][0]["box"] == [
        120,
        120,
        330,
        330,
    ]
    assert "--write is for images" in fails(
        "predict", "--onnx", exported / "model.onnx", tmp_path / "in.mp4", "--write", "csv", "--out", tmp_path / "out"
    )
    (tmp_path / "bad.mp4").write_text("no video")
    assert "gives no frame" in fails(
        "predict", "--onnx", exported / "model.onnx", tmp_path / "bad.mp4", "--out", tmp_path / "out"
    )
    assert not (tmp_path / "out/bad.mp4").exists()


class Writer:
    """Stands in for OpenCV's."""

    def __init__(self, path: str, *_: object) -> None:
        Path(path).write_bytes(b"film")

    @staticmethod
    def fourcc(*_: str) -> int:
        return 0

    def isOpened(self) -> bool:  # noqa: N802
        return True

    def write(self, frame: np.ndarray) -> None: ...
    def release(self) -> None: ...


class Films:
    """Stands in for OpenCV: three grey frames, then Ctrl-C."""

    CAP_PROP_POS_MSEC, CAP_PROP_FPS, CAP_PROP_FRAME_COUNT, VideoWriter = 0, 5, 7, Writer

    def __init__(self) -> None:
        self.left = 3

    def VideoCapture(self, source: object) -> Films:  # noqa: N802
        return self

    def get(self, key: int) -> float:
        return 3.0 if key == self.CAP_PROP_FRAME_COUNT else 10.0

    def isOpened(self) -> bool:  # noqa: N802
        return True

    def grab(self) -> bool:
        return True

    def read(self) -> tuple[bool, np.ndarray]:
        if self.left == 0:
            raise KeyboardInterrupt
        self.left -= 1
        return True, np.full((90, 120, 3), 127, np.uint8)

    def release(self) -> None: ...


@pytest.fixture
def films(monkeypatch: pytest.MonkeyPatch) -> Films:
    stand_in = Films()
    monkeypatch.setattr("densetrain.prediction.video._import_opencv", lambda: stand_in)
    return stand_in


def no_face(image: np.ndarray) -> np.ndarray:
    return np.empty((0, 4))


def test_ctrl_c_ends_and_keeps_a_webcams_recording(run: Path, films: Films, tmp_path: Path) -> None:
    follower = Follower(load_regressor(run), no_face)
    assert process_video(0, follower, tmp_path / "cam", np.empty((0, 3), np.int64)) == Filmed(3, 0, None)
    assert {path.name for path in tmp_path.iterdir()} == {"cam.mp4", "cam.json"}
    assert len((tmp_path / "cam.json").read_text().splitlines()) == 3


def test_ctrl_c_in_a_file_leaves_nothing_half_done(run: Path, films: Films, tmp_path: Path) -> None:
    follower = Follower(load_regressor(run), no_face)
    (tmp_path / "in.mp4").write_bytes(b"a film")
    with pytest.raises(KeyboardInterrupt):
        process_video(tmp_path / "in.mp4", follower, tmp_path / "out", np.empty((0, 3), np.int64))
    assert films.left == 0
    assert [path.name for path in tmp_path.iterdir()] == ["in.mp4"]


def test_a_film_that_the_disk_cut_short_is_none(run: Path, films: Films, tmp_path: Path) -> None:
    """OpenCV reports nothing when the disk is full; the finished file is looked at, and an earlier film stays."""
    (tmp_path / "cam.mp4").write_bytes(b"an earlier film")
    follower = Follower(load_regressor(run), no_face)
    films.left = 2  # the fake's file says three frames
    with pytest.raises(FormatError, match=r"cam\.mp4 could not be written whole, 3 of 2 frames"):
        process_video(0, follower, tmp_path / "cam", np.empty((0, 3), np.int64))
    assert [(path.name, path.read_bytes()) for path in tmp_path.iterdir()] == [("cam.mp4", b"an earlier film")]


def test_a_face_that_was_lost_is_smoothed_from_where_it_comes_back(run: Path) -> None:
    boxes = iter([np.array([[20.0, 20, 90, 90]]), np.empty((0, 4)), np.array([[60.0, 60, 130, 130]])])
    follower = Follower(load_regressor(run), lambda image: next(boxes), refine=0)
    follower.smooth_at(30.0)
    image = np.full((150, 150, 3), 127, np.uint8)
    assert len(follower(image)) == 1
    follower.box = None  # lost
    assert follower(image) == []
    (face,) = follower(image)
    fresh = find_faces(load_regressor(run), image, np.array([[60.0, 60, 130, 130]]))[0]
    np.testing.assert_allclose(face.landmarks, fresh.landmarks, atol=1e-3)


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


def test_wrong_inputs_are_one_line(run: Path, exported: Path, dataset: Path, corpus: Path, tmp_path: Path) -> None:
    photograph = corpus / "SYNTH/SYNTH_00000_0.jpg"
    out = ("--out", tmp_path / "out")
    (tmp_path / "broken.jpg").write_bytes(photograph.read_bytes()[:3000])
    (tmp_path / "grey.png").write_bytes(_plain_png())
    (tmp_path / "text.onnx").write_text("hello")
    (tmp_path / "boxes.json").write_text('{"a.jpg": [[3, 3, 1, 1]]}')
    (tmp_path / "none.json").write_text("{}")
    assert "broken.jpg is cut off" in fails("predict", run, tmp_path / "broken.jpg", *out)
    assert "no face found" in fails("predict", run, tmp_path / "grey.png", *out)
    assert "does not exist" in fails("predict", run, tmp_path / "nothing.jpg", *out)
    assert "text.onnx is not a readable ONNX file" in fails(
        "predict", "--onnx", tmp_path / "text.onnx", photograph, *out
    )
    assert "is no .onnx file" in fails("predict", "--onnx", run, photograph, *out)
    assert "right and bottom" in fails("predict", run, photograph, "--box", 9, 9, 5, 5, *out)
    assert "boxes.json: a.jpg: a box's right" in fails(
        "predict", run, photograph, "--boxes", tmp_path / "boxes.json", *out
    )
    assert "has no box for SYNTH_00000_0.jpg" in fails(
        "predict", run, photograph, "--boxes", tmp_path / "none.json", *out
    )
    assert "does not exist" in fails("predict", tmp_path / "no-run", photograph, *out)
    assert "calibrated on crops" in fails("export", run, "--variant", "int8", *out)
    assert "give a RUN or --predictions" in misused("evaluate", "--benchmark", "aflw2000-3d")
    assert "which shards?" in misused("evaluate", run)
    assert "give their folder" not in fails(
        "evaluate", run, "--benchmark", "aflw2000-3d", "--root", tmp_path / "nowhere"
    )
    (tmp_path / "empty").mkdir()
    assert "no evaluation here" in fails("report", tmp_path / "empty", *out)
    assert "is no result" in fails("report", tmp_path / "none.json", *out)
    assert "no classification network" in fails("profile", "nonesuch")
    assert "vit_b_16 at 250 px" in fails("profile", "vit_b_16", "--input-size", 250)
    assert "alexnet at 32 px" in fails("profile", "alexnet", "--input-size", 32)
    assert "no width multiplier" in fails("profile", "resnet18", "--width", 0.5)
    assert "finite number" in fails("settings", "--set", "optimiser.lr=.inf")
    assert "no device 'nonsense'" in fails("predict", run, photograph, "--device", "nonsense", *out)
    assert "run on the CPU" in fails("predict", "--onnx", exported / "model.onnx", photograph, "--device", "cuda", *out)
    assert "beyond 100,000 px" in fails("predict", run, photograph, "--box", 1, 1, 1e300, 1e300, *out)
    (tmp_path / "boxes.json").write_text(f'{{"a.jpg": [[1, 1, 5, {"9" * 400}]]}}')
    assert "boxes.json: a.jpg" in fails("predict", run, photograph, "--boxes", tmp_path / "boxes.json", *out)
    assert "grey.png is refused: it is damaged" in fails("evaluate", tmp_path / "grey.png", "--shards", dataset)
    assert not (tmp_path / "out").exists()
    torch.save({"densetrain": {"version": 1}}, tmp_path / "empty.ckpt")
    assert "settings: Field required" in fails("predict", tmp_path / "empty.ckpt", photograph, *out)


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


@pytest.mark.parametrize(
    ("key", "value", "words"),
    [
        ("crop_size", "big", "crop_size"),
        ("crop_size", 0, "crop_size"),
        ("margin", float("nan"), "margin"),
        ("margin", -1.0, "margin"),
        ("reference_face", [[1.0, 2.0]], "reference_face"),
        ("reference_face", [[1.0, 2.0, 3.0]], "reference_face has 1 points, expected 520"),
        ("vertex_index", "hello", "vertex index"),
        ("settings", {"model": 3}, "settings.model"),
    ],
)
def test_a_checkpoint_that_contradicts_itself_is_refused(
    run: Path, tmp_path: Path, key: str, value: Any, words: str
) -> None:
    contents = torch.load(run / "best.ckpt", weights_only=True)
    contents["densetrain"][key] = value
    torch.save(contents, tmp_path / "x.ckpt")
    with pytest.raises(FormatError, match=words):
        load_regressor(tmp_path / "x.ckpt")


def test_damaged_weights_are_refused(run: Path, tmp_path: Path) -> None:
    contents = torch.load(run / "best.ckpt", weights_only=True)
    for damage, words in [([], "no named tensors"), ({3: 4}, "no named tensors"), ({}, "those of its own settings")]:
        torch.save(contents | {"state_dict": damage}, tmp_path / "x.ckpt")
        with pytest.raises(FormatError, match=words):
            load_regressor(tmp_path / "x.ckpt")
    contents["state_dict"]["net.mean_landmarks"] *= float("nan")
    torch.save(contents, tmp_path / "x.ckpt")
    with pytest.raises(FormatError, match="gives landmarks that are not finite"):
        load_regressor(tmp_path / "x.ckpt")(np.zeros((1, 256, 256, 3), np.uint8))


def test_one_flipped_bit_in_the_weights_is_found(run: Path, tmp_path: Path) -> None:
    data = bytearray((run / "best.ckpt").read_bytes())
    data[len(data) // 2] ^= 1
    (tmp_path / "flipped.ckpt").write_bytes(data)
    with pytest.raises(FormatError, match="does not match its checksum"):
        load_regressor(tmp_path / "flipped.ckpt")


def test_a_network_that_cannot_take_our_batches_is_refused(exported: Path, tmp_path: Path) -> None:
    network = onnx.load(exported / "model.onnx")
    network.graph.input[0].type.tensor_type.shape.dim[0].dim_value = 2
    onnx.save(network, tmp_path / "two.onnx")
    with pytest.raises(FormatError, match=r"does not have images of shape \(batch, 3, 256, 256\)"):
        open_regressor(tmp_path / "two.onnx")


def test_the_folder_of_an_export_is_a_network_and_no_other_folder_becomes_one(
    run: Path, exported: Path, tmp_path: Path
) -> None:
    assert open_regressor(exported).name.endswith("model.safetensors")
    (tmp_path / "README.md").write_text("my project")
    made = call("export", run, "--out", tmp_path)
    assert (made.exit_code, made.stderr.count("\n")) == (1, 1)
    assert "holds a README.md of something else" in made.stderr
    assert (tmp_path / "README.md").read_text() == "my project"


def test_damaged_results_are_refused(tmp_path: Path) -> None:
    whole: dict[str, Any] = {
        "format": "densetrain evaluation", "method": "a $\\frac{$ b", "made": "m", "names": ["a"],
        "protocol": {"benchmark": "$\\frac{$", "faces": 1, "points": "p"},
        "errors": [1.0], "yaw_deg": [0.0], "groups": {}, "score": {
            "bins": [1.0, 1.0, 1.0], "counts": [1, 0, 0], "mean": 1.0, "std": 0.0, "all_images": 1.0, "balanced": 1.0,
            "balanced_std": 0.0, "balanced_size": 1, "seed": 0, "auc": 90.0, "failures": 0.0, "threshold": 10.0,
        },
    }  # fmt: skip
    path = tmp_path / "r.json"
    path.write_text(json.dumps(whole))
    made = call("report", path, "--out", tmp_path / "out")
    assert made.exit_code == 0, made.output  # matplotlib takes no dollar sign for a formula
    for key, value in [("errors", "1"), ("errors", [None]), ("groups", []), ("score", None), ("method", 3)]:
        path.write_text(json.dumps(whole | {key: value}))
        assert f"damaged result: {key}" in fails("report", path, "--out", tmp_path / "out")
    for score in ({"threshold": float("inf")}, {"bins": [1.0]}):
        path.write_text(json.dumps(whole | {"score": {**whole["score"], **score}}))
        assert "the score is damaged" in fails("report", path, "--out", tmp_path / "out")
    path.write_text(json.dumps(whole | {"names": ["a", "b"]}))
    assert "2 names, 1 errors" in fails("report", path, "--out", tmp_path / "out")
    path.write_text(json.dumps(whole | {"method": "\ud800"}))
    assert "is no text" in fails("report", path, "--out", tmp_path / "out")
    path.write_text("[" * 100_000)
    assert "is no result" in fails("report", path, "--out", tmp_path / "out")


def _plain_png() -> bytes:
    import io

    from PIL import Image

    buffer = io.BytesIO()
    Image.new("RGB", (200, 150), (127, 127, 127)).save(buffer, "PNG")
    return buffer.getvalue()


def test_settings_and_the_contact_sheet_are_printed(dataset: Path, tmp_path: Path) -> None:
    assert "epochs: 7" in call("settings", "paper", "--set", "trainer.epochs=7").output
    assert json.loads(call("settings", "--schema").output)["type"] == "object"
    assert call("augmented", dataset, "--samples", 5, "--out", tmp_path / "a.png").exit_code == 0
    assert (tmp_path / "a.png").stat().st_size > 50_000
