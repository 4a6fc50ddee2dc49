"""The commands: what they load, what they refuse."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import torch

from tests.densetrain.command import call, fails, misused


def test_settings_load_no_torch() -> None:
    code = (
        "import sys; from densetrain.cli import main; main(['settings', 'paper'], standalone_mode=False); "
        "print('torch' in sys.modules)"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert result.stdout.splitlines()[-1] == "False"


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
    assert "boxes.json: a.jpg: a box" in fails("predict", run, photograph, "--boxes", tmp_path / "boxes.json", *out)
    assert "grey.png is no torch file" in fails("evaluate", tmp_path / "grey.png", "--shards", dataset)
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
    assert json.loads(call("schema", "settings").output)["type"] == "object"
    assert call("augmented", dataset, "--samples", 5, "--out", tmp_path / "a.png").exit_code == 0
    assert (tmp_path / "a.png").stat().st_size > 50_000
