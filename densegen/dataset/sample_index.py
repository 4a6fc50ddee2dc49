"""What is known of all samples of a build, and where each lies: gathered from its shards, or read from one file.

``samples.safetensors`` lies beside the shards, so that a set of thousands of them opens with one read; its arrays are
mapped, and processes on one machine share them. A build without the file, or with one of other shards, opens shard by
shard.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import numpy.typing as npt
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from densegen.arrays import Float32, Int64, Mask, UInt8
from densegen.conventions import POSE_FIELDS, SPLITS
from densegen.dataset.build_record import ShardRecord
from densegen.dataset.row_reader import ShardPlace
from densegen.dataset.shards import LARGEST_MAP, MAX_CROP_SIZE, ShardReader, largest_image
from densegen.dataset.texts import Texts
from densegen.errors import ConfigurationError, FormatError
from densegen.files import write_bytes
from densegen.tensors import map_tensors

__all__ = [
    "SAMPLES",
    "About",
    "SampleIndex",
    "ShardSamples",
    "encode_samples",
    "gather_samples",
    "join_samples",
    "open_samples",
    "samples_of",
    "shards_fingerprint",
    "write_samples",
]

SAMPLES = "samples.safetensors"

_READ_LATER = ("image/bytes", "landmarks", "keypoints68", "shape", "expression", "crop", "image_size")
_MAPS = ("position_map/bytes", "valid_uv")

Count = Annotated[int, Field(ge=0)]


class About(BaseModel):
    """What all shards of a build share.

    counts : landmarks, shape components and expression components of every sample
    shards : :func:`shards_fingerprint` of those that the index is of
    """

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    dataset: str
    vertex_index: str
    vertex_index_fingerprint: str
    crop_size: Annotated[int, Field(ge=1, le=MAX_CROP_SIZE)]
    margin: float
    model_name: str
    model_fingerprint: str
    counts: tuple[Count, Count, Count]
    has_position_maps: bool
    shards: str = ""


@dataclass(frozen=True, slots=True, eq=False)
class SampleIndex:
    """The S samples of a build in M shards that hold any, in order.

    split : (S,) uint8, position in ``conventions.SPLITS``
    flipped, mirrored : (S,) bool
    pose : (S, 7) float32, ``conventions.POSE_FIELDS``
    group : (S,) int64, a number for each photograph and dataset, 64 bits of a SHA-256 over their names
    id_bytes, id_offsets : the sample ids, see :class:`Texts`
    image_offsets : (S + M,) int64, those of each shard in turn
    position_map_offsets : the same, or (0,) without position maps
    at : (M, D) int64, where the datasets that are read later begin in each shard, bytes
    """

    about: About
    split: UInt8
    flipped: Mask
    mirrored: Mask
    pose: Float32
    group: Int64
    id_bytes: UInt8
    id_offsets: Int64
    image_offsets: Int64
    position_map_offsets: Int64
    at: Int64

    def __len__(self) -> int:
        return len(self.split)

    @property
    def sample_ids(self) -> Texts:
        return Texts(self.id_bytes, self.id_offsets)

    def places(self, folder: Path, records: Sequence[ShardRecord], first: int) -> list[ShardPlace]:
        """Where the samples of each shard lie, numbered from ``first`` on."""
        names, ids = _read_later(self.about.has_position_maps), self.sample_ids
        made, start = list[ShardPlace](), 0
        for number, record in enumerate(records):
            stop = start + record.samples
            offsets = slice(start + number, stop + number + 1)
            made.append(
                ShardPlace(
                    path=folder / record.file,
                    bytes=record.bytes,
                    first=first + start,
                    sample_ids=ids[start:stop],
                    crop_size=self.about.crop_size,
                    counts=self.about.counts,
                    image_offsets=self.image_offsets[offsets],
                    position_map_offsets=self.position_map_offsets[offsets] if self.about.has_position_maps else None,
                    at=dict(zip(names, self.at[number].tolist(), strict=True)),
                )
            )
            start = stop
        return made


_TENSORS = {
    "split": "U8", "flipped": "BOOL", "mirrored": "BOOL", "pose": "F32", "group": "I64", "id_bytes": "U8",
    "id_offsets": "I64", "image_offsets": "I64", "position_map_offsets": "I64", "at": "I64",
}  # fmt: skip
"""The arrays of an index by safetensors' names of their types."""


