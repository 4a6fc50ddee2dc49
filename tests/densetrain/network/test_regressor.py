"""Networks opened by their file or folder."""

from __future__ import annotations

from pathlib import Path

import onnx
import pytest

from densegen.errors import FormatError
from densetrain.network.regressor import open_regressor
from tests.densetrain.command import call


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
