"""``python -m tests.faults.damaged_networks KIND RUN EXPORTED FOLDER CASES``: reads damaged checkpoints, exported
networks and what is scored. A process of its own: torch's threads do not survive a fork.

Prints how many were accepted and refused; fails with what escaped, hung or took gigabytes.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import torch

from densetrain.config import read_settings
from densetrain.evaluation.benchmarks import read_predictions
from densetrain.evaluation.evaluate import read_result
from densetrain.network.checkpoint import load_regressor
from densetrain.network.onnx_regressor import OnnxRegressor
from densetrain.prediction.boxes import read_boxes
from tests.faults.mutations import mutate, mutate_text, run_cases

NAMES = tuple(f"image{n:05d}" for n in range(8))
BOXES = {"a.jpg": [[1, 2, 30, 40]], "b.jpg": [[0, 0, 9, 9.5]]}
PAPER = Path(__file__).parents[2] / "densetrain/settings/paper.yaml"


def run_onnx(path: Path) -> None:
    OnnxRegressor.open(path)(np.zeros((1, 256, 256, 3), np.uint8))


def seed(kind: str, run: Path, exported: Path, folder: Path) -> tuple[Any, ...]:
    """A good file of a kind, what reads it, how it is damaged, and its suffix."""
    if kind == "predictions":
        np.savez(folder / "good.npz", names=np.array(NAMES), landmarks=np.zeros((8, 68, 2), np.float32))
        return (folder / "good.npz").read_bytes(), lambda path: read_predictions(path, NAMES), mutate, ".npz"
    if kind == "safetensors":
        (folder / "config.json").write_bytes((exported / "config.json").read_bytes())
    result = next((run / "evaluation").glob("*-train.json"))
    return {
        "checkpoint": ((run / "best.ckpt").read_bytes(), load_regressor, mutate, ".ckpt"),
        "safetensors": ((exported / "model.safetensors").read_bytes(), load_regressor, mutate, ".safetensors"),
        "onnx": ((exported / "model.onnx").read_bytes(), run_onnx, mutate, ".onnx"),
        "boxes": (json.dumps(BOXES).encode(), read_boxes, mutate_text, ".json"),
        "result": (result.read_bytes(), read_result, mutate_text, ".json"),
        "settings": (PAPER.read_bytes(), read_settings, mutate_text, ".yaml"),
    }[kind]


def main(kind: str, run: str, exported: str, folder: str, cases: str) -> None:
    torch.set_num_threads(1)
    data, read, change, suffix = seed(kind, Path(run), Path(exported), Path(folder))
    outcome = run_cases(read, data, Path(folder) / f"case{suffix}", range(int(cases)), change)
    assert not outcome.broken, outcome.broken[:5]
    assert outcome.accepted + outcome.refused == int(cases)
    print(outcome.accepted, outcome.refused)


if __name__ == "__main__":
    main(*sys.argv[1:])
