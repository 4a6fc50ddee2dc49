from __future__ import annotations

import math

import pytest
import torch

from densegen.errors import ConfigurationError
from densegen.index.vertex_index import VertexIndex
from densetrain.config import LossSettings
from densetrain.training.losses import LandmarkLoss, gaussian_nll, squared_sigmas, wing

W, EPS = 15.0, 3.0


def test_wing_at_hand_computed_values() -> None:
    # 15 ln(1 + 3 / 3); 15 ln(1 + 15 / 3); beyond w: |d| - (15 - 15 ln 6).
    values = wing(torch.tensor([0.0, 3.0, -3.0, 15.0, 20.0, -40.0]), W, EPS)
    known = [0.0, 10.397208, 10.397208, 26.876392, 31.876392, 51.876392]
    torch.testing.assert_close(values, torch.tensor(known))


def test_wing_and_its_gradient_at_the_joint() -> None:
    def gradient(at: float) -> float:
        x = torch.tensor(at, dtype=torch.float64, requires_grad=True)
        wing(x, W, EPS).backward()
        assert x.grad is not None
        return float(x.grad)

    below, above = wing(torch.tensor([W - 1e-6, W + 1e-6], dtype=torch.float64), W, EPS)
    assert float(above - below) == pytest.approx(0, abs=1e-5)
    # The curve arrives with the slope w / (w + eps) and the line leaves with 1: the published loss has this kink.
    assert gradient(W - 1e-6) == pytest.approx(W / (W + EPS), abs=1e-6)
    assert gradient(W) == 1.0


def test_the_hybrid_is_a_weighted_sum_in_pixels(index: VertexIndex) -> None:
    truth = torch.zeros(2, len(index), 3)
    predicted = truth.clone()
    predicted[0] += 3.0
    predicted[1] += 20.0
    value = LandmarkLoss(LossSettings(), index)(predicted, truth)
    known = [1.5 * 15 * math.log(2) + 0.5 * 9, 1.5 * (20 - 15 + 15 * math.log(6)) + 0.5 * 400]
    torch.testing.assert_close(value, torch.tensor(known))


@pytest.mark.parametrize(
    ("name", "known"), [("mse", 4.0), ("l1", 2.0), ("smooth-l1", 1.5), ("wing", 15 * math.log(5 / 3))]
)
def test_other_losses_of_two_pixels(index: VertexIndex, name: str, known: float) -> None:
    loss = LandmarkLoss(LossSettings.model_validate({"name": name}), index)
    truth = torch.zeros(1, len(index), 3)
    torch.testing.assert_close(loss(truth + 2, truth), torch.tensor([known]))


@pytest.mark.parametrize("name", ["hybrid", "mse"])
def test_the_mse_can_see_the_68_alone(index: VertexIndex, name: str) -> None:
    truth = torch.zeros(1, len(index), 3)
    wrong = truth.clone()
    wrong[:, 68:] = 2.0
    settings = {"name": name, "mse_on": "ibug68", "wing_weight": 0.0}
    assert float(LandmarkLoss(LossSettings.model_validate(settings), index)(wrong, truth)) == 0


def test_weights_choose_regions_axes_and_the_68(index: VertexIndex) -> None:
    truth = torch.zeros(1, len(index), 3)
    nose = [landmark.id for landmark in index.landmarks if landmark.region == "nose"]
    wrong = truth.clone()
    wrong[:, nose, 0] = 2.0
    alone = {landmark.region: 0.0 for landmark in index.landmarks} | {"nose": 1.0}
    settings = LossSettings(name="mse", region_weights=alone, axis_weights=(1, 0, 0))
    torch.testing.assert_close(LandmarkLoss(settings, index)(wrong, truth), torch.tensor([4.0]))
    only68 = LandmarkLoss(LossSettings(wing_weight=0, mse_on="ibug68"), index)
    wrong = truth.clone()
    wrong[:, 68:] = 9.0
    assert float(only68(wrong, truth)) == 0.0


def test_weights_that_cannot_be_are_refused(index: VertexIndex) -> None:
    with pytest.raises(ConfigurationError, match="no region 'earr'; did you mean ear"):
        LandmarkLoss(LossSettings(region_weights={"earr": 1.0}), index)
    with pytest.raises(ConfigurationError, match="weight 0"):
        LandmarkLoss(LossSettings(axis_weights=(0, 0, 0)), index)


def test_the_negative_log_likelihood_at_a_hand_computed_value() -> None:
    truth = torch.zeros(1, 2, 3)
    predicted = torch.tensor([[[3.0, 0.0, 4.0], [0.0, 0.0, 0.0]]])
    log_sigma = torch.tensor([[math.log(5.0), 0.0]])
    # (3 ln 5 + 25 / 50 + 0) / 2, and (25 / 25 / 3 + 0) / 2
    assert gaussian_nll(predicted, truth, log_sigma).item() == pytest.approx((3 * math.log(5) + 0.5) / 2)
    assert squared_sigmas(predicted, truth, log_sigma).item() == pytest.approx(1 / 6)


def test_the_likelihood_is_largest_at_the_true_sigma() -> None:
    generator = torch.Generator().manual_seed(0)
    truth = torch.zeros(1, 4000, 3)
    predicted = 2.5 * torch.randn(1, 4000, 3, generator=generator)
    sigmas = torch.tensor([1.5, 2.0, 2.5, 3.0, 4.0])
    losses = [gaussian_nll(predicted, truth, torch.full((1, 4000), math.log(s))).item() for s in sigmas.tolist()]
    assert losses.index(min(losses)) == 2
    assert squared_sigmas(predicted, truth, torch.full((1, 4000), math.log(2.5))).item() == pytest.approx(1, abs=0.05)
