"""Batches from shards: their pixels, landmarks and draws, and the loaders of a training."""

from __future__ import annotations

import secrets
import shutil
from typing import Any, NotRequired, TypedDict, cast

import numpy as np
import torch
from lightning.pytorch import LightningDataModule
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from densegen.arrays import Int64
from densegen.dataset.shard_set import ShardSet
from densegen.errors import ConfigurationError, DensegenError
from densetrain.config import FitSettings
from densetrain.data.augment import draw
from densetrain.data.held import SHARED_MEMORY, Held, Together, hold
from densetrain.data.order import BatchSampler, Windows, step_seed

__all__ = ["Batch", "BatchDataset", "FinishedError", "ShardBatches"]


class Batch(TypedDict):
    """A batch as a step gets it.

    images : (B, S, S, 3) uint8 RGB
    landmarks : (B, N, 3) float32, pixels, crop frame
    rows : (B,) int64 of the shard set, NumPy's: they stay where errors are told
    epoch, number : of the batch
    draws : (B, 12 + 7 P) float32, :meth:`Draws.packed`; of training batches
    keypoints68 : (B, 68, 3) float32, pixels, crop frame; of validation batches
    weight : (B,) float32, 0 for samples that only fill up a process's share; of validation batches
    """

    images: Tensor
    landmarks: Tensor
    rows: Int64
    epoch: int
    number: int
    draws: NotRequired[Tensor]
    keypoints68: NotRequired[Tensor]
    weight: NotRequired[Tensor]


class HeldBatch(TypedDict):
    """A batch of samples that the device holds already, as it leaves the loader.

    table : (B, 1 + K) float32, one copy to the device: the bits of an int32, a sample's place among those that are
        held, then what a :class:`Batch` has beside its samples, draws or weight
    """

    table: Tensor
    rows: Int64
    epoch: int
    number: int


class BatchDataset(Dataset["Batch | HeldBatch | DensegenError"]):
    """A batch by its key ``(epoch, number, rows, weight)``, as :class:`BatchSampler` makes them.

    settings : of a training run, for batches that are augmented; None for validation
    held : samples in memory; None if each is read and decoded when it is asked for
    on_device : whether the trainer's device holds the same samples: batches are then a :class:`HeldBatch`, to which
        :meth:`ShardBatches.transfer_batch_to_device` adds the samples

    A damaged sample comes back as the error itself, which the trainer's process raises: an
    exception that crosses from a worker process would lose its type and grow a traceback.
    """

    def __init__(
        self,
        shards: ShardSet,
        settings: FitSettings | None = None,
        held: Held | None = None,
        *,
        on_device: bool = False,
    ) -> None:
        self.shards, self.settings, self.held, self.on_device = shards, settings, held, on_device
        self.reader = shards.open()

    def __getitem__(self, key: tuple[int, int, Int64, float]) -> Batch | HeldBatch | DensegenError:
        epoch, number, rows, weight = key
        if self.on_device:
            assert self.held is not None
            places = torch.from_numpy(self.held.places(rows).astype(np.int32))[:, None].view(torch.float32)
            own = self._draws(epoch, number, len(rows)) if self.settings else torch.full((len(rows), 1), weight)
            return HeldBatch(table=torch.cat([places, own], dim=1), rows=rows, epoch=epoch, number=number)
        try:
            images, landmarks, keypoints = self._samples(rows)
        except DensegenError as error:
            return error
        batch = Batch(images=images, landmarks=landmarks, rows=rows, epoch=epoch, number=number)
        if self.settings is not None:
            batch["draws"] = self._draws(epoch, number, len(rows))
        else:
            batch["keypoints68"] = keypoints
            batch["weight"] = torch.full((len(rows),), weight)
        return batch

    def _samples(self, rows: Int64) -> tuple[Tensor, Tensor, Tensor]:
        """Images, landmarks and, for validation alone, the 68; as a :class:`Batch` has them."""
        if self.held is not None:
            places = torch.from_numpy(self.held.places(rows))
            return self.held.images[places], self.held.landmarks[places], self.held.keypoints68[places]
        landmarks = np.stack([self.reader.landmarks(int(row)) for row in rows])
        asked = rows if self.settings is None else rows[:0]
        keypoints = np.array([self.reader.keypoints68(int(row)) for row in asked])
        return torch.from_numpy(self.reader.images(rows)), torch.from_numpy(landmarks), torch.from_numpy(keypoints)

    def _draws(self, epoch: int, number: int, count: int) -> Tensor:
        assert self.settings is not None
        generator = torch.Generator().manual_seed(step_seed(self.settings.seed, epoch, number))
        return draw(count, self.settings.augment, generator).packed()

    def __getstate__(self) -> dict[str, Any]:
        # Another process opens its own files.
        return self.__dict__ | {"reader": None}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self.reader = self.shards.open()


