"""Batches from shards: which samples, in which order, and their pixels.

The order of an epoch is a function of seed and epoch. Batches are numbered over all processes: process r of R takes
the batches r, r + R, ..., so R processes see in a step what one process sees that accumulates R batches.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, TypedDict, cast

import numpy as np
import torch
from lightning.pytorch import LightningDataModule
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, Sampler

from densegen.arrays import Int64
from densegen.dataset.shard_set import ShardSet
from densegen.errors import ConfigurationError, DensegenError
from densetrain.config import FitSettings

__all__ = ["Batch", "BatchDataset", "BatchSampler", "ShardBatches", "Truth", "decode_all"]

SHARED_MEMORY = Path("/dev/shm")


class Truth(TypedDict):
    """What a batch holds beside its images.

    landmarks : (B, N, 3) float32, pixels, crop frame
    keypoints68 : (B, 68, 3) float32, pixels, crop frame
    rows : (B,) int64, of the shard set
    position : (B,) int64, among the loader's cached images; equal to ``rows`` if none are cached
    weight : (B,) float32, 0 for samples that only fill up a process's share
    epoch, number : of the batch
    """

    landmarks: Tensor
    keypoints68: Tensor
    rows: Tensor
    position: Tensor
    weight: Tensor
    epoch: int
    number: int


class Batch(Truth):
    """A batch as a step gets it.

    images : (B, S, S, 3) uint8 RGB
    """

    images: Tensor


class BatchDataset(Dataset[Truth | DensegenError]):
    """A batch by its key ``(epoch, number, rows, weight)``, as :class:`BatchSampler` makes them.

    cached_rows : (R,) int64, rows whose images are decoded already
    images : (R, S, S, 3) uint8, those images; without them, batches of cached rows are a :class:`Truth`, and
        :class:`ShardBatches` adds the images on the device

    A damaged sample comes back as the error itself, which the trainer's process raises: an
    exception that crosses from a worker process would lose its type and grow a traceback.
    """

    def __init__(
        self,
        shards: ShardSet,
        images: Tensor | None = None,
        cached_rows: Int64 | None = None,
    ) -> None:
        self.shards, self.images = shards, images
        self.reader = shards.open()
        self.position: Int64 | None = None
        if cached_rows is not None:
            self.position = np.full(len(shards), -1, np.int64)
            self.position[cached_rows] = np.arange(len(cached_rows))

    def __getitem__(self, key: Any) -> Truth | DensegenError:
        epoch, number, rows, weight = key
        try:
            landmarks = np.stack([self.reader.landmarks(int(row)) for row in rows])
            images = self._images(rows)
        except DensegenError as error:
            return error
        position = rows if self.position is None else self.position[rows]
        truth = Truth(
            landmarks=torch.from_numpy(landmarks),
            keypoints68=torch.from_numpy(self.shards.keypoints68[rows]),
            rows=torch.from_numpy(rows),
            position=torch.from_numpy(position),
            weight=torch.full((len(rows),), weight),
            epoch=epoch,
            number=number,
        )
        return truth if images is None else Batch(**truth, images=images)

    def _images(self, rows: Int64) -> Tensor | None:
        if self.position is None:
            return torch.from_numpy(self.reader.images(rows))
        return None if self.images is None else self.images[torch.from_numpy(self.position[rows])]

    def __getstate__(self) -> dict[str, Any]:
        # Another process opens its own files.
        return self.__dict__ | {"reader": None}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self.reader = self.shards.open()


class BatchSampler(Sampler[Any]):
    """The keys of an epoch's batches for this process.

    shuffle : another order every epoch, and the last, smaller batch is left out (unless it is the only one);
        otherwise all samples in order, with batches of weight 0 if the processes would not come out even
    epoch : asked when an epoch's first batch is. Being told (Lightning's ``set_epoch``) comes too late in a resumed
        run, whose workers have fetched ahead by then.
    """

    def __init__(
        self, rows: Int64, batch_size: int, seed: int, *, shuffle: bool, rank: int = 0, world: int = 1,
        epoch: Callable[[], int] = lambda: 0,
    ) -> None:  # fmt: skip
        self.all_rows, self.batch_size, self.seed, self.shuffle = rows, batch_size, seed, shuffle
        self.rank, self.world, self.epoch = rank, world, epoch
        full = len(rows) // batch_size
        if shuffle:
            self.total = max(full, 1)
            if self.total < world:
                raise ConfigurationError(
                    f"{len(rows)} training samples make {self.total} batches of {batch_size}, fewer than the {world} "
                    "processes: choose a smaller data.batch_size"
                )
            self.steps = self.total // world
        else:
            self.total = -(-len(rows) // batch_size)
            self.steps = -(-self.total // world)

    def __len__(self) -> int:
        return self.steps

    def __iter__(self) -> Iterator[tuple[int, int, Int64, float]]:
        rows, epoch = self.all_rows, self.epoch()
        if self.shuffle:
            key = np.random.SeedSequence([self.seed, epoch])
            rows = rows[np.random.Generator(np.random.PCG64(key)).permutation(len(rows))]
        for step in range(self.steps):
            number = step * self.world + self.rank
            there = number < self.total
            first = (number if there else 0) * self.batch_size
            yield epoch, number, rows[first : first + self.batch_size], 1.0 if there else 0.0


class ShardBatches(LightningDataModule):
    """The loaders of a training run that starts at ``first_epoch``; under several processes each gets its part."""

    def __init__(self, shards: ShardSet, settings: FitSettings, first_epoch: int = 0) -> None:
        super().__init__()
        self.shards, self.settings, self.first_epoch = shards, settings, first_epoch
        self.train_rows = shards.rows("train")[: settings.data.limit]
        same = settings.data.validate_on == "train"
        self.validation_rows = self.train_rows if same else _validation_rows(shards, settings.data.validate_on)
        cached = settings.data.cache != "none"
        self.train_images = decode_all(shards, self.train_rows) if cached else None
        self.validation_images = self.train_images if same else None
        if cached and not same:
            self.validation_images = decode_all(shards, self.validation_rows)

    def check_shared_memory(self) -> None:
        """Raise :class:`ConfigurationError` if the batches of the workers do not fit into ``/dev/shm``: a container
        gives it 64 MB unless it is told, and a loader that finds it full waits for ever.
        """
        workers = self.settings.data.workers if self.settings.data.cache == "none" else 0
        if not workers or not SHARED_MEMORY.is_dir():
            return
        # Each worker has two batches under way, torch's default, in training and in validation; and one is in use.
        batch = self.settings.data.batch_size * self.shards.crop_size**2 * 3
        needed, there = (2 * workers + 1) * batch, shutil.disk_usage(SHARED_MEMORY).free
        if needed > there:
            raise ConfigurationError(
                f"{SHARED_MEMORY} has {there / 1e6:,.0f} MB free, batches of {workers} workers need "
                f"{needed / 1e6:,.0f}: give the container more (--shm-size, --ipc=host), or choose data.workers=0, "
                "data.cache=memory or a smaller data.batch_size"
            )

    def train_dataloader(self) -> DataLoader[Any]:
        images = None if self.settings.data.cache == "device" else self.train_images
        return self._loader(self.train_rows, images, shuffle=True)

    def val_dataloader(self) -> DataLoader[Any]:
        return self._loader(self.validation_rows, self.validation_images, shuffle=False)

    def on_before_batch_transfer(self, batch: Truth | DensegenError, dataloader_idx: int) -> Truth:
        if isinstance(batch, DensegenError):
            raise batch
        return batch

    def on_after_batch_transfer(self, batch: Truth, dataloader_idx: int) -> Batch:
        """Add the images that the device holds."""
        if "images" in batch:
            return cast("Batch", batch)
        images, place = self.train_images, batch["position"]
        assert images is not None
        if images.device != place.device:
            self.train_images = images = images.to(place.device)
        return Batch(**batch, images=images[place])

    def _sampler(self, rows: Any, *, shuffle: bool) -> BatchSampler:
        trainer = self.trainer
        assert trainer is not None
        return BatchSampler(
            rows, self.settings.data.batch_size, self.settings.seed, shuffle=shuffle, rank=trainer.global_rank,
            world=trainer.world_size,
            # A resumed trainer asks for its first batches before it has counted up to its epoch.
            epoch=lambda: max(trainer.current_epoch, self.first_epoch),
        )  # fmt: skip

    def _loader(self, rows: Any, images: Tensor | None, *, shuffle: bool) -> DataLoader[Any]:
        cached = self.settings.data.cache != "none"
        # Decoded images are gathered faster than they could be sent from another process.
        workers = 0 if cached else self.settings.data.workers
        return DataLoader(
            BatchDataset(self.shards, images, rows if cached else None),
            batch_size=None,
            sampler=self._sampler(rows, shuffle=shuffle),
            num_workers=workers,
            persistent_workers=workers > 0,
            pin_memory=torch.cuda.is_available(),
            generator=torch.Generator().manual_seed(self.settings.seed),
        )


def _validation_rows(shards: ShardSet, split: str) -> Int64:
    try:
        return shards.rows(split)
    except ConfigurationError as error:
        raise ConfigurationError(
            f"{error}; data.validate_on=train is for a network that shall learn its training samples by heart"
        ) from error


def decode_all(shards: ShardSet, rows: Int64) -> Tensor:
    """(R, S, S, 3) uint8: the images of ``rows``, decoded once.

    Raises :class:`ConfigurationError` before anything is decoded if they do not fit into the free memory.
    """
    from concurrent.futures import ThreadPoolExecutor

    size = shards.crop_size
    needed, free = len(rows) * size * size * 3, _free_memory()
    if free is not None and needed > 0.9 * free:
        raise ConfigurationError(
            f"data.cache needs {needed / 1e9:.1f} GB for {len(rows):,} images, {free / 1e9:.1f} GB are free: "
            "choose data.cache=none"
        )
    images = torch.empty((len(rows), size, size, 3), dtype=torch.uint8)
    reader = shards.open()
    target = images.numpy()

    def decode(number: int) -> None:
        reader.image(int(rows[number]), target[number])

    with ThreadPoolExecutor() as threads:  # the decoder works outside the interpreter's lock
        list(threads.map(decode, range(len(rows)), chunksize=64))
    reader.close()
    return images


def _free_memory() -> int | None:
    """Bytes that this process can still take, if the system says so: of the machine, or of its container."""
    free = [int(line.split()[1]) * 1024 for line in _lines(Path("/proc/meminfo")) if line.startswith("MemAvailable:")]
    group = Path("/sys/fs/cgroup")
    limits, used = _lines(group / "memory.max"), _lines(group / "memory.current")
    if limits and used and limits[0].isdigit():
        free.append(int(limits[0]) - int(used[0]))
    return min(free, default=None)


def _lines(path: Path) -> list[str]:
    try:
        return path.read_text(encoding="ascii").splitlines()
    except OSError:
        return []
