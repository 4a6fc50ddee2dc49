"""Batches from shards: which samples, in which order, and their pixels.

The order of an epoch is a function of seed and epoch. Batches are numbered over all processes: process r of R takes
the batches r, r + R, ..., so R processes see in a step what one process sees that accumulates R batches.
"""

from __future__ import annotations

import secrets
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, NotRequired, TypedDict, cast

import numpy as np
import torch
from lightning.pytorch import LightningDataModule
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, Sampler

from densegen.arrays import Int64
from densegen.dataset.shard_set import ShardSet
from densegen.errors import ConfigurationError, DensegenError
from densetrain.config import FitSettings
from densetrain.data.augment import draw
from densetrain.data.held import SHARED_MEMORY, Held, Together, hold

__all__ = [
    "Batch", "BatchDataset", "BatchSampler", "FinishedError", "ShardBatches", "Windows", "epoch_order", "step_seed",
]  # fmt: skip


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


def step_seed(seed: int, epoch: int, number: int) -> int:
    """The seed of everything random in a step: of where in the training it is, so that a resumed run repeats it."""
    return int(np.random.SeedSequence([seed, epoch, number]).generate_state(1, np.uint32)[0])


@dataclass(frozen=True, slots=True, eq=False)
class Windows:
    """What of a set is shuffled together.

    firsts : (M,) int64, the first sample of each shard, ascending
    size : shards in a window
    """

    firsts: Int64
    size: int


def epoch_order(rows: Int64, windows: Windows | None, seed: int, epoch: int) -> Int64:
    """The rows, ascending, in the order of an epoch, a function of seed and epoch: all shuffled, or the shards
    shuffled, and then the samples of each window of whole shards.
    """
    generator = np.random.Generator(np.random.PCG64(np.random.SeedSequence([seed, epoch])))
    if windows is None:
        return rows[generator.permutation(len(rows))]
    starts = np.append(np.searchsorted(rows, windows.firsts), len(rows))
    shards = generator.permutation(np.flatnonzero(np.diff(starts)))  # those that hold rows
    order = []
    for first in range(0, len(shards), windows.size):
        window = np.concatenate([rows[starts[n] : starts[n + 1]] for n in shards[first : first + windows.size]])
        order.append(window[generator.permutation(len(window))])
    return np.concatenate(order)


class BatchSampler(Sampler[Any]):
    """The keys of an epoch's batches for this process.

    shuffle : another order every epoch, and what is too few for a whole batch in each process, or a whole step, is
        left out (unless it is the only batch); otherwise all samples in order, with batches of weight 0 if the
        processes would not come out even
    accumulate : batches of each process in a step of the optimiser
    windows : what is shuffled together, see :func:`epoch_order`
    epoch : asked when an epoch's first batch is. Being told (Lightning's ``set_epoch``) comes too late in a resumed
        run, whose workers have fetched ahead by then.
    skip : epoch and number of steps that an earlier run has made of it
    """

    def __init__(
        self, rows: Int64, batch_size: int, seed: int, *, shuffle: bool, rank: int = 0, world: int = 1,
        accumulate: int = 1, windows: Windows | None = None, epoch: Callable[[], int] = lambda: 0,
        skip: tuple[int, int] = (0, 0),
    ) -> None:  # fmt: skip
        self.all_rows, self.batch_size, self.seed, self.shuffle = rows, batch_size, seed, shuffle
        self.rank, self.world, self.windows, self.epoch, self.skip = rank, world, windows, epoch, skip
        full = len(rows) // batch_size
        if shuffle:
            self.total = max(full, 1)
            if self.total < world * accumulate:
                what = f"the {world} processes" if accumulate == 1 else f"a step's {world * accumulate}"
                raise ConfigurationError(
                    f"{len(rows)} training samples make {self.total} batches of {batch_size}, fewer than {what}: "
                    "choose a smaller data.batch_size" + (" or trainer.accumulate" if accumulate > 1 else "")
                )
            self.steps = self.total // (world * accumulate) * accumulate
        else:
            self.total = -(-len(rows) // batch_size)
            self.steps = -(-self.total // world)

    def __len__(self) -> int:
        return self.steps

    def __iter__(self) -> Iterator[tuple[int, int, Int64, float]]:
        rows, epoch = self.all_rows, self.epoch()
        if self.shuffle:
            rows = epoch_order(rows, self.windows, self.seed, epoch)
        for step in range(self.skip[1] if epoch == self.skip[0] else 0, self.steps):
            number = step * self.world + self.rank
            there = number < self.total
            first = (number if there else 0) * self.batch_size
            yield epoch, number, rows[first : first + self.batch_size], 1.0 if there else 0.0


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
        batch = self.settings.data.batch_size * self.shards.crop_size**2 * 3
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
