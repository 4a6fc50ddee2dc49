"""The two packages' doors: what they offer is what they say, and costs nothing until it is used."""

from __future__ import annotations

import subprocess
import sys
from types import ModuleType

import pytest

import densegen
import densetrain

HEAVY = ("numpy", "h5py", "click", "pydantic", "torch")

NAMES = {
    densegen: "FaceSolver Reconstructor ShardReader __version__ build choose_settings make_uv_table mesh_in_image "
    "open_dataset plan_build read_fit read_index read_manifest read_model read_photograph verify_dataset",
    densetrain: "__version__ aflw aflw2000 evaluate fit load open_dataset predict read_settings",
}


@pytest.mark.parametrize("package", [densegen, densetrain])
def test_the_exported_names_are_these(package: ModuleType) -> None:
    assert sorted(package.__all__) == NAMES[package].split() == dir(package)
    for name in package.__all__:
        assert getattr(package, name).__doc__


@pytest.mark.parametrize("package", [densegen, densetrain])
def test_another_name_is_none(package: ModuleType) -> None:
    with pytest.raises(AttributeError, match="has no attribute 'nonsense'"):
        package.nonsense  # noqa: B018


@pytest.mark.parametrize("package", ["densegen", "densetrain"])
def test_importing_a_package_loads_nothing_heavy(package: str) -> None:
    code = f"import sys, {package}; print([name for name in {HEAVY!r} if name in sys.modules])"
    made = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert made.stdout.strip() == "[]"


HELP = (["--help"], ["--version"])
COMMANDS = {
    "densegen": (*HELP, ["build", "--help"], ["index", "sample", "--help"]),
    "densetrain": (*HELP, ["fit", "--help"], ["predict", "--help"]),
}
LIBRARIES = ("numpy", "scipy", "h5py", "numba", "matplotlib", "skimage", "pydantic", "yaml", "rich", "trimesh", "cv2",
             "onnxruntime", "torch", "torchvision", "lightning")  # fmt: skip


@pytest.mark.parametrize(("package", "words"), [(name, words) for name in COMMANDS for words in COMMANDS[name]])
def test_help_loads_no_heavy_library(package: str, words: list[str]) -> None:
    code = (
        f"import sys; from {package}.cli import main; main({words!r}, standalone_mode=False); "
        f"print([name for name in {LIBRARIES!r} if name in sys.modules])"
    )
    made = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert made.stdout.splitlines()[-1] == "[]"
