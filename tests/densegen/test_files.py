"""Paths that stay below their root."""

from __future__ import annotations

from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st

from densegen.files import stays_below


@given(st.text(max_size=40))
def test_a_path_that_stays_below_does(text: str) -> None:
    if stays_below(text):
        joined = Path("folder") / text
        assert not Path(text).is_absolute()
        assert ".." not in joined.parts
