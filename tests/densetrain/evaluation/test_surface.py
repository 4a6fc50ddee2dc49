"""Surfaces from landmarks, scored against the fits."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from densegen.errors import ConfigurationError
from densegen.face.morphable_model import MorphableModel
from densegen.fitting.prior import Prior, prior_of_model
from densegen.geometry.crop import crop_of_box
from densegen.geometry.pose import pose_vertices
from densegen.index.vertex_index import VertexIndex
from densegen.sources.fits import read_fit
from densetrain.evaluation.benchmarks import Benchmark, aflw2000
from densetrain.evaluation.evaluate import Result, read_result
from densetrain.evaluation.surface import evaluate_surface, rigid_icp
from tests.densetrain.command import call


class Knowing:
    """A network that knows the true landmarks of the faces it is asked for, in order, and adds noise to them."""

    def __init__(
        self, benchmark: Benchmark, root: Path, model: MorphableModel, index: VertexIndex, noise: float
    ) -> None:
        self.index, self.name, self.weights, self.calls = index, "knowing", "0" * 16, 0
        self.about: Any = type("About", (), {"margin": 1.5, "crop_size": 256})
        generator, points = np.random.default_rng(0), index.resolve(model)
        self.answers = []
        for name, box, size in zip(benchmark.names, benchmark.boxes, benchmark.normaliser, strict=True):
            fit = read_fit(root / f"{name}.mat")
            landmarks = points.gather(pose_vertices(model.vertices(fit.shape, fit.expression), fit.pose, 450))
            landmarks = landmarks + generator.normal(0, noise * size, landmarks.shape)
            landmarks[:, 2] += generator.normal(0, 50)  # depth has no origin
            self.answers.append(crop_of_box(box, 1.5, 256).apply(landmarks.astype(np.float32)))

    def with_sigma(self, crops: np.ndarray) -> tuple[np.ndarray, None]:
        self.calls += 1
        return self.answers[self.calls - 1][None], None

    def __call__(self, crops: np.ndarray) -> np.ndarray:
        return self.with_sigma(crops)[0]


@pytest.fixture
def root(corpus: Path, tmp_path: Path) -> Path:
    folder = tmp_path / "aflw2000"
    shutil.copytree(corpus / "SYNTH", folder)
    return folder


def by_name(results: list[Result]) -> dict[tuple[str, str], float]:
    return {(r.method.removeprefix("knowing, "), str(r.protocol.alignment)): r.score.all_images for r in results}


def test_the_more_landmarks_the_nearer_the_surface(root: Path, model: MorphableModel, index: VertexIndex) -> None:
    benchmark, prior = aflw2000(root, None), prior_of_model(model)
    results = evaluate_surface(Knowing(benchmark, root, model, index, 0.01), benchmark, model, prior, sigma=0.01)
    errors = by_name(results)
    v2v = {what: value for (what, alignment), value in errors.items() if alignment == "vertex to vertex"}
    assert v2v["surface from the 520"] < v2v["surface from the 68"] < v2v["mean face in their pose"]
    assert v2v["surface from the 520"] < v2v["landmarks"] / 2  # noise that the model averages away
    # Nearest points are never farther away than one's own.
    for what in ("surface from the 520", "surface from the 68", "mean face in their pose"):
        assert errors[what, "rigid ICP"] < v2v[what]
    assert {r.protocol.dimensions for r in results} == {"3D"}
    assert "3D, rigid ICP" in str(results[-1].protocol)


def test_exact_landmarks_leave_next_to_nothing(root: Path, model: MorphableModel, index: VertexIndex) -> None:
    benchmark = aflw2000(root, None)
    results = evaluate_surface(
        Knowing(benchmark, root, model, index, 0.0), benchmark, model, prior_of_model(model), sigma=1e-3
    )
    errors = by_name(results)
    assert errors["landmarks", "vertex to vertex"] < 1e-3
    assert errors["surface from the 520", "vertex to vertex"] < 0.1


def test_icp_undoes_a_rigid_movement_and_no_more() -> None:
    generator = np.random.default_rng(1)
    truth = generator.normal(0, 50, (600, 3)) * [1, 1, 0.5]
    angle = 0.1
    turn = np.array([[np.cos(angle), 0, np.sin(angle)], [0, 1, 0], [-np.sin(angle), 0, np.cos(angle)]])
    assert rigid_icp(truth @ turn.T + [3, -4, 5], truth) < 0.5
    assert rigid_icp(truth * 1.3, truth) > 2


def test_what_cannot_be_compared_says_why(root: Path, model: MorphableModel, index: VertexIndex) -> None:
    benchmark = aflw2000(root, None)
    short = Prior(np.zeros(2), np.ones(2))
    with pytest.raises(ConfigurationError, match="the prior has 2 coefficients"):
        evaluate_surface(Knowing(benchmark, root, model, index, 0.0), benchmark, model, short)


def test_the_command_writes_a_result_for_each_table(run: Path, root: Path, corpus: Path, tmp_path: Path) -> None:
    for path in sorted(root.iterdir())[8:]:
        path.unlink()
    asked = ("evaluate", run, "--benchmark", "aflw2000-3d", "--root", root, "--what", "surface")
    made = call(*asked, "--model", corpus / "model.safetensors", "--out", tmp_path / "out")
    assert made.exit_code == 0, made.output
    names = sorted(path.name for path in (tmp_path / "out").glob("*.json"))
    assert len(names) == 7
    assert {read_result(tmp_path / "out" / name).protocol.alignment for name in names} == {
        "vertex to vertex", "rigid ICP"
    }  # fmt: skip
    protocols = {read_result(tmp_path / "out" / name).protocol for name in names}
    assert len(list((tmp_path / "out").glob("*-ced.png"))) == len(protocols) > 1
    # A place that is named twice, in two ways, has each result once.
    report = call("report", tmp_path / "out", tmp_path / "out" / names[0], "--out", tmp_path / "report")
    assert report.exit_code == 0, report.output
    assert f"in {tmp_path / 'out'}" not in (tmp_path / "report/report.md").read_text().partition("### Worst")[0]
    assert call(*asked).exit_code == 2
    plain = call("evaluate", run, "--benchmark", "aflw2000-3d", "--root", root, "--model", corpus / "model.safetensors")
    assert "--model means nothing to" in plain.stderr
    assert "means nothing to" in call("evaluate", run, "--shards", root, "--what", "surface").stderr
