"""From a checkpoint to a network that is ready to use, with its crop recipe and its vertex index."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch

from densegen.arrays import Float32, Image
from densegen.errors import ConfigurationError, FormatError
from densegen.index.vertex_index import VertexIndex
from densetrain.network.description import CHECKPOINT_KEY, Description, read_description
from densetrain.network.model import LandmarkNet
from densetrain.network.weights import load_torch, net_of_weights

__all__ = ["BEST", "LAST", "TorchRegressor", "load_regressor", "read_checkpoint"]

BEST, LAST = "best.ckpt", "last.ckpt"


@dataclass(eq=False)
class TorchRegressor:
    """A trained network: crops in, landmarks out; see :class:`densetrain.network.regressor.Regressor`."""

    net: LandmarkNet
    about: Description
    index: VertexIndex
    name: str

    @cached_property
    def weights(self) -> str:
        """See :attr:`densetrain.network.regressor.Regressor.weights`."""
        digest = hashlib.sha256()
        for name, values in sorted(self.net.state_dict().items()):
            digest.update(f"{name} {tuple(values.shape)} {values.dtype}\n".encode())
            digest.update(np.ascontiguousarray(values.cpu().numpy()).data)
        return digest.hexdigest()[:16]

    def __call__(self, crops: Image) -> Float32:
        """(B, S, S, 3) uint8 RGB crops -> (B, N, 3) float32 landmarks, pixels, crop frame."""
        return self.with_sigma(crops)[0]

    def with_sigma(self, crops: Image) -> tuple[Float32, Float32 | None]:
        """See :meth:`densetrain.network.regressor.Regressor.with_sigma`."""
        device = next(self.net.parameters()).device
        with torch.inference_mode():
            images = torch.from_numpy(np.ascontiguousarray(crops)).to(device).permute(0, 3, 1, 2)
            answer: Float32 = self.net(images).float().cpu().numpy()
        if not np.isfinite(answer).all():
            raise FormatError(f"{self.name} gives landmarks that are not finite: its weights are damaged")
        if not self.about.settings.model.uncertainty:
            return answer, None
        scale = np.float32(1.0 if self.about.sigma_scale is None else self.about.sigma_scale)
        return np.ascontiguousarray(answer[..., :3]), scale * np.exp(answer[..., 3])


def read_checkpoint(path: Path) -> dict[str, Any]:
    """A checkpoint of ``densetrain fit`` as plain values and tensors; nothing in it is executed.

    Raises :class:`ConfigurationError` if it does not exist, :class:`FormatError` if it is no checkpoint of
    densetrain or of a version that this densetrain does not know.
    """
    if not path.is_file():
        build = (path.parent / "manifest.json").is_file()
        hint = f": {path.parent} is a build, which --shards or a training takes" if build else ""
        raise ConfigurationError(f"the checkpoint {path} does not exist{hint}")
    contents = load_torch(path)
    if not isinstance(contents, dict) or CHECKPOINT_KEY not in contents:
        raise FormatError(f"{path.name} is no checkpoint of densetrain")
    read_description(contents[CHECKPOINT_KEY], path.name)
    return contents


def load_regressor(path: Path, device: str = "cpu") -> TorchRegressor:
    """The network of a run's folder (its best checkpoint) or an export's, of a ``.ckpt`` or a ``.safetensors``.

    device : torch's name of it

    Raises what :func:`read_checkpoint` raises, and :class:`ConfigurationError` if there is no such device.
    """
    try:
        torch.empty(1, device=device).cpu()
    # What torch raises depends on the device that is missing, and on how torch was built.
    except Exception as error:
        why = str(error).partition("\n")[0].partition(". ")[0] or type(error).__name__
        raise ConfigurationError(f"torch has no device {device!r} here: {why}") from error
    if path.is_dir():
        names = (BEST, LAST, "model.safetensors")
        path = next((path / name for name in names if (path / name).is_file()), path / BEST)
    if path.suffix == ".safetensors":
        contents, state = _read_safetensors(path)
    else:
        checkpoint = read_checkpoint(path)
        contents, weights = checkpoint[CHECKPOINT_KEY], checkpoint.get("state_dict")
        if not isinstance(weights, dict) or not all(isinstance(name, str) for name in weights):
            raise FormatError(f"{path.name} holds no named tensors")
        state = {name.removeprefix("net."): value for name, value in weights.items() if name.startswith("net.")}
    about, index = read_description(contents, path.name)
    try:
        net = net_of_weights(about.settings.model, len(index), about.crop_size, state)
    except FormatError as error:
        raise FormatError(f"{path.name}: {error}") from error
    return TorchRegressor(net.eval().to(device), about, index, f"{path.absolute().parent.name}/{path.name}")


def _read_safetensors(path: Path) -> tuple[Any, dict[str, torch.Tensor]]:
    from densegen.records import read_json
    from densetrain.network.weights import read_weights

    state = read_weights(path)
    contents = read_json(path.with_name("config.json"))
    if contents is None:
        raise FormatError(f"{path.name} needs its config.json beside it")
    return contents, state
