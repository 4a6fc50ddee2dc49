"""Evaluation, export and prediction, through the command line as a user does it."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import trimesh
from click.testing import CliRunner, Result

from densetrain.checkpoint import TorchRegressor, load_regressor
from densetrain.cli import main
from densetrain.evaluate import read_result
from densetrain.export import ParityError, export_onnx
from densetrain.predict import Smoother
from densetrain.regressor import OnnxRegressor, crop_of_box


def call(*arguments: Any) -> Result:
    return CliRunner().invoke(main, [str(argument) for argument in arguments])


def fails(*arguments: Any) -> str:
    result = call(*arguments)
    assert result.exit_code == 1, result.output
    assert isinstance(result.exception, SystemExit)
    (line,) = result.stderr.strip().splitlines()
    return line


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
def test_prediction_by_onnx_needs_no_torch(exported: Path, corpus: Path, tmp_path: Path) -> None:
    photograph = corpus / "SYNTH/SYNTH_00000_0.jpg"
    code = (
        "import sys\n"
        "sys.modules['torch'] = None\n"
        "from densetrain.cli import main\n"
        f"main(['predict', '--onnx', {str(exported / 'model.onnx')!r}, {str(photograph)!r}, '--box', '120', '120', "
        f"'330', '330', '--out', {str(tmp_path)!r}])\n"
    )
    made = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert made.returncode == 0, made.stderr
    assert (tmp_path / "SYNTH_00000_0.json").is_file()


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
    from densegen.crop import warp
    from densegen.photograph import read_photograph

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
    (tmp_path / "bad.mp4").write_text("no video")
    assert "gives no frame" in fails(
        "predict", "--onnx", exported / "model.onnx", tmp_path / "bad.mp4", "--out", tmp_path / "out"
    )
    assert not (tmp_path / "out/bad.mp4").exists()


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
    assert "give a model or --predictions" in fails("evaluate", "--benchmark", "aflw2000-3d")
    assert "which shards?" in fails("evaluate", run)
    assert "give their folder" not in fails(
        "evaluate", run, "--benchmark", "aflw2000-3d", "--root", tmp_path / "nowhere"
    )
    assert "no evaluation here" in fails("report", tmp_path, *out)
    assert "is no result" in fails("report", tmp_path / "none.json", *out)
    assert "no classification network" in fails("profile", "nonesuch")
    assert not (tmp_path / "out").exists()
    torch.save({"densetrain": {"version": 1}}, tmp_path / "empty.ckpt")
    assert "settings: Field required" in fails("predict", tmp_path / "empty.ckpt", photograph, *out)


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
