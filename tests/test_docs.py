"""What is shown is run: the Python and shell blocks of the README and of every page."""

from __future__ import annotations

import importlib.util
import re
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

from densegen.dataset.shards import ShardReader
from densegen.face.morphable_model import MorphableModel
from densegen.files import find_data_file
from densegen.index.candidates import SEEDS, sample_candidates
from densegen.index.corrections import Corrections, correct, read_corrections
from densegen.index.vertex_index import compare_versions, read_index
from densegen.sources.manifest import Manifest, read_manifest

ROOT = Path(__file__).resolve().parent.parent
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
BLOCK = re.compile(r"^```(\w+)( [\w-]+)?\n(.*?)^```$", re.MULTILINE | re.DOTALL)
RUN = {"densegen": f"{sys.executable} -m densegen", "python3": sys.executable}
LIBRARIES = {"needs-jax": "jax", "needs-tensorflow": "tensorflow"}


def blocks(page: Path, language: str) -> list[str]:
    """The page's blocks of a language, without those that need files or libraries that are not here."""
    found = [(note.strip(), code) for kind, note, code in BLOCK.findall(page.read_text()) if kind == language]
    return [code for note, code in found if not note or ((library := LIBRARIES.get(note)) and find_spec(library))]


def test_the_readme_names_its_two_commands() -> None:
    assert blocks(ROOT / "README.md", "bash")[0] == "make demo\nmake test\n"


def test_the_commands_for_who_has_no_make_are_those_of_make_demo() -> None:
    recipe = (ROOT / "Makefile").read_text().replace("$(BIN)", ".venv/bin")
    commands = [line for line in blocks(ROOT / "README.md", "bash")[1].splitlines() if "bin/dense" in line]
    assert len(commands) == 4
    for command in commands:
        assert f"\t{command}\n" in recipe, command


def test_the_python_blocks_of_the_readme_run(tmp_path: Path, dataset: Path) -> None:
    (tmp_path / "demo").mkdir()
    (tmp_path / "demo/shards").symlink_to(dataset)
    said = ""
    for code in blocks(ROOT / "README.md", "python"):  # each by itself, as it would be copied
        result = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=False)
        assert result.returncode == 0, result.stderr
        said += result.stdout
    assert said == "32 SYNTH/SYNTH_00000_0 train\n"


def test_the_python_blocks_of_the_page_for_scripts_run(tmp_path: Path) -> None:
    for code in blocks(ROOT / "docs/python.md", "python"):
        exec_in(tmp_path, code)


def test_what_the_page_of_shards_unpacks_is_the_position_map(
    dataset: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "shards").symlink_to(dataset)
    monkeypatch.chdir(tmp_path)
    (code,) = blocks(ROOT / "docs/shards.md", "python")
    names: dict[str, Any] = {}
    exec(code, names)
    with ShardReader(dataset / "shard-00000.h5") as shard:
        assert np.array_equal(names["position_map"], shard.position_map(0))


@pytest.mark.slow
@pytest.mark.parametrize("page", [page for page in PAGES[1:] if blocks(page, "bash")], ids=lambda page: page.stem)
def test_the_shell_blocks_of_a_page_run(page: Path, tmp_path: Path) -> None:
    for code in blocks(page, "bash"):
        script = re.sub(r"(?m)^(densegen|python3) ", lambda word: f"{RUN[word[1]]} ", code)
        result = subprocess.run(["bash", "-e", "-c", script], cwd=tmp_path, capture_output=True, text=True, check=False)
        assert result.returncode == 0, result.stderr
    if page.stem == "fitting":  # its Python goes on with what its commands have made
        for code in blocks(page, "python"):
            exec_in(tmp_path, code)


