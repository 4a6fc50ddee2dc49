from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from densegen.errors import ConfigurationError
from densetrain.config import ModelSettings
from densetrain.network.model import LandmarkNet, check_sizes, normalises_vectors
from densetrain.network.weights import load_pretrained, net_of_weights


def test_the_output_is_in_pixels_about_the_training_mean() -> None:
    net = LandmarkNet(ModelSettings(width=0.25, input_size=64), 5, 256).eval()
    landmarks = torch.rand(40, 5, 3) * 200
    net.start_from(landmarks)
    torch.testing.assert_close(net.mean_landmarks, landmarks.mean(dim=0))
    images = torch.randint(0, 256, (2, 3, 256, 256), dtype=torch.uint8)
    with torch.inference_mode():
        made = net(images)
        torch.testing.assert_close(net(images.float()), made)
        net.backbone.classifier[1].weight.zero_()
        net.backbone.classifier[1].bias.zero_()
        torch.testing.assert_close(net(images)[1], landmarks.mean(dim=0))
    assert made.shape == (2, 5, 3)


@pytest.mark.parametrize("backbone", ["shufflenet_v2_x0_5", "vit_b_16", "googlenet"])
def test_other_networks_of_torchvision_work_by_name(backbone: str) -> None:
    net = LandmarkNet(ModelSettings(backbone=backbone, input_size=64), 7, 64).eval()
    assert net(torch.zeros(1, 3, 64, 64)).shape == (1, 7, 3)


@pytest.mark.parametrize("name", ["mobilenetv4_conv_small", "repvit_m0_9", "vit_tiny_patch16_224"])
def test_networks_of_timm_work_by_name(name: str) -> None:
    pytest.importorskip("timm")
    net = LandmarkNet(ModelSettings(backbone=f"timm:{name}", input_size=64), 520, 128).eval()
    with torch.no_grad():
        assert net(torch.zeros(2, 3, 128, 128)).shape == (2, 520, 3)
    again = net_of_weights(net.settings, 520, 128, net.state_dict())
    assert again.backbone.training


@pytest.mark.parametrize(
    ("name", "size", "expected"),
    [
        ("mobilenet_v2", 64, False),
        ("mobilenet_v2", 32, True),  # its last maps have one place
        ("timm:mobilenetv4_conv_small", 96, True),
        ("vit_b_16", 64, False),
    ],
)
def test_a_network_that_normalises_over_the_batch_alone_is_known(name: str, size: int, expected: bool) -> None:
    if name.startswith("timm:"):
        pytest.importorskip("timm")
    net = LandmarkNet(ModelSettings(backbone=name, input_size=size), 4, 128)
    before = {key: value.clone() for key, value in net.state_dict().items()}
    assert normalises_vectors(net) == expected
    assert net.backbone.training
    assert not any(layer._forward_pre_hooks for layer in net.modules())
    assert all(torch.equal(value, before[key]) for key, value in net.state_dict().items())


def test_a_network_of_timm_that_cannot_be_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("timm")
    for settings, words in (
        (ModelSettings(backbone="timm:nothing"), "timm has no network 'nothing'"),
        (ModelSettings(backbone="timm:hf-hub:somebody/something"), "timm has no network"),
        (ModelSettings(backbone="timm:resnet18", width=0.5), "model.width: timm:resnet18 has no width multiplier"),
    ):
        with pytest.raises(ConfigurationError, match=words):
            LandmarkNet(settings, 520, 256)
    with pytest.raises(ConfigurationError, match="torchvision has no weights of timm:resnet18: name a file"):
        load_pretrained(LandmarkNet(ModelSettings(backbone="timm:resnet18", input_size=64), 4, 64), "torchvision")
    monkeypatch.setitem(sys.modules, "timm", None)
    with pytest.raises(ConfigurationError, match=r"timm:resnet18 needs timm: pip install"):
        LandmarkNet(ModelSettings(backbone="timm:resnet18"), 520, 256)


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"backbone": "nonesuch"}, "no classification network 'nonesuch'"),
        ({"backbone": "resnet18", "width": 0.5}, "no width"),
    ],
)
def test_a_network_that_cannot_be_is_refused(settings: dict[str, Any], words: str) -> None:
    with pytest.raises(ConfigurationError, match=words):
        LandmarkNet(ModelSettings.model_validate(settings), 5, 64)


