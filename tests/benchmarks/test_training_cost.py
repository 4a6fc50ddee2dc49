"""What training costs beside what it must cost; ratios, each measured in one run."""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import simplejpeg
import torch
from lightning.pytorch.callbacks import Callback

from densegen.dataset.build import build, plan_build
from densegen.dataset.shard_set import ShardSet, open_dataset
from densegen.files import find_data_file
from densegen.sources.manifest import BuildSettings, Manifest
from densetrain.config import FitSettings, read_settings
from densetrain.data.batches import BatchDataset, ShardBatches
from densetrain.data.order import BatchSampler
from densetrain.training.fit import make_module, make_trainer
from tests.benchmarks.conftest import Ratio

pytestmark = pytest.mark.benchmark

ROUNDS = 5
BATCH = 24


@pytest.fixture(scope="module")
def shards(corpus: Path, manifest: Manifest, tmp_path_factory: pytest.TempPathFactory) -> ShardSet:
    """A few samples many times over, so that an epoch has steps to measure."""
    folder = tmp_path_factory.mktemp("cost")
    out = folder / "shards"
    split = manifest.split.model_copy(update={"seed": 2, "validation": 0.3})
    changed = manifest.model_copy(update={"split": split})
    index_file = find_data_file("vertex_index_520.yaml")
    build(plan_build(changed, corpus, corpus / "model.safetensors", index_file, BuildSettings(shard_size=16)), out)
    return open_dataset(out, *(Path(shutil.copytree(out, folder / f"copy-{number}")) for number in range(15)))


def median_seconds(run: Callable[[], Any], rounds: int = ROUNDS) -> float:
    times = []
    for _ in range(rounds):
        start = time.perf_counter()
        run()
        times.append(time.perf_counter() - start)
    return float(np.median(times))


def test_loading_a_sample_costs_little_more_than_decoding_its_jpeg(shards: ShardSet, ratio: Ratio) -> None:
    rows = np.resize(np.arange(len(shards)), 512).astype(np.int64)
    dataset, reader = BatchDataset(shards), shards.open()
    jpegs = [reader.jpeg(int(row)) for row in rows]
    batches = [key[2] for key in BatchSampler(rows, 128, 0, shuffle=True)]

    def load() -> None:
        for number, batch in enumerate(batches):
            assert isinstance(dataset[(0, number, batch, 1.0)], dict)

    def decode() -> None:
        for jpeg in jpegs:
            simplejpeg.decode_jpeg(jpeg, "RGB")

    load(), decode()
    ratios = [median_seconds(load, 1) / median_seconds(decode, 1) for _ in range(ROUNDS)]
    ratio("loading a sample to train on", float(np.median(ratios)), "decodes of its crop", 1.15)
    assert np.median(ratios) <= 1.4


def test_a_shuffled_epoch_of_open_dataset_is_no_slower_than_the_loader(shards: ShardSet, ratio: Ratio) -> None:
    dataset = BatchDataset(shards)
    rows = np.arange(len(shards), dtype=np.int64)
    batches = [key[2] for key in BatchSampler(rows, 128, 0, shuffle=True)]
    same = sum(map(len, batches))

    def load() -> None:
        for number, batch in enumerate(batches):
            assert isinstance(dataset[(0, number, batch, 1.0)], dict)

    def read() -> None:
        for sample in shards.shuffled(seed=0)[:same]:
            assert sample.image.size

    load(), read()
    ratios = [median_seconds(read, 1) / median_seconds(load, 1) for _ in range(ROUNDS)]
    ratio("a shuffled epoch of open_dataset", float(np.median(ratios)), "times the trainer's loader", 1.1)
    assert np.median(ratios) <= 1.25


class Clock(Callback):
    """Times each step of the trainer, and after it a bare step: both see the same machine."""

    def __init__(self, bare: Callable[[], None]) -> None:
        self.bare, self.fitted, self.alone = bare, list[float](), list[float]()
        self.start: float | None = None

    def on_train_batch_end(self, *_: Any) -> None:
        end = time.perf_counter()
        if self.start is not None:
            self.fitted.append(end - self.start)
        self.bare()
        self.start = time.perf_counter()
        if self.fitted:
            self.alone.append(self.start - end)