def open_samples(folder: Path, records: Sequence[ShardRecord]) -> SampleIndex:
    """The index of a finished build, from its file, or from the shards if there is none that belongs to them.

    records : of the shards that hold samples, :attr:`DatasetManifest.filled`

    Raises :class:`FormatError` if a shard is missing and, without the file, what :func:`gather_samples` raises;
    :class:`ConfigurationError` if the shards hold no samples.
    """
    there = {path.name for path in folder.iterdir()}
    if missing := [record.file for record in records if record.file not in there]:
        raise FormatError(f"{folder / missing[0]} is missing: finish the build, or run 'densegen verify'")
    read = _read_file(folder / SAMPLES, records) if SAMPLES in there else None
    return gather_samples(folder, records) if read is None else read


def gather_samples(folder: Path, records: Sequence[ShardRecord]) -> SampleIndex:
    """The index of a finished build from its shards.

    Raises :class:`FormatError` if one is damaged, or has another size than its record says,
    :class:`ConfigurationError` if there are none.
    """
    parts: list[ShardSamples] = []
    for record in records:
        path = folder / record.file
        if (size := path.stat().st_size) != record.bytes:
            raise FormatError(f"{path} has {size:,} bytes, its manifest says {record.bytes:,}")
        with ShardReader(path) as reader:
            parts.append(samples_of(reader, record, parts[0].about if parts else None))
    return join_samples(folder, parts, records)


@dataclass(frozen=True, eq=False)
class ShardSamples:
    """What one shard adds to an index."""

    about: About
    arrays: dict[str, npt.NDArray[Any]]
    ids: list[str]


def samples_of(reader: ShardReader, record: ShardRecord, known: About | None = None) -> ShardSamples:
    """What a shard adds to an index; ``known`` is of another shard, whose text of the vertex index is not read again.

    Raises :class:`FormatError` if the shard is damaged, or holds another number of samples than its record says.
    """
    if len(reader) != record.samples:
        raise FormatError(f"{reader.path} holds {len(reader):,} samples, its manifest says {record.samples:,}")
    about = _about(reader, known)
    return ShardSamples(about, _arrays(reader, about), reader.sample_ids)


def join_samples(folder: Path, parts: Sequence[ShardSamples], records: Sequence[ShardRecord]) -> SampleIndex:
    """The index of the shards that hold samples, in their order.

    Raises :class:`FormatError` if they were not made by one build, :class:`ConfigurationError` if there are none.
    """
    if not parts:
        raise ConfigurationError(f"{folder}: the shards hold no samples")
    for part, record in zip(parts, records, strict=True):
        if part.about != parts[0].about:
            raise FormatError(
                f"{folder / record.file} was not made by the build that its manifest names: build it again"
            )
    texts = Texts.of([sample_id for part in parts for sample_id in part.ids])
    joined = {name: np.concatenate([part.arrays[name] for part in parts]) for name in parts[0].arrays}
    about = parts[0].about.model_copy(update={"shards": shards_fingerprint(records)})
    return SampleIndex(about=about, id_bytes=texts.data, id_offsets=texts.offsets, **joined)


def encode_samples(index: SampleIndex) -> bytes:
    """The bytes of ``samples.safetensors``, a function of the index alone."""
    from safetensors.numpy import save

    arrays = {name: np.ascontiguousarray(getattr(index, name)) for name in _TENSORS}
    encoded: bytes = save(arrays, metadata={"densegen samples": index.about.model_dump_json()})
    return encoded


def write_samples(index: SampleIndex, folder: Path) -> None:
    """Write ``samples.safetensors``, whole or not at all."""
    write_bytes(folder / SAMPLES, encode_samples(index))


def _read_file(path: Path, records: Sequence[ShardRecord]) -> SampleIndex | None:
    """The index in a file; None if it is damaged, or of other shards."""
    try:
        arrays, metadata = map_tensors(path, _TENSORS)
        about = About.model_validate_json(metadata["densegen samples"])
    except (FormatError, ValidationError, KeyError):
        return None
    if about.shards != shards_fingerprint(records):
        return None
    index = SampleIndex(about=about, **arrays)
    return index if _is_sound(index, records) else None


