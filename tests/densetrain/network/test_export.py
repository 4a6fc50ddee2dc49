"""A network's exported forms: each describes itself and computes what the checkpoint does."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from densetrain.evaluation.evaluate import read_result
from densetrain.network.checkpoint import TorchRegressor, load_regressor
from densetrain.network.export import ParityError, export_onnx
from densetrain.network.onnx_regressor import OnnxRegressor
from densetrain.training.fit import fit
from tests.densetrain.command import call
from tests.densetrain.conftest import tiny


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


def test_a_half_precision_file_is_in_order_if_crops_are_resized(dataset: Path, tmp_path: Path) -> None:
    """The converter puts its own nodes last, so that the graph's input is used before it is known."""
    fit([dataset], tiny("model.input_size=100", "trainer.epochs=1"), tmp_path / "run")
    export_onnx(load_regressor(tmp_path / "run"), tmp_path, ("fp32", "fp16"))
    onnx = pytest.importorskip("onnx")
    onnx.checker.check_model(onnx.load(str(tmp_path / "model-fp16.onnx")))


def test_a_file_that_computes_something_else_is_not_left(
    run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plain = TorchRegressor.with_sigma
    monkeypatch.setattr(
        TorchRegressor, "with_sigma", lambda self, crops: (plain(self, crops)[0] + np.float32(0.1), None)
    )
    with pytest.raises(ParityError, match="differ from torch's by 0.1 px, at most 0.01"):
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
