from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from densegen.errors import ConfigurationError, FormatError
from densegen.face.morphable_model import MorphableModel
from densegen.face.regions import valid_uv_region
from densegen.files import find_data_file
from densegen.ibug68 import KEYPOINT_MIRROR
from densegen.index.vertex_index import VertexIndex, format_index, parse_index, read_index, write_index


def changed(index: VertexIndex, **landmark_changes: dict[int, Any]) -> str:
    """The text of the index with some fields of some landmarks changed."""
    content = index.model_dump(mode="json")
    for field, changes in landmark_changes.items():
        for row, value in changes.items():
            content["landmarks"][row][field] = value
    import json

    return json.dumps(content)


def test_the_committed_index_is_closed_and_holds_the_68(index: VertexIndex) -> None:
    assert len(index) == 520
    assert index.mirror_closed
    assert (index.mirror[index.mirror] == np.arange(520)).all()
    assert (index.mirror[:68] == KEYPOINT_MIRROR).all()
    columns, rows = np.rint(index.uv).astype(int).T
    assert valid_uv_region()[rows, columns].all()
    # Mirror partners lie at mirrored UV positions, the midline at 127.5.
    np.testing.assert_allclose(index.uv[index.mirror][:, 0], 255 - index.uv[:, 0], atol=1.5)
    assert np.abs(index.uv[index.mirror][:, 0] + index.uv[:, 0] - 255).max() < 1.5


def test_an_index_comes_back_from_its_file(index: VertexIndex, tmp_path: Path) -> None:
    write_index(index, tmp_path / "i.yaml")
    back = read_index(tmp_path / "i.yaml")
    assert len(back.uv) == len(index.mirror)  # arrays that are kept once they were asked for, of another one each
    assert back == index
    assert back != index.model_copy(update={"version": "9.9.9"})
    assert (tmp_path / "i.yaml").read_bytes() == find_data_file("vertex_index_520.yaml").read_bytes()


def test_the_fingerprint_follows_what_moves_landmarks(index: VertexIndex) -> None:
    renamed = index.model_copy(update={"description": "another", "version": "9.9.9"})
    assert VertexIndex.model_validate(renamed.model_dump()).fingerprint == index.fingerprint
    assert parse_index(changed(index, uv={3: [30.0, 160.0]}), "i").fingerprint != index.fingerprint


def test_another_uv_layout_is_refused(index: VertexIndex, model: MorphableModel) -> None:
    with pytest.raises(ConfigurationError, match="made for the UV layout bfm-3dmmasstn, but .* has spherical"):
        index.resolve(dataclasses.replace(model, uv_layout="spherical"))


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"id": {3: 4}}, "do not count from 0"),
        ({"name": {3: "jaw-02"}}, "two landmarks have the name jaw-02"),
        ({"uv": {3: [14.6342, 96.4554]}}, "two landmarks have the uv position"),
        ({"vertex": {3: 21873}}, "two landmarks have the vertex 21873"),
        ({"mirror": {3: 3}}, "the mirror partner of jaw-13's partner is not jaw-13"),
        ({"mirror": {3: 520}}, "the mirror partner 520, which does not exist"),
        ({"uv": {3: [127.5, 230.0]}}, r"jaw-03 at \(127.5, 230.0\) lies outside the face's part of the UV plane"),
        ({"uv": {3: [256.0, 0.0]}}, "landmarks.3.uv.0: Input should be less than or equal to 255"),
        ({"region": {3: "elbow"}}, "landmarks.3.region"),
        ({"name": {3: "No spaces"}}, "landmarks.3.name"),
    ],
)
def test_every_broken_relation_is_named(index: VertexIndex, changes: dict[str, dict[int, Any]], words: str) -> None:
    with pytest.raises(FormatError, match=words):
        parse_index(changed(index, **changes), "i.yaml")


def test_other_files_are_refused_with_a_reason(index: VertexIndex, tmp_path: Path) -> None:
    text = format_index(index)
    for name, content, words in [
        ("version", text.replace("format_version: 1", "format_version: 2"), "index format 2, expected 1"),
        ("cut", text[: len(text) // 2], "cut.yaml"),
        ("list", "[1, 2]", "not a vertex index"),
        ("tag", "!!python/object/apply:os.system ['true']", "not readable YAML"),
        (
            "subset",
            text.replace("ibug68: [0, 1,", "ibug68: [0, 900,"),
            "names landmark 900, which does not exist",
        ),
        ("few", text.replace("ibug68: [0, 1,", "ibug68: [0,"), "ibug68 has 67 points, expected 68"),
    ]:
        (tmp_path / f"{name}.yaml").write_text(content)
        with pytest.raises(FormatError, match=words):
            read_index(tmp_path / f"{name}.yaml")
    with pytest.raises(ConfigurationError, match="does not exist"):
        read_index(tmp_path / "none.yaml")


def test_a_changed_copy_knows_nothing_of_what_the_first_one_computed(index: VertexIndex) -> None:
    assert index.mirror_closed
    before = index.fingerprint
    first = index.landmarks[0].model_copy(update={"mirror": None})
    changed = index.model_copy(update={"landmarks": (first, *index.landmarks[1:])})
    assert not changed.mirror_closed
    assert changed.fingerprint != before == index.fingerprint
