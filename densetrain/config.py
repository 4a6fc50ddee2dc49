"""The settings of a training run: frozen, checked when they are made, read from YAML and ``key=value``."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, ValidationInfo, field_validator, model_validator

from densegen.errors import ConfigurationError, did_you_mean
from densegen.records import first_problem, parse_yaml, read_yaml, refuse_switch

__all__ = [
    "READY_SETTINGS",
    "SETTINGS_FILE",
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

SETTINGS_FILE = "fit-settings.yaml"
"""In a run's folder: all settings of the run; a name that a file which ``--settings`` gives is unlikely to have."""

READY_SETTINGS = ("paper", "best", "fast-gpu", "demo")
"""Settings that come with densetrain, by name."""


class _Settings(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False, use_attribute_docstrings=True)

    @field_validator("*", mode="before")
    @classmethod
    def _no_switch_for_a_number(cls, value: Any, info: ValidationInfo) -> Any:
        return refuse_switch(cls, str(info.field_name), value)


class DataSettings(_Settings):
    """What is read, and how."""

    batch_size: Count = 128
    """Samples in a batch; every process has batches of its own."""
    workers: Annotated[int, Field(ge=0)] = 2
    """Processes that decode images, for each training process."""
    cache: Literal["none", "memory", "device"] = "none"
    """``memory`` keeps the decoded images in memory, ``device`` on the accelerator; both are made once."""
    window: Count | None = None
    """Shards that are shuffled together: a network disk then reads a few files at a time. None shuffles all samples."""
    limit: Count | None = None
    """Only the first so many training samples."""
    validate_on: Literal["train", "validation", "test"] = "validation"
    """The split of the validation NME; ``train`` if a network shall learn its samples by heart."""


class AugmentSettings(_Settings):
    """Strengths of the augmentation; 0 switches a kind off."""

    rotate_deg: Annotated[float, Field(ge=0, le=180)] = 45.0
    """Largest rotation."""
    scale: Annotated[float, Field(ge=0, lt=1)] = 0.1
    """Largest relative change of size."""
    shift: Share = 0.05
    """Largest shift in x and in y, as a share of the crop's side."""
    flip: Share = 0.0
    """Probability of a mirror image; only with a mirror-closed index and shards without flips."""
    gamma: NotNegative = 0.3
    """Largest absolute value of the logarithm of gamma."""
    colour: Share = 0.15
    """Largest relative change of one channel."""
    brightness: Share = 0.2
    """Largest relative change of all channels together."""
    noise: NotNegative = 6.0
    """Largest standard deviation of the noise of the crop's pixels, grey levels."""
    blur: Share = 0.2
    """Probability of a blurred image."""
    grey: Share = 0.1
    """Probability of a grey image."""
    patches: Annotated[int, Field(ge=0, le=16)] = 2
    """Largest number of occluding patches."""
    patch_size: Share = 0.3
    """Largest side of a patch, as a share of the crop's side."""


class ModelSettings(_Settings):
    """Which network."""

    backbone: str = "mobilenet_v2"
    """A classification network of torchvision by name (``mobilenet_v2``, ``resnet18``, ``resnet50``), one of timm, as
    ``timm:mobilenetv4_conv_small``, or one's own, as ``own:my_networks.Small``."""
    width: Annotated[float, Field(gt=0, le=16)] = 1.0
    """Width multiplier, of networks that have one."""
    input_size: Annotated[int, Field(ge=32, le=1024)] = 256
    """Side that the crop is resized to inside the model, pixels."""
    pretrained: str | None = None
    """A file of weights (``.pth``, ``.safetensors``), or ``torchvision`` for its weights in the local cache."""
    uncertainty: bool = False
    """Whether the network also says how far off each landmark may be; see ``loss.nll_weight``."""


