"""The samples of one or several finished builds as one sequence, read where they lie in the files."""

from __future__ import annotations

import hashlib
import json
import operator
import os
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, overload

import numpy as np
import numpy.typing as npt

from densegen.arrays import Float32, Image, Int32, Int64, Mask, UInt8
from densegen.conventions import SPLITS
from densegen.dataset.build_record import read_dataset_manifest
from densegen.dataset.shards import ShardReader, decode_crop
from densegen.errors import ConfigurationError, FormatError
from densegen.index.vertex_index import VertexIndex, parse_index

__all__ = ["RowReader", "ShardSet", "StoredSample", "Subset", "open_dataset"]


@dataclass(frozen=True, slots=True, eq=False)
class _Shard:
    path: Path
    first: int
    image_offsets: Int64
    image_at: int
    landmarks_at: int


@dataclass(frozen=True, slots=True, eq=False)
class StoredSample:
    """A sample, as a shard holds it.

    sample_id : unique in its dataset; a mirrored sample's ends in ``+mirror``
    split : one of ``conventions.SPLITS``
    mirrored : whether it is the mirror image of another sample
    image : (H, W, 3) uint8 RGB, the crop
    landmarks : (N, 3) float32, pixels, crop frame
    keypoints68 : (68, 3) float32, pixels, crop frame, iBUG order
    pose : (7,) float32, ``conventions.POSE_FIELDS``; of a mirrored sample, the pose of the fit as it was
    """

    sample_id: str
    split: str
    mirrored: bool
    image: Image
    landmarks: Float32
    keypoints68: Float32
    pose: Float32


class _Samples(ABC):
    """What :class:`ShardSet` and :class:`Subset` share: length, access by number and slice, iteration, order."""

    @abstractmethod
    def __len__(self) -> int: ...

    def __iter__(self) -> Iterator[StoredSample]:
        return map(self._sample, range(len(self)))

    @overload
    def __getitem__(self, number: int) -> StoredSample: ...
    @overload
    def __getitem__(self, number: slice) -> Subset: ...
    def __getitem__(self, number: int | slice) -> StoredSample | Subset:
        if isinstance(number, slice):
            return self._take(np.arange(len(self), dtype=np.int64)[number])
        place = operator.index(number)
        if not -len(self) <= place < len(self):
            raise IndexError(f"sample {place} of {len(self):,}")
        return self._sample(place % len(self))

    def shuffled(self, seed: int, epoch: int = 0) -> Subset:
        """The same samples in an order that is a function of ``seed`` and ``epoch``."""
        generator = np.random.Generator(np.random.PCG64(np.random.SeedSequence([seed, epoch])))
        return self._take(generator.permutation(len(self)))

    @abstractmethod
    def _sample(self, number: int) -> StoredSample: ...

    @abstractmethod
    def _take(self, numbers: Int64) -> Subset: ...


@dataclass(frozen=True, eq=False)
class Subset(_Samples):
    """Some samples of a :class:`ShardSet`, in an order of their own; made by :meth:`ShardSet.of_split`, by a slice, or
    by ``shuffled``.

    rows : (n,) int64, places in ``whole``
    """

    whole: ShardSet
    rows: Int64

    def __len__(self) -> int:
        return len(self.rows)

    def _sample(self, number: int) -> StoredSample:
        return self.whole[int(self.rows[number])]

    def _take(self, numbers: Int64) -> Subset:
        return Subset(self.whole, self.rows[numbers])


