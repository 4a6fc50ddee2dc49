"""How a missing library is named, and what installs it."""

from __future__ import annotations

import json
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from densegen import extras
from densegen.extras import EXTRAS_OF, install_line

ROOT = Path(__file__).parents[2]


class Installed:
    """A distribution that came from somewhere."""

    def __init__(self, source: object) -> None:
        self.source = source

    def read_text(self, name: str) -> str | None:
        assert name == "direct_url.json"
        return None if self.source is None else json.dumps(self.source)


@pytest.mark.parametrize(
    ("source", "line"),
    [
        (None, "pip install 'densegen[train]'"),
        ({"url": "file:///my%20code", "dir_info": {"editable": True}}, "pip install --editable '/my code[train]'"),
        ({"url": "file:///code", "dir_info": {}}, "pip install '/code[train]'"),
        ({"url": "file:///d.whl", "archive_info": {}}, "pip install 'densegen[train] @ file:///d.whl'"),
        (
            {"url": "https://example.org/d.git", "vcs_info": {"vcs": "git", "commit_id": "0"}},
            "pip install 'densegen[train] @ git+https://example.org/d.git@0'",
        ),
        (
            {
                "url": "https://example.org/d.git",
                "vcs_info": {"vcs": "git", "commit_id": "0", "requested_revision": "v1"},
                "subdirectory": "d",
            },
            "pip install 'densegen[train] @ git+https://example.org/d.git@v1#subdirectory=d'",
        ),
        ("nonsense", "pip install 'densegen[train]'"),
    ],
)
def test_an_extra_is_installed_from_where_densegen_came_from(
    source: object, line: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(extras, "distribution", lambda name: Installed(source))
    assert install_line("train") == line


def test_every_library_is_in_the_extra_that_is_named() -> None:
    groups = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    for module, extras_of in EXTRAS_OF.items():
        for extra in extras_of:
            names = {re.split(r"[<>=]", requirement)[0] for requirement in groups[extra]}
            assert {"cv2": "opencv-python-headless"}.get(module, module) in names, module


@pytest.mark.parametrize("words", [("fit", "shards", "--out", "run"), ("profile",)])
def test_a_command_without_its_libraries_says_which_it_needs(words: tuple[str, ...], tmp_path: Path) -> None:
    code = "import sys; sys.modules['torch'] = None; from densetrain.cli import main; main(prog_name='densetrain')"
    made = subprocess.run(
        [sys.executable, "-c", code, *words], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert (made.returncode, made.stderr.count("\n")) == (1, 1), made.stderr
    assert re.match(rf"densetrain: error: 'densetrain {words[0]}' needs torch: pip install ", made.stderr)