class LossSettings(_Settings):
    """The loss, in pixels of the crop."""

    name: Literal["hybrid", "wing", "mse", "l1", "smooth-l1"] = "hybrid"
    """``hybrid`` is ``wing_weight * Wing + mse_weight * MSE`` (Feng et al., CVPR 2018, for Wing)."""
    wing_w: Positive = 15.0
    """Width of Wing's logarithmic part, pixels (Feng et al., CVPR 2018, eq. 5)."""
    wing_eps: Positive = 3.0
    """Curvature of Wing's logarithmic part, pixels."""
    wing_weight: NotNegative = 1.5
    """Factor on Wing in ``hybrid``."""
    mse_weight: NotNegative = 0.5
    """Factor on the MSE in ``hybrid``."""
    mse_on: Literal["all", "ibug68"] = "all"
    """The landmarks that the MSE sees, of ``hybrid`` and of ``mse``."""
    region_weights: dict[str, NotNegative] = {}
    """Factors on a landmark's error, by the name of its region; 1 for those that are not named."""
    axis_weights: tuple[NotNegative, NotNegative, NotNegative] = (1.0, 1.0, 1.0)
    """Factors on a landmark's error in x, y and z."""
    nll_weight: Positive = 1.0
    """With ``model.uncertainty``, the weight of the Gaussian negative log-likelihood beside the loss."""

    @model_validator(mode="after")
    def _is_a_loss(self) -> LossSettings:
        if self.name == "hybrid" and self.wing_weight == self.mse_weight == 0:
            raise ValueError("wing_weight and mse_weight are both 0: there is nothing to learn from")
        return self


class OptimiserSettings(_Settings):
    """How weights follow from gradients."""

    name: Literal["adamw", "sgd"] = "adamw"
    """AdamW (Loshchilov and Hutter, ICLR 2019), or SGD with momentum."""
    lr: Positive = 1e-3
    """Learning rate after the warm-up."""
    momentum: Annotated[float, Field(ge=0, lt=1)] = 0.9
    """Of SGD."""
    weight_decay: NotNegative = 1e-4
    """Of all weights but biases and those of normalisation."""


class ScheduleSettings(_Settings):
    """The learning rate over the steps, after a linear warm-up."""

    name: Literal["cosine", "step", "polynomial", "constant"] = "cosine"
    """How the rate falls: half a cosine, steps at ``milestones``, a power of what remains, or not at all."""
    warmup_epochs: NotNegative = 1.0
    """Length of the linear warm-up, epochs."""
    milestones: tuple[Count, ...] = ()
    """For ``step``: the epochs after which the rate is multiplied by ``gamma``."""
    gamma: Positive = 0.2
    """For ``step``: the factor at each milestone."""
    power: Positive = 0.9
    """For ``polynomial``: its exponent."""
    final: Share = 0.0
    """For ``cosine`` and ``polynomial``: what the rate falls to, as a share of ``optimiser.lr``."""
    input_sizes: Annotated[
        dict[Annotated[int, Field(ge=0)], Annotated[int, Field(ge=32, le=1024)]], Field(max_length=7)
    ] = {}
    """Sides at which the network is trained from these epochs on, counted from 0: ``{0: 96, 20: 128}``; before the
    first, ``model.input_size``, at which it is always validated and used."""

    @model_validator(mode="after")
    def _steps_have_milestones(self) -> ScheduleSettings:
        if self.name == "step" and not self.milestones:
            raise ValueError("the schedule 'step' needs milestones")
        return self

    def input_size(self, epoch: int, model: ModelSettings) -> int:
        """Side at which the network is trained in an epoch, counted from 0; pixels."""
        begun = [first for first in self.input_sizes if first <= epoch]
        return self.input_sizes[max(begun)] if begun else model.input_size


