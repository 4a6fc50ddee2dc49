"""Networks opened by their file or folder."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from densegen.arrays import Float32, Image
from densegen.dataset.shard_set import ShardSet
from densegen.errors import ConfigurationError
from densegen.geometry.crop import box_size
from densegen.geometry.flip import flip_points
from densetrain.evaluation.evaluate import read_result
from densetrain.network.checkpoint import load_regressor
from densetrain.network.regressor import FlipTested, Regressor, answer_in_images, open_regressor
from tests.densetrain.command import call


def test_the_folder_of_an_export_is_a_network_and_no_other_folder_becomes_one(
    run: Path, exported: Path, tmp_path: Path
) -> None:
    assert open_regressor(exported).name.endswith("model.safetensors")
    (tmp_path / "README.md").write_text("my project")
    made = call("export", run, "--out", tmp_path)
    assert (made.exit_code, made.stderr.count("\n")) == (1, 1)
    assert "holds a README.md of something else" in made.stderr
    assert (tmp_path / "README.md").read_text() == "my project"


def test_a_flip_test_is_the_mean_of_both_and_mirrors_with_its_input(exported: Path, shards: ShardSet) -> None:
    plain = open_regressor(exported / "model.onnx")
    tested = open_regressor(exported / "model.onnx", flip_test=True)
    crops = np.stack([shards[number].image for number in range(3)])
    mirrored = np.ascontiguousarray(crops[:, :, ::-1])
    landmarks = np.mean(tested.pair(crops)[:2], axis=0)
    np.testing.assert_allclose(
        np.mean(tested.pair(mirrored)[:2], axis=0), flip_points(landmarks)[:, tested.index.mirror], atol=1e-4
    )
    np.testing.assert_allclose(tested(mirrored), flip_points(tested(crops))[:, tested.index.mirror], atol=1e-4)
    both = plain(crops), flip_points(plain(mirrored))[:, tested.index.mirror]
    np.testing.assert_allclose(landmarks, np.mean(both, axis=0), atol=1e-4)
    assert np.abs(landmarks - both[0]).max() > 0.01


HALVES_APART_PX = 4.0


class Halves:
    """Says one symmetrical face of every crop, moved to the right by half of what a flip test's answers lie apart."""

    def __init__(self, network: Regressor) -> None:
        self.about, self.index = network.about.model_copy(update={"validation_nme": None}), network.index
        self.name, self.weights = network.name, network.weights
        mean = np.array(network.about.mean_landmarks, np.float32)
        self.face = (mean + flip_points(mean, self.about.crop_size)[self.index.mirror]) / 2

    def __call__(self, crops: Image) -> Float32:
        return self.with_sigma(crops)[0]

    def with_sigma(self, crops: Image) -> tuple[Float32, None]:
        moved = self.face + np.array([HALVES_APART_PX / 2, 0, 0], np.float32)
        return np.repeat(moved[None], len(crops), axis=0), None


class OnlyUpright:
    """Knows one face, if its bright half is on top; else its answer lies to the right, so that a flip test doubts."""

    def __init__(self, network: Regressor) -> None:
        self.about = network.about.model_copy(update={"validation_nme": 3.0})
        self.index, self.name, self.weights = network.index, network.name, network.weights
        mean = np.array(network.about.mean_landmarks, np.float32)
        self.face = (mean + flip_points(mean, self.about.crop_size)[self.index.mirror]) / 2

    def __call__(self, crops: Image) -> Float32:
        return self.with_sigma(crops)[0]

    def with_sigma(self, crops: Image) -> tuple[Float32, Float32]:
        half = self.about.crop_size // 2
        upright = crops[:, :half].mean(axis=(1, 2, 3)) > crops[:, half:].mean(axis=(1, 2, 3)) + 1
        off = np.where(upright, 0, 30).astype(np.float32)[:, None]
        return self.face + off[..., None] * np.array([1, 0, 0], np.float32), off + np.ones(len(self.face), np.float32)


