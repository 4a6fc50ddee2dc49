"""The network: a backbone that regresses landmarks. It owns pixel normalisation and colour order."""

from __future__ import annotations

import importlib
import os
from collections.abc import Iterable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from densegen.errors import ConfigurationError, DensegenError, did_you_mean, in_short
from densegen.extras import install_line
from densetrain.config import ModelSettings
from densetrain.shrink import shrink_factor

__all__ = ["OWN", "TIMM", "LandmarkNet", "check_sizes", "normalises_vectors"]

# Those of ImageNet, which torchvision's weights were trained with.
MEAN_RGB = (0.485, 0.456, 0.406)
STD_RGB = (0.229, 0.224, 0.225)


MOST_LOG_SIGMA = 8.0
"""A landmark's standard deviation is at most e^8 times the training set's, and at least that part of it."""

TIMM = "timm:"
"""Begins the name of a backbone that timm has."""

OWN, ALLOWED = "own:", "DENSETRAIN_BACKBONE"
"""Begins the dotted path of a backbone of the user's own, and the environment variable that has to name it, too."""


class LandmarkNet(nn.Module):
    """(B, 3, S, S) RGB crops, 0 to 255, uint8 or float -> (B, N, 3) float landmarks, pixels, crop frame; with
    ``uncertainty`` (B, N, 4), the logarithm of each landmark's standard deviation in pixels last.

    The backbone sees the crop at ``input_size``; its N x 3 outputs are standard deviations from the mean landmarks of
    the training set, both kept in the weights, so that the output is in pixels whatever reads them. A standard
    deviation starts at that of the training set.

    landmarks : N
    crop_size : S, pixels
    tried : whether to run the backbone once, to check that it can see crops of ``input_size``; not needed for a network
        that was trained

    Raises :class:`ConfigurationError` if the backbone is unknown, has no width multiplier, or cannot see crops of that
    size.
    """

    mean_landmarks: Tensor
    spread_px: Tensor
    mean_rgb: Tensor
    std_rgb: Tensor

    def __init__(self, settings: ModelSettings, landmarks: int, crop_size: int, *, tried: bool = True) -> None:
        super().__init__()
        self.settings, self.landmarks, self.crop_size = settings, landmarks, crop_size
        self.backbone = _make_backbone(settings, landmarks * (4 if settings.uncertainty else 3), tried=tried)
        self.register_buffer("mean_landmarks", torch.zeros(landmarks, 3))
        self.register_buffer("spread_px", torch.tensor(32.0))
        self.register_buffer("mean_rgb", torch.tensor(MEAN_RGB)[:, None, None] * 255, persistent=False)
        self.register_buffer("std_rgb", torch.tensor(STD_RGB)[:, None, None] * 255, persistent=False)

    def forward(self, images: Tensor) -> Tensor:
        return self.of_resized(self.resized(images))

    def resized(self, images: Tensor) -> Tensor:
        """The crops at ``input_size``, as the network is trained on them: (B, 3, s, s) float, 0 to 255."""
        pixels, size = images.float(), self.settings.input_size
        shrink = shrink_factor(self.crop_size, size)
        if 2 * shrink * size == self.crop_size:  # what is left would be the mean of two by two
            shrink *= 2
        if shrink > 1:
            pixels = F.avg_pool2d(pixels, shrink)
        if shrink * size != self.crop_size:
            pixels = F.interpolate(pixels, size=(size, size), mode="bilinear", align_corners=False)
        return pixels

    def of_resized(self, pixels: Tensor) -> Tensor:
        """The same of crops that are resized already: (B, 3, s, s) float, RGB, 0 to 255, of any side."""
        offsets = self.backbone((pixels - self.mean_rgb) / self.std_rgb).float()
        places = offsets[:, : self.landmarks * 3].reshape(-1, self.landmarks, 3)
        landmarks: Tensor = self.mean_landmarks + self.spread_px * places
        if not self.settings.uncertainty:
            return landmarks
        log_sigma = self.spread_px.log() + offsets[:, self.landmarks * 3 :].clamp(-MOST_LOG_SIGMA, MOST_LOG_SIGMA)
        return torch.cat([landmarks, log_sigma[..., None]], dim=2)

    def start_from(self, landmarks: Tensor) -> None:
        """Start at the mean of the training landmarks, with their spread as the unit of the output.

        landmarks : (n, N, 3) float32, pixels, crop frame
        """
        with torch.no_grad():
            self.mean_landmarks.copy_(landmarks.mean(dim=0))
            self.spread_px.copy_((landmarks - self.mean_landmarks).square().mean().sqrt().clamp(min=1.0))


CANNOT_SEE = (TypeError, ValueError, RuntimeError, AssertionError)
"""What networks raise for a size or a width that they cannot have."""


def _expected(settings: ModelSettings) -> tuple[type[Exception], ...]:
    """Errors that say that a network cannot be: of a network of one's own, any."""
    return (Exception,) if settings.backbone.startswith(OWN) else CANNOT_SEE


def _seen(backbone: nn.Module, size: int) -> Any:
    """What a backbone makes of two grey crops, as it is used; nothing of it changes."""
    was_training = backbone.training
    try:
        with torch.no_grad():
            return backbone.eval()(torch.zeros(2, 3, size, size))
    finally:
        backbone.train(was_training)


