"""Round trips and promises for inputs that nobody wrote down: hypothesis looks for the ones that break them."""

from __future__ import annotations

import contextlib
import json
import math
import re
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from densegen.console import LONGEST_LINE, as_markdown, one_line, plain
from densegen.dataset.shards import Sample, ShardReader, encode_shard
from densegen.errors import FormatError
from densegen.files import stays_below, write_bytes
from densegen.geometry.crop import Crop, warp
from densegen.geometry.elementary import exponential, sine_cosine
from densegen.geometry.pose import pose_vertices, proper_pose, rotation_matrix
from densegen.geometry.position_map import decode_fixed_point, encode_fixed_point
from densegen.records import parse_yaml
from tests.densegen.dataset.test_shards import header, sample

settings.register_profile("here", deadline=None, max_examples=60, derandomize=True,
                          suppress_health_check=[HealthCheck.function_scoped_fixture])  # fmt: skip
settings.load_profile("here")

angles = st.floats(-50, 50)
texts = st.text(max_size=300)


@given(angles)
def test_sine_and_cosine_are_right_to_the_last_places(angle: float) -> None:
    sine, cosine = sine_cosine(angle)
    assert sine == pytest.approx(math.sin(angle), abs=3e-16)
    assert cosine == pytest.approx(math.cos(angle), abs=3e-16)


@given(st.floats(-700, 700))
def test_the_exponential_is_right_to_the_last_places(exponent: float) -> None:
    assert float(exponential(np.array([exponent]))[0]) == pytest.approx(math.exp(exponent), rel=1e-15)


@given(angles, angles, angles)
def test_a_rotation_keeps_lengths_and_handedness(pitch: float, yaw: float, roll: float) -> None:
    rotation = rotation_matrix(pitch, yaw, roll)
    np.testing.assert_allclose(rotation @ rotation.T, np.eye(3), atol=1e-14)
    assert np.linalg.det(rotation) == pytest.approx(1)


@given(angles, angles, angles, st.sampled_from([1e-3, -1e-3]))
def test_a_proper_pose_shows_the_same_picture(pitch: float, yaw: float, roll: float, scale: float) -> None:
    vertices = np.random.default_rng(0).normal(0, 6e4, (30, 3)).astype(np.float32)
    pose = np.array([pitch, yaw, roll, 200, 220, 0, scale])
    proper = proper_pose(pose)
    assert proper[6] > 0
    assert (np.abs(proper[:3]) <= np.float32(np.pi)).all()
    before, after = pose_vertices(vertices, pose, 450), pose_vertices(vertices, proper, 450)
    np.testing.assert_allclose(before[:, :2], after[:, :2], atol=5e-3)
    assert (proper_pose(proper) == proper).all()


values = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**60), 2**60) | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(st.characters(codec="ascii", exclude_categories=["Cc"]), max_size=20),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text("abc", min_size=1), inner, max_size=4),
    max_leaves=12,
)  # fmt: skip


@given(values)
def test_json_is_yaml_and_comes_back(value: Any) -> None:
    assert parse_yaml(json.dumps(value), "x") == value


@given(values)
def test_what_pyyaml_writes_comes_back_unless_it_has_aliases(value: Any) -> None:
    assert parse_yaml(yaml.safe_dump(value), "x") == value


@given(st.text(max_size=60) | st.binary(max_size=60))
def test_any_text_is_yaml_or_a_format_error(text: str | bytes) -> None:
    with contextlib.suppress(FormatError):
        parse_yaml(text, "x")


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


@given(st.text(max_size=40))
def test_a_path_that_stays_below_does(text: str) -> None:
    if stays_below(text):
        joined = Path("folder") / text
        assert not Path(text).is_absolute()
        assert ".." not in joined.parts


names = st.text(st.characters(exclude_categories=["Cs", "Cc"]), min_size=1, max_size=12)


@given(st.lists(names, min_size=1, max_size=4, unique=True), st.integers(0, 2**32))
def test_a_shard_gives_back_what_was_put_in(ids: list[str], seed: int) -> None:
    rng = np.random.default_rng(seed)
    made = [Sample(**{**{f: getattr(sample(0), f) for f in Sample.__dataclass_fields__}, "sample_id": f"A{name}",
                      "group": name, "jpeg": rng.bytes(int(rng.integers(1, 90))),
                      "landmarks": rng.normal(size=(520, 3)).astype(np.float32)}) for name in ids]  # fmt: skip
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "s.h5"
        write_bytes(path, encode_shard(made, header()))
        with ShardReader(path) as shard:
            assert shard.groups == ids
            assert [shard.jpeg(row) for row in range(len(made))] == [one.jpeg for one in made]
            assert (shard.array("landmarks") == np.stack([one.landmarks for one in made])).all()


@given(st.floats(-128, 383.9), st.floats(-128, 383.9))
def test_fixed_point_is_right_to_half_a_step(x: float, y: float) -> None:
    positions = np.array([[[x, y, 0]]], np.float32)
    valid = np.ones((1, 1), bool)
    assert np.abs(decode_fixed_point(encode_fixed_point(positions, valid), valid) - positions).max() <= 1 / 256


@given(st.floats(0.05, 4), st.floats(-300, 300), st.floats(-300, 300))
def test_a_crop_of_one_colour_is_that_colour_or_black(scale: float, tx: float, ty: float) -> None:
    crop = warp(np.full((40, 50, 3), 200, np.uint8), Crop(scale, tx, ty, size=32))
    assert crop.max() <= 200
    columns, rows = ((np.arange(32) - t) / scale for t in (tx, ty))
    half = max(0.5 / scale, 1)
    inside = np.ix_((rows > half) & (rows < 39 - half), (columns > half) & (columns < 49 - half))
    assert (np.abs(crop[inside].astype(int) - 200) <= 1).all()
