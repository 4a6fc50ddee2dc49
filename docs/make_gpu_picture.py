"""Where a GPU's time in a step of training goes: ``record SHARDS TRACE`` on the machine with the GPU, then
``draw TRACE WHAT``. A trace is what torch's profiler writes of ten steps (.json.gz).
"""

from __future__ import annotations

import gzip
import json
import sys
import tempfile
from collections import defaultdict
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch.callbacks import Callback
from matplotlib.figure import Figure
from torch.profiler import ProfilerActivity, profile

from densegen.dataset.shard_set import open_dataset
from densetrain.config import read_settings
from densetrain.data.batches import ShardBatches
from densetrain.training.callbacks import WarmAverage
from densetrain.training.fit import make_module, make_trainer

IMAGES = Path(__file__).resolve().parent / "images"
FIRST, STEPS = 30, 10

KINDS = {
    "depthwise convolutions": ("c1_k1",),
    "augmentation: blur": ("grouped_direct",),
    "optimiser, average, norm": ("multi_tensor",),
    "normalisation and activations": ("batch_norm", "hardtanh"),
    "other convolutions and products": ("cudnn", "xmma", "cutlass", "nvjet", "convolve", "gemm", "splitK"),
    "augmentation: all else": ("grid_sampler", "arange", "bitwise", "clamp", "distribution", "gather"),
}
"""Parts of the names of kernels, the first that fits."""


class Recorder(Callback):
    def __init__(self, trace: Path) -> None:
        self.trace = trace
        activities = [ProfilerActivity.CPU, *([ProfilerActivity.CUDA] if torch.cuda.is_available() else [])]
        self.profile = profile(activities=activities)

    def on_train_batch_end(self, trainer: Any, *_: Any) -> None:
        if trainer.global_step == FIRST:
            self.profile.start()
        if trainer.global_step == FIRST + STEPS:
            if torch.cuda.is_available():
                torch.cuda.synchronize()
            self.profile.stop()
            self.profile.export_chrome_trace(str(self.trace))


def record(folder: str, trace: str, *changes: str) -> None:
    """``fast-gpu`` on a build, with changed settings."""
    shards, settings = open_dataset(folder), read_settings("fast-gpu", changes)
    average = [] if settings.trainer.ema_decay is None else [WarmAverage(settings.trainer.ema_decay)]
    with tempfile.TemporaryDirectory() as out:
        trainer = make_trainer(settings, Path(out), progress=False, limit_val_batches=0, enable_checkpointing=False,
                               max_steps=FIRST + STEPS, callbacks=[*average, Recorder(Path(trace))])  # fmt: skip
        trainer.fit(make_module(shards, settings), ShardBatches(shards, settings))


def kind_of(kernel: str) -> str:
    return next((kind for kind, parts in KINDS.items() if any(part in kernel for part in parts)), "copies and the rest")


def milliseconds(events: list[dict[str, Any]]) -> dict[str, float]:
    """A step's time on the GPU by kind, the longest first."""
    spent: dict[str, float] = defaultdict(float)
    for event in events:
        if event.get("cat") in ("kernel", "gpu_memcpy", "gpu_memset"):
            spent[kind_of(event["name"])] += event["dur"] / 1000 / STEPS
    return dict(sorted(spent.items(), key=lambda item: -item[1]))


def draw(trace: str, what: str = "batch of 256 at 128 px on an H200") -> None:
    with gzip.open(trace, "rt", encoding="utf-8") as file:
        spent = milliseconds(json.load(file)["traceEvents"])
    figure = Figure(figsize=(8, 2.9), dpi=110, layout="constrained")
    axes = figure.subplots()
    bars = axes.barh(list(spent), list(spent.values()), color="#4477aa")
    axes.bar_label(bars, fmt="%.2f", padding=3)
    axes.invert_yaxis()
    axes.set_xlabel(f"ms of a step, {what}")
    axes.set_title(f"MobileNetV2 by fast-gpu: the GPU works for {sum(spent.values()):.1f} ms a step", loc="left")
    axes.spines[["top", "right"]].set_visible(False)
    figure.savefig(IMAGES / "gpu_step.png")


if __name__ == "__main__":
    {"record": record, "draw": draw}[sys.argv[1]](*sys.argv[2:])
