"""What Lightning's trainer does at its hooks for us: checkpoints, averaged weights, a line an epoch."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import torch
from lightning.pytorch import callbacks as cb
from lightning.pytorch.plugins.io import TorchCheckpointIO
from torch.optim.swa_utils import get_ema_multi_avg_fn

from densegen.files import replace_file
from densetrain.errors import TrainingError
from densetrain.network.model import load_torch

__all__ = ["Bar", "Checkpoints", "EpochLines", "WarmAverage", "WholeFiles"]


class WholeFiles(TorchCheckpointIO):
    """Checkpoints that are whole or not there, and that run no code when they are read."""

    def save_checkpoint(self, checkpoint: dict[str, Any], path: Any, storage_options: Any = None) -> None:
        try:
            with replace_file(Path(path)) as temporary:
                torch.save(checkpoint, temporary)
        # A full disk arrives as torch's own error, as a RuntimeError.
        except (OSError, RuntimeError) as error:
            reason = error.strerror if isinstance(error, OSError) else str(error).splitlines()[0]
            if shutil.disk_usage(Path(path).parent).free < 1 << 20:
                reason = "no space left"
            raise TrainingError(
                f"{path} could not be written ({reason}): the checkpoint before it is kept; make room and run again"
            ) from error

    def load_checkpoint(self, path: Any, map_location: Any = None, weights_only: bool | None = None) -> dict[str, Any]:
        contents: dict[str, Any] = load_torch(Path(path))
        return contents


class Checkpoints(cb.ModelCheckpoint):
    """Checkpoints at an epoch's very end, when its validation is over: training goes on from there as if it had not
    stopped, also in a folder that was moved.
    """

    def __init__(self, folder: Path, filename: str, **options: Any) -> None:
        super().__init__(
            dirpath=folder, filename=filename, save_on_train_epoch_end=True, auto_insert_metric_name=False,
            enable_version_counter=False, **options,
        )  # fmt: skip

    @property
    def state_key(self) -> str:
        return f"Checkpoints of {self.filename}"

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        def here(path: str) -> str:
            return str(Path(str(self.dirpath)) / Path(path).name) if path else path

        paths = {name: here(state_dict[name]) for name in ("best_model_path", "kth_best_model_path", "last_model_path")}
        best = {here(path): score for path, score in state_dict["best_k_models"].items()}
        super().load_state_dict(state_dict | paths | {"dirpath": self.dirpath, "best_k_models": best})
        # Lightning leaves it out: a resumed run that finds nothing better would keep another checkpoint.
        self.current_score = state_dict["current_score"]


class WarmAverage(cb.WeightAveraging):
    """An exponential moving average of the weights that forgets its random start.

    After n steps it decays by ``min(decay, (1 + n) / (10 + n))``.
    """

    def __init__(self, decay: float) -> None:
        super().__init__(multi_avg_fn=self._average)
        self.decay = decay

    def on_fit_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        # Lightning makes the copy before it moves the module to its device.
        if self._average_model is not None:
            self._average_model.to(pl_module.device)

    def _average(self, averaged: Any, current: Any, count: Any) -> None:
        n = float(count)
        average: Any = get_ema_multi_avg_fn
        average(min(self.decay, (1 + n) / (10 + n)))(averaged, current, count)


class EpochLines(cb.Callback):
    """A line after every epoch."""

    def __init__(self, say: Callable[[str], None]) -> None:
        self.say = say

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        nme = float(trainer.callback_metrics["val_nme"])
        self.say(f"epoch {trainer.current_epoch + 1} of {trainer.max_epochs}: validation NME {nme:.3f} %")


class Bar(cb.RichProgressBar):
    """Lightning's bar, without the number of a log folder that nobody asked for."""

    def get_metrics(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> dict[str, Any]:
        return {name: value for name, value in super().get_metrics(trainer, pl_module).items() if name != "v_num"}