@pytest.mark.filterwarnings("ignore")
def test_a_step_of_fit_costs_little_more_than_the_bare_step(shards: ShardSet, tmp_path: Path, ratio: Ratio) -> None:
    """MobileNetV2 at 256 px, with augmentation, decoding, logs and checks, against the network alone."""
    sets = [f"data.batch_size={BATCH}", "trainer.accelerator=cpu", "trainer.devices=1", "trainer.epochs=1"]
    settings: FitSettings = read_settings("paper", [*sets, "data.workers=0", "data.validate_on=train"])
    net = make_module(shards, settings).train()
    images, truth = torch.rand(BATCH, 3, 256, 256) * 255, torch.rand(BATCH, 520, 3) * 255
    optimiser = torch.optim.SGD(net.parameters(), lr=1e-6, momentum=0.9)

    def bare() -> None:
        optimiser.zero_grad()
        net.loss(net(images), truth).mean().backward()
        optimiser.step()

    clock = Clock(bare)
    trainer = make_trainer(settings, tmp_path, progress=False, limit_val_batches=0, enable_checkpointing=False,
                           callbacks=[clock])  # fmt: skip
    trainer.fit(make_module(shards, settings), ShardBatches(shards, settings))
    # Whatever else the machine does only adds: the least disturbed steps of both tell what they cost.
    fitted, alone = (np.sort(times)[:4].mean() for times in (clock.fitted, clock.alone))
    cost = float(fitted / alone)
    ratio("a step of fit on the CPU", cost, "bare steps of the network", 1.1)
    assert cost <= 1.25


class Window(Callback):
    """The time from the end of one training step to the end of a later one, with the device's queue empty at both."""

    def __init__(self, first: int, last: int) -> None:
        self.ends = {first: 0.0, last: 0.0}
        self.steps = last - first

    def on_train_batch_end(self, trainer: Any, *_: Any) -> None:
        if trainer.global_step in self.ends:
            if torch.cuda.is_available():
                torch.cuda.synchronize()
            self.ends[trainer.global_step] = time.perf_counter()

    @property
    def seconds_a_step(self) -> float:
        first, last = self.ends.values()
        return (last - first) / self.steps


def throughput(shards: ShardSet, settings: FitSettings, out: Path, window: Window) -> tuple[float, float]:
    """Samples a second of ``fit``, and of its bare network on a batch that is on the device already."""
    trainer = make_trainer(settings, out, progress=False, limit_val_batches=0, enable_checkpointing=False,
                           callbacks=[window])  # fmt: skip
    module, batches = make_module(shards, settings), ShardBatches(shards, settings)
    trainer.fit(module, batches)
    device, count = module.device, settings.data.batch_size
    net = make_module(shards, settings).to(device).train()
    compiled, options = settings.trainer.compile, module._compiler_options() if device.type == "cuda" else None
    step_net = torch.compile(net.net.of_resized, dynamic=False, options=options) if compiled else net.net.of_resized
    size = settings.model.input_size
    images = torch.rand(count, 3, size, size, device=device) * 255
    truth = torch.rand(count, len(shards.index), 3, device=device) * 255
    if settings.trainer.channels_last:
        images = images.contiguous(memory_format=torch.channels_last)
    optimiser = torch.optim.AdamW(net.net.parameters(), lr=1e-6, fused=True)

    def bare() -> None:
        optimiser.zero_grad()
        with torch.autocast(device.type, torch.bfloat16, enabled=settings.trainer.precision == "bf16"):
            net.loss(step_net(images), truth).mean().backward()
        optimiser.step()

    def many() -> None:
        for _ in range(window.steps):
            bare()
        if torch.cuda.is_available():
            torch.cuda.synchronize()

    many()
    return count / window.seconds_a_step, count * window.steps / median_seconds(many, 1)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU here")
@pytest.mark.parametrize("size", [256, 192, 128])
@pytest.mark.filterwarnings("ignore")
def test_a_gpu_is_kept_busy(shards: ShardSet, tmp_path: Path, ratio: Ratio, size: int) -> None:
    """The settings ``fast-gpu`` at several sizes; and how long 40 epochs of 122,450 samples would take."""
    batch = len(shards.rows("train")) // 4
    sets = [f"data.batch_size={batch}", "trainer.epochs=12", "data.validate_on=train", f"model.input_size={size}"]
    settings = read_settings("fast-gpu", sets)
    fitted, bare = throughput(shards, settings, tmp_path, Window(8, 44))
    minutes = 40 * 122_450 / fitted / 60
    ratio(f"a step of fit at {size} px, batch {batch}", bare / fitted, "bare steps", 1.1)
    print(f"{fitted:,.0f} samples/s, bare {bare:,.0f}; 40 epochs of 122,450 samples in {minutes:.1f} minutes")
    assert bare / fitted <= 2
