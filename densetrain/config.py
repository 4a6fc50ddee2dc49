"""The settings of a training run: frozen, checked when they are made, read from YAML and ``key=value``."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from densegen.errors import ConfigurationError
from densegen.records import first_problem, parse_yaml, read_yaml

__all__ = [
    "READY_SETTINGS",
    "AugmentSettings",
    "DataSettings",
    "FitSettings",
    "LossSettings",
    "ModelSettings",
    "OptimiserSettings",
    "ScheduleSettings",
    "TrainerSettings",
    "read_settings",
]

Share = Annotated[float, Field(ge=0, le=1)]
Positive = Annotated[float, Field(gt=0)]
NotNegative = Annotated[float, Field(ge=0)]
Count = Annotated[int, Field(ge=1)]

READY_SETTINGS = ("paper", "demo", "fast-gpu")
"""Settings that come with densetrain, by name."""


class _Settings(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class DataSettings(_Settings):
    """What is read, and how.

    batch_size : samples in a batch; every process has batches of its own
    workers : processes that decode images, for each training process
    cache : ``memory`` keeps the decoded images in memory, ``device`` on the accelerator; both are made once
    limit : only the first so many training samples
    validate_on : the split of the validation NME; ``train`` if a network shall learn its samples by heart
    """

    batch_size: Count = 128
    workers: Annotated[int, Field(ge=0)] = 2
    cache: Literal["none", "memory", "device"] = "none"
    limit: Count | None = None
    validate_on: Literal["train", "validation", "test"] = "validation"


class AugmentSettings(_Settings):
    """Strengths of the augmentation; 0 switches a kind off.

    rotate_deg : largest rotation
    scale : largest relative change of size
    shift : largest shift in x and in y, as a share of the crop's side
    flip : probability of a mirror image; only with a mirror-closed index and shards without flips
    gamma : largest absolute value of the logarithm of gamma
    colour : largest relative change of one channel
    brightness : largest relative change of all channels together
    noise : largest standard deviation of the noise, grey levels
    blur : probability of a down- and upsampled image
    grey : probability of a grey image
    patches : largest number of occluding patches
    patch_size : largest side of a patch, as a share of the crop's side
    """

    rotate_deg: Annotated[float, Field(ge=0, le=180)] = 45.0
    scale: Annotated[float, Field(ge=0, lt=1)] = 0.1
    shift: Share = 0.05
    flip: Share = 0.0
    gamma: NotNegative = 0.3
    colour: Share = 0.15
    brightness: Share = 0.2
    noise: NotNegative = 6.0
    blur: Share = 0.2
    grey: Share = 0.1
    patches: Annotated[int, Field(ge=0, le=16)] = 2
    patch_size: Share = 0.3


class ModelSettings(_Settings):
    """Which network.

    backbone : ``mobilenet_v2``, ``resnet18``, ``resnet50`` or another classification network of torchvision by name, or
        one of timm, as ``timm:mobilenetv4_conv_small``
    width : width multiplier, of networks that have one
    input_size : side that the crop is resized to inside the model, pixels
    pretrained : a file of weights (``.pth``, ``.safetensors``), or ``torchvision`` for its weights in the local cache
    uncertainty : whether the network also says how far off each landmark may be; see ``loss.nll_weight``
    """

    backbone: str = "mobilenet_v2"
    width: Annotated[float, Field(gt=0, le=16)] = 1.0
    input_size: Annotated[int, Field(ge=32, le=1024)] = 256
    pretrained: str | None = None
    uncertainty: bool = False


class LossSettings(_Settings):
    """The loss, in pixels of the crop.

    name : ``hybrid`` is ``wing_weight * Wing + mse_weight * MSE`` (Feng et al., CVPR 2018, for Wing)
    mse_on : the landmarks that the MSE sees, of ``hybrid`` and of ``mse``
    region_weights, axis_weights : factors on a landmark's error, by region and by axis (x, y, z)
    nll_weight : with ``model.uncertainty``, the weight of the Gaussian negative log-likelihood beside the loss
    """

    name: Literal["hybrid", "wing", "mse", "l1", "smooth-l1"] = "hybrid"
    wing_w: Positive = 15.0
    wing_eps: Positive = 3.0
    wing_weight: NotNegative = 1.5
    mse_weight: NotNegative = 0.5
    mse_on: Literal["all", "ibug68"] = "all"
    region_weights: dict[str, NotNegative] = {}
    axis_weights: tuple[NotNegative, NotNegative, NotNegative] = (1.0, 1.0, 1.0)
    nll_weight: Positive = 1.0


class OptimiserSettings(_Settings):
    """``momentum`` is SGD's; biases and normalisation have no weight decay."""

    name: Literal["adamw", "sgd"] = "adamw"
    lr: Positive = 1e-3
    momentum: Share = 0.9
    weight_decay: NotNegative = 1e-4


