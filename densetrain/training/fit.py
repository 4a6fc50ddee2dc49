"""``densetrain fit``: shards and settings in, a folder with checkpoints and logs out."""

from __future__ import annotations

import logging
import os
import warnings
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext, suppress
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import numpy as np
import torch
from lightning.fabric.utilities.exceptions import MisconfigurationException
from lightning.pytorch import callbacks as cb
from lightning.pytorch.accelerators import CPUAccelerator
from lightning.pytorch.loggers import CSVLogger, Logger, TensorBoardLogger
from lightning.pytorch.utilities import rank_zero_only

from densegen import __version__
from densegen.dataset.shard_set import ShardSet, open_dataset
from densegen.errors import ConfigurationError, FormatError, in_short
from densegen.files import only_one
from densegen.outputs import refuse_no_folder
from densetrain.config import FitSettings, read_settings
from densetrain.data.augment import check_flips
from densetrain.data.batches import FinishedError, ShardBatches
from densetrain.errors import TrainingError
from densetrain.head_pose import reference_face
from densetrain.network.checkpoint import BEST, LAST
from densetrain.network.description import PROCESSES_KEY, Description
from densetrain.network.model import check_sizes, normalises_vectors
from densetrain.network.weights import load_pretrained
from densetrain.training.callbacks import (
    Bar,
    Checkpoints,
    DroppedGradients,
    EpochLines,
    SecondNames,
    WarmAverage,
    WholeFiles,
)
from densetrain.training.module import LOG_EVERY, LandmarkModule
from densetrain.training.resume import earlier_run, prepare_folder, steps_made, stopped_early

__all__ = ["fit", "make_module", "make_trainer"]

PRECISIONS = {"fp32": "32-true", "bf16": "bf16-mixed", "fp16": "16-mixed"}


FEW_CROPS = 64
"""On batches below, a network that normalises single numbers over the batch is unsteady."""


