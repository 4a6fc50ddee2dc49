"""A tiny run on the small dataset of procedural faces."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from densegen.dataset.build import build, plan_build
from densegen.dataset.shard_set import ShardSet, open_dataset
from densegen.files import find_data_file
from densegen.sources.manifest import BuildSettings, Manifest
from densetrain.config import FitSettings, read_settings
from densetrain.training.fit import fit
from tests.densetrain.command import call

TINY = (
    "data.batch_size=4",
    "data.workers=0",
    "model.width=0.25",
    "model.input_size=32",
    "trainer.epochs=2",
    "trainer.accelerator=cpu",
    "trainer.devices=1",
)


def tiny(*changes: str) -> FitSettings:
    return read_settings(None, (*TINY, *changes))


@pytest.fixture(scope="session")
def dataset(corpus: Path, manifest: Manifest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished build in eight shards of four samples, some of them for validation; not to be written to."""
    out = tmp_path_factory.mktemp("trainset") / "shards"
    split = manifest.split.model_copy(update={"seed": 2, "validation": 0.3})
    settings = BuildSettings(shard_size=4)
    index_file = find_data_file("vertex_index_520.yaml")
    build(
        plan_build(
            manifest.model_copy(update={"split": split}), corpus, corpus / "model.safetensors", index_file, settings
        ),
        out,
    )
    return out


@pytest.fixture(scope="session")
def shards(dataset: Path) -> ShardSet:
    return open_dataset(dataset)


@pytest.fixture(scope="session")
def run(dataset: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a finished tiny run; not to be written to."""
    out = tmp_path_factory.mktemp("runs") / "tiny"
    fit([dataset], tiny(), out)
    return out


@pytest.fixture(scope="session")
def exported(run: Path, dataset: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of the tiny run's exports; not to be written to."""
    out = tmp_path_factory.mktemp("exported")
    made = call(
        "export", run, "--out", out, "--variant", "fp16", "--variant", "int8", "--calibrate", dataset, "--samples", 6
    )
    assert made.exit_code == 0, made.output
    return out


def edit_manifest(folder: Path, change: Any) -> None:
    path = folder / "manifest.json"
    manifest = json.loads(path.read_text())
    change(manifest)
    path.write_text(json.dumps(manifest))
