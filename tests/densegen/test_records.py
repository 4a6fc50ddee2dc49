"""Any text is a record or one clear error."""

from __future__ import annotations

import contextlib
import json
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from densegen.errors import FormatError
from densegen.records import as_yaml, parse_yaml

values = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**60), 2**60) | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(st.characters(codec="ascii", exclude_categories=["Cc"]), max_size=20),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text("abc", min_size=1), inner, max_size=4),
    max_leaves=12,
)  # fmt: skip


@given(values)
def test_json_is_yaml_and_comes_back(value: Any) -> None:
    assert parse_yaml(json.dumps(value), "x") == value


@given(st.dictionaries(st.text(max_size=5), st.text(max_size=20), max_size=4), st.booleans())
def test_any_text_in_json_is_yaml_and_comes_back(value: dict[str, str], ascii_only: bool) -> None:
    text = as_yaml(json.dumps(value, ensure_ascii=False), ascii_only=ascii_only)
    assert parse_yaml(text.encode("utf-8"), "x") == value
    assert text.isascii() or not ascii_only


@given(values)
def test_what_pyyaml_writes_comes_back_unless_it_has_aliases(value: Any) -> None:
    assert parse_yaml(yaml.safe_dump(value), "x") == value


@given(st.text(max_size=60) | st.binary(max_size=60))
def test_any_text_is_yaml_or_a_format_error(text: str | bytes) -> None:
    with contextlib.suppress(FormatError):
        parse_yaml(text, "x")


@pytest.mark.parametrize("text", ["a: 1\nb: 2\na: 3\n", "c: {a: 1, a: 1}", '{"a": 1, "a": 2}'])
def test_a_key_that_stands_twice_is_refused(text: str) -> None:
    with pytest.raises(FormatError, match="'a' stands twice in what begins in line 1"):
        parse_yaml(text, "x")
