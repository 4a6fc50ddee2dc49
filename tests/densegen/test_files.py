"""Paths that stay below their root, and files that are replaced together."""

from __future__ import annotations

from pathlib import Path, PurePosixPath, PureWindowsPath

import pytest
from hypothesis import given
from hypothesis import strategies as st

from densegen.files import replace_into, stays_below


@given(st.text(max_size=40) | st.text("./\\\\a:\0", max_size=9))
def test_a_path_stays_below_if_no_system_takes_it_elsewhere(text: str) -> None:
    windows, posix = PureWindowsPath(text), PurePosixPath(text)
    leaves = windows.drive or windows.root or posix.root or ".." in windows.parts or "\\" in text or "\0" in text
    assert stays_below(text) == (not leaves)


def test_the_file_that_says_whose_the_others_are_goes_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    moved, plain = [], Path.replace

    def watched(self: Path, target: Path) -> Path:
        moved.append(Path(target).name)
        return plain(self, target)

    monkeypatch.setattr(Path, "replace", watched)
    with replace_into(tmp_path, first="b") as staging:
        for name in "abc":
            (staging / name).write_text(name)
    assert moved[-3:] == ["b", "a", "c"]
    assert {path.name: path.read_text() for path in tmp_path.iterdir() if path.name in "abc"} == {
        "a": "a",
        "b": "b",
        "c": "c",
    }
