from __future__ import annotations

import dataclasses
import json
import os
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save

from densegen.errors import ConfigurationError, FormatError
from densegen.face.components import combine
from densegen.face.morphable_model import MorphableModel, count_words, read_model, write_model


def random_coefficients(model: MorphableModel, faces: int) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(0)
    shape = rng.normal(size=(faces, len(model.shape_basis))).astype(np.float32)
    return shape, rng.normal(size=(faces, len(model.expression_basis))).astype(np.float32)


def test_vertices_are_the_plain_formula(model: MorphableModel) -> None:
    shape, expression = random_coefficients(model, 5)
    vertices = combine(np.concatenate([shape, expression], axis=1), model.basis)
    plain = model.shape_mean.astype(np.float64) + model.expression_mean
    plain = plain + np.einsum("k,kvc->vc", shape[3].astype(np.float64), model.shape_basis)
    plain += np.einsum("k,kvc->vc", expression[3].astype(np.float64), model.expression_basis)
    np.testing.assert_allclose(vertices[3], plain, atol=0.1)  # micrometres, in a face of 150,000


def test_a_vertex_has_the_same_bits_alone_in_a_batch_and_in_the_mesh(model: MorphableModel) -> None:
    shape, expression = random_coefficients(model, 3)
    batch = combine(np.concatenate([shape, expression], axis=1), model.basis)
    some = np.array([7, 4000, 11000, 3], np.int32)
    for face in range(3):
        coefficients = model.coefficients(shape[face], expression[face])
        assert (model.vertices(shape[face], expression[face]) == batch[face]).all()
        assert (combine(coefficients[None], model.basis_at(some))[0] == batch[face, some]).all()


def test_components_are_added_from_left_to_right() -> None:
    """2^24 + 1 + 1 is 2^24 in float32, one at a time, and 2^24 + 2 in any other order."""
    basis = np.array([[1.0], [1.0], [0.0], [0.0], [-(2.0**24)], [2.0**24]], np.float32)
    assert combine(np.ones((1, 5), np.float32), np.repeat(basis, 3, axis=1)).tolist() == [[[0.0, 0.0, 0.0]]]


def test_a_model_comes_back_from_its_file(model: MorphableModel, tmp_path: Path) -> None:
    write_model(model, tmp_path / "m.safetensors")
    back = read_model(tmp_path / "m.safetensors")
    assert back.fingerprint == model.fingerprint
    assert (back.topology, back.name, back.shape_names) == (model.topology, model.name, model.shape_names)
    write_model(back, tmp_path / "again.safetensors")
    assert (tmp_path / "again.safetensors").read_bytes() == (tmp_path / "m.safetensors").read_bytes()


def test_the_fingerprint_sees_one_changed_number(model: MorphableModel) -> None:
    mean = model.shape_mean.copy()
    mean[100, 1] += 1
    other = dataclasses.replace(model, shape_mean=mean)
    assert other.fingerprint != model.fingerprint
    assert other.topology == model.topology


def test_viewers_get_triangles_that_face_outside_however_they_are_wound(model: MorphableModel) -> None:
    for triangles in (model.triangles, np.ascontiguousarray(model.triangles[:, ::-1])):
        outward = dataclasses.replace(model, triangles=triangles).outward_triangles
        a, b, c = (model.mean[outward[:, corner]] for corner in range(3))
        assert (np.cross(b - a, c - a)[:, 2] > 0).mean() > 0.9
        assert (np.sort(outward, axis=1) == np.sort(model.triangles, axis=1)).all()


def test_wrong_component_counts_name_both(model: MorphableModel) -> None:
    with pytest.raises(ConfigurationError, match="199 shape and 29 expression coefficients, but .* has 24 and 12"):
        model.vertices(np.zeros(199, np.float32), np.zeros(29, np.float32))


def test_contradicting_arrays_are_refused(model: MorphableModel) -> None:
    with pytest.raises(FormatError, match="uv has shape"):
        dataclasses.replace(model, uv=model.uv[:, :1])
    with pytest.raises(FormatError, match="triangles refers to vertex"):
        dataclasses.replace(model, triangles=model.triangles + 9000)
    broken = model.shape_mean.copy()
    broken[0] = np.nan
    with pytest.raises(FormatError, match="not finite"):
        dataclasses.replace(model, shape_mean=broken)


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


def test_counts_that_users_meet_are_named() -> None:
    assert count_words(53490) == "53490 (the raw Basel Face Model 2009)"
    assert "PRNet" in count_words(43867)
    assert count_words(12) == "12"


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
