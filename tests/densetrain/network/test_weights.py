"""Weights from files."""

from __future__ import annotations

import os
import pickle
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

from densegen.errors import ConfigurationError, FormatError
from densetrain.config import ModelSettings
from densetrain.network.model import LandmarkNet
from densetrain.network.regressor import open_regressor
from densetrain.network.weights import load_pretrained, read_weights


class Harm:
    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, ("harm-was-done",)


@pytest.mark.parametrize("suffix", ["pth", "safetensors"])
def test_pretrained_weights_come_from_a_local_file(tmp_path: Path, suffix: str) -> None:
    source = LandmarkNet(ModelSettings(width=0.25), 10, 64)
    path = tmp_path / f"weights.{suffix}"
    state = {name: value.clone() for name, value in source.backbone.state_dict().items()}
    save_file(state, path) if suffix == "safetensors" else torch.save(state, path)
    net = LandmarkNet(ModelSettings(width=0.25), 5, 64)
    taken, total = load_pretrained(net, str(path))
    assert taken == total - 2  # the classifier has another number of outputs
    assert torch.equal(net.backbone.features[0][0].weight, source.backbone.features[0][0].weight)
    with pytest.raises(FormatError, match="another network"):
        load_pretrained(LandmarkNet(ModelSettings(backbone="resnet18"), 5, 64), str(path))


@pytest.mark.parametrize("form", ["best.ckpt", "model.safetensors"])
def test_training_can_start_from_a_run_or_an_export(run: Path, exported: Path, form: str) -> None:
    trained = open_regressor(run)
    net = LandmarkNet(trained.about.settings.model, len(trained.index), trained.about.crop_size)
    taken, total = load_pretrained(net, str((run if form == "best.ckpt" else exported) / form))
    assert taken == total


def test_torchvisions_weights_come_from_its_cache_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path))
    net = LandmarkNet(ModelSettings(), 5, 64)
    with pytest.raises(ConfigurationError, match="not in its cache"):
        load_pretrained(net, "torchvision")
    (tmp_path / "checkpoints").mkdir()
    from torchvision.models import MobileNet_V2_Weights

    name = MobileNet_V2_Weights.DEFAULT.url.rsplit("/", 1)[-1]
    torch.save(LandmarkNet(ModelSettings(), 9, 64).backbone.state_dict(), tmp_path / "checkpoints" / name)
    assert load_pretrained(net, "torchvision")[0] > 300


def test_a_pickle_that_runs_code_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for name, write in {
        "a.pth": lambda p: torch.save({"x": Harm()}, p),
        "b.pth": lambda p: p.write_bytes(pickle.dumps(Harm())),
    }.items():
        write(tmp_path / name)
        with pytest.raises(FormatError, match="refused|not a readable"):
            read_weights(tmp_path / name)
    assert not (tmp_path / "harm-was-done").exists()


def test_files_that_are_no_weights_are_refused(tmp_path: Path) -> None:
    (tmp_path / "text.pth").write_text("hello")
    (tmp_path / "text.safetensors").write_text("hello")
    torch.save({"a": 1}, tmp_path / "number.pth")
    for name in ("text.pth", "text.safetensors", "number.pth"):
        with pytest.raises(FormatError):
            read_weights(tmp_path / name)
    with pytest.raises(ConfigurationError, match="do not exist"):
        read_weights(tmp_path / "none.pth")
