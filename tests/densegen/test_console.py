"""Text from strangers, made plain for terminal and page."""

from __future__ import annotations

import re

from hypothesis import given
from hypothesis import strategies as st

from densegen.console import LONGEST_LINE, as_markdown, one_line, plain

texts = st.text(max_size=300)


@given(texts)
def test_plain_text_has_nothing_that_a_terminal_acts_on(text: str) -> None:
    assert not re.search(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069]", plain(text))
    plain(text).encode()
    line = one_line(text * 20)
    assert "\n" not in line
    assert len(line) <= LONGEST_LINE + 5


@given(texts)
def test_markdown_of_a_stranger_has_no_tag_and_no_link(text: str) -> None:
    assert not re.search(r"(?<!\\)[<>\[\]|`]", as_markdown(text).replace("\\\\", ""))
