"""What a release holds, and that its files agree."""

from __future__ import annotations

import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]


def test_every_file_names_the_same_version() -> None:
    assert yaml.safe_load((ROOT / "CITATION.cff").read_text())["version"] == PROJECT["version"]
    assert f"\n## {PROJECT['version']} - " in (ROOT / "CHANGELOG.md").read_text()


def test_the_hooks_are_those_of_make_check() -> None:
    recipe = (ROOT / "Makefile").read_text().split("check: $(VENV)/.ready\n")[1].split("\n\n")[0]
    (repository,) = yaml.safe_load((ROOT / ".pre-commit-config.yaml").read_text())["repos"]
    hooks = [hook["entry"].replace(".venv/bin", "$(BIN)") for hook in repository["hooks"]]
    assert hooks == [line.strip() for line in recipe.splitlines()]


@pytest.mark.long
def test_the_wheel_holds_what_users_need(tmp_path: Path) -> None:
    pytest.importorskip("hatchling")
    code = f"from hatchling.build import build_wheel; print(build_wheel({str(tmp_path)!r}))"
    subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=True, capture_output=True)
    with zipfile.ZipFile(next(tmp_path.glob("*.whl"))) as wheel:
        names = set(wheel.namelist())
    assert {
        "densegen/py.typed",
        "densetrain/py.typed",
        "densegen/data_manifests/vertex_index_520.yaml",
        "densegen/data_manifests/300w_lp.yaml",
        "densetrain/settings/paper.yaml",
    } <= names
    assert not [name for name in names if name.startswith("tests/") or "__pycache__" in name]
