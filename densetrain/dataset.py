"""Batches from shards: which samples, in which order, and their pixels.

The order of an epoch is a function of seed and epoch. Batches are numbered over all processes: process r of R takes
the batches r, r + R, ..., so R processes see in a step what one process sees that accumulates R batches.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import simplejpeg
import torch
from torch import Tensor
from torch.utils.data import Dataset, Sampler

from densegen.errors import ConfigurationError, DensegenError, FormatError
from densegen.schema import SPLITS
from densegen.shards import ShardReader, read_dataset_manifest
from densegen.vertex_index import VertexIndex, parse_index

__all__ = ["Batch", "BatchDataset", "BatchSampler", "ShardSet", "decode_all", "open_shards"]

FloatArray = npt.NDArray[np.float32]

Batch = dict[str, Any]
"""``images`` (B, S, S, 3) uint8 RGB, or None where the device holds them; ``landmarks`` (B, N, 3) float32, pixels, crop
frame; ``keypoints68`` (B, 68, 3) float32; ``rows`` (B,) int64; ``weight`` (B,) float32; ``epoch``, ``number``."""


@dataclass(frozen=True, slots=True, eq=False)
class _Shard:
    path: Path
    first: int
    image_offsets: npt.NDArray[np.int64]
    image_at: int
    landmarks_at: int


@dataclass(frozen=True, eq=False)
class ShardSet:
    """All samples of one or several builds, counted over their shards.

    index : the vertex index that they share; crop_size : S
    split : (S,) uint8, position in ``schema.SPLITS``; flipped : (S,) bool, a mirror image; mirrored : (S,) bool, whose
        pose is that of the unmirrored fit; sample_ids : (S,) text
    keypoints68 : (S, 68, 3) float32; pose : (S, 7) float32; expression : (S, Ke) float32
    """

    index: VertexIndex
    index_text: str
    crop_size: int
    margin: float
    split: npt.NDArray[np.uint8]
    flipped: npt.NDArray[np.bool_]
    mirrored: npt.NDArray[np.bool_]
    sample_ids: npt.NDArray[np.object_]
    keypoints68: FloatArray
    pose: FloatArray
    expression: FloatArray
    shards: tuple[_Shard, ...]
    shard_of: npt.NDArray[np.int32]

    def __len__(self) -> int:
        return len(self.split)

    def rows(self, split: str) -> npt.NDArray[np.int64]:
        """The samples of a split; raises :class:`ConfigurationError` where there are none."""
        rows = np.flatnonzero(self.split == SPLITS.index(split)).astype(np.int64)
        if not rows.size:
            raise ConfigurationError(
                f"the shards hold no sample of the split {split!r}: build more fits, or another split"
            )
        return rows

    def open(self) -> RowReader:
        """A reader of single samples; each process opens its own."""
        return RowReader(self)


class RowReader:
    """Reads samples where they lie in the files, with one file descriptor a shard, opened when it is first needed."""

    def __init__(self, shards: ShardSet) -> None:
        self.shards = shards
        self.files: dict[int, int] = {}

    def jpeg(self, row: int) -> bytes:
        """The JPEG file of a sample."""
        number = int(self.shards.shard_of[row])
        shard = self.shards.shards[number]
        start, stop = shard.image_offsets[row - shard.first : row - shard.first + 2]
        return self._read(number, shard.image_at + int(start), int(stop - start), row)

    def image(self, row: int) -> npt.NDArray[np.uint8]:
        """(S, S, 3) uint8, RGB; raises :class:`FormatError`, naming shard and sample, where it is damaged."""
        data = self.jpeg(row)
        try:
            image = np.asarray(simplejpeg.decode_jpeg(data, "RGB"))
        except ValueError as error:
            raise FormatError(f"{self._name(row)} is not a readable JPEG: run 'densegen verify'") from error
        if image.shape != (self.shards.crop_size, self.shards.crop_size, 3):
            raise FormatError(f"{self._name(row)} is {image.shape[1]}x{image.shape[0]}: run 'densegen verify'")
        return image

    def landmarks(self, row: int) -> FloatArray:
        """(N, 3) float32, pixels, crop frame."""
        number = int(self.shards.shard_of[row])
        shard, count = self.shards.shards[number], len(self.shards.index)
        data = self._read(number, shard.landmarks_at + (row - shard.first) * count * 12, count * 12, row)
        return np.frombuffer(data, "<f4").reshape(count, 3)

    def _read(self, number: int, offset: int, size: int, row: int) -> bytes:
        try:
            if number not in self.files:
                self.files[number] = os.open(self.shards.shards[number].path, os.O_RDONLY)
            data = os.pread(self.files[number], size, offset)
        except OSError as error:
            raise FormatError(f"{self._name(row)} cannot be read: {error.strerror}") from error
        if len(data) < size:
            raise FormatError(f"{self._name(row)} lies behind the end of its file: run 'densegen verify'")
        return data

    def _name(self, row: int) -> str:
        shard = self.shards.shards[int(self.shards.shard_of[row])]
        return f"{shard.path.name}: sample {self.shards.sample_ids[row]}"

    def close(self) -> None:
        for file in self.files.values():
            os.close(file)
        self.files.clear()


def open_shards(folders: Sequence[Path]) -> ShardSet:
    """Read what all shards of finished builds say, and where their samples lie.

    Raises :class:`FormatError` where a shard is damaged or has another size than its manifest says,
    :class:`ConfigurationError` where the builds differ in vertex index or crop size, or hold no samples.
    """
    parts: list[dict[str, Any]] = []
    shards: list[_Shard] = []
    first = 0
    reference: dict[str, Any] = {}
    for folder in folders:
        for record in read_dataset_manifest(folder)["shards"]:
            path = folder / record["file"]
            if not path.is_file():
                raise FormatError(f"{path} is missing: finish the build, or run 'densegen verify'")
            if (size := path.stat().st_size) != record["bytes"]:
                raise FormatError(f"{path} has {size:,} bytes, its manifest says {record['bytes']:,}")
            with ShardReader(path) as reader:
                _check_same(reader, folder, reference)
                if not len(reader):
                    continue
                names = ("split", "flipped", "mirrored", "keypoints68", "pose", "expression")
                parts.append({name: reader.array(name) for name in names} | {"ids": reader.sample_ids})
                offsets = reader.array("image/offsets").astype(np.int64)
                places = reader.byte_offset("image/bytes"), reader.byte_offset("landmarks")
                shards.append(_Shard(path, first, offsets, *places))
                first += len(reader)
    if not shards:
        raise ConfigurationError(f"{', '.join(map(str, folders))}: the shards hold no samples")
    counts = [len(part["ids"]) for part in parts]

    def joined(name: str) -> npt.NDArray[Any]:
        return np.concatenate([part[name] for part in parts])

    return ShardSet(
        index=parse_index(reference["text"], "the shards' vertex index"),
        index_text=reference["text"],
        crop_size=reference["crop size"],
        margin=reference["margin"],
        split=joined("split").astype(np.uint8),
        flipped=joined("flipped").astype(bool),
        mirrored=joined("mirrored").astype(bool),
        sample_ids=np.array([name for part in parts for name in part["ids"]], object),
        keypoints68=joined("keypoints68").astype(np.float32),
        pose=joined("pose").astype(np.float32),
        expression=joined("expression").astype(np.float32),
        shards=tuple(shards),
        shard_of=np.repeat(np.arange(len(shards), dtype=np.int32), counts),
    )


def _check_same(reader: ShardReader, folder: Path, reference: dict[str, Any]) -> None:
    import json

    attributes = reader.attributes
    try:
        margin = float(json.loads(str(attributes["configuration"]))["crop"]["margin"])
        found = {
            "vertex index": str(attributes["vertex_index_fingerprint"]),
            "crop size": int(attributes["crop_size"]),
            "expression components": int(reader.array("expression").shape[1]),
        }
    except (KeyError, ValueError, TypeError, AttributeError) as error:
        raise FormatError(f"{reader.path} does not say how it was made: {error}") from error
    if not reference:
        reference.update(found | {"text": reader.vertex_index, "folder": folder, "margin": margin})
    for what, value in found.items():
        if reference[what] != value:
            raise ConfigurationError(
                f"{reader.path} has another {what} than {reference['folder']}: {str(value)[:12]}, not "
                f"{str(reference[what])[:12]}; train on builds that share it"
            )


class BatchDataset(Dataset[Batch | DensegenError]):
    """A batch by its key ``(epoch, number, rows, weight)``, as :class:`BatchSampler` makes them.

    images : (R, S, S, 3) uint8 decoded images of ``cached_rows``, instead of decoding; see :func:`decode_all`
    on_device : the trainer's device holds the images, so batches carry none

    A damaged sample comes back as the error itself, which the trainer's process raises: an
    exception that crosses from a worker process would lose its type and grow a traceback.
    """

    def __init__(
        self,
        shards: ShardSet,
        images: Tensor | None = None,
        cached_rows: npt.NDArray[np.int64] | None = None,
        on_device: bool = False,
    ) -> None:
        self.shards, self.images, self.on_device = shards, images, on_device
        self.reader = shards.open()
        self.position: npt.NDArray[np.int64] | None = None
        if images is not None and cached_rows is not None:
            self.position = np.full(len(shards), -1, np.int64)
            self.position[cached_rows] = np.arange(len(cached_rows))

    def __getitem__(self, key: Any) -> Batch | DensegenError:
        epoch, number, rows, weight = key
        try:
            landmarks = np.stack([self.reader.landmarks(int(row)) for row in rows])
            images = self._images(rows)
        except DensegenError as error:
            return error
        position = rows if self.position is None else self.position[rows]
        return {
            "images": images,
            "landmarks": torch.from_numpy(landmarks),
            "keypoints68": torch.from_numpy(self.shards.keypoints68[rows]),
            "rows": torch.from_numpy(rows),
            "position": torch.from_numpy(position),
            "weight": torch.full((len(rows),), weight),
            "epoch": epoch,
            "number": number,
        }

    def _images(self, rows: npt.NDArray[np.int64]) -> Tensor | None:
        if self.on_device:
            return None
        if self.images is not None and self.position is not None:
            return self.images[torch.from_numpy(self.position[rows])]
        return torch.from_numpy(np.stack([self.reader.image(int(row)) for row in rows]))

    def __getstate__(self) -> dict[str, Any]:
        # Another process opens its own files.
        return self.__dict__ | {"reader": None}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self.reader = self.shards.open()


class BatchSampler(Sampler[Any]):
    """The keys of an epoch's batches for this process.

    shuffle : another order every epoch, and the last, smaller batch is left out (unless it is the only one);
        otherwise all samples in order, with batches of weight 0 where the processes would not come out even
    epoch : asked when an epoch's first batch is. Being told (Lightning's ``set_epoch``) comes too late in a resumed
        run, whose workers have fetched ahead by then.
    """

    def __init__(
        self, rows: npt.NDArray[np.int64], batch_size: int, seed: int, *, shuffle: bool, rank: int = 0, world: int = 1,
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

    def __iter__(self) -> Iterator[tuple[int, int, npt.NDArray[np.int64], float]]:
        rows, epoch = self.all_rows, self.epoch()
        if self.shuffle:
            key = np.random.SeedSequence([self.seed, epoch])
            rows = rows[np.random.Generator(np.random.PCG64(key)).permutation(len(rows))]
        for step in range(self.steps):
            number = step * self.world + self.rank
            there = number < self.total
            first = (number if there else 0) * self.batch_size
            yield epoch, number, rows[first : first + self.batch_size], 1.0 if there else 0.0


def decode_all(shards: ShardSet, rows: npt.NDArray[np.int64]) -> Tensor:
    """(R, S, S, 3) uint8: the images of ``rows``, decoded once.

    Raises :class:`ConfigurationError` before anything is decoded where they do not fit into the free memory.
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
        target[number] = reader.image(int(rows[number]))

    with ThreadPoolExecutor() as threads:  # the decoder works outside the interpreter's lock
        list(threads.map(decode, range(len(rows)), chunksize=64))
    reader.close()
    return images


def _free_memory() -> int | None:
    """Bytes that processes can still take, where the system says so."""
    try:
        for line in Path("/proc/meminfo").read_text(encoding="ascii").splitlines():
            if line.startswith("MemAvailable:"):
                return int(line.split()[1]) * 1024
    except OSError:
        pass
    return None