def exec_in(folder: Path, code: str) -> None:
    """Run a block of Python as a script in a folder."""
    result = subprocess.run([sys.executable, "-c", code], cwd=folder, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr


@pytest.mark.parametrize("script", sorted((ROOT / "docs").glob("make_*.py")), ids=lambda script: script.stem)
def test_what_makes_the_pictures_finds_what_it_uses(script: Path) -> None:
    spec = importlib.util.spec_from_file_location(script.stem, script)
    assert spec is not None
    assert spec.loader is not None
    spec.loader.exec_module(importlib.util.module_from_spec(spec))


def test_the_yaml_blocks_are_valid(tmp_path: Path) -> None:
    (manifest,) = blocks(ROOT / "docs/manifests.md", "yaml")
    assert Manifest.model_validate(yaml.safe_load(manifest)).name == "my_faces"
    _, corrections = blocks(ROOT / "docs/vertex_index.md", "yaml")
    assert Corrections.model_validate(yaml.safe_load(corrections)).count == 520


def test_the_corrections_of_the_page_apply_to_the_index_that_it_is_about(model: MorphableModel) -> None:
    _, text = blocks(ROOT / "docs/vertex_index.md", "yaml")
    corrections, index = Corrections.model_validate(yaml.safe_load(text)), read_index()
    assert compare_versions(corrections.index_version, index.version) > 0
    # The same landmarks on the procedural face, which stands for the Basel model here.
    own = correct(
        sample_candidates(model, tuple(SEEDS)), read_corrections(find_data_file("corrections_bfm.yaml")), model
    )
    made = correct(own, corrections, model)
    assert (len(made), made.version, made.mirror_closed) == (520, corrections.index_version, True)
    assert {"forehead-x-r", "forehead-x-l"} <= {landmark.name for landmark in made.landmarks}


@pytest.mark.slow
def test_the_site_is_built_without_a_warning(tmp_path: Path) -> None:
    pytest.importorskip("sphinx")
    made = subprocess.run(
        [sys.executable, "-m", "sphinx", "-W", "--keep-going", "-q", "-b", "html", str(ROOT / "docs"), str(tmp_path)],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert made.returncode == 0, made.stderr
    assert (tmp_path / "searchindex.js").stat().st_size > 10_000
    for page in PAGES[1:]:
        assert (tmp_path / f"{page.stem}.html").is_file()
    commands = (tmp_path / "reference/commands.html").read_text()
    for words in ("densegen build", "densegen index edit", "densetrain fit", "densetrain doctor"):
        assert words in commands
    options = re.findall(r"<td>(.*?)</td>", commands, re.S)
    assert not [cell for cell in options if "`" in cell]  # a choice's | does not end a cell
    assert len(options) % 3 == 0
    assert "[mirror|shipped|none]" in commands
    settings = (tmp_path / "reference/settings.html").read_text()
    assert all(name in settings for name in ("rotate_deg", "ema_decay", "wing_eps"))
    assert "deterministic" in (tmp_path / "reference/settings.html").read_text()
    python = (tmp_path / "reference/python.html").read_text()
    assert "densegen.open_dataset" in python
    assert "Parameters" in python
    # Every link inside the site leads somewhere.
    for page in tmp_path.rglob("*.html"):
        for target in re.findall(r'href="([^"#:?]+)(?:#[^"]*)?"', page.read_text("utf-8")):
            assert (page.parent / target).exists(), f"{page.name}: {target}"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_every_link_and_picture_exists(page: Path) -> None:
    for target in re.findall(r"\]\(([^)#]+)[^)]*\)", page.read_text()):
        if "://" not in target:
            assert (page.parent / target).exists(), target


def test_the_pages_say_the_manifests_counts() -> None:
    text = (ROOT / "docs/manifests.md").read_text()
    for name in ("300w_lp", "aflw2000_3d", "demo"):
        count = sum(subset.fits for subset in read_manifest(name).subsets)
        assert f"| `{name}` | {count:,} |" in text


@pytest.mark.long
def test_the_first_hour_prints_what_it_says(tmp_path: Path) -> None:
    """Some ten minutes: its commands in an empty folder, and each line that it shows among what they print."""
    for kind, note, code in BLOCK.findall((ROOT / "docs/first_hour.md").read_text()):
        if (kind, note.strip()) == ("bash", "takes-minutes"):
            script = re.sub(r"(?m)^(densegen|densetrain) ", lambda word: f"{sys.executable} -m {word[1]} ", code)
            result = subprocess.run(
                ["bash", "-e", "-c", script], cwd=tmp_path, capture_output=True, text=True, check=False
            )
            assert result.returncode == 0, result.stderr
            said = result.stdout
        elif kind == "text":
            for line in code.splitlines():
                assert line in said, f"{line!r} is not in\n{said}"
