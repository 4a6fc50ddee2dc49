"""The samples of one or several finished builds, read where they lie in the files. No torch here."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import simplejpeg

from densegen.errors import ConfigurationError, FormatError
from densegen.schema import SPLITS
from densegen.shards import ShardReader, read_dataset_manifest
from densegen.vertex_index import VertexIndex, parse_index

__all__ = ["RowReader", "ShardSet", "open_shards"]

FloatArray = npt.NDArray[np.float32]


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

    index : the vertex index that they share; crop_size : S; fingerprint : SHA-256 over all shards
    split : (S,) uint8, position in ``schema.SPLITS``; flipped : (S,) bool, a mirror image; mirrored : (S,) bool, whose
        pose is that of the unmirrored fit; sample_ids : (S,) text
    keypoints68 : (S, 68, 3) float32; pose : (S, 7) float32; expression : (S, Ke) float32
    """

    index: VertexIndex
    index_text: str
    crop_size: int
    margin: float
    fingerprint: str
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
                f"the shards hold no sample of the split {split!r}: their manifest gives it no share, or the build has "
                "too few fits"
            )
        return rows

    def check_flips(self) -> None:
        """Raise :class:`ConfigurationError` where random mirror images cannot be drawn from these samples."""
        if not self.index.mirror_closed:
            raise ConfigurationError(f"augment.flip: {self.index.name} is not closed under the mirror")
        if self.flipped.any():
            raise ConfigurationError(
                "augment.flip: the shards hold flips already; build with --flip none, or set it to 0"
            )

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
            height, width = simplejpeg.decode_jpeg_header(data)[:2]
            if (height, width) != (self.shards.crop_size, self.shards.crop_size):
                raise FormatError(f"{self._name(row)} is {width}x{height}: run 'densegen verify'")
            return np.asarray(simplejpeg.decode_jpeg(data, "RGB"))
        except ValueError as error:
            raise FormatError(f"{self._name(row)} is not a readable JPEG: run 'densegen verify'") from error

    def landmarks(self, row: int) -> FloatArray:
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
    :class:`ConfigurationError` where the builds hold no samples, differ in vertex index, crop size, margin or number of
    expression components, or have put a photograph into different splits.
    """
    parts: list[dict[str, Any]] = []
    shards: list[_Shard] = []
    first = 0
    reference: dict[str, Any] = {}
    split_of: dict[tuple[str, str], tuple[str, Path]] = {}
    digest = hashlib.sha256()
    for folder in folders:
        for record in read_dataset_manifest(folder)["shards"]:
            path = folder / record["file"]
            if not path.is_file():
                raise FormatError(f"{path} is missing: finish the build, or run 'densegen verify'")
            if (size := path.stat().st_size) != record["bytes"]:
                raise FormatError(f"{path} has {size:,} bytes, its manifest says {record['bytes']:,}")
            digest.update(record["sha256"].encode())
            with ShardReader(path) as reader:
                _check_same(reader, folder, reference)
                if not len(reader):
                    continue
                _check_splits(reader, folder, split_of)
                parts.append({name: reader.array(name) for name in _KEPT} | {"ids": reader.sample_ids})
                _check_finite(reader, parts[-1])
                places = reader.byte_offset("image/bytes"), reader.byte_offset("landmarks")
                shards.append(_Shard(path, first, reader.image_offsets, *places))
                first += len(reader)
    if not shards:
        raise ConfigurationError(f"{', '.join(map(str, folders))}: the shards hold no samples")
    counts = [len(part["ids"]) for part in parts]

    def joined(name: str) -> npt.NDArray[Any]:
        return np.concatenate([part[name] for part in parts])

    return ShardSet(
        index=reference["index"],
        index_text=reference["text"],
        crop_size=reference["crop size"],
        margin=reference["margin"],
        fingerprint=digest.hexdigest(),
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


_KEPT = ("split", "flipped", "mirrored", "keypoints68", "pose", "expression")


def _check_same(reader: ShardReader, folder: Path, reference: dict[str, Any]) -> None:
    attributes = reader.attributes
    try:
        found = {
            "vertex index": str(attributes["vertex_index_fingerprint"]),
            "crop size": int(attributes["crop_size"]),
            "margin": float(json.loads(str(attributes["configuration"]))["crop"]["margin"]),
            "expression components": reader.counts[2],
        }
    except (KeyError, ValueError, TypeError, AttributeError) as error:
        raise FormatError(f"{reader.path} does not say how it was made: {error}") from error
    if not reference:
        text = reader.vertex_index
        index = parse_index(text, f"the vertex index of {reader.path}")
        reference.update(found | {"text": text, "index": index, "folder": folder})
    for what, value in found.items():
        if reference[what] != value:
            raise ConfigurationError(
                f"{reader.path} has another {what} than {reference['folder']}: {str(value)[:12]}, not "
                f"{str(reference[what])[:12]}; train on builds that share it"
            )
    if reader.counts[0] != len(reference["index"]):
        raise FormatError(f"{reader.path} has {reader.counts[0]} landmarks, its vertex index {len(reference['index'])}")


def _check_splits(reader: ShardReader, folder: Path, split_of: dict[tuple[str, str], tuple[str, Path]]) -> None:
    """A photograph that one build trains on and another validates on would make the validation worthless."""
    dataset = str(reader.attributes["dataset"])
    for group, split in zip(reader.groups, reader.splits, strict=True):
        other, where = split_of.setdefault((dataset, group), (split, folder))
        if other != split:
            raise ConfigurationError(
                f"the photograph {group} of {dataset} is in {split} in {folder}, in {other} in {where}: build both "
                "with the same split, or give manifests of different photographs different names"
            )


def _check_finite(reader: ShardReader, part: dict[str, Any]) -> None:
    for name in ("keypoints68", "pose", "expression"):
        bad = ~np.isfinite(part[name]).reshape(len(part[name]), -1).all(axis=1)
        if bad.any():
            sample = reader.sample_ids[int(np.argmax(bad))]
            raise FormatError(f"{reader.path}: {name} of {sample} is not finite: run 'densegen verify'")
