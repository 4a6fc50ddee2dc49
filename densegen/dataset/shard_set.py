"""The samples of one or several finished builds as one sequence, read where they lie in the files."""

from __future__ import annotations

import operator
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Literal, overload

import numpy as np
import numpy.typing as npt

from densegen.arrays import Float32, Image, Int64, Mask, UInt8
from densegen.conventions import SPLITS
from densegen.dataset.agreement import check_alike, check_different, check_splits
from densegen.dataset.build_record import ShardRecord, read_dataset_manifest
from densegen.dataset.pipeline import BATCH
from densegen.dataset.rebuild import MapRenderer, StoredFit, check_model
from densegen.dataset.row_reader import RowReader, ShardPlace
from densegen.dataset.sample_index import SampleIndex, open_samples, shards_fingerprint
from densegen.dataset.texts import Texts
from densegen.errors import ConfigurationError, FormatError, did_you_mean
from densegen.face.morphable_model import MorphableModel
from densegen.geometry.crop import Crop
from densegen.geometry.flip import flip_image
from densegen.geometry.position_map import decode_fixed_point
from densegen.index.vertex_index import VertexIndex, parse_index
from densegen.sources.fits import Fit

__all__ = ["ShardSet", "StoredSample", "Subset", "open_dataset"]


@dataclass(frozen=True, slots=True, eq=False, repr=False)
class StoredSample:
    """A sample, as a shard holds it.

    sample_id : unique in its dataset; a mirrored sample's ends in ``+mirror``
    split : one of ``conventions.SPLITS``
    mirrored : whether it is the mirror image of another sample
    image : (H, W, 3) uint8 RGB, the crop
    landmarks : (N, 3) float32, pixels, crop frame
    keypoints68 : (68, 3) float32, pixels, crop frame, iBUG order
    pose : (7,) float32, ``conventions.POSE_FIELDS``; of a mirrored sample, the pose of the fit as it was
    position_map : (256, 256, 3) float32, pixels, crop frame, 0 if not valid; None if the set was opened without
    valid_uv : (256, 256) bool, the valid pixels of the position map, or None
    """

    sample_id: str
    split: str
    mirrored: bool
    image: Image
    landmarks: Float32
    keypoints68: Float32
    pose: Float32
    position_map: Float32 | None = None
    valid_uv: Mask | None = None

    def __repr__(self) -> str:
        return f"<StoredSample {self.sample_id} of the split {self.split}>"


class _Samples(ABC):
    """What :class:`ShardSet` and :class:`Subset` share: length, access by number and slice, iteration, order."""

    @abstractmethod
    def __len__(self) -> int: ...

    def __repr__(self) -> str:
        return f"<{type(self).__name__} of {len(self):,} samples>"

    def __iter__(self) -> Iterator[StoredSample]:
        return self._read(np.arange(len(self)))

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
        return next(self._read(np.array([place % len(self)])))

    def shuffled(self, seed: int, epoch: int = 0) -> Subset:
        """The same samples in an order that is a function of ``seed`` and ``epoch``."""
        generator = np.random.Generator(np.random.PCG64(np.random.SeedSequence([seed, epoch])))
        return self._take(generator.permutation(len(self)))

    @abstractmethod
    def _read(self, numbers: Int64) -> Iterator[StoredSample]: ...

    @abstractmethod
    def _take(self, numbers: Int64) -> Subset: ...


@dataclass(frozen=True, eq=False, repr=False)
class Subset(_Samples):
    """Some samples of a :class:`ShardSet`, in an order of their own; made by :meth:`ShardSet.of_split`, by a slice, or
    by ``shuffled``.

    rows : (n,) int64, places in ``whole``
    """

    whole: ShardSet
    rows: Int64

    def __len__(self) -> int:
        return len(self.rows)

    def _read(self, numbers: Int64) -> Iterator[StoredSample]:
        return self.whole._read(self.rows[numbers])

    def _take(self, numbers: Int64) -> Subset:
        return Subset(self.whole, self.rows[numbers])


