"""Checkpoints, exported networks and what is scored, damaged; see ``damaged_networks``."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.faults.conftest import command
from tests.faults.test_damaged_files import CASES


@pytest.fixture(scope="module")
def exported(trained: tuple[Path, Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("exported") / "model"
    command("densetrain", "export", trained[1], "--out", folder)
    return folder


@pytest.mark.long
@pytest.mark.parametrize("kind", ["checkpoint", "safetensors", "onnx", "predictions", "boxes", "result", "settings"])
def test_a_damaged_file_is_read_or_refused(
    trained: tuple[Path, Path],
    exported: Path,
    kind: str,
    tmp_path: Path,
) -> None:
    command("tests.faults.damaged_networks", kind, trained[1], exported, tmp_path, CASES)
