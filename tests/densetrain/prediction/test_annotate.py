"""What a network says of the faces of fits, and fits that move onto it."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from densegen.arrays import Float32, Image
from densegen.face.morphable_model import MorphableModel
from densegen.geometry.crop import box_around, crop_of_box
from densegen.sources.annotations import read_annotations
from densegen.sources.fits import fit_bytes, read_fit
from densegen.sources.manifest_init import fits_below
from densegen.synthetic.corpus import SUBSET
from densetrain.network.regressor import Regressor, open_regressor
from densetrain.prediction.annotate import annotate
from tests.densegen.command import run as densegen
from tests.densetrain.command import call, fails


class OneAnswer:
    """Says the same landmarks of every crop."""

    def __init__(self, network: Regressor) -> None:
        self.about, self.index, self.name, self.weights = network.about, network.index, "one answer", "0" * 16
        self.face = np.array(network.about.mean_landmarks, np.float32)

    def __call__(self, crops: Image) -> Float32:
        return self.with_sigma(crops)[0]

    def with_sigma(self, crops: Image) -> tuple[Float32, None]:
        return np.repeat(self.face[None], len(crops), axis=0), None


@pytest.fixture
def faces(corpus: Path, tmp_path: Path) -> Path:
    """Five fits of the corpus: one's photograph is damaged, one's file is, and the face of one lies outside."""
    folder = tmp_path / "faces" / SUBSET
    folder.mkdir(parents=True)
    for path in sorted((corpus / SUBSET).glob("*.mat"))[:5]:
        shutil.copy(path, folder)
        shutil.copy(path.with_suffix(".jpg"), folder)
    sorted(folder.glob("*.jpg"))[1].write_bytes(b"no picture")
    fits = sorted(folder.glob("*.mat"))
    fits[3].write_bytes(b"no fit")
    fit = read_fit(fits[4])
    assert fit.keypoints_3d is not None
    fits[4].write_bytes(fit_bytes(replace(fit, keypoints_3d=fit.keypoints_3d * 0 + 5), "test"))
    return tmp_path / "faces"


def test_a_networks_landmarks_are_taken_from_the_crop_to_the_photograph(exported: Path, faces: Path) -> None:
    network = OneAnswer(open_regressor(exported / "model.onnx"))
    told: list[tuple[int, int]] = []
    found = annotate(network, fits_below(faces)[1], faces, advance=lambda done, aside: told.append((done, aside)))
    assert told == [(5, 3)]
    names = [f"{SUBSET}/{path.stem}" for path in sorted((faces / SUBSET).glob("*.mat"))]
    assert [name for name, _ in found.passed_over] == [names[1], *names[3:]]
    assert found.landmarks.dtype == np.float32
    for name, landmarks in zip(found.names, found.landmarks, strict=True):
        keypoints = read_fit(faces / f"{name}.mat").keypoints_3d
        assert keypoints is not None
        crop = crop_of_box(box_around(keypoints[:2].T - 1), network.about.margin, network.about.crop_size)
        np.testing.assert_allclose(landmarks, crop.invert(network.face)[:, :2], atol=1e-3)


def test_with_a_model_the_fits_files_need_no_68_points(
    exported: Path, faces: Path, corpus: Path, model: MorphableModel, run: Path
) -> None:
    network = OneAnswer(open_regressor(exported / "model.onnx"))
    from_files = annotate(network, fits_below(corpus)[1], corpus)
    bare = faces.parent / "bare"
    bare.mkdir()
    for path in sorted((corpus / SUBSET).glob("*.mat")):
        (bare / path.name).write_bytes(fit_bytes(replace(read_fit(path), keypoints_3d=None), "test"))
        shutil.copy(path.with_suffix(".jpg"), bare)
    posed = annotate(network, fits_below(bare)[1], bare, model)
    assert [f"{SUBSET}/{name}" for name in posed.names] == list(from_files.names)
    np.testing.assert_allclose(posed.landmarks, from_files.landmarks, atol=2e-3)
    assert not annotate(network, fits_below(bare)[1], bare).names
    said = call("annotate", run, bare, "--out", faces.parent / "out.npz")
    assert said.exit_code == 1
    assert "with --model a fit needs no pt3d_68" in said.stderr
    made = call("annotate", run, bare, "--model", corpus / "model.safetensors", "--out", faces.parent / "out.npz")
    assert made.exit_code == 0, made.output
    assert f"out.npz: {len(posed.names)} faces, 520 landmarks each" in made.output
    cut = replace(model, expression_basis=model.expression_basis[1:], expression_std=model.expression_std[1:])
    _, why = annotate(network, fits_below(bare)[1], bare, cut).passed_over[0]
    assert "expression coefficients, the model" in why


def test_the_file_is_read_by_fits_refine_and_is_the_same_each_time(run: Path, faces: Path, tmp_path: Path) -> None:
    out, model = tmp_path / "network.npz", faces.parent / "model.safetensors"
    made = call("annotate", run, faces, "--out", out)
    assert made.exit_code == 0, made.output
    assert "passed over: 3, the first: SYNTH/SYNTH_" in made.stderr
    assert "network.npz: 2 faces, 520 landmarks each" in made.output
    first = out.read_bytes()
    assert call("annotate", run, faces, "--out", out).exit_code == 0
    assert out.read_bytes() == first
    found = read_annotations(out)
    assert (found.kind, len(found.names), len(found.faces), found.first_pixel) == ("names", 520, 2, 0)
    assert found.vertex_index == open_regressor(run).index.fingerprint
    densegen("synth", tmp_path / "corpus", "--samples", 1)
    shutil.copy(tmp_path / "corpus/model.safetensors", model)
    refined = densegen(
        "fits", "refine", faces, "--landmarks", out, "--sigma", 0.4, "--model", model, "--out", tmp_path / "refined",
        "--max-residual", 1, "--jobs", 1,
    )  # fmt: skip
    assert refined.exit_code == 0, refined.output
    report = json.loads((tmp_path / "refined/report.json").read_text())
    assert report["sources"] == [{"first_pixel": 0, "points": "names"}]
    assert report["error_percent"]["median"] < report["error_before_percent"]["median"]


def test_wrong_inputs_are_one_line(run: Path, corpus: Path, tmp_path: Path) -> None:
    out = tmp_path / "network.npz"
    assert "what is written is a NumPy archive; name it" in fails("annotate", run, corpus, "--out", tmp_path / "a.csv")
    assert "holds no fit (*.mat)" in fails("annotate", run, tmp_path, "--out", out)
    assert "does not exist" in fails("annotate", tmp_path / "none", corpus, "--out", out)
    np.savez(out, names=["a"], landmarks=np.zeros((1, 68, 2)))
    assert "holds something that densegen did not write" in fails("annotate", run, corpus, "--out", out)
    out.unlink()
    alone = tmp_path / "alone"
    alone.mkdir()
    shutil.copy(sorted((corpus / SUBSET).glob("*.mat"))[0], alone)
    said = call("annotate", run, alone, "--out", out)
    assert said.exit_code == 1
    assert "not one of 1 fits" in said.stderr
    assert not out.exists()
