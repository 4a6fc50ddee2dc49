"""What a finished build says about itself: ``manifest.json``, with the record of every shard in it."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from densegen.conventions import SHARD_SCHEMA_VERSION
from densegen.dataset.shards import ShardReader
from densegen.errors import ConfigurationError, FormatError, did_you_mean
from densegen.files import is_about_the_file, sha256_of, write_text
from densegen.geometry.crop import CropRecipe
from densegen.records import first_problem, read_json
from densegen.sources.fit_list import FitEntry
from densegen.sources.manifest import BuildSettings, Split

__all__ = [
    "EDGE_SHARE",
    "MANIFEST_NAME",
    "BuildConfiguration",
    "DatasetManifest",
    "Reject",
    "ShardRecord",
    "find_sample",
    "inputs_digest",
    "looked_at",
    "read_dataset_manifest",
    "read_record",
    "shard_inputs",
    "shard_name",
    "write_dataset_manifest",
]

MANIFEST_NAME = "manifest.json"

Count = Annotated[int, Field(ge=0)]
Digest = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]


class _Record(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Reject(_Record):
    """A fit that was set aside.

    image : its path below the root
    reason : see :class:`~densegen.errors.SampleError`
    inputs : :func:`inputs_digest` of the fit's file and its image when it was set aside
    """

    sample_id: str
    image: str
    reason: str
    message: str
    inputs: Digest


class ShardRecord(_Record):
    """A finished shard: which one, how large, and what was set aside.

    inputs : :func:`shard_inputs`
    edges : samples of which more than ``EDGE_SHARE`` lies outside of the photograph

    Earlier versions did not keep these two.
    """

    number: Count
    file: Annotated[str, Field(pattern=r"^shard-\d{5,8}\.h5$")]
    fits: Count
    samples: Count
    bytes: Count
    sha256: Digest
    rejects: tuple[Reject, ...]
    inputs: Digest | None = None
    edges: Count | None = None


class BuildConfiguration(_Record):
    """What must be equal for two builds to be the same build, to the last byte.

    jpeg_codec : see :func:`~densegen.sources.photograph.jpeg_codec`
    processor : its family, ``x86_64``: other families may round in another way
    zstd : see :func:`~densegen.dataset.map_codec.zstd_codec`; None for a build without position maps
    model, vertex_index : fingerprints
    texts : SHA-256 over the index's text and the model's name, which shards carry and fingerprints leave out; earlier
        versions did not keep it
    fit_list : SHA-256 over ids, groups, splits and flips of the ``fits`` fits
    """

    densegen_version: str
    shard_schema_version: int
    dataset: str
    settings: BuildSettings
    split: Split
    crop: CropRecipe
    model: Digest
    vertex_index: Digest
    texts: Digest | None = None
    fits: Count
    fit_list: Digest
    jpeg_codec: str
    processor: str
    zstd: str | None

    def as_text(self) -> str:
        """As JSON, keys in order; what decides no byte of a shard is left out."""
        content = self.model_dump(mode="json", exclude={"settings": {"max_rejects"}})
        if self.texts is None:  # as the earlier version wrote it into its shards
            del content["texts"]
        return json.dumps(content, sort_keys=True, indent=1)


class DatasetManifest(_Record):
    """The contents of ``manifest.json``."""

    format: Literal["densegen dataset"] = "densegen dataset"
    schema_version: int
    configuration: BuildConfiguration
    landmarks: Count
    samples: Count
    rejected_fits: Count
    shards: tuple[ShardRecord, ...]

    @property
    def rejects(self) -> list[Reject]:
        """Every fit that was set aside, in the dataset's order."""
        return [reject for record in self.shards for reject in record.rejects]

    @property
    def filled(self) -> list[ShardRecord]:
        """The shards that hold samples: from a shard all fits may have been set aside."""
        return [record for record in self.shards if record.samples]

    @property
    def edges(self) -> int:
        """The samples of which more than ``EDGE_SHARE`` lies outside of the photograph."""
        return sum(record.edges or 0 for record in self.shards)

    @property
    def bytes(self) -> int:
        """Of all shards."""
        return sum(record.bytes for record in self.shards)


