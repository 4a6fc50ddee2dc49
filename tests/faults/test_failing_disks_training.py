"""Training, exports, reports and predictions on a disk that fails; see ``training_faults``."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from tests.faults.conftest import command
from tests.faults.test_failing_disks import KINDS

MOMENTS = os.environ.get("DENSE_FAULT_MOMENTS", "2")


@pytest.mark.long
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("what", ["fit", "export", "report", "predict"])
def test_a_rerun_equals_an_undisturbed_run(trained: tuple[Path, Path], tmp_path: Path, what: str, kind: str) -> None:
    tried = command("tests.faults.training_faults", what, *trained, tmp_path, kind, MOMENTS)
    print(f"{what}, {kind}: {tried.split()[-1]} moments")
    assert int(tried.split()[-1]) > 0
