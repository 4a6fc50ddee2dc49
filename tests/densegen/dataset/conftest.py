"""A corpus that a test may spoil."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest


@pytest.fixture
def copied(corpus: Path, tmp_path: Path) -> Path:
    """A corpus that a test may spoil."""
    return Path(shutil.copytree(corpus, tmp_path / "corpus"))
