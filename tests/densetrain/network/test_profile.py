"""What backbones cost."""

from __future__ import annotations

import pytest

from densetrain.config import ModelSettings
from densetrain.network.profile import profile


@pytest.mark.parametrize(
    ("backbone", "gmacs", "millions"),
    [("mobilenet_v2", 0.393, 4.222), ("resnet18", 2.370, 11.977), ("resnet50", 5.341, 26.704)],
)
def test_backbones_cost_what_is_published(backbone: str, gmacs: float, millions: float) -> None:
    made = profile(ModelSettings(backbone=backbone), 520, latency=False)
    assert round(made.macs / 1e9, 3) == gmacs
    assert round(made.parameters / 1e6, 3) == millions