@dataclass(frozen=True, eq=False)
class ShardSet(_Samples):
    """All samples of one or several builds: a sequence of :class:`StoredSample`, in the order of the shards.

    A sample is read when it is asked for: two reads from its file and a JPEG to decode. Threads may share one, and a
    copy sent to another process opens its own files.

    index : the vertex index that they share
    index_text : its file
    crop_size : H and W of the crops
    margin : a crop's side in units of the face box's mean side
    datasets : the names of the datasets
    fingerprint : SHA-256 over all shards
    split : (S,) uint8, position in ``conventions.SPLITS``
    flipped : (S,) bool, a mirror image
    mirrored : (S,) bool, mirrored by densegen: ``pose`` is that of the unmirrored fit
    sample_ids : (S,) text
    keypoints68 : (S, 68, 3) float32, pixels, crop frame, iBUG order
    pose : (S, 7) float32
    expression : (S, Ke) float32
    """

    index: VertexIndex
    index_text: str
    crop_size: int
    margin: float
    datasets: tuple[str, ...]
    fingerprint: str
    split: UInt8
    flipped: Mask
    mirrored: Mask
    sample_ids: npt.NDArray[np.object_]
    keypoints68: Float32
    pose: Float32
    expression: Float32
    shards: tuple[_Shard, ...]
    shard_of: Int32

    def __len__(self) -> int:
        return len(self.split)

    @cached_property
    def _reader(self) -> RowReader:
        return self.open()

    def __getstate__(self) -> dict[str, Any]:
        return {name: value for name, value in self.__dict__.items() if name != "_reader"}

    def _sample(self, number: int) -> StoredSample:
        return StoredSample(
            sample_id=str(self.sample_ids[number]),
            split=SPLITS[self.split[number]],
            mirrored=bool(self.mirrored[number]),
            image=self._reader.image(number),
            landmarks=self._reader.landmarks(number),
            keypoints68=self.keypoints68[number],
            pose=self.pose[number],
        )

    def _take(self, numbers: Int64) -> Subset:
        return Subset(self, numbers)

    def of_split(self, split: str) -> Subset:
        """The samples of ``train``, ``validation`` or ``test``; raises what :meth:`rows` raises."""
        return Subset(self, self.rows(split))

    def rows(self, split: str) -> Int64:
        """(n,) int64 places of a split's samples; raises :class:`ConfigurationError` if there are none."""
        rows = np.flatnonzero(self.split == SPLITS.index(split)).astype(np.int64)
        if not rows.size:
            raise ConfigurationError(
                f"the shards hold no sample of the split {split!r}: their manifest gives it no share, or the build has "
                "too few fits"
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

    def image(self, row: int) -> Image:
        """(S, S, 3) uint8, RGB; raises :class:`FormatError`, naming shard and sample, if it is damaged."""
        return decode_crop(self.jpeg(row), self.shards.crop_size, self._name(row))

    def landmarks(self, row: int) -> Float32:
        """(N, 3) float32, pixels, crop frame."""
        number = int(self.shards.shard_of[row])
        shard, count = self.shards.shards[number], len(self.shards.index)
        data = self._read(number, shard.landmarks_at + (row - shard.first) * count * 12, count * 12, row)
        landmarks = np.frombuffer(data, "<f4").reshape(count, 3)
        if not np.isfinite(landmarks).all():
            raise FormatError(f"{self._name(row)} has landmarks that are not finite: run 'densegen verify'")
        return landmarks

    def _read(self, number: int, offset: int, size: int, row: int) -> bytes:
        try:
            data = os.pread(self._file(number), size, offset)
        except OSError as error:
            raise FormatError(f"{self._name(row)} cannot be read: {error.strerror}") from error
        if len(data) < size:
            raise FormatError(f"{self._name(row)} lies behind the end of its file: run 'densegen verify'")
        return data

    def _file(self, number: int) -> int:
        if number not in self.files:
            opened = os.open(self.shards.shards[number].path, os.O_RDONLY)
            if self.files.setdefault(number, opened) != opened:  # another thread was faster
                os.close(opened)
        return self.files[number]

    def _name(self, row: int) -> str:
        shard = self.shards.shards[int(self.shards.shard_of[row])]
        return f"{shard.path.name}: sample {self.shards.sample_ids[row]}"

    def close(self) -> None:
        for file in self.files.values():
            os.close(file)
        self.files.clear()


def open_dataset(folder: str | Path, *more: str | Path) -> ShardSet:
    """Finished builds, the folders of ``densegen build``, as one sequence of samples.

    What all shards say, and where their samples lie, is read now; images and landmarks are read when they are asked
    for.

    Raises :class:`FormatError` if a shard is damaged or has another size than its manifest says,
    :class:`ConfigurationError` if the builds hold no samples, differ in vertex index, crop size, margin or number of
    expression components, have put a photograph into different splits, or are given twice.
    """
    paths = [Path(one) for one in (folder, *more)]
    _check_different(paths)
    names = ", ".join(map(str, paths))
    opened = _open_readers(paths)
    if not opened:
        raise ConfigurationError(f"{names}: the shards hold no samples")
    common = opened[0].common
    for one in opened[1:]:
        common.check(one.common, one.path, opened[0].path)
    _check_splits(opened)
    firsts = np.cumsum([0, *(len(one.sample_ids) for one in opened)])

    def joined(name: str) -> npt.NDArray[Any]:
        return np.concatenate([one.arrays[name] for one in opened])

    text = opened[0].vertex_index
    index = parse_index(text, f"the vertex index of {opened[0].path}")
    for one in opened:
        if one.landmarks != len(index):
            raise FormatError(f"{one.path} has {one.landmarks} landmarks, its vertex index {len(index)}")
    return ShardSet(
        index=index,
        index_text=text,
        crop_size=common.crop_size,
        margin=common.margin,
        datasets=tuple(dict.fromkeys(one.dataset for one in opened)),
        fingerprint=hashlib.sha256("".join(one.sha256 for one in opened).encode()).hexdigest(),
        split=joined("split").astype(np.uint8),
        flipped=joined("flipped").astype(bool),
        mirrored=joined("mirrored").astype(bool),
        sample_ids=np.array([name for one in opened for name in one.sample_ids], object),
        keypoints68=joined("keypoints68").astype(np.float32),
        pose=joined("pose").astype(np.float32),
        expression=joined("expression").astype(np.float32),
        shards=tuple(
            _Shard(one.path, int(first), one.image_offsets, one.image_at, one.landmarks_at)
            for one, first in zip(opened, firsts, strict=False)
        ),
        shard_of=np.repeat(np.arange(len(opened), dtype=np.int32), np.diff(firsts)),
    )


def _check_different(folders: Sequence[Path]) -> None:
    """A build given twice would count each of its samples twice."""
    resolved = [folder.resolve() for folder in folders]
    for folder, path in zip(folders, resolved, strict=True):
        if resolved.count(path) > 1:
            raise ConfigurationError(f"{folder} is given twice")


_KEPT = ("split", "flipped", "mirrored", "keypoints68", "pose", "expression")


@dataclass(frozen=True, slots=True)
class _Common:
    """What all shards of a set share."""

    vertex_index: str
    crop_size: int
    margin: float
    expression_components: int

    def check(self, other: _Common, path: Path, reference: Path) -> None:
        for name in self.__slots__:
            mine, theirs = getattr(self, name), getattr(other, name)
            if mine != theirs:
                raise ConfigurationError(
                    f"{path} has another {name.replace('_', ' ')} than {reference}: {str(theirs)[:12]}, not "
                    f"{str(mine)[:12]}; train on builds that share it"
                )


@dataclass(frozen=True, slots=True, eq=False)
class _Opened:
    """What is kept of a shard when it is closed again."""

    path: Path
    sha256: str
    dataset: str
    common: _Common
    landmarks: int
    vertex_index: str
    sample_ids: list[str]
    groups: list[str]
    splits: list[str]
    arrays: dict[str, npt.NDArray[Any]]
    image_offsets: Int64
    image_at: int
    landmarks_at: int


def _open_readers(folders: Sequence[Path]) -> list[_Opened]:
    """Every shard that holds samples, in order."""
    opened: list[_Opened] = []
    for folder in folders:
        for record in read_dataset_manifest(folder).shards:
            path = folder / record.file
            if not path.is_file():
                raise FormatError(f"{path} is missing: finish the build, or run 'densegen verify'")
            if (size := path.stat().st_size) != record.bytes:
                raise FormatError(f"{path} has {size:,} bytes, its manifest says {record.bytes:,}")
            with ShardReader(path) as reader:
                if len(reader):
                    opened.append(_read(reader, record.sha256))
    return opened


def _read(reader: ShardReader, sha256: str) -> _Opened:
    attributes, counts = reader.attributes, reader.counts
    try:
        common = _Common(
            vertex_index=str(attributes["vertex_index_fingerprint"]),
            crop_size=int(attributes["crop_size"]),
            margin=float(json.loads(str(attributes["configuration"]))["crop"]["margin"]),
            expression_components=counts[2],
        )
        dataset = str(attributes["dataset"])
    except (KeyError, ValueError, TypeError, AttributeError, RecursionError) as error:
        raise FormatError(f"{reader.path} does not say how it was made: {error}") from error
    arrays = {name: reader.array(name) for name in _KEPT}
    for name in ("keypoints68", "pose", "expression"):
        bad = ~np.isfinite(arrays[name]).reshape(len(arrays[name]), -1).all(axis=1)
        if bad.any():
            sample = reader.sample_ids[int(np.argmax(bad))]
            raise FormatError(f"{reader.path}: {name} of {sample} is not finite: run 'densegen verify'")
    return _Opened(
        path=reader.path,
        sha256=sha256,
        dataset=dataset,
        common=common,
        landmarks=counts[0],
        vertex_index=reader.vertex_index,
        sample_ids=reader.sample_ids,
        groups=reader.groups,
        splits=reader.splits,
        arrays=arrays,
        image_offsets=reader.image_offsets,
        image_at=reader.byte_offset("image/bytes"),
        landmarks_at=reader.byte_offset("landmarks"),
    )


def _check_splits(opened: Sequence[_Opened]) -> None:
    """A photograph that one build trains on and another validates on would make the validation worthless."""
    split_of: dict[tuple[str, str], tuple[str, Path]] = {}
    for one in opened:
        for group, split in zip(one.groups, one.splits, strict=True):
            other, where = split_of.setdefault((one.dataset, group), (split, one.path.parent))
            if other != split:
                raise ConfigurationError(
                    f"the photograph {group} of {one.dataset} is in {split} in {one.path.parent}, in {other} in "
                    f"{where}: build both with the same split, or give manifests of different photographs different "
                    "names"
                )
