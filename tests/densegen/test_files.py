"""Paths that stay below their root, and files that are replaced together."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from densegen.files import replace_into, stays_below


@given(st.text(max_size=40))
def test_a_path_that_stays_below_does(text: str) -> None:
    if stays_below(text):
        joined = Path("folder") / text
        assert not Path(text).is_absolute()
        assert ".." not in joined.parts


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
