"""Weights from files that anybody may have made: nothing in them is run."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from densegen.errors import ConfigurationError, FormatError, in_short
from densegen.files import file_size
from densetrain.config import ModelSettings
from densetrain.network.model import OWN, TIMM, LandmarkNet

__all__ = ["load_pretrained", "load_torch", "net_of_weights", "read_weights"]

MAX_WEIGHT_BYTES = 4 << 30


def net_of_weights(settings: ModelSettings, landmarks: int, crop_size: int, state: dict[str, Tensor]) -> LandmarkNet:
    """The network that these weights are of, with them in it.

    It is laid out without memory first: settings of a few bytes can name a network of gigabytes, and so can weights of
    which all numbers are one.

    A network of one's own is made at once: its layers may share weights, get their shapes when they are first run, or
    compute where they are made, and its code is trusted.

    Raises :class:`FormatError` if the weights are another network's, and what :class:`LandmarkNet` raises.
    """
    if settings.backbone.startswith(OWN):
        return _with_weights(LandmarkNet(settings, landmarks, crop_size), state)
    with torch.device("meta"):
        plan = LandmarkNet(settings, landmarks, crop_size, tried=False).state_dict()
    try:
        fits = {name: value.shape for name, value in state.items()} == {n: v.shape for n, v in plan.items()}
        held = {value.untyped_storage().data_ptr(): value.untyped_storage().nbytes() for value in state.values()}
        fits = fits and sum(held.values()) >= sum(value.numel() * value.element_size() for value in state.values())
    except (AttributeError, NotImplementedError, RuntimeError):  # a number, a sparse tensor
        fits = False
    if not fits:
        raise FormatError("the weights are not those of its own settings")
    return _with_weights(LandmarkNet(settings, landmarks, crop_size, tried=False), state)


def _with_weights(net: LandmarkNet, state: dict[str, Tensor]) -> LandmarkNet:
    try:
        net.load_state_dict(state)
    except (RuntimeError, TypeError) as error:
        raise FormatError("the weights are not those of its own settings") from error
    return net


def load_pretrained(net: LandmarkNet, source: str) -> tuple[int, int]:
    """Load a backbone's weights from a file, or ``torchvision``'s from its cache; nothing is downloaded.

    Layers of another shape, the classifier above all, keep their start. Returns how many tensors were taken, of how
    many the backbone has. Raises :class:`ConfigurationError` if the file is not there, :class:`FormatError` if it
    holds no weights of this backbone.
    """
    path = _cached_weights(net.settings.backbone) if source == "torchvision" else Path(source)
    weights = read_weights(path)
    state = net.backbone.state_dict()
    fitting = max((_fitting(weights, state, prefix) for prefix in _PREFIXES), key=len)
    if len(fitting) < len(state) // 2:
        raise FormatError(
            f"{path.name} holds {len(fitting)} of the {len(state)} tensors of {net.settings.backbone}: another network?"
        )
    net.backbone.load_state_dict(fitting, strict=False)
    return len(fitting), len(state)


_PREFIXES = ("", "module.", "net.backbone.", "backbone.")
"""Before a backbone's names: none, a parallel run's, a checkpoint's and an export's."""


def _fitting(weights: dict[str, Tensor], state: dict[str, Tensor], prefix: str) -> dict[str, Tensor]:
    """Of the weights whose names begin with a prefix those that a backbone has in this shape, by its own names."""
    named = {name.removeprefix(prefix): value for name, value in weights.items() if name.startswith(prefix)}
    return {name: value for name, value in named.items() if name in state and value.shape == state[name].shape}


def _cached_weights(backbone: str) -> Path:
    from torchvision import models

    if backbone.startswith((TIMM, OWN)):
        raise ConfigurationError(f"model.pretrained: torchvision has no weights of {backbone}: name a file")
    url = models.get_model_weights(backbone).DEFAULT.url
    path = Path(torch.hub.get_dir()) / "checkpoints" / str(url).rsplit("/", 1)[-1]
    if not path.is_file():
        raise ConfigurationError(
            f"model.pretrained: torchvision's weights of {backbone} are not in its cache ({path}): densetrain "
            "downloads nothing, so put the file there, or name one"
        )
    return path


def read_weights(path: Path) -> dict[str, Tensor]:
    """Named tensors from a ``.safetensors`` file or a ``torch.save`` file; nothing in it is executed.

    Raises :class:`ConfigurationError` if it does not exist, :class:`FormatError` if it is something else.
    """
    if not path.exists():
        raise ConfigurationError(f"the weights {path} do not exist")
    try:
        size = file_size(path)
    except OSError as error:
        raise FormatError(f"{path} holds no weights: {error.strerror}") from error
    if size > MAX_WEIGHT_BYTES:
        raise FormatError(f"{path.name} is larger than {MAX_WEIGHT_BYTES >> 30} GiB: not a network's weights")
    contents: Any
    if path.suffix == ".safetensors":
        from safetensors import SafetensorError
        from safetensors.torch import load_file

        try:
            contents = load_file(path)
        except (SafetensorError, OSError, ValueError) as error:
            raise FormatError(f"{path.name} is not a readable safetensors file: {error}") from error
    else:
        contents = load_torch(path)
    if isinstance(contents, dict) and isinstance(contents.get("state_dict"), dict):
        contents = contents["state_dict"]
    if not isinstance(contents, dict) or not all(isinstance(value, Tensor) for value in contents.values()):
        raise FormatError(f"{path.name} holds no named tensors")
    return contents


PICKLE = b"\x80"
"""The first byte of the files that torch wrote before they were archives."""


def _check_archive(path: Path) -> None:
    """A torch file is a ZIP archive of what is not compressed; torch does not look at its checksums."""
    import zipfile

    try:
        if not zipfile.is_zipfile(path):
            with path.open("rb") as file:
                if file.read(1) != PICKLE:
                    raise FormatError(f"{path} is no torch file: it is cut, damaged, or something else")
            return
        with zipfile.ZipFile(path) as archive:
            if any(member.compress_type != zipfile.ZIP_STORED for member in archive.infolist()):
                raise FormatError(f"{path.name} is not a torch file: its contents are compressed")
            damaged = archive.testzip()
    except FormatError:
        raise
    # A damaged archive surfaces as almost anything.
    except Exception as error:
        raise FormatError(f"{path.name} is not a readable torch file: {in_short(error)}") from error
    if damaged is not None:
        raise FormatError(f"{path.name} is damaged: {damaged} does not match its checksum")


def load_torch(path: Path) -> Any:
    """``torch.load`` of plain values and tensors alone; raises :class:`FormatError` for everything else."""
    import pickle
    import warnings

    _check_archive(path)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # torch's guesses about a foreign file; what it refuses is said below
            return torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        raise FormatError(f"{path.name} is refused: it is damaged, or asks to run code when it is opened") from error
    # Bytes that are no torch file raise whatever the first of them happen to mean.
    except Exception as error:
        raise FormatError(f"{path.name} is not a readable torch file: {in_short(error)}") from error
