"""Exported networks in ONNX Runtime."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest

from densegen.errors import FormatError
from densetrain.network.onnx_graph import refused
from densetrain.network.regressor import open_regressor


def test_a_network_that_cannot_take_our_batches_is_refused(exported: Path, tmp_path: Path) -> None:
    network = onnx.load(exported / "model.onnx")
    network.graph.input[0].type.tensor_type.shape.dim[0].dim_value = 2
    onnx.save(network, tmp_path / "two.onnx")
    with pytest.raises(FormatError, match=r"does not have images of shape \(batch, 3, 256, 256\)"):
        open_regressor(tmp_path / "two.onnx")


@pytest.mark.parametrize("kind", ["Expand", "Pad", "Resize", "Mul", "sparse", "sparse attribute", "Loop"])
def test_a_few_bytes_that_would_make_gigabytes_are_refused(exported: Path, tmp_path: Path, kind: str) -> None:
    """While the file is opened, since they follow from constants alone; and of a picture they are what networks do."""
    network = onnx.load(exported / "model.onnx")
    graph, numbers = network.graph, onnx.numpy_helper.from_array
    graph.initializer.extend([numbers(np.zeros(1, np.float32), "zero"), numbers(np.array([10**10]), "many")])
    sparse = onnx.helper.make_sparse_tensor(
        numbers(np.ones(1, np.float32), "sparse"), numbers(np.zeros(1, np.int64)), [10**10]
    )
    if kind == "sparse":
        graph.sparse_initializer.append(sparse)
    elif kind == "sparse attribute":
        graph.node.append(onnx.helper.make_node("Constant", [], ["made"], sparse_value=sparse))
    else:
        graph.node.append(onnx.helper.make_node(kind, ["zero", "many"], ["made"]))
    onnx.save(network, tmp_path / "made.onnx")
    with pytest.raises(FormatError, match=r"refused: .*(sparse constant|of constants|Loop)"):
        open_regressor(tmp_path / "made.onnx")
    if kind in ("Expand", "Pad", "Resize", "Mul"):
        graph.node[-1].input[0] = graph.input[0].name
        assert not refused(network.SerializeToString())


def test_a_file_without_our_description_is_not_opened(exported: Path, tmp_path: Path) -> None:
    network = onnx.load(exported / "model.onnx")
    del network.metadata_props[:]
    onnx.save(network, tmp_path / "bare.onnx")
    with pytest.raises(FormatError, match="lacks its description"):
        open_regressor(tmp_path / "bare.onnx")
