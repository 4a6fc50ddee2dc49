"""What evaluation and prediction cost beside the decoding, the crop and the network that they cannot do without."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from threadpoolctl import threadpool_limits

from densegen.dataset.shard_set import open_dataset
from densegen.geometry.crop import box_around, crop_of_box, warp
from densegen.sources.fit_list import list_fits
from densegen.sources.fits import read_fit
from densegen.sources.manifest import read_manifest
from densegen.sources.photograph import read_photograph
from densetrain.config import read_settings
from densetrain.evaluation.evaluate import BATCH, predict_benchmark
from densetrain.network.checkpoint import TorchRegressor
from densetrain.network.export import export_onnx
from densetrain.network.onnx_regressor import OnnxRegressor
from densetrain.network.regressor import answer_in_images
from densetrain.training.fit import make_module
from tests.benchmarks.conftest import Ratio

pytestmark = pytest.mark.benchmark


@pytest.fixture(scope="module")
def network(dataset: Path) -> TorchRegressor:
    shards = open_dataset(dataset)
    module = make_module(shards, read_settings("paper", ["trainer.channels_last=false"]))
    return TorchRegressor(module.net.eval(), module.about, shards.index, "bench")


@pytest.fixture(scope="module")
def faces(corpus: Path) -> tuple[list[Path], np.ndarray]:
    """64 photographs of 450x450 pixels, and the boxes of their faces."""
    entries = (list_fits(read_manifest("demo"), corpus, "mirror") * 64)[:64]
    fits = [read_fit(entry.fit) for entry in entries]
    boxes = [box_around(fit.keypoints_3d.T - 1) for fit in fits if fit.keypoints_3d is not None]
    return [entry.image for entry in entries], np.stack(boxes)


def in_turn(rounds: int, *runs: Callable[[], Any], clock: Callable[[], float] = time.process_time) -> list[float]:
    """The median seconds of each, in turn, so that a slow moment of the machine falls on all."""
    times: list[list[float]] = [[] for _ in runs]
    for run in runs:
        run()
    for _ in range(rounds):
        for run, taken in zip(runs, times, strict=True):
            start = clock()
            run()
            taken.append(clock() - start)
    return [float(np.median(taken)) for taken in times]


def test_evaluating_costs_little_more_than_its_parts(
    network: TorchRegressor, faces: tuple[list[Path], np.ndarray], ratio: Ratio
) -> None:
    paths, boxes = faces
    benchmark: Any = SimpleNamespace(boxes=boxes, read_images=lambda: map(read_photograph, paths))
    images = [read_photograph(path) for path in paths]
    crops = np.zeros((BATCH, network.about.crop_size, network.about.crop_size, 3), np.uint8)

    def parts() -> None:
        for path in paths:
            read_photograph(path)
        for image, box in zip(images, boxes, strict=True):
            warp(image, crop_of_box(box, network.about.margin, network.about.crop_size))
        for _ in range(len(paths) // BATCH):
            network(crops)

    whole, floor = in_turn(5, lambda: predict_benchmark(network, benchmark), parts)
    ratio("evaluating a photograph", whole / floor, "times decoding + crop + network", 1.3)
    assert whole / floor < 1.5


def test_onnx_costs_little_more_than_its_graph(
    network: TorchRegressor, faces: tuple[list[Path], np.ndarray], tmp_path: Path, ratio: Ratio,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    """From a decoded photograph to landmarks in it, one face at a time, one thread."""
    onnxruntime = pytest.importorskip("onnxruntime")
    session = onnxruntime.InferenceSession

    def with_one_thread(data: bytes, options: Any, **more: Any) -> Any:
        options.intra_op_num_threads = 1
        return session(data, options, **more)

    monkeypatch.setattr(onnxruntime, "InferenceSession", with_one_thread)
    export_onnx(network, tmp_path)
    exported = OnnxRegressor.open(tmp_path / "model.onnx")
    paths, boxes = faces
    image = read_photograph(paths[0])
    size = network.about.crop_size
    pixels = np.zeros((1, 3, size, size), np.float32)
    torch.set_num_threads(1)
    with threadpool_limits(1):
        whole, bare = in_turn(
            30, lambda: answer_in_images(exported, [image], boxes[:1]),
            lambda: exported.session.run(None, {"images": pixels}),
        )  # fmt: skip
    ratio("a face by ONNX, from the decoded photograph", whole / bare, "runs of the bare graph", 1.15)
    assert whole / bare < 1.4
