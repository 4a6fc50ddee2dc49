"""What Lightning's trainer does at its hooks for us: checkpoints, averaged weights, a line an epoch."""

from __future__ import annotations

import errno
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import torch
from lightning.pytorch import callbacks as cb
from lightning.pytorch.plugins.io import TorchCheckpointIO
from torch import Tensor

from densegen.errors import in_short
from densegen.files import replace_files
from densetrain.errors import TrainingError
from densetrain.network.weights import load_torch

__all__ = ["Bar", "Checkpoints", "DroppedGradients", "EpochLines", "SecondNames", "WarmAverage", "WholeFiles"]


class WholeFiles(TorchCheckpointIO):
    """Checkpoints that are whole or not there, and that run no code when they are read.

    names : further ones for the checkpoint that is written next; they and it appear together, and are one file
    """

    def __init__(self) -> None:
        super().__init__()
        self.names: list[Path] = []

    def save_checkpoint(self, checkpoint: dict[str, Any], path: Any, storage_options: Any = None) -> None:
        further, self.names = self.names, []
        try:
            with replace_files([*further, Path(path)]) as (*others, temporary):
                torch.save(checkpoint, temporary)
                for other in others:
                    _link_or_copy(temporary, other)
        # A full disk arrives as torch's own error, as a RuntimeError.
        except (OSError, RuntimeError) as error:
            reason = (isinstance(error, OSError) and error.strerror) or in_short(error)
            if shutil.disk_usage(Path(path).parent).free < 1 << 20:
                reason = "no space left"
            kept = "the checkpoint before it is kept" if Path(path).exists() else "there is none before it"
            raise TrainingError(f"{path} could not be written ({reason}): {kept}; make room and run again") from error

    def load_checkpoint(self, path: Any, map_location: Any = None, weights_only: bool | None = None) -> dict[str, Any]:
        contents: dict[str, Any] = load_torch(Path(path))
        return contents


def _link_or_copy(file: Path, name: Path) -> None:
    """Give a file a second name; on a file system without them, a copy."""
    try:
        name.hardlink_to(file)
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EIO):
            raise
        shutil.copyfile(file, name)


class Checkpoints(cb.ModelCheckpoint):
    """Checkpoints at an epoch's very end, when its validation is over: training goes on from there as if it had not
    stopped, also in a folder that was moved.

    steps : write one every so many steps, too
    """

    def __init__(self, folder: Path, filename: str, steps: int | None = None, **options: Any) -> None:
        super().__init__(
            dirpath=folder, filename=filename, save_on_train_epoch_end=True, auto_insert_metric_name=False,
            enable_version_counter=False, **options,
        )  # fmt: skip

        self.steps = steps

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        super().on_train_start(trainer, pl_module)
        self._last_global_step_saved = trainer.global_step  # a resumed run has that one

    def on_train_batch_end(self, trainer: pl.Trainer, *_: Any) -> None:
        step = trainer.global_step
        due = self.steps is not None and step % self.steps == 0 and step != self._last_global_step_saved
        if due and not trainer.is_last_batch:  # the epoch's end is near, and says more
            self._save_checkpoint(trainer, str(Path(str(self.dirpath)) / f"{self.filename}.ckpt"))

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


class SecondNames(Checkpoints):
    """Names for some of the checkpoints that another callback writes, which comes after this one among a trainer's
    callbacks: nothing is written twice.

    files : what writes them
    """

    def __init__(self, folder: Path, filename: str, files: WholeFiles, **options: Any) -> None:
        super().__init__(folder, filename, **options)
        self.files = files

    def format_checkpoint_name(self, metrics: dict[str, Tensor], *arguments: Any, **options: Any) -> str:
        """Epochs count from 1 in names, as they do in what is printed."""
        return super().format_checkpoint_name(metrics | {"epoch": metrics["epoch"] + 1}, *arguments, **options)

    def _save_checkpoint(self, trainer: pl.Trainer, filepath: str) -> None:
        self._last_global_step_saved = trainer.global_step
        if trainer.is_global_zero:
            self.files.names.append(Path(filepath))


class WarmAverage(cb.Callback):
    """An exponential moving average of the weights that forgets its random start; it is validated and kept.

    After n steps it decays by ``min(decay, (1 + n) / (10 + n))``. Running statistics are averaged like weights, whole
    numbers are taken as they are. A checkpoint has the average as its ``state_dict``, and the weights that training
    goes on with as ``current_model_state``.
    """

    def __init__(self, decay: float) -> None:
        self.decay = decay
        self.average: dict[str, Tensor] = {}
        self.steps = 0
        self._pairs: list[tuple[list[Tensor], list[Tensor]]] = []

    def on_fit_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        current = pl_module.state_dict()
        resumed = self.average or current
        self.average = {name: resumed[name].detach().to(value.device, copy=True) for name, value in current.items()}
        self._pairs = [
            ([self.average[name] for name in names], [current[name].detach() for name in names])
            for names in (
                [name for name, value in current.items() if value.is_floating_point()],
                [name for name, value in current.items() if not value.is_floating_point()],
            )
        ]

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self.steps = trainer.global_step  # a resumed run has counted up by now

    def on_train_batch_end(self, trainer: pl.Trainer, *_: Any) -> None:
        if trainer.global_step == self.steps:  # gradients are being accumulated
            return
        count, self.steps = self.steps, trainer.global_step
        decay = min(self.decay, (1 + count) / (10 + count)) if count else 0.0
        (average, current), (whole, current_whole) = self._pairs
        torch._foreach_lerp_(average, current, 1 - decay)
        if whole:
            torch._foreach_copy_(whole, current_whole)

    def on_validation_epoch_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self._swap()

    def on_validation_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self._swap()

    def on_train_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        for average, current in self._pairs:
            if average:
                torch._foreach_copy_(current, average)

    def on_save_checkpoint(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        checkpoint["current_model_state"] = checkpoint["state_dict"]
        checkpoint["state_dict"] = dict(self.average)

    def on_load_checkpoint(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        self.average = checkpoint["state_dict"]
        # Lightning has just loaded the average into the module.
        pl_module.load_state_dict(checkpoint["current_model_state"])

    def _swap(self) -> None:
        for average, current in self._pairs:
            if average:
                kept = [value.clone() for value in average]
                torch._foreach_copy_(average, current)
                torch._foreach_copy_(current, kept)


class DroppedGradients(cb.Callback):
    """Lets the gradients go if a step fails. Those that a CUDA graph has written are overwritten by the next, and
    whoever touches them then, as Lightning does when it puts a module away, hides the error behind another.
    """

    def on_exception(self, trainer: pl.Trainer, pl_module: pl.LightningModule, exception: BaseException) -> None:
        for parameter in pl_module.parameters():
            parameter.grad = None


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