class FinishedError(Exception):
    """An earlier run has made all epochs."""


class ShardBatches(LightningDataModule):
    """The loaders of a training run; under several processes each gets its part.

    begin : the epoch to start at, and the number of its steps that an earlier run has made
    finished : whether there is nothing left to train, as far as this process sees
    processes : how many trained the earlier run; None if there is none, or it does not say
    """

    def __init__(
        self, shards: ShardSet, settings: FitSettings, begin: tuple[int, int] = (0, 0), *, finished: bool = False,
        processes: int | None = None,
    ) -> None:  # fmt: skip
        super().__init__()
        self.shards, self.settings, self.begin, self.finished = shards, settings, begin, finished
        self.processes = processes
        self.train_rows = shards.rows("train")[: settings.data.limit]
        self.same = settings.data.validate_on == "train"
        self.validation_rows = self.train_rows if self.same else _validation_rows(shards, settings.data.validate_on)
        self.held: dict[bool, Held] = {}

    def setup(self, stage: str) -> None:
        """Decode what shall be held, once a machine.

        Raises :class:`ConfigurationError` if the processes would not begin at the same step, :class:`FinishedError`
        if all agree that there is nothing left to train.
        """
        assert self.trainer is not None
        self._check_same_start()
        if self.finished:
            raise FinishedError
        if self.settings.data.cache == "none":
            return
        device = self.trainer.strategy.root_device if self.settings.data.cache == "device" else torch.device("cpu")
        self.held[True] = hold(self.shards, self.train_rows, self._together()).to(device)
        if self.same:
            self.held[False] = self.held[True]
        else:
            self.held[False] = hold(self.shards, self.validation_rows, self._together()).to(device)

    def _together(self) -> Together | None:
        trainer = self.trainer
        assert trainer is not None
        if trainer.world_size == 1 or trainer.num_devices == 1:
            return None
        name = trainer.strategy.broadcast(secrets.token_hex(8))
        agree = trainer.strategy.reduce_boolean_decision
        return Together(trainer.local_rank == 0, f"{name}-{trainer.node_rank}", trainer.num_devices, agree)

    def _check_same_start(self) -> None:
        """Each process has looked for an earlier run in the folder that it sees."""
        assert self.trainer is not None
        strategy = self.trainer.strategy
        mine = torch.tensor([*self.begin, self.finished], device=strategy.root_device)
        least, most = (cast("Tensor", strategy.reduce(mine.clone(), reduce_op=op)).tolist() for op in ("min", "max"))
        if least != most:
            raise ConfigurationError(
                f"process {self.trainer.global_rank} would begin after epoch {self.begin[0]} and {self.begin[1]} "
                f"steps, others after epoch {least[0]} or {most[0]}: all machines must share the folder of --out"
            )
        if self.processes not in (None, self.trainer.world_size):  # all have the same checkpoint, and end here
            raise ConfigurationError(
                f"the run was trained by {self.processes} processes, not by {self.trainer.world_size}: steps would see "
                "other samples, and the rate would end elsewhere; start as many, or choose another folder"
            )

    def check_shared_memory(self, processes: int = 1) -> None:
        """Raise :class:`ConfigurationError` if the batches of the workers do not fit into ``/dev/shm``: a container
        gives it 64 MB unless it is told, and a loader that finds it full waits for ever.

        processes : that train on this machine, each with workers of its own
        """
        workers = self.settings.data.workers if self.settings.data.cache == "none" else 0
        if not workers or not SHARED_MEMORY.is_dir():
            return
        # Each worker has two batches under way, torch's default, in training and in validation; and one is in use.
        most = min(self.settings.data.batch_size, max(len(self.train_rows), len(self.validation_rows)))
        batch = most * self.shards.crop_size**2 * 3
        needed, there = processes * (2 * workers + 1) * batch, shutil.disk_usage(SHARED_MEMORY).free
        if needed > there:
            raise ConfigurationError(
                f"{SHARED_MEMORY} has {there / 1e6:,.0f} MB free, batches of {processes * workers} workers need "
                f"{needed / 1e6:,.0f}: give the container more (--shm-size, --ipc=host), or choose data.workers=0, "
                "data.cache=memory or a smaller data.batch_size"
            )

    def train_dataloader(self) -> DataLoader[Any]:
        return self._loader(self.train_rows, train=True)

    def val_dataloader(self) -> DataLoader[Any]:
        return self._loader(self.validation_rows, train=False)

    def on_before_batch_transfer(self, batch: Any, dataloader_idx: int) -> Any:
        if isinstance(batch, DensegenError):
            raise batch
        return batch

    def transfer_batch_to_device(self, batch: Any, device: torch.device, dataloader_idx: int) -> Batch:
        """Move a batch to the device; of samples that it holds already, only which they are."""
        if "table" not in batch:
            moved: Batch = super().transfer_batch_to_device(batch, device, dataloader_idx)
            return moved
        assert self.trainer is not None
        training = bool(self.trainer.training)
        held, table = self.held[training], batch["table"].to(device, non_blocking=True)
        places, own = table.view(torch.int32)[:, 0], table[:, 1:]
        made = Batch(
            images=held.images[places], landmarks=held.landmarks[places],
            rows=batch["rows"], epoch=batch["epoch"], number=batch["number"],
        )  # fmt: skip
        if training:
            made["draws"] = own
        else:
            made["keypoints68"], made["weight"] = held.keypoints68[places], own[:, 0]
        return made

    def _sampler(self, rows: Any, *, shuffle: bool) -> BatchSampler:
        trainer = self.trainer
        assert trainer is not None
        return BatchSampler(
            rows, self.settings.data.batch_size, self.settings.seed, shuffle=shuffle, rank=trainer.global_rank,
            world=trainer.world_size, accumulate=self.settings.trainer.accumulate, windows=self._windows(),
            skip=self.begin if shuffle else (0, 0),
            # A resumed trainer asks for its first batches before it has counted up to its epoch.
            epoch=lambda: max(trainer.current_epoch, self.begin[0]),
        )  # fmt: skip

    def _windows(self) -> Windows | None:
        firsts = [place.first for place in self.shards.places]
        size = self.settings.data.window
        return None if size is None else Windows(np.array(firsts, np.int64), size)

    def _loader(self, rows: Int64, *, train: bool) -> DataLoader[Any]:
        # What is held is gathered faster than it could be sent from another process.
        workers = self.settings.data.workers if self.settings.data.cache == "none" else 0
        return DataLoader(
            BatchDataset(
                self.shards, self.settings if train else None, self.held.get(train),
                on_device=self.settings.data.cache == "device",
            ),
            batch_size=None,
            collate_fn=as_it_is,
            sampler=self._sampler(rows, shuffle=train),
            num_workers=workers,
            persistent_workers=workers > 0,
            pin_memory=torch.cuda.is_available(),
            generator=torch.Generator().manual_seed(self.settings.seed),
        )  # fmt: skip


def as_it_is(batch: Any) -> Any:
    """Torch would make tensors of the rows."""
    return batch


def _validation_rows(shards: ShardSet, split: str) -> Int64:
    try:
        return shards.rows(split)
    except ConfigurationError as error:
        raise ConfigurationError(
            f"{error}; data.validate_on=train is for a network that shall learn its training samples by heart"
        ) from error