class ScheduleSettings(_Settings):
    """The learning rate over the steps, after a linear warm-up.

    warmup_epochs : length of the warm-up
    milestones : for ``step``: the epochs after which the rate is multiplied by ``gamma``
    gamma : for ``step``: the factor at each milestone
    power : for ``polynomial``: its exponent
    final : for ``cosine`` and ``polynomial``: the last rate, as a share of ``optimiser.lr``
    """

    name: Literal["cosine", "step", "polynomial", "constant"] = "cosine"
    warmup_epochs: NotNegative = 1.0
    milestones: tuple[Count, ...] = ()
    gamma: Positive = 0.2
    power: Positive = 0.9
    final: Share = 0.0

    @model_validator(mode="after")
    def _steps_have_milestones(self) -> ScheduleSettings:
        if self.name == "step" and not self.milestones:
            raise ValueError("the schedule 'step' needs milestones")
        return self


class TrainerSettings(_Settings):
    """How long, how exactly, and on what.

    devices, nodes : ``torchrun`` decides both if it starts the processes
    clip : largest norm of the gradient
    accumulate : batches of each process whose gradients one step of the optimiser adds up
    ema_decay : decay of the averaged weights, which are validated and kept; smaller in the first steps
    patience : epochs without a better validation NME before training stops
    keep_every : keep a checkpoint every so many epochs, beside the best and the last
    """

    epochs: Count = 40
    accelerator: Literal["auto", "cpu", "gpu", "mps"] = "auto"
    devices: Count | Literal["auto"] = "auto"
    nodes: Count = 1
    precision: Literal["fp32", "bf16", "fp16"] = "fp32"
    channels_last: bool = False
    compile: bool = False
    deterministic: bool = False
    clip: Positive | None = None
    accumulate: Count = 1
    ema_decay: Annotated[float, Field(gt=0, lt=1)] | None = None
    patience: Count | None = None
    keep_every: Count | None = None


class FitSettings(_Settings):
    """Everything that decides what ``densetrain fit`` makes of a set of shards."""

    seed: Annotated[int, Field(ge=0, lt=2**31)] = 0
    data: DataSettings = DataSettings()
    augment: AugmentSettings = AugmentSettings()
    model: ModelSettings = ModelSettings()
    loss: LossSettings = LossSettings()
    optimiser: OptimiserSettings = OptimiserSettings()
    schedule: ScheduleSettings = ScheduleSettings()
    trainer: TrainerSettings = TrainerSettings()


def read_settings(source: str | Path | None, changes: Sequence[str] = ()) -> FitSettings:
    """Settings from a YAML file, or from those that come with densetrain by name, with ``key=value`` changes.

    changes : ``trainer.epochs=5``, ``loss.axis_weights=[1, 1, 2]``; the value is YAML

    Raises :class:`ConfigurationError` if the file does not exist or a setting is unknown or out of range.
    """
    contents: Any = {}
    if source is not None:
        path = Path(__file__).parent / "settings" / f"{source}.yaml" if str(source) in READY_SETTINGS else Path(source)
        if not path.is_file():
            raise ConfigurationError(
                f"the settings file {path} does not exist; by name there are {', '.join(READY_SETTINGS)}"
            )
        contents = read_yaml(path, "settings file") or {}
        if not isinstance(contents, dict):
            raise ConfigurationError(f"{path.name} is not a settings file: it holds no keys")
    for change in changes:
        _apply(contents, change)
    try:
        return FitSettings.model_validate(contents)
    except ValidationError as error:
        where = "the settings" if source is None else str(source)
        raise ConfigurationError(f"{where}: {first_problem(error, FitSettings)}") from error


def _apply(contents: dict[str, Any], change: str) -> None:
    key, equals, value = change.partition("=")
    if not equals or not key:
        raise ConfigurationError(f"--set {change!r} is not key=value")
    *groups, last = key.strip().split(".")
    target = contents
    for group in groups:
        inner = target.setdefault(group, {})
        if not isinstance(inner, dict):
            raise ConfigurationError(f"--set {change!r}: {group} is no group of settings")
        target = inner
    target[last] = parse_yaml(value, f"--set {key}")