@dataclass(frozen=True, eq=False, repr=False)
class ShardSet(_Samples):
    """All samples of one or several builds: a sequence of :class:`StoredSample`, in the order of the shards.

    A sample is read when it is asked for: three reads from its file and a JPEG to decode, and two more for a stored
    position map. Threads may share one, and a copy sent to another process opens its own files. An error in one sample
    does not end an iteration, unless position maps are rendered.

    index : the vertex index that they share
    index_text : its file
    crop_size : H and W of the crops
    margin : a crop's side in units of the face box's mean side
    datasets : the names of the datasets
    fingerprint : SHA-256 over all shards
    split : (S,) uint8, position in ``conventions.SPLITS``
    flipped : (S,) bool, a mirror image
    mirrored : (S,) bool, mirrored by densegen: ``pose`` is that of the unmirrored fit
    sample_ids : S texts
    pose : (S, 7) float32, ``conventions.POSE_FIELDS``, camera frame; of the unmirrored fit
    places : for each shard, the file and the byte offsets of its samples
    position_maps : "stored" to read the maps of the shards, a renderer to compute them, None for samples without maps
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
    sample_ids: Texts
    pose: Float32
    places: tuple[ShardPlace, ...]
    position_maps: Literal["stored"] | MapRenderer | None = None

    def __len__(self) -> int:
        return len(self.split)

    @cached_property
    def _reader(self) -> RowReader:
        return self.open()

    def __getstate__(self) -> dict[str, Any]:
        held = ("_reader", "keypoints68", "expression")
        return {name: value for name, value in self.__dict__.items() if name not in held}

    @cached_property
    def keypoints68(self) -> Float32:
        """(S, 68, 3) float32, pixels, crop frame, iBUG order; of all samples, read when it is first asked for."""
        return np.stack([self._reader.keypoints68(number) for number in range(len(self))])

    @cached_property
    def expression(self) -> Float32:
        """(S, Ke) float32, raw coefficients; of all samples, read when it is first asked for."""
        return np.stack([self._reader.expression(number) for number in range(len(self))])

    def _read(self, numbers: Int64) -> Iterator[StoredSample]:
        if isinstance(self.position_maps, MapRenderer):
            return self._read_and_render(numbers.tolist(), self.position_maps)
        return map(self._sample, numbers.tolist())

    def _read_and_render(self, numbers: list[int], renderer: MapRenderer) -> Iterator[StoredSample]:
        for start in range(0, len(numbers), BATCH):
            batch = numbers[start : start + BATCH]
            for number, rendered in zip(batch, renderer.render([self._fit(n) for n in batch]), strict=True):
                yield self._sample(number, rendered)

    def _sample(self, number: int, rendered: tuple[Float32, Mask] | None = None) -> StoredSample:
        mapped = self._stored_map(number) if self.position_maps == "stored" else rendered
        position_map, valid_uv = mapped or (None, None)
        return StoredSample(
            sample_id=self.sample_ids[number],
            split=SPLITS[self.split[number]],
            mirrored=bool(self.mirrored[number]),
            image=self._reader.image(number),
            landmarks=self._reader.landmarks(number),
            keypoints68=self._reader.keypoints68(number),
            pose=self.pose[number],
            position_map=position_map,
            valid_uv=valid_uv,
        )

    def _stored_map(self, number: int) -> tuple[Float32, Mask]:
        encoded, valid = self._reader.position_map(number)
        valid = flip_image(valid) if self.mirrored[number] else valid
        return decode_fixed_point(encoded, valid, self.crop_size), valid

    def _fit(self, number: int) -> StoredFit:
        shape, crop, size = self._reader.fit(number)
        fit = Fit(self.pose[number], shape, self._reader.expression(number))
        return StoredFit(fit, Crop.from_array(crop, self.crop_size), size, bool(self.mirrored[number]))

    def _take(self, numbers: Int64) -> Subset:
        return Subset(self, numbers)

    def of_split(self, split: str) -> Subset:
        """The samples of ``train``, ``validation`` or ``test``; raises what :meth:`rows` raises."""
        return Subset(self, self.rows(split))

    def rows(self, split: str) -> Int64:
        """(n,) int64 places of a split's samples; raises :class:`ConfigurationError` if there are none, or there is no
        such split.
        """
        if split not in SPLITS:
            meant = did_you_mean(str(split), SPLITS)
            raise ConfigurationError(f"there is no split {split!r}: {', '.join(SPLITS)}{meant}")
        rows = np.flatnonzero(self.split == SPLITS.index(split)).astype(np.int64)
        if not rows.size:
            raise ConfigurationError(
                f"the shards hold no sample of the split {split!r}: their manifest gives it no share, or the build has "
                "too few fits"
            )
        return rows

    def open(self) -> RowReader:
        """A reader of single samples; each process opens its own."""
        return RowReader(self.places)


def open_dataset(folder: str | Path, *more: str | Path, position_maps: bool | MorphableModel = False) -> ShardSet:
    """Finished builds, the folders of ``densegen build``, as one sequence of samples.

    What all shards say, and where their samples lie, is read now; images and landmarks are read when they are asked
    for.

    position_maps : give samples their position maps, too: ``True`` reads those that the build stored, a model renders
        them anew, as the build would have; iterating renders several at once and is several times faster than ``[n]``

    Raises :class:`FormatError` if a shard is missing (one that is damaged or cut shows when it is read),
    :class:`ConfigurationError` if the builds hold no samples, differ in vertex index, crop size, margin or number of
    expression components, have put a photograph into different splits, are given twice, hold no position maps, or were
    made with another model.
    """
    folders = [Path(one) for one in (folder, *more)]
    check_different(folders)
    opened, places = list[SampleIndex](), list[ShardPlace]()
    all_records = list[ShardRecord]()
    for path in folders:
        records = read_dataset_manifest(path).filled
        opened.append(open_samples(path, records))
        places += opened[-1].places(path, records, sum(map(len, opened[:-1])))
        all_records += records
    check_alike(opened, folders)
    check_splits(opened, folders, places)
    about = opened[0].about
    index = parse_index(about.vertex_index, f"the vertex index of {folders[0]}")
    for path, one in zip(folders, opened, strict=True):
        if (count := one.about.counts[0]) != len(index):
            raise FormatError(f"{path}: samples have {count} landmarks, their vertex index {len(index)}")

    def joined(name: str) -> npt.NDArray[Any]:
        arrays = [getattr(one, name) for one in opened]
        return np.concatenate(arrays) if len(arrays) > 1 else arrays[0]

    return ShardSet(
        index=index,
        index_text=about.vertex_index,
        crop_size=about.crop_size,
        margin=about.margin,
        datasets=tuple(dict.fromkeys(one.about.dataset for one in opened)),
        fingerprint=shards_fingerprint(all_records),
        split=joined("split"),
        flipped=joined("flipped"),
        mirrored=joined("mirrored"),
        sample_ids=Texts.joined([one.sample_ids for one in opened]),
        pose=joined("pose"),
        places=tuple(places),
        position_maps=_map_source(opened, folders, position_maps),
    )


def _map_source(
    opened: Sequence[SampleIndex], folders: Sequence[Path], position_maps: bool | MorphableModel
) -> Literal["stored"] | MapRenderer | None:
    if not isinstance(position_maps, bool | MorphableModel):
        raise ConfigurationError(f"position_maps is True, False or a model from read_model, not {position_maps!r}")
    if isinstance(position_maps, MorphableModel):
        for path, one in zip(folders, opened, strict=True):
            check_model(path, one.about.model_name, one.about.model_fingerprint, position_maps)
        return MapRenderer(position_maps)
    if not position_maps:
        return None
    if lacking := [path for path, one in zip(folders, opened, strict=True) if not one.about.has_position_maps]:
        raise ConfigurationError(
            f"{lacking[0]} holds no position maps: build with --position-maps, or give the model to render them"
        )
    return "stored"
