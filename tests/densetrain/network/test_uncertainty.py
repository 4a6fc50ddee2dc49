"""A network that says how far off each landmark may be, from training to a file for elsewhere."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from densegen.dataset.shard_set import ShardSet
from densetrain.network.regressor import open_regressor
from densetrain.training.fit import fit
from tests.densetrain.command import call
from tests.densetrain.conftest import tiny


@pytest.fixture(scope="module")
def uncertain(dataset: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("uncertain") / "run"
    metrics = fit([dataset], tiny("model.uncertainty=true", "trainer.ema_decay=0.9"), out)
    assert metrics["val_squared_sigmas"] > 0
    return out


def test_sigmas_are_right_on_the_validation_samples(uncertain: Path, shards: ShardSet) -> None:
    network = open_regressor(uncertain)
    rows, reader = shards.rows("validation"), shards.open()
    landmarks, sigma = network.with_sigma(reader.images(rows))
    truth = np.stack([reader.landmarks(int(row)) for row in rows])
    reader.close()
    assert sigma is not None
    assert sigma.shape == landmarks.shape[:2]
    np.testing.assert_array_equal(network(shards[int(rows[0])].image[None])[0], network.with_sigma(
        shards[int(rows[0])].image[None])[0][0])  # fmt: skip
    squares = ((landmarks - truth) ** 2).sum(axis=2) / 3 / sigma**2
    assert np.sqrt(squares.mean()) == pytest.approx(1, abs=0.02)


def test_a_network_without_sigmas_says_none(run: Path, shards: ShardSet) -> None:
    assert open_regressor(run).with_sigma(shards[0].image[None])[1] is None
    assert open_regressor(run, flip_test=True).with_sigma(shards[0].image[None])[1] is None


def test_exported_sigmas_are_torchs_and_are_written_by_predict(
    uncertain: Path, shards: ShardSet, corpus: Path, tmp_path: Path
) -> None:
    made = call("export", uncertain, "--out", tmp_path / "out")
    assert made.exit_code == 0, made.output
    crops = np.stack([shards[number].image for number in range(3)])
    for name, limit in (("model.onnx", 1e-3), ("model.safetensors", 0.0)):
        sigma = open_regressor(tmp_path / "out" / name).with_sigma(crops)[1]
        known = open_regressor(uncertain).with_sigma(crops)[1]
        assert sigma is not None
        assert known is not None
        assert np.abs(sigma - known).max() <= limit, name
    photo, box = corpus / "SYNTH/SYNTH_00000_0.jpg", ("--box", 100, 100, 300, 320)
    said = {}
    for name, more in (("plain", ()), ("both", ("--flip-test",))):
        found = call("predict", tmp_path / "out/model.onnx", photo, *box, *more, "--out", tmp_path / name)
        assert found.exit_code == 0, found.output
        (face,) = json.loads((tmp_path / name / "SYNTH_00000_0.json").read_text())["faces"]
        said[name] = np.array(face["sigma_px"])
    assert said["plain"].shape == (520,)
    assert (said["plain"] > 0).all()
    mirror = open_regressor(uncertain).index.mirror
    assert not np.allclose(said["plain"], said["both"])
    # A box of 200 x 220 px fills 256 / (1.5 * 210) of the crop.
    crop_px = open_regressor(uncertain).with_sigma(_crop(photo))[1]
    assert crop_px is not None
    np.testing.assert_allclose(said["plain"] * 255 / 315, crop_px[0], rtol=0.01)
    assert len(mirror) == 520


def _crop(photo: Path) -> np.ndarray:
    from densegen.geometry.crop import crop_of_box, warp
    from densegen.sources.photograph import read_photograph

    crop = crop_of_box(np.array([100.0, 100, 300, 320]), 1.5, 256)
    return warp(read_photograph(photo), crop)[None]


def test_a_run_goes_on_with_its_sigmas(uncertain: Path, dataset: Path, tmp_path: Path) -> None:
    once = tmp_path / "once"
    fit([dataset], tiny("model.uncertainty=true", "trainer.epochs=1"), once)
    again = call("fit", dataset, "--out", once, *(word for change in _changes() for word in ("--set", change)))
    assert again.exit_code == 0, again.output
    assert "trained already" in again.output


def _changes() -> tuple[str, ...]:
    from tests.densetrain.conftest import TINY

    return (*TINY, "model.uncertainty=true", "trainer.epochs=1")
