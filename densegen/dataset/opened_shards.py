"""What is kept of every shard of a set, and whether they belong together."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from densegen.dataset.build_record import read_dataset_manifest
from densegen.dataset.row_reader import ShardPlace
from densegen.dataset.shards import ShardReader
from densegen.errors import ConfigurationError, FormatError

__all__ = ["OpenedShard", "open_shard", "open_shards"]

_KEPT = ("split", "flipped", "mirrored", "pose")
_READ_LATER = ("image/bytes", "landmarks", "keypoints68", "shape", "expression", "crop", "image_size")
_MAPS = ("position_map/bytes", "valid_uv")


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
class OpenedShard:
    """What is kept of a shard when it is closed again.

    place : where its samples lie
    model : name and fingerprint of the model that it was made with
    """

    place: ShardPlace
    sha256: str
    dataset: str
    common: _Common
    vertex_index: str
    groups: list[str]
    splits: list[str]
    arrays: dict[str, npt.NDArray[Any]]
    model: tuple[str, str]


def open_shards(folders: Sequence[Path]) -> list[OpenedShard]:
    """Every shard of finished builds that holds samples, in order.

    Raises :class:`FormatError` if one is damaged or has another size than its manifest says,
    :class:`ConfigurationError` if there are none, or they do not belong together.
    """
    _check_different(folders)
    opened: list[OpenedShard] = []
    first = 0
    for folder in folders:
        for record in read_dataset_manifest(folder).shards:
            path = folder / record.file
            if not path.is_file():
                raise FormatError(f"{path} is missing: finish the build, or run 'densegen verify'")
            if (size := path.stat().st_size) != record.bytes:
                raise FormatError(f"{path} has {size:,} bytes, its manifest says {record.bytes:,}")
            with ShardReader(path) as reader:
                if len(reader):
                    # One text for all: that they have one fingerprint is checked below.
                    index = opened[0].vertex_index if opened else reader.vertex_index
                    opened.append(open_shard(reader, record.sha256, index, first))
                    first += len(reader)
    if not opened:
        raise ConfigurationError(f"{', '.join(map(str, folders))}: the shards hold no samples")
    for one in opened[1:]:
        opened[0].common.check(one.common, one.place.path, opened[0].place.path)
    _check_splits(opened)
    return opened


def _check_different(folders: Sequence[Path]) -> None:
    """A build given twice would count each of its samples twice."""
    resolved = [folder.resolve() for folder in folders]
    for folder, path in zip(folders, resolved, strict=True):
        if resolved.count(path) > 1:
            raise ConfigurationError(f"{folder} is given twice")


def open_shard(reader: ShardReader, sha256: str, vertex_index: str, first: int) -> OpenedShard:
    """What is kept of a shard that holds samples, numbered from ``first`` on.

    Raises :class:`FormatError` if it is damaged.
    """
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
    bad = ~np.isfinite(arrays["pose"]).all(axis=1)
    if bad.any():
        sample = reader.sample_ids[int(np.argmax(bad))]
        raise FormatError(f"{reader.path}: pose of {sample} is not finite: run 'densegen verify'")
    with_maps = reader.has_position_maps
    place = ShardPlace(
        path=reader.path,
        first=first,
        sample_ids=reader.sample_ids,
        crop_size=common.crop_size,
        counts=counts,
        image_offsets=reader.image_offsets,
        position_map_offsets=reader.position_map_offsets if with_maps else None,
        at={name: reader.byte_offset(name) for name in (*_READ_LATER, *(_MAPS if with_maps else ()))},
    )
    return OpenedShard(
        place=place,
        sha256=sha256,
        dataset=dataset,
        common=common,
        vertex_index=vertex_index,
        groups=reader.groups,
        splits=reader.splits,
        arrays=arrays,
        model=(str(attributes["model_name"]), str(attributes["model_fingerprint"])),
    )


def _check_splits(opened: Sequence[OpenedShard]) -> None:
    """A photograph that one build trains on and another validates on would make the validation worthless."""
    split_of: dict[tuple[str, str], tuple[str, Path]] = {}
    for one in opened:
        for group, split in zip(one.groups, one.splits, strict=True):
            other, where = split_of.setdefault((one.dataset, group), (split, one.place.path.parent))
            if other != split:
                raise ConfigurationError(
                    f"the photograph {group} of {one.dataset} is in {split} in {one.place.path.parent}, in {other} in "
                    f"{where}: build both with the same split, or give manifests of different photographs different "
                    "names"
                )
