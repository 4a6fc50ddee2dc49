"""From a checkpoint to a network that is ready to use, with its crop recipe and its vertex index."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from pydantic import ValidationError

from densegen.errors import ConfigurationError, FormatError
from densegen.files import first_problem
from densegen.vertex_index import VertexIndex, parse_index
from densetrain.config import FitSettings
from densetrain.model import LandmarkNet, load_torch
from densetrain.module import CHECKPOINT_KEY, CHECKPOINT_VERSION

__all__ = ["BEST", "LAST", "TorchRegressor", "check_about", "load_regressor", "read_checkpoint"]

BEST, LAST = "best.ckpt", "last.ckpt"


@dataclass(eq=False)
class TorchRegressor:
    """A trained network: crops in, landmarks out; see :class:`densetrain.regressor.Regressor`."""

    net: LandmarkNet
    index: VertexIndex
    crop_size: int
    margin: float
    settings: FitSettings
    name: str
    about: dict[str, Any]

    def __call__(self, crops: npt.NDArray[np.uint8]) -> npt.NDArray[np.float32]:
        """(B, S, S, 3) uint8 RGB crops -> (B, N, 3) float32 landmarks, pixels, crop frame."""
        device = next(self.net.parameters()).device
        with torch.inference_mode():
            images = torch.from_numpy(np.ascontiguousarray(crops)).to(device).permute(0, 3, 1, 2)
            landmarks: npt.NDArray[np.float32] = self.net(images).float().cpu().numpy()
        return landmarks


def read_checkpoint(path: Path) -> dict[str, Any]:
    """A checkpoint of ``densetrain fit`` as plain values and tensors; nothing in it is executed.

    Raises :class:`ConfigurationError` where it does not exist, :class:`FormatError` where it is no checkpoint of
    densetrain or of a version that this densetrain does not know.
    """
    if not path.is_file():
        raise ConfigurationError(f"the checkpoint {path} does not exist")
    contents = load_torch(path)
    about = contents.get(CHECKPOINT_KEY) if isinstance(contents, dict) else None
    if not isinstance(about, dict):
        raise FormatError(f"{path.name} is no checkpoint of densetrain")
    check_about(about, path.name)
    return dict(contents)


def check_about(about: dict[str, Any], name: str) -> None:
    """Raise :class:`FormatError` where a model's own description is of an unknown version or incomplete."""
    if (found := about.get("version")) != CHECKPOINT_VERSION:
        raise FormatError(f"{name} has checkpoint version {found}, expected {CHECKPOINT_VERSION}: update densetrain")
    if lacking := {"settings", "vertex_index", "crop_size", "margin"} - set(about):
        raise FormatError(f"{name} does not say its {', '.join(sorted(lacking))}")


def load_regressor(path: Path, device: str = "cpu") -> TorchRegressor:
    """The network of a run's folder (its best checkpoint), of a ``.ckpt``, or of an exported ``.safetensors``.

    device : torch's name of it

    Raises what :func:`read_checkpoint` raises, and :class:`ConfigurationError` where there is no such device.
    """
    try:
        torch.empty(1, device=device)
    # What torch raises depends on the device that is missing, and on how torch was built.
    except Exception as error:
        raise ConfigurationError(f"torch has no device {device!r} here: {str(error).splitlines()[0][:100]}") from error
    if path.is_dir():
        path = next((path / name for name in (BEST, LAST) if (path / name).is_file()), path / BEST)
    if path.suffix == ".safetensors":
        about, state = _read_safetensors(path)
    else:
        contents = read_checkpoint(path)
        about = contents[CHECKPOINT_KEY]
        state = {
            name.removeprefix("net."): value
            for name, value in contents.get("state_dict", {}).items()
            if name.startswith("net.")
        }
    try:
        settings = FitSettings.model_validate(about["settings"])
    except ValidationError as error:
        raise FormatError(f"{path.name}: settings.{first_problem(error)}") from error
    index = parse_index(about["vertex_index"], f"{path.name}: vertex index")
    net = LandmarkNet(settings.model, len(index), int(about["crop_size"]))
    try:
        net.load_state_dict(state)
    except RuntimeError as error:
        raise FormatError(f"{path.name} does not hold the weights of its own settings") from error
    return TorchRegressor(
        net.eval().to(device), index, int(about["crop_size"]), float(about["margin"]), settings,
        f"{path.parent.name}/{path.name}", about,
    )  # fmt: skip


def _read_safetensors(path: Path) -> tuple[dict[str, Any], dict[str, torch.Tensor]]:
    from densegen.files import read_json
    from densetrain.model import read_weights

    state = read_weights(path)
    about = read_json(path.with_name("config.json"))
    if not isinstance(about, dict):
        raise FormatError(f"{path.name} needs its config.json beside it")
    check_about(about, "config.json")
    return about, state