class TrainerSettings(_Settings):
    """How long, how exactly, and on what."""

    epochs: Count = 40
    """How often every training sample is seen."""
    accelerator: Literal["auto", "cpu", "gpu", "mps"] = "auto"
    """What computes; ``auto`` takes a GPU if there is one."""
    devices: Count | Literal["auto"] = "auto"
    """Processes on each machine, one a GPU; ``torchrun`` decides if it starts the processes."""
    nodes: Count = 1
    """Machines; ``torchrun`` decides if it starts the processes."""
    precision: Literal["fp32", "bf16", "fp16"] = "fp32"
    """Number format of the network's arithmetic; weights stay float32."""
    channels_last: bool = False
    """Memory layout of images that convolutions like better; another order of sums, so other last bits."""
    compile: bool = False
    """Compile the step with ``torch.compile``: a minute at the start for each image size, faster steps on a GPU. In one
    process, without ``accumulate``, each pass is one CUDA graph."""
    deterministic: bool = False
    """Refuse operators of a GPU that give other bits from run to run; a CPU is deterministic without it."""
    sync_batchnorm: bool = False
    """Whether several processes share the statistics of batch normalisation: for small batches in each."""
    clip: Positive | None = None
    """Largest norm of the gradient; a larger one is scaled down to it. The logs have the norm as ``gradient_norm``."""
    accumulate: Count = 1
    """Batches of each process whose gradients one step of the optimiser adds up."""
    ema_decay: Annotated[float, Field(gt=0, lt=1)] | None = None
    """Decay of the averaged weights, which are validated and kept; smaller in the first steps."""
    patience: Count | None = None
    """Epochs without a better validation NME before training stops."""
    save_steps: Count | None = None
    """Write last.ckpt every so many steps, too, for epochs of hours: a run goes on from there to the same bits."""
    keep_every: Count | None = None
    """Keep a checkpoint every so many epochs, beside the best and the last."""


class FitSettings(_Settings):
    """Everything that decides what ``densetrain fit`` makes of a set of shards."""

    seed: Annotated[int, Field(ge=0, lt=2**31)] = 0
    """Of the network's start, the order of samples and the augmentation."""
    data: DataSettings = DataSettings()
    augment: AugmentSettings = AugmentSettings()
    model: ModelSettings = ModelSettings()
    loss: LossSettings = LossSettings()
    optimiser: OptimiserSettings = OptimiserSettings()
    schedule: ScheduleSettings = ScheduleSettings()
    trainer: TrainerSettings = TrainerSettings()

    @model_validator(mode="after")
    def _warm_up_ends(self) -> FitSettings:
        if self.schedule.warmup_epochs > self.trainer.epochs:
            raise ValueError(
                f"schedule.warmup_epochs is {self.schedule.warmup_epochs:g}, and trainer.epochs {self.trainer.epochs}: "
                "the learning rate would never be reached"
            )
        return self


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
                f"{did_you_mean(str(source), READY_SETTINGS)}"
            )
        contents = read_yaml(path, "settings file") or {}
        if not isinstance(contents, dict):
            raise ConfigurationError(f"{path.name} is not a settings file: it holds no keys")
    for change in changes:
        _apply(contents, change)
    try:
        settings = FitSettings.model_validate(contents)
    except ValidationError as error:
        where = "the settings" if source is None else str(source)
        raise ConfigurationError(f"{where}: {first_problem(error, FitSettings)}") from error
    _refuse_what_is_never_reached(settings)
    return settings


def _refuse_what_is_never_reached(settings: FitSettings) -> None:
    """Settings that a run would not come to; those of a network that is trained already are read as they are."""
    schedule, epochs = settings.schedule, settings.trainer.epochs
    if schedule.name == "step" and min(schedule.milestones) <= schedule.warmup_epochs:
        raise ConfigurationError(
            f"schedule.milestones begin at {min(schedule.milestones)}, and schedule.warmup_epochs is "
            f"{schedule.warmup_epochs:g}: the learning rate would never be reached"
        )
    if (last := max(schedule.input_sizes, default=0)) >= epochs:
        raise ConfigurationError(
            f"schedule.input_sizes has an epoch {last}, and trainer.epochs is {epochs}, counted from 0 to "
            f"{epochs - 1}: this size would never be trained at"
        )


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
