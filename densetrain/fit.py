"""``densetrain fit``: shards and settings in, a folder with checkpoints and logs out."""

from __future__ import annotations

import logging
import os
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import numpy as np
import torch
from lightning.pytorch import callbacks as cb
from lightning.pytorch.loggers import CSVLogger, Logger, TensorBoardLogger
from lightning.pytorch.plugins.io import TorchCheckpointIO
from torch import Tensor
from torch.optim.swa_utils import get_ema_multi_avg_fn
from torch.utils.data import DataLoader

from densegen import __version__
from densegen.errors import ConfigurationError, DensegenError
from densegen.files import read_yaml, replace_file, write_text
from densetrain.checkpoint import BEST, LAST, read_checkpoint
from densetrain.config import FitSettings
from densetrain.dataset import Batch, BatchDataset, BatchSampler, ShardSet, decode_all, open_shards
from densetrain.errors import TrainingError
from densetrain.head_pose import reference_face
from densetrain.model import load_pretrained, load_torch
from densetrain.module import CHECKPOINT_KEY, LandmarkModule

__all__ = ["ShardBatches", "fit", "make_module", "make_trainer"]

PRECISIONS = {"fp32": "32-true", "bf16": "bf16-mixed", "fp16": "16-mixed"}

SETTINGS_FILE = "settings.yaml"


class WholeFiles(TorchCheckpointIO):
    """Checkpoints that are whole or not there, and that run no code when they are read."""

    def save_checkpoint(self, checkpoint: dict[str, Any], path: Any, storage_options: Any = None) -> None:
        try:
            with replace_file(Path(path)) as temporary:
                torch.save(checkpoint, temporary)
        # A full disk arrives as torch's own error, as a RuntimeError.
        except (OSError, RuntimeError) as error:
            reason = error.strerror if isinstance(error, OSError) else str(error).splitlines()[0]
            raise TrainingError(
                f"{path} could not be written ({reason}): the checkpoint before it is kept; make room and run again"
            ) from error

    def load_checkpoint(self, path: Any, map_location: Any = None, weights_only: bool | None = None) -> dict[str, Any]:
        contents: dict[str, Any] = load_torch(Path(path))
        return contents


def warm_average(decay: float) -> Callable[[Any, Any, Any], None]:
    """An exponential moving average that forgets its random start: after n steps it decays by (1 + n) / (10 + n)."""

    def average(averaged: Any, current: Any, count: Any) -> None:
        n = float(count)
        step: Any = get_ema_multi_avg_fn
        step(min(decay, (1 + n) / (10 + n)))(averaged, current, count)

    return average


class EpochLines(cb.Callback):
    """A line after every epoch."""

    def __init__(self, say: Callable[[str], None]) -> None:
        self.say = say

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        if trainer.is_global_zero:
            nme = float(trainer.callback_metrics["val_nme"])
            self.say(f"epoch {trainer.current_epoch + 1} of {trainer.max_epochs}: validation NME {nme:.3f} %")


class ShardBatches(pl.LightningDataModule):
    """The loaders of a training run that starts at ``first_epoch``; under several processes each gets its part."""

    def __init__(self, shards: ShardSet, settings: FitSettings, first_epoch: int = 0) -> None:
        super().__init__()
        self.shards, self.settings, self.first_epoch = shards, settings, first_epoch
        self.train_rows = shards.rows("train")[: settings.data.limit]
        self.validation_rows = shards.rows(settings.data.validate_on)
        self.images: dict[str, Tensor] = {}

    def setup(self, stage: str) -> None:
        if self.settings.data.cache != "none" and not self.images:
            self.images["train"] = decode_all(self.shards, self.train_rows)
            self.images["validation"] = decode_all(self.shards, self.validation_rows)

    def train_dataloader(self) -> DataLoader[Any]:
        on_device = self.settings.data.cache == "device"
        dataset = BatchDataset(self.shards, self.images.get("train"), self.train_rows, on_device)
        return self._loader(dataset, self._sampler(self.train_rows, shuffle=True))

    def val_dataloader(self) -> DataLoader[Any]:
        dataset = BatchDataset(self.shards, self.images.get("validation"), self.validation_rows)
        return self._loader(dataset, self._sampler(self.validation_rows, shuffle=False))

    def on_before_batch_transfer(self, batch: Batch | DensegenError, dataloader_idx: int) -> Batch:
        if isinstance(batch, DensegenError):
            raise batch
        return batch

    def _sampler(self, rows: Any, *, shuffle: bool) -> BatchSampler:
        trainer = self.trainer
        assert trainer is not None
        return BatchSampler(
            rows, self.settings.data.batch_size, self.settings.seed, shuffle=shuffle, rank=trainer.global_rank,
            world=trainer.world_size,
            # A resumed trainer asks for its first batches before it has counted up to its epoch.
            epoch=lambda: max(trainer.current_epoch, self.first_epoch),
        )  # fmt: skip

    def _loader(self, dataset: BatchDataset, sampler: BatchSampler) -> DataLoader[Any]:
        # Decoded images are gathered faster than they could be sent from another process.
        workers = 0 if dataset.images is not None or dataset.on_device else self.settings.data.workers
        return DataLoader(
            dataset,
            batch_size=None,
            sampler=sampler,
            num_workers=workers,
            persistent_workers=workers > 0,
            pin_memory=torch.cuda.is_available(),
            generator=torch.Generator().manual_seed(self.settings.seed),
        )