def _is_sound(index: SampleIndex, records: Sequence[ShardRecord]) -> bool:
    """Whether the arrays have the shapes that belong together, and lead to no sample larger than can be."""
    samples, shards = sum(record.samples for record in records), len(records)
    names = _read_later(index.about.has_position_maps)
    expected = {
        "split": (samples,),
        "flipped": (samples,),
        "mirrored": (samples,),
        "pose": (samples, len(POSE_FIELDS)),
        "group": (samples,),
        "id_bytes": index.id_bytes.shape[:1],
        "id_offsets": (samples + 1,),
        "image_offsets": (samples + shards,),
        "position_map_offsets": (samples + shards if index.about.has_position_maps else 0,),
        "at": (shards, len(names)),
    }
    if any(getattr(index, name).shape != shape for name, shape in expected.items()):
        return False
    sizes = np.array([record.bytes for record in records], np.int64)
    rows = np.cumsum([record.samples + 1 for record in records])[:-1] - 1  # where one shard's offsets end

    def leads_on(offsets: Int64, largest: int) -> bool:
        steps = np.delete(np.diff(offsets), rows)
        return bool((offsets >= 0).all() and (steps >= 0).all() and (steps <= largest).all())

    return (
        leads_on(index.image_offsets, largest_image(index.about.crop_size))
        and (not index.about.has_position_maps or leads_on(index.position_map_offsets, LARGEST_MAP))
        and _are_plain(index.id_bytes, index.id_offsets)
        and bool((index.at >= 0).all() and (index.at <= sizes[:, None]).all())
        and bool((index.split < len(SPLITS)).all() and np.isfinite(index.pose).all())
    )


def _are_plain(data: UInt8, offsets: Int64) -> bool:
    """Whether texts can stand in paths: what could lead out of a folder has its shards asked, which know better."""
    if (offsets < 0).any() or (offsets > len(data)).any() or (np.diff(offsets) <= 0).any():
        return False
    if offsets[0] != 0 or offsets[-1] != len(data) or (data[offsets[:-1]] & 0xC0 == 0x80).any():
        return False
    try:
        bytes(data).decode()
    except UnicodeDecodeError:
        return False
    starts, last = offsets[:-1], len(data) - 1
    return not (
        np.isin(data, np.frombuffer(b"\\\0", np.uint8)).any()
        or ((data[1:] == ord(".")) & (data[:-1] == ord("."))).any()
        or (data[starts] == ord("/")).any()
        or (data[np.minimum(starts + 1, last)] == ord(":")).any()
    )


def shards_fingerprint(records: Sequence[ShardRecord]) -> str:
    """SHA-256 over those of the shards, as hexadecimal."""
    return hashlib.sha256("".join(record.sha256 for record in records).encode()).hexdigest()


def _read_later(with_maps: bool) -> tuple[str, ...]:
    return (*_READ_LATER, *(_MAPS if with_maps else ()))


def _about(reader: ShardReader, known: About | None) -> About:
    """``known`` has the text of the vertex index already, if the fingerprints agree."""
    attributes = reader.attributes
    fingerprint = str(attributes["vertex_index_fingerprint"])
    is_known = known is not None and known.vertex_index_fingerprint == fingerprint
    try:
        return About(
            dataset=str(attributes["dataset"]),
            vertex_index=known.vertex_index if known is not None and is_known else reader.vertex_index,
            vertex_index_fingerprint=fingerprint,
            crop_size=int(attributes["crop_size"]),
            margin=float(json.loads(str(attributes["configuration"]))["crop"]["margin"]),
            model_name=str(attributes["model_name"]),
            model_fingerprint=str(attributes["model_fingerprint"]),
            counts=reader.counts,
            has_position_maps=reader.has_position_maps,
        )
    except (KeyError, ValueError, TypeError, AttributeError, RecursionError) as error:
        raise FormatError(f"{reader.path} does not say how it was made: {error}") from error


def _arrays(reader: ShardReader, about: About) -> dict[str, npt.NDArray[Any]]:
    pose = reader.array("pose")
    bad = ~np.isfinite(pose).all(axis=1)
    if bad.any():
        sample = reader.sample_ids[int(np.argmax(bad))]
        raise FormatError(f"{reader.path}: pose of {sample} is not finite: run 'densegen verify'")
    _ = reader.splits  # refuses a number that names none
    return {
        "split": reader.array("split").astype(np.uint8),
        "flipped": reader.array("flipped").astype(bool),
        "mirrored": reader.array("mirrored").astype(bool),
        "pose": pose.astype(np.float32),
        "group": np.array([_number(about.dataset, group) for group in reader.groups], np.int64),
        "image_offsets": reader.image_offsets.astype(np.int64),
        "position_map_offsets": (
            reader.position_map_offsets.astype(np.int64) if about.has_position_maps else np.empty(0, np.int64)
        ),
        "at": np.array([[reader.byte_offset(name) for name in _read_later(about.has_position_maps)]], np.int64),
    }


def _number(dataset: str, group: str) -> int:
    digest = hashlib.sha256(f"{dataset}\n{group}".encode()).digest()
    return int.from_bytes(digest[:8], "little", signed=True)


assert {field.name for field in fields(SampleIndex)} == {"about", *_TENSORS}