def make_module(
    shards: ShardSet, settings: FitSettings, *, start: bool = True, say: Callable[[str], None] = lambda line: None
) -> LandmarkModule:
    """The module for a set of shards; with ``start`` its network begins at the training set's mean landmarks, and at
    pretrained weights if the settings name them.

    Raises :class:`ConfigurationError` if the settings ask for flips that the shards do not allow.
    """
    check_flips(settings.augment, shards)
    about = Description(
        densetrain_version=__version__,
        settings=settings,
        vertex_index=shards.index_text,
        vertex_index_fingerprint=shards.index.fingerprint,
        crop_size=shards.crop_size,
        margin=shards.margin,
        reference_face=_reference_face(shards).round(5).tolist(),
        datasets=shards.datasets,
        shards_fingerprint=shards.fingerprint,
    )
    torch.manual_seed(settings.seed)
    module = LandmarkModule(about, shards.index, shards.sample_ids)
    check_sizes(module.net, sorted(set(settings.schedule.input_sizes.values())))
    if start:
        rows = shards.rows("train")[: settings.data.limit]
        some = rows[:: max(len(rows) // 20_000, 1)]  # the mean of 20,000 is the mean
        reader = shards.open()
        module.net.start_from(torch.from_numpy(np.stack([reader.landmarks(int(row)) for row in some])))
        reader.close()
        if settings.model.pretrained is not None:
            taken, there = load_pretrained(module.net, settings.model.pretrained)
            say(f"{taken} of the backbone's {there} tensors start at {settings.model.pretrained}")
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
    """Lightning's trainer as the settings have it, writing checkpoints and logs to ``out``.

    Raises :class:`ConfigurationError` if this machine has no such devices.
    """
    trainer = settings.trainer
    devices, nodes = _processes(settings)
    several = (devices if isinstance(devices, int) else 1) * nodes > 1 or "LOCAL_RANK" in os.environ
    files = WholeFiles()
    watchers: list[cb.Callback] = [
        SecondNames(out, Path(BEST).stem, files, monitor="val_nme"),
        cb.LearningRateMonitor(logging_interval="step"),
        EpochLines(say),
        DroppedGradients(),
    ]
    if trainer.keep_every is not None:
        every = {"save_top_k": -1, "every_n_epochs": trainer.keep_every}
        watchers.append(SecondNames(out, "epoch-{epoch:03d}", files, **every))
    watchers.append(Checkpoints(out, Path(LAST).stem, steps=trainer.save_steps))
    if trainer.ema_decay is not None:
        watchers.append(WarmAverage(trainer.ema_decay))
    if trainer.patience is not None:
        watchers.append(cb.EarlyStopping("val_nme", patience=trainer.patience))
    if progress:
        watchers.append(Bar(refresh_rate=LOG_EVERY, leave=False))
    loggers: list[Logger] = [CSVLogger(out, name="csv"), TensorBoardLogger(out, name="tensorboard")]
    wanted = {
        "accelerator": trainer.accelerator,
        "devices": devices,
        "num_nodes": nodes,
        "strategy": "ddp" if several else "auto",
        "precision": PRECISIONS[trainer.precision],
        "max_epochs": trainer.epochs,
        "gradient_clip_val": trainer.clip,
        "accumulate_grad_batches": trainer.accumulate,
        "sync_batchnorm": trainer.sync_batchnorm,
        "deterministic": trainer.deterministic,
        "benchmark": not trainer.deterministic,
        "use_distributed_sampler": False,
        "num_sanity_val_steps": 0,
        "log_every_n_steps": LOG_EVERY,
        "callbacks": watchers,
        "logger": loggers,
        "plugins": [files],
        "enable_progress_bar": progress,
        "enable_model_summary": False,
    }
    try:
        made = pl.Trainer(**(wanted | options))
    except MisconfigurationException as error:
        asked = f"trainer.accelerator={trainer.accelerator}, devices={devices}"
        raise ConfigurationError(f"{asked}: {in_short(error)}") from error
    if trainer.precision == "fp16" and isinstance(made.accelerator, CPUAccelerator):
        raise ConfigurationError("trainer.precision=fp16 needs a GPU; a CPU computes in fp32 or bf16")
    return made


def _processes(settings: FitSettings) -> tuple[int | str, int]:
    """Devices of this node, and nodes: as ``torchrun`` has started them, else as the settings say."""
    here = int(os.environ.get("LOCAL_WORLD_SIZE", "0"))
    if not here:
        return settings.trainer.devices, settings.trainer.nodes
    return here, max(int(os.environ.get("WORLD_SIZE", "1")) // here, 1)


def fit(
    folders: str | Path | Sequence[str | Path],
    settings: FitSettings | str | Path | None,
    out: str | Path,
    *,
    progress: bool = False,
    say: Callable[[str], None] = lambda line: None,
) -> dict[str, float]:
    """Train on finished builds, or go on from the last checkpoint of an earlier run in ``out``.

    folders : of the builds, one or several
    settings : settings, a file of them, or the name of ready ones; None for the defaults
    out : the run's folder
    progress : whether to show a progress bar
    say : gets a line an epoch and a summary, in the first process alone
    returns : the last epoch's metrics by name; empty if the run was finished before, which is then left as it is

    Raises :class:`ConfigurationError` if ``out`` holds a run of other settings or other shards, and what
    :func:`open_dataset` raises; :class:`TrainingError` if the loss is not finite or a checkpoint cannot be written;
    :class:`BuildError` if another run is training into ``out``.
    """
    _quieten()
    say = rank_zero_only(say)
    shards = open_dataset(*([folders] if isinstance(folders, str | Path) else folders))
    settings, out = settings if isinstance(settings, FitSettings) else read_settings(settings), Path(out)
    with _alone(out):
        return _fit(shards, settings, out, progress=progress, say=say)


def _alone(out: Path) -> AbstractContextManager[None]:
    """The folder's lock, for the first of a run's processes: the others belong to it."""
    rank = int(getattr(rank_zero_only, "rank", None) or 0)
    if rank > 0 or any(int(os.environ.get(name, "0")) > 0 for name in ("NODE_RANK", "GROUP_RANK")):
        return nullcontext()
    refuse_no_folder(out)
    return only_one(out, f"another run is training into {out}: wait for it, or choose another folder")


def _fit(
    shards: ShardSet, settings: FitSettings, out: Path, *, progress: bool, say: Callable[[str], None]
) -> dict[str, float]:
    earlier = earlier_run(out, settings, shards)
    begin = (0, 0) if earlier is None else steps_made(earlier)
    finished = earlier is not None and (begin[0] >= settings.trainer.epochs or stopped_early(earlier))
    if finished:
        say(f"{out}: trained already, {begin[0]} epochs; best.ckpt has the lowest validation NME")
        _agree_that_finished(shards, settings, out, begin)
        return {}
    trainer = make_trainer(settings, out, progress=progress, say=say)
    module = make_module(shards, settings, start=earlier is None, say=say)
    batches = ShardBatches(shards, settings, begin, processes=None if earlier is None else earlier.get(PROCESSES_KEY))
    batches.check_shared_memory(trainer.num_devices)
    say(
        f"{len(batches.train_rows):,} samples to train on; validation on the split {settings.data.validate_on}, "
        f"{len(batches.validation_rows):,} samples: NME of the {len(shards.index)} landmarks, 2D, normalised by "
        "sqrt(w h) of the true 68 points' box"
    )
    if trainer.world_size > 1:
        together, lr = (
            trainer.world_size * settings.data.batch_size * settings.trainer.accumulate,
            settings.optimiser.lr,
        )
        say(f"{trainer.world_size} processes: a step sees {together:,} samples, at the rate {lr} as set")
    if settings.data.batch_size < FEW_CROPS and normalises_vectors(module.net):
        name, few = f"{settings.model.backbone} at {settings.model.input_size} px", settings.data.batch_size
        say(
            f"{name} normalises single numbers over the batch, and {few} are few: if its validation error jumps, set "
            f"data.batch_size={FEW_CROPS} or more"
        )
    if earlier is not None:
        more = f" and {begin[1]:,} batches" if begin[1] else ""
        say(f"goes on after epoch {begin[0]} of {settings.trainer.epochs}{more}")
    prepare: Any = rank_zero_only(prepare_folder)
    prepare(out, settings, is_new=earlier is None)
    try:
        trainer.fit(module, batches, ckpt_path=None if earlier is None else out / LAST, weights_only=True)
    except (AttributeError, KeyError, RuntimeError, TypeError, ValueError) as error:
        _explain(error, trainer)
        if earlier is not None and not module.has_begun:
            words = f"{type(error).__name__}: {in_short(error)}"
            raise FormatError(
                f"going on from {out / LAST} failed before the first step ({words}): if the file was edited, or is of "
                "another version, choose another folder"
            ) from error
        raise
    except SystemExit as error:  # what Lightning makes of Ctrl-C
        if not trainer.interrupted:
            raise
        kept = () if (out / LAST).is_file() else ("nothing is kept before the first epoch ends",)
        raise KeyboardInterrupt(*kept) from error
    metrics = {name: float(value) for name, value in trainer.callback_metrics.items()}
    best: Any = trainer.checkpoint_callback
    say(
        f"{out}: validation NME of the {len(shards.index)}, 2D: best {float(best.best_model_score):.3f} % (best.ckpt), "
        f"last {metrics['val_nme']:.3f} %; the training set's mean landmarks alone {metrics['val_nme_constant']:.3f} %"
    )
    say(f"next: 'densetrain evaluate {out} --shards SHARDS', 'densetrain predict {out} PHOTOGRAPH'")
    return metrics


def _agree_that_finished(shards: ShardSet, settings: FitSettings, out: Path, begin: tuple[int, int]) -> None:
    """Ask the other processes, if there are any; raises :class:`ConfigurationError` if one would train."""
    bare: dict[str, Any] = {"logger": False, "callbacks": [], "enable_checkpointing": False}
    trainer = make_trainer(settings, out, progress=False, **bare)
    if trainer.world_size > 1:
        with suppress(FinishedError):
            trainer.fit(
                make_module(shards, settings, start=False), ShardBatches(shards, settings, begin, finished=True)
            )


def _explain(error: Exception, trainer: pl.Trainer) -> None:
    """Raise what a known error of torch means."""
    text = str(error)
    if "Missing folder" in text:
        raise TrainingError(f"the logs cannot be written ({text[:120]}): run the same command again") from error
    if "unable to allocate shared memory" in text or "Bus error" in text or "DataLoader worker (pid" in text:
        raise TrainingError(
            "a process that decodes images died or found no room in /dev/shm: give the container more (--shm-size, "
            "--ipc=host), or choose data.workers=0 or data.cache=memory"
        ) from error
    if isinstance(error, torch.OutOfMemoryError):
        raise ConfigurationError(
            "the GPU's memory is full: a smaller data.batch_size, or data.cache=memory instead of device"
        ) from error
    if trainer.world_size > 1 and ("gloo" in text or "NCCL" in text or "peer" in text):
        raise TrainingError("another process stopped: its own error says why") from error
    if "more than 1 value per channel" in text:
        raise ConfigurationError("batch normalisation needs more than one value: a larger data.batch_size") from error


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
        ".*resuming from a checkpoint that ended before the epoch ended.*",  # our batches go on from there
        ".*AMP with fp16 is not supported on CPU.*",  # refused, in our own words
    ):
        warnings.filterwarnings("ignore", remark)