def make_module(shards: ShardSet, settings: FitSettings, *, start: bool = True) -> LandmarkModule:
    """The module for a set of shards; with ``start`` its network begins at the training set's mean landmarks.

    Raises :class:`ConfigurationError` where the settings ask for flips that the shards do not allow.
    """
    if settings.augment.flip > 0 and not shards.index.mirror_closed:
        raise ConfigurationError(f"augment.flip: {shards.index.name} is not closed under the mirror")
    if settings.augment.flip > 0 and shards.flipped.any():
        raise ConfigurationError("augment.flip: the shards hold flips already; build with --flip none, or set it to 0")
    about = {
        "settings": settings.model_dump(mode="json"),
        "vertex_index": shards.index_text,
        "vertex_index_fingerprint": shards.index.fingerprint,
        "crop_size": shards.crop_size,
        "margin": shards.margin,
        "densetrain_version": __version__,
        "reference_face": _reference_face(shards).round(5).tolist(),
    }
    torch.manual_seed(settings.seed)
    module = LandmarkModule(settings, shards.index, shards.crop_size, about, shards.sample_ids)
    if start:
        rows = shards.rows("train")[: settings.data.limit]
        some = rows[:: max(len(rows) // 20_000, 1)]  # the mean of 20,000 is the mean
        reader = shards.open()
        module.net.start_from(torch.from_numpy(np.stack([reader.landmarks(int(row)) for row in some])))
        reader.close()
    if settings.model.pretrained is not None:
        load_pretrained(module.net, settings.model.pretrained)
    if settings.trainer.channels_last:
        module.net.to(memory_format=torch.channels_last)
    return module


def _reference_face(shards: ShardSet) -> np.ndarray:
    """The mean frontal face of some training samples, for head poses; mirrored ones carry the unmirrored fit's pose."""
    rows = shards.rows("train")
    rows = rows[~shards.mirrored[rows]] if not shards.mirrored[rows].all() else rows
    rows = rows[:: max(len(rows) // 2000, 1)]
    reader = shards.open()
    landmarks = np.stack([reader.landmarks(int(row)) for row in rows])
    reader.close()
    return reference_face(landmarks, shards.pose[rows])


def make_trainer(
    settings: FitSettings, out: Path, *, progress: bool, say: Callable[[str], None] = lambda line: None, **options: Any
) -> pl.Trainer:
    """Lightning's trainer as the settings have it, writing checkpoints and logs to ``out``."""
    trainer = settings.trainer
    devices = trainer.devices
    several = (devices if isinstance(devices, int) else 1) * trainer.nodes > 1 or "LOCAL_RANK" in os.environ
    # At an epoch's very end, when its validation is over: training goes on from there as if it had not stopped.
    at_end: dict[str, Any] = {
        "dirpath": out, "save_on_train_epoch_end": True, "auto_insert_metric_name": False,
        "enable_version_counter": False,
    }  # fmt: skip
    watchers: list[cb.Callback] = [
        cb.ModelCheckpoint(filename=Path(BEST).stem, monitor="val_nme", **at_end),
        cb.ModelCheckpoint(filename=Path(LAST).stem, **at_end),
        cb.LearningRateMonitor(logging_interval="step"),
        EpochLines(say),
    ]
    if trainer.keep_every is not None:
        watchers.append(
            cb.ModelCheckpoint(
                dirpath=out, filename="epoch-{epoch:03d}", save_top_k=-1, every_n_epochs=trainer.keep_every,
                auto_insert_metric_name=False,
            )
        )  # fmt: skip
    if trainer.ema_decay is not None:
        watchers.append(cb.WeightAveraging(multi_avg_fn=warm_average(trainer.ema_decay)))
    if trainer.patience is not None:
        watchers.append(cb.EarlyStopping("val_nme", patience=trainer.patience))
    if progress:
        watchers.append(cb.RichProgressBar(leave=False))
    loggers: list[Logger] = [CSVLogger(out, name="csv"), TensorBoardLogger(out, name="tensorboard")]
    return pl.Trainer(**(
        {
            "accelerator": trainer.accelerator,
            "devices": devices,
            "num_nodes": trainer.nodes,
            "strategy": "ddp" if several else "auto",
            "precision": PRECISIONS[trainer.precision],
            "max_epochs": trainer.epochs,
            "gradient_clip_val": trainer.clip,
            "accumulate_grad_batches": trainer.accumulate,
            "deterministic": trainer.deterministic,
            "use_distributed_sampler": False,
            "num_sanity_val_steps": 0,
            "log_every_n_steps": 10,
            "callbacks": watchers,
            "logger": loggers,
            "plugins": [WholeFiles()],
            "enable_progress_bar": progress,
            "enable_model_summary": False,
        }
        | options
    ))  # fmt: skip


def fit(
    folders: Sequence[Path],
    settings: FitSettings,
    out: Path,
    *,
    progress: bool = False,
    say: Callable[[str], None] = lambda line: None,
) -> dict[str, float]:
    """Train on finished builds, or go on where an earlier run in ``out`` was cut off; the last epoch's metrics.

    say : gets a line an epoch and a summary, in the first process alone

    Raises :class:`ConfigurationError` where ``out`` holds a run of other settings or another vertex index, and what
    :func:`open_shards` raises; :class:`TrainingError` where the loss is not finite or a checkpoint cannot be written.
    """
    shards = open_shards(folders)
    resume = _check_folder(out, settings, shards)
    _quieten()
    module = make_module(shards, settings, start=resume is None)
    # Checkpoints are written at an epoch's end.
    first_epoch = 0 if resume is None else int(read_checkpoint(resume)["epoch"]) + 1
    batches = ShardBatches(shards, settings, first_epoch)
    if settings.data.cache == "device":
        batches.setup("fit")
        module.hold_images(batches.images.pop("train"))
    trainer = make_trainer(settings, out, progress=progress, say=say)
    trainer.fit(module, batches, ckpt_path=resume, weights_only=True)
    metrics = {name: float(value) for name, value in trainer.callback_metrics.items()}
    if trainer.is_global_zero:
        say(f"{out}: {_summary(metrics, first_epoch)}")
    return metrics


def _summary(metrics: dict[str, float], first_epoch: int) -> str:
    if "val_nme" not in metrics:
        return f"trained already, {first_epoch} epochs"
    return (
        f"validation NME {metrics['val_nme']:.3f} % (3D {metrics['val_nme_3d']:.3f} %); the training set's mean "
        f"landmarks alone: {metrics['val_nme_constant']:.3f} %"
    )


def _check_folder(out: Path, settings: FitSettings, shards: ShardSet) -> Path | None:
    """The checkpoint to go on from, or None in a new folder; the settings are kept beside it."""
    import yaml

    path, last = out / SETTINGS_FILE, out / LAST
    mine = settings.model_dump(mode="json")
    if path.is_file():
        theirs = read_yaml(path, "settings file")
        if theirs != mine:
            different = next((key for key in mine if not isinstance(theirs, dict) or theirs.get(key) != mine[key]), "")
            raise ConfigurationError(
                f"{out} holds a run of other settings ({different} differs): choose another folder, or run it with them"
            )
    elif last.is_file():
        raise ConfigurationError(f"{out} holds checkpoints, but no {SETTINGS_FILE}: choose another folder")
    if last.is_file():
        found = read_checkpoint(last)[CHECKPOINT_KEY].get("vertex_index_fingerprint")
        if found != shards.index.fingerprint:
            raise ConfigurationError(
                f"{last} was trained with another vertex index than the shards have: {str(found)[:12]}, not "
                f"{shards.index.fingerprint[:12]}"
            )
        return last
    if int(os.environ.get("LOCAL_RANK", "0")) == 0:
        write_text(path, yaml.safe_dump(mine, sort_keys=False))
    return None


def _quieten() -> None:
    """Lightning's remarks that say nothing to who called ``fit``."""
    logging.getLogger("lightning.pytorch").setLevel(logging.WARNING)
    for remark in (
        ".*does not have many workers.*",
        ".*Checkpoint directory .* exists and is not empty.*",
        ".*The number of training batches .* is smaller than the logging interval.*",
        ".*Experiment logs directory .* exists.*",
        ".*Trying to infer the `batch_size`.*",
        ".*isinstance.treespec, LeafSpec.*",
        ".*GPU available but not used.*",
    ):
        warnings.filterwarnings("ignore", remark)