def test_sizes_that_a_network_cannot_see_are_said_at_once() -> None:
    net = LandmarkNet(ModelSettings(backbone="alexnet", input_size=96), 5, 96)
    check_sizes(net, [96, 64])
    with pytest.raises(ConfigurationError, match=r"schedule.input_sizes: alexnet at 32 px: "):
        check_sizes(net, [96, 32])
    assert net.backbone.training


OWN_NETWORK = """
import torch
from torch import nn

def small(outputs):
    return nn.Sequential(nn.Conv2d(3, 4, 3, stride=4), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, outputs))

def nothing(outputs):
    return outputs

def fixed(outputs):
    return nn.Identity()

def unfit(outputs):
    raise KeyError("boo")

class Failing(nn.Module):
    def __init__(self, outputs):
        super().__init__()
        self.last = nn.Linear(3, outputs)

    def forward(self, pictures):
        return {}["boo"]

class Tied(nn.Module):
    def __init__(self, outputs):
        super().__init__()
        self.first, self.second = nn.Linear(3, 3), nn.Linear(3, 3)
        self.second.weight = self.first.weight
        self.last = nn.Linear(3, outputs)
        self.drops = [share.item() for share in torch.linspace(0, 0.1, 3)]

    def forward(self, pictures):
        return self.last(self.second(self.first(pictures.mean((2, 3))).relu()))

def lazy(outputs):
    return nn.Sequential(nn.AdaptiveAvgPool2d(2), nn.Flatten(), nn.LazyLinear(outputs))
"""


def test_a_network_of_ones_own_runs_only_if_the_environment_names_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "densetrain_test_networks.py").write_text(OWN_NETWORK)
    monkeypatch.syspath_prepend(tmp_path)
    settings = ModelSettings(backbone="own:densetrain_test_networks.small", input_size=64)
    monkeypatch.delenv("DENSETRAIN_BACKBONE", raising=False)
    for named in ("", "densetrain_test_networks.other"):
        monkeypatch.setenv("DENSETRAIN_BACKBONE", named)
        with pytest.raises(ConfigurationError, match="is code, which is run only if you name it"):
            LandmarkNet(settings, 5, 64)
    assert "densetrain_test_networks" not in sys.modules  # nothing was imported
    monkeypatch.setenv("DENSETRAIN_BACKBONE", "densetrain_test_networks.small")
    net = LandmarkNet(settings, 5, 64).eval()
    assert net(torch.zeros(2, 3, 64, 64)).shape == (2, 5, 3)
    for name in ("small", "Tied", "lazy"):  # weights that two layers share, and shapes that the first run decides
        monkeypatch.setenv("DENSETRAIN_BACKBONE", f"densetrain_test_networks.{name}")
        own = ModelSettings(backbone=f"own:densetrain_test_networks.{name}", input_size=64)
        trained = LandmarkNet(own, 5, 64).eval()
        assert same_net(net_of_weights(own, 5, 64, trained.state_dict()), trained)
    for path, words in (
        ("densetrain_test_networks.nothing", "makes no torch.nn.Module"),
        ("densetrain_test_networks.fixed", "has no parameters to train"),
        ("densetrain_test_networks.unfit", "KeyError: 'boo'"),
        ("densetrain_test_networks.Failing", "at 64 px: KeyError: 'boo'"),
        ("densetrain_test_networks.absent", "PYTHONPATH"),
        ("densetrain_no_such_module.x", "PYTHONPATH"),
    ):
        monkeypatch.setenv("DENSETRAIN_BACKBONE", path)
        with pytest.raises(ConfigurationError, match=words):
            LandmarkNet(ModelSettings(backbone=f"own:{path}", input_size=64), 5, 64)


def same_net(one: torch.nn.Module, two: torch.nn.Module) -> bool:
    return all(torch.equal(value, two.state_dict()[name]) for name, value in one.state_dict().items())