def check_sizes(net: LandmarkNet, sizes: Iterable[int]) -> None:
    """Raise :class:`ConfigurationError` if the backbone cannot see crops of one of the sides, pixels."""
    for size in sizes:
        try:
            _seen(net.backbone, size)
        except _expected(net.settings) as error:
            what = f"{net.settings.backbone} at {size} px"
            raise ConfigurationError(f"schedule.input_sizes: {what}: {_with_kind(error)}") from error


def _with_kind(error: Exception) -> str:
    """An error's words; the name of its kind before them, if they alone may say little."""
    words, kind = in_short(error), type(error).__name__
    return words if isinstance(error, CANNOT_SEE) or words == kind else f"{kind}: {words}"


def normalises_vectors(net: LandmarkNet) -> bool:
    """Whether a layer of the backbone normalises over the batch alone, since what it sees has no places left, as after
    MobileNetV4's pooling. Each feature is one number a crop there, of whose mean a small batch says little.
    """
    seen: list[bool] = []

    def look(layer: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        seen.append(inputs[0].shape[2:].numel() == 1)

    norms = [layer for layer in net.backbone.modules() if isinstance(layer, nn.modules.batchnorm._BatchNorm)]
    hooks = [layer.register_forward_pre_hook(look) for layer in norms]
    try:
        _seen(net.backbone, net.settings.input_size)
    finally:
        for hook in hooks:
            hook.remove()
    return any(seen)


def _make_backbone(settings: ModelSettings, outputs: int, *, tried: bool) -> nn.Module:
    makers = {TIMM: _from_timm, OWN: _of_ones_own}
    make = next((one for start, one in makers.items() if settings.backbone.startswith(start)), _from_torchvision)
    try:
        backbone = make(settings, outputs)
        if not tried:
            return backbone.train()
        output = _seen(backbone, settings.input_size)
    except _expected(settings) as error:
        if isinstance(error, DensegenError):
            raise
        if "width_mult" in str(error):
            raise ConfigurationError(f"model.width: {settings.backbone} has no width multiplier") from error
        what = f"{settings.backbone} at {settings.input_size} px"
        raise ConfigurationError(f"model: {what}: {_with_kind(error)}") from error
    if not isinstance(output, Tensor) or output.shape != (2, outputs):
        raise ConfigurationError(f"model.backbone: {settings.backbone} does not end in one vector a picture")
    return backbone.train()


def _from_torchvision(settings: ModelSettings, outputs: int) -> nn.Module:
    from torchvision import models

    if settings.backbone not in models.list_models(module=models):
        raise ConfigurationError(
            f"model.backbone: torchvision has no classification network {settings.backbone!r}"
            f"{did_you_mean(settings.backbone, models.list_models(module=models))}"
        )
    options: dict[str, Any] = {"weights": None, "num_classes": outputs}
    if settings.width != 1.0:
        options["width_mult"] = settings.width
    if settings.backbone.startswith("vit_"):
        options["image_size"] = settings.input_size
    if settings.backbone.startswith("maxvit_"):
        options["input_size"] = (settings.input_size, settings.input_size)
    if settings.backbone in ("googlenet", "inception_v3"):
        options |= {"aux_logits": False, "init_weights": True}
    network: nn.Module = models.get_model(settings.backbone, **options)
    return network


def _from_timm(settings: ModelSettings, outputs: int) -> nn.Module:
    try:
        import timm
    except ImportError as error:
        raise ConfigurationError(f"model.backbone: {settings.backbone} needs timm: {install_line('timm')}") from error
    name = settings.backbone.removeprefix(TIMM)
    if not timm.is_model(name):  # nor anything that timm would download
        raise ConfigurationError(f"model.backbone: timm has no network {name!r}")
    if settings.width != 1.0:
        raise ConfigurationError(f"model.width: {settings.backbone} has no width multiplier")
    fixed = getattr(timm.get_pretrained_cfg(name), "fixed_input_size", False)
    options: dict[str, Any] = {"img_size": settings.input_size} if fixed else {}
    network: nn.Module = timm.create_model(name, pretrained=False, num_classes=outputs, **options)
    return network


def _of_ones_own(settings: ModelSettings, outputs: int) -> nn.Module:
    """What the class or function at a dotted path makes of the number of outputs.

    A checkpoint or a settings file that somebody else has made must not choose what is imported here.
    """
    path = settings.backbone.removeprefix(OWN)
    module, _, name = path.rpartition(".")
    if os.environ.get(ALLOWED) != path or not module:
        raise ConfigurationError(
            f"model.backbone: {settings.backbone} is code, which is run only if you name it, too: {ALLOWED}={path}"
        )
    if settings.width != 1.0:
        raise ConfigurationError(f"model.width: {settings.backbone} has no width multiplier")
    try:
        maker = getattr(importlib.import_module(module), name)
    except (ImportError, AttributeError) as error:
        raise ConfigurationError(f"model.backbone: {path}: {error}; is its folder in PYTHONPATH?") from error
    made = maker(outputs)
    if not isinstance(made, nn.Module):
        raise ConfigurationError(f"model.backbone: {path} makes no torch.nn.Module")
    if not any(parameter.requires_grad for parameter in made.parameters()):
        raise ConfigurationError(f"model.backbone: {path} has no parameters to train")
    return made
