"""Model files: what comes back, and what is refused."""

from __future__ import annotations

import dataclasses
import json
import os
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save

from densegen.errors import ConfigurationError, FormatError
from densegen.face.model_file import read_model, write_model
from densegen.face.morphable_model import MorphableModel


def test_a_model_comes_back_from_its_file(model: MorphableModel, tmp_path: Path) -> None:
    write_model(model, tmp_path / "m.safetensors")
    back = read_model(tmp_path / "m.safetensors")
    assert back.fingerprint == model.fingerprint
    assert (back.topology, back.name, back.shape_names) == (model.topology, model.name, model.shape_names)
    write_model(back, tmp_path / "again.safetensors")
    assert (tmp_path / "again.safetensors").read_bytes() == (tmp_path / "m.safetensors").read_bytes()


def test_other_files_are_refused_with_a_reason(model: MorphableModel, tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="does not exist: make it with"):
        read_model(tmp_path / "none.safetensors")
    path = tmp_path / "m.safetensors"
    about = {"format": "densegen morphable model", "schema_version": 2, "name": "n", "uv_layout": "u", "unit_mm": 1.0,
             "fingerprint": "f", "shape_names": [], "expression_names": []}  # fmt: skip
    some = {"uv": np.zeros((3, 2))}
    for contents, words in (
        (b"hello", "not a readable model"),
        (b"hello, this is no model", "not a readable model"),
        (b"\x89HDF\r\n\x1a\n and more", "an earlier densegen"),
        (b"MATLAB 5.0 MAT-file", "'densegen model convert'"),
        (save(some), "not a densegen model"),
        (save(some, {"densegen": "{}"}), "name: Field required"),
        (save(some, {"densegen": json.dumps(about | {"unit_mm": "inf"})}), "unit_mm"),
        (save(some, {"densegen": json.dumps(about | {"schema_version": 7})}), "model schema 7, expected 2"),
        (save(some, {"densegen": json.dumps(about)}), "lacks expression_basis, expression_mean"),
    ):
        path.write_bytes(contents)
        with pytest.raises(FormatError, match=words):
            read_model(path)


@pytest.mark.parametrize("cut", [7, 100, 3000, 100_000])
def test_a_damaged_model_is_refused(model: MorphableModel, tmp_path: Path, cut: int) -> None:
    write_model(model, tmp_path / "m.safetensors")
    data = (tmp_path / "m.safetensors").read_bytes()
    (tmp_path / "cut.safetensors").write_bytes(data[:cut])
    with pytest.raises(FormatError, match="not a readable model"):
        read_model(tmp_path / "cut.safetensors")
    flipped = bytearray(data)
    flipped[-cut] ^= 1
    (tmp_path / "flipped.safetensors").write_bytes(flipped)
    with pytest.raises(FormatError, match="does? not match|finite|refers to vertex|leaves|do not match"):
        read_model(tmp_path / "flipped.safetensors")


def test_a_pipe_is_no_model(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(FormatError, match="not a regular file"):
        read_model(tmp_path / "pipe")


def test_a_mapped_model_is_the_same_model(model: MorphableModel, tmp_path: Path) -> None:
    write_model(model, tmp_path / "model.safetensors")
    mapped = read_model(tmp_path / "model.safetensors", mapped=True)
    assert not mapped.shape_basis.flags.owndata
    assert not mapped.shape_basis.flags.writeable
    assert mapped.fingerprint == model.fingerprint
    vertices = np.array([0, 7, model.vertex_count - 1], np.int32)
    columns = (3 * vertices[:, None] + np.arange(3)).ravel()
    assert np.array_equal(mapped.basis_at(vertices), model.basis[:, columns])


def test_a_mapped_model_is_read_again_only_if_its_file_has_changed(model: MorphableModel, tmp_path: Path) -> None:
    path = tmp_path / "model.safetensors"
    write_model(model, path)
    first = read_model(path, mapped=True)
    assert read_model(path, mapped=True) is first
    assert read_model(path) is not first
    write_model(dataclasses.replace(model, unit_mm=2.0), path)
    assert read_model(path, mapped=True).unit_mm == 2.0
    assert first.unit_mm == model.unit_mm