def shard_name(number: int) -> str:
    """The file of a shard, by its number."""
    return f"shard-{number:05d}.h5"


def inputs_digest(entry: FitEntry) -> str:
    """SHA-256 over the two SHA-256 sums of a fit's file and its image, as hexadecimal.

    A path that is missing or is no regular file counts by its name instead.
    """
    digest = hashlib.sha256()
    for path in (entry.fit, entry.image):
        try:
            digest.update(sha256_of(path).encode())
        except OSError as error:
            if not is_about_the_file(error):
                raise
            digest.update(path.name.encode())
    return digest.hexdigest()


EDGE_SHARE = 0.02
"""Of a crop's area; a black rim of this size is seen."""

LOOKED_AT = 16
"""Fits of a shard whose files stand for all."""


def looked_at(entries: Sequence[FitEntry]) -> list[FitEntry]:
    """A few of a shard's fits, spread evenly over it."""
    count = min(LOOKED_AT, len(entries))
    return [entries[number * len(entries) // count] for number in range(count)]


def shard_inputs(entries: Sequence[FitEntry], rejects: Iterable[Reject]) -> str | None:
    """SHA-256 over :func:`inputs_digest` of those of :func:`looked_at` that were not set aside; None if one of their
    files is not there.

    So a build is not gone on with from another folder of fits with the same names, as refined ones have.
    """
    set_aside = {reject.sample_id for reject in rejects}
    some = [entry for entry in looked_at(entries) if entry.sample_id not in set_aside]
    if not all(path.is_file() for entry in some for path in (entry.fit, entry.image)):
        return None
    return hashlib.sha256("".join(map(inputs_digest, some)).encode()).hexdigest()


def read_dataset_manifest(folder: Path) -> DatasetManifest:
    """The manifest of a finished build; raises :class:`FormatError` if there is none, it is damaged, or its shards have
    another schema.
    """
    path = folder / MANIFEST_NAME
    if not path.is_file():
        where = "no finished build is here" if folder.is_dir() else f"there is no folder {folder}"
        raise FormatError(f"{path} does not exist: {where}")
    contents: Any = read_json(path)
    schema = contents.get("schema_version") if isinstance(contents, dict) else None
    if isinstance(schema, int) and schema != SHARD_SCHEMA_VERSION:
        raise FormatError(
            f"{path} is of a build of schema {schema}, expected {SHARD_SCHEMA_VERSION}: build it again, into another "
            "folder"
        )
    try:
        return DatasetManifest.model_validate(contents)
    except ValidationError as error:
        raise FormatError(f"{path} is not a dataset's manifest: {first_problem(error)}") from error


def write_dataset_manifest(manifest: DatasetManifest, folder: Path) -> None:
    """Write ``manifest.json``, whole or not at all."""
    content = manifest.model_dump(mode="json") | {"configuration": json.loads(manifest.configuration.as_text())}
    write_text(folder / MANIFEST_NAME, json.dumps(content, indent=1) + "\n")


def read_record(path: Path) -> ShardRecord | None:
    """The record of a shard; None if there is none or it is damaged."""
    try:
        return ShardRecord.model_validate(read_json(path))
    except ValidationError:
        return None


SEARCHED = 4096
"""Names that a mistyped one is compared with."""


def find_sample(folder: Path, sample_id: str) -> tuple[Path, int]:
    """The shard and the row of a sample; raises :class:`ConfigurationError` if the dataset has no such sample."""
    known: list[str] = []
    for record in read_dataset_manifest(folder).shards:
        with ShardReader(folder / record.file) as shard:
            if sample_id in shard.sample_ids:
                return shard.path, shard.sample_ids.index(sample_id)
            known += shard.sample_ids
    raise ConfigurationError(
        f"{folder} has no sample {sample_id!r}; the first is {known[0] if known else None!r}"
        f"{did_you_mean(sample_id, known[:SEARCHED])}: 'densegen inspect DIR --list' names all"
    )