def test_a_flip_test_looks_at_doubtful_faces_turned(exported: Path) -> None:
    network = OnlyUpright(open_regressor(exported / "model.onnx"))
    size = network.about.crop_size
    crop = np.full((size, size, 3), 100, np.uint8)
    crop[: size // 2] = 200
    grey = np.full_like(crop, 100)  # no turn makes it surer
    crops = np.stack([crop, *(np.rot90(crop, turns) for turns in (1, 2, 3)), grey])
    expected = [network.face]
    for _ in range(3):  # counterclockwise: (x, y) goes to (y, size - 1 - x)
        x, y, z = expected[-1].T
        expected.append(np.stack([y, size - 1 - x, z], axis=1))
    tested = FlipTested(network)
    landmarks, sigma = tested.with_sigma(crops)
    np.testing.assert_allclose(landmarks[:4], expected, atol=1e-3)
    one, other, _ = tested.pair(crops)
    assert [round(float(apart)) for apart in np.abs(one - other).max(axis=(1, 2))] == [0, 60, 60, 60, 60]
    np.testing.assert_array_equal(landmarks[4], (one[4] + other[4]) / 2)
    assert sigma is not None
    np.testing.assert_array_equal(sigma[:, 0], [1, 1, 1, 1, 31])
    # A network that never said how far off it is has no doubts.
    network.about = network.about.model_copy(update={"validation_nme": None})
    np.testing.assert_array_equal(FlipTested(network)(crops), (one + other) / 2)


def test_a_digest_is_of_the_weights_and_not_of_their_file(run: Path, exported: Path, tmp_path: Path) -> None:
    trained, written = open_regressor(run), open_regressor(exported / "model.safetensors")
    assert trained.weights == written.weights == open_regressor(run, flip_test=True).weights
    assert len(trained.weights) == 16
    onnx = open_regressor(exported / "model.onnx")
    assert onnx.name == f"{exported.name}/model.onnx"
    assert onnx.weights != trained.weights
    changed = load_regressor(run)
    next(changed.net.parameters()).data.flatten()[0] += 1e-3
    assert changed.weights != trained.weights


def test_a_flip_distance_is_of_the_face_and_not_of_its_box(exported: Path) -> None:
    network = FlipTested(Halves(open_regressor(exported / "model.onnx")))
    image = np.zeros((300, 300, 3), np.uint8)
    boxes = np.array([[100.0, 100, 200, 200], [50, 50, 250, 250]])
    answer = answer_in_images(network, [image, image], boxes)
    assert answer.flip_distance is not None
    small, large = answer.flip_distance
    assert small == pytest.approx(large, rel=1e-5)
    face = np.array(network.about.mean_landmarks, np.float32)
    size = float(box_size(network.index.subset("ibug68", (face + flip_points(face, 256)[network.index.mirror]) / 2)))
    assert size != pytest.approx(256 / network.about.margin, rel=0.02)  # a face as large as its box would show nothing
    assert small == pytest.approx(100 * HALVES_APART_PX / size, rel=1e-4)


def test_a_flip_test_needs_a_mirror_closed_index(exported: Path) -> None:
    network = open_regressor(exported / "model.onnx")
    first = network.index.landmarks[0].model_copy(update={"mirror": None})
    network.index = network.index.model_copy(update={"landmarks": (first, *network.index.landmarks[1:])})
    with pytest.raises(ConfigurationError, match="closed under the mirror"):
        FlipTested(network)


def test_a_flip_test_is_another_evaluation(run: Path, dataset: Path, tmp_path: Path) -> None:
    asked = ("evaluate", run, "--shards", dataset, "--out", tmp_path)
    assert call(*asked).exit_code == 0
    assert call(*asked, "--flip-test").exit_code == 0
    plain, tested = (read_result(tmp_path / f"shards-validation{name}.json") for name in ("", "-flip-test"))
    assert tested.method == f"{plain.method}, flip test"
    assert tested.score.mean != plain.score.mean
