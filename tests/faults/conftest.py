"""A small dataset and a run on it, made by the commands themselves: in processes of their own."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest


@pytest.fixture(scope="module")
def trained(corpus: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A small dataset, and a run on it with an evaluation and a photograph in its folder."""
    folder = tmp_path_factory.mktemp("trained")
    shards, run = folder / "shards", folder / "run"
    sizes = ("data.batch_size=4", "data.workers=0", "model.width=0.25", "model.input_size=32", "trainer.epochs=2",
             "trainer.accelerator=cpu", "trainer.devices=1")  # fmt: skip
    sets = [word for size in sizes for word in ("--set", size)]
    command(
        "densegen",
        "build",
        "demo",
        "--root",
        corpus,
        "--out",
        shards,
        "--shard-size",
        "4",
        "--jobs",
        "1",
        "--flip",
        "none",
    )
    command("densetrain", "fit", shards, "--out", run, *sets, "--set", "data.validate_on=train")
    command("densetrain", "evaluate", run, "--shards", shards, "--split", "train")
    shutil.copy(corpus / "SYNTH/SYNTH_00000_0.jpg", run)
    return shards, run


def command(*words: object) -> str:
    made = subprocess.run(
        [sys.executable, "-m", *map(str, words)], capture_output=True, text=True, check=False,
        cwd=Path(__file__).parents[2],
    )  # fmt: skip
    assert made.returncode == 0, made.stderr[-2000:]
    return made.stdout
