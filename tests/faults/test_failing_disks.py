"""A build, a drawing, an export, a report and a prediction on a disk that fails: nothing half done, nothing lost.

``make test`` tries some of the moments, ``make long`` every one.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import get_args

import pytest

from densegen.dataset.build import build, plan_build
from densegen.files import find_data_file
from densegen.sources.manifest import BuildSettings, Manifest
from densegen.synthetic.corpus import write_corpus
from tests.faults.injection import ESCAPED, Kind, digests, run_with_fault

MOMENTS = int(os.environ.get("DENSE_FAULT_MOMENTS", "2"))
"""How many moments of each kind are tried, spread over the run; 0: every one."""

KINDS = [kind for kind in get_args(Kind) if kind != "none"]


def moments(touched: int) -> list[int]:
    step = 1 if MOMENTS == 0 else max(touched // MOMENTS, 1)
    return list(range(1, touched + 1, step))


def survives(function: Callable[[], object], out: Path, watched: tuple[Path, ...], log: Path, kind: Kind) -> None:
    """At every chosen moment: one line or none, no file half done, and a rerun that equals an undisturbed run."""
    calm = run_with_fault(function, watched, log)
    assert calm.code == 0, calm.said
    good = digests(out)
    assert good
    print(f"{kind}: {len(moments(calm.touched))} moments")
    for at in moments(calm.touched):
        shutil.rmtree(out)
        broken = run_with_fault(function, watched, log, kind, at)
        assert broken.code != ESCAPED, f"{kind} at {at}: {broken.said}"
        there = digests(out) if out.is_dir() else {}
        wrong = [name for name, digest in there.items() if name in good and digest != good[name]]
        assert not wrong, f"{kind} at {at}: {wrong} under a final name"
        again = run_with_fault(function, watched, log)
        assert again.code == 0, f"rerun after {kind} at {at}: {again.said}"
        assert digests(out) == good, f"rerun after {kind} at {at}"


@pytest.fixture(scope="module")
def few(corpus: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Four fits, which a test may read from a disk that fails."""
    root = tmp_path_factory.mktemp("few")
    (root / "SYNTH").mkdir()
    for path in sorted((corpus / "SYNTH").iterdir())[:8]:
        shutil.copy(path, root / "SYNTH")
    shutil.copy(corpus / "model.safetensors", root)
    return root


@pytest.mark.parametrize("kind", KINDS)
def test_a_build(few: Path, manifest: Manifest, tmp_path: Path, kind: Kind) -> None:
    out = tmp_path / "out"
    settings = BuildSettings(shard_size=4, max_rejects=1.0)

    def make() -> None:
        index = find_data_file("vertex_index_520.yaml")
        build(plan_build(manifest, few, few / "model.safetensors", index, settings), out)

    survives(make, out, (out, few), tmp_path / "log", kind)


@pytest.mark.parametrize("kind", KINDS)
def test_a_drawn_corpus(tmp_path: Path, kind: Kind) -> None:
    out = tmp_path / "corpus"
    survives(lambda: write_corpus(out, 2, seed=3), out, (out,), tmp_path / "log", kind)
