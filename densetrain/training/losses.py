"""Losses over landmarks, in pixels of the crop."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from densegen.errors import ConfigurationError, did_you_mean
from densegen.ibug68 import ids_of
from densegen.index.vertex_index import VertexIndex
from densetrain.config import LossSettings

__all__ = ["LandmarkLoss", "gaussian_nll", "squared_sigmas", "wing"]


def wing(difference: Tensor, w: float, eps: float) -> Tensor:
    """The Wing loss of each difference (Feng et al., CVPR 2018, eq. 5), same shape.

    ``w ln(1 + |d| / eps)`` below w, ``|d| - C`` from there on, with ``C = w - w ln(1 + w / eps)``, so that both meet.
    """
    size = difference.abs()
    return torch.where(size < w, w * torch.log1p(size / eps), size - (w - w * math.log1p(w / eps)))


def gaussian_nll(predicted: Tensor, truth: Tensor, log_sigma: Tensor) -> Tensor:
    """(B,) negative log-likelihood of isotropic Gaussians, without the constant, a mean over landmarks: ``3 log sigma +
    |d|^2 / (2 sigma^2)`` (Wood et al., 3D face reconstruction with dense landmarks, ECCV 2022, eq. 1, in 3D).

    predicted, truth : (B, N, 3) float, pixels, crop frame
    log_sigma : (B, N) float, logarithm of pixels
    """
    square = (predicted.float() - truth.float()).square().sum(dim=2)
    return (3 * log_sigma + square * torch.exp(-2 * log_sigma) / 2).mean(dim=1)


def squared_sigmas(predicted: Tensor, truth: Tensor, log_sigma: Tensor) -> Tensor:
    """(B,) mean over landmarks and axes of ``(d / sigma)^2``: 1 if the sigmas are right."""
    square = (predicted.float() - truth.float()).square().sum(dim=2)
    return (square * torch.exp(-2 * log_sigma) / 3).mean(dim=1)


class LandmarkLoss(torch.nn.Module):
    """The loss that the settings name: a weighted mean over samples, landmarks and axes.

    Raises :class:`ConfigurationError` if the settings weigh a region, or ask for a subset, that the index lacks.
    """

    weights: Tensor
    mse_weights: Tensor

    def __init__(self, settings: LossSettings, index: VertexIndex) -> None:
        super().__init__()
        self.settings = settings
        regions = [landmark.region for landmark in index.landmarks]
        if unknown := set(settings.region_weights) - set(regions):
            raise ConfigurationError(
                f"loss.region_weights: {index.name} has no region {min(unknown)!r}{did_you_mean(min(unknown), regions)}"
            )
        region = torch.tensor([settings.region_weights.get(name, 1.0) for name in regions])
        weights = region[:, None] * torch.tensor(settings.axis_weights)
        seen = torch.ones(len(index))
        if settings.mse_on == "ibug68" and settings.name in ("hybrid", "mse"):
            if "ibug68" not in index.subsets:
                raise ConfigurationError(f"loss.mse_on: {index.name} has no subset ibug68")
            seen = torch.zeros(len(index))
            for point in index.subsets["ibug68"]:
                seen[ids_of(point)] = 1.0
        mse_weights = weights * seen[:, None]
        if not weights.sum() > 0 or not mse_weights.sum() > 0:
            raise ConfigurationError("loss: every landmark has the weight 0")
        # Means: the weights of all landmarks and axes add up to 1.
        self.register_buffer("weights", weights / weights.sum(), persistent=False)
        self.register_buffer("mse_weights", mse_weights / mse_weights.sum(), persistent=False)

    def forward(self, predicted: Tensor, truth: Tensor) -> Tensor:
        """(B,) loss of each sample; predicted, truth : (B, N, 3) float, pixels, crop frame."""
        settings, difference = self.settings, predicted.float() - truth.float()

        def mean(loss: Tensor, weights: Tensor = self.weights) -> Tensor:
            return (loss * weights).sum(dim=(1, 2))

        if settings.name == "mse":
            return mean(difference.square(), self.mse_weights)
        if settings.name == "l1":
            return mean(difference.abs())
        if settings.name == "smooth-l1":
            return mean(torch.nn.functional.smooth_l1_loss(difference, torch.zeros_like(difference), reduction="none"))
        curved = mean(wing(difference, settings.wing_w, settings.wing_eps))
        if settings.name == "wing":
            return curved
        return settings.wing_weight * curved + settings.mse_weight * mean(difference.square(), self.mse_weights)
