"""Builds of small corpora, and corpora that a test may spoil."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from densegen.dataset.build import Plan, plan_build
from densegen.files import find_data_file, sha256_of
from densegen.sources.manifest import BuildSettings, Manifest

INDEX = find_data_file("vertex_index_520.yaml")


def digests(folder: Path) -> dict[str, str]:
    """SHA-256 of every file of a finished build, by name."""
    return {str(p.relative_to(folder)): sha256_of(p) for p in sorted(folder.rglob("*")) if p.is_file()}


def plan_for(root: Path, manifest: Manifest, **settings: Any) -> Plan:
    chosen = BuildSettings(**{"shard_size": 4, **settings})
    return plan_build(manifest, root, root / "model.safetensors", INDEX, chosen)


def spoil(corpus: Path, number: int) -> tuple[Path, Path]:
    fit = sorted((corpus / "SYNTH").glob("*.mat"))[number]
    return fit, fit.with_suffix(".jpg")
