"""One shard's work: small enough to travel to another process or machine, and a function of its contents alone."""

from __future__ import annotations

import hashlib
import platform
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import TypedDict

from densegen import __version__
from densegen.dataset.build_record import (
    EDGE_SHARE,
    BuildConfiguration,
    Reject,
    ShardRecord,
    inputs_digest,
    looked_at,
    shard_inputs,
    shard_name,
)
from densegen.dataset.map_codec import zstd_codec
from densegen.dataset.pipeline import Recipe, make_samples
from densegen.dataset.shards import Sample, ShardHeader, encode_shard
from densegen.errors import BuildError, SampleError
from densegen.face.model_file import read_model
from densegen.face.morphable_model import MorphableModel
from densegen.files import write_bytes
from densegen.geometry.crop import Crop
from densegen.index.vertex_index import VertexIndex, format_index, read_index
from densegen.sources.fit_list import FitEntry
from densegen.sources.photograph import jpeg_codec

__all__ = ["ShardTask", "build_shard", "software", "texts_digest"]

# A worker with several threads builds one shard at a time: they share the recipe and what it keeps.
_ONE_AT_A_TIME = threading.Lock()


@dataclass(frozen=True)
class ShardTask:
    """What a worker needs for shard ``number``: its fits, where to write, and the files that were planned with."""

    number: int
    entries: tuple[FitEntry, ...]
    out: Path
    model: Path
    index: Path
    configuration: BuildConfiguration


def build_shard(task: ShardTask) -> ShardRecord:
    """Build one shard and return its record. Runs in a worker; a full disk comes back as ``OSError``."""
    count, edges, rejects = 0, 0, list[Reject]()

    def made(recipe: Recipe) -> Iterator[Sample]:
        nonlocal count, edges
        for entry, result in make_samples(task.entries, recipe):
            if isinstance(result, SampleError):
                rejects.append(_reject(entry, result))
            else:
                count += len(result)
                edges += sum(_shows_edge(sample, recipe.crop.size) for sample in result)
                yield from result

    before = list(map(inputs_digest, looked_at(task.entries)))
    with _ONE_AT_A_TIME:
        recipe = _recipe(task.model, task.index, task.configuration.as_text())
        data = encode_shard(made(recipe), _header(recipe, task.configuration))
    for entry, digest in zip(looked_at(task.entries), before, strict=True):
        if inputs_digest(entry) != digest:
            raise BuildError(f"{entry.fit} or its image changed while the build was reading it: start it again")
    write_bytes(task.out / shard_name(task.number), data)
    return ShardRecord(
        number=task.number,
        file=shard_name(task.number),
        fits=len(task.entries),
        samples=count,
        bytes=len(data),
        sha256=hashlib.sha256(data).hexdigest(),
        rejects=tuple(rejects),
        inputs=shard_inputs(task.entries, rejects),
        edges=edges,
    )


def _shows_edge(sample: Sample, size: int) -> bool:
    return Crop.from_array(sample.crop, size).share_outside(*sample.image_size) > EDGE_SHARE


def _reject(entry: FitEntry, error: SampleError) -> Reject:
    return Reject(
        sample_id=entry.sample_id,
        image=entry.source,
        reason=error.reason,
        message=str(error),
        inputs=inputs_digest(entry),
    )


class Software(TypedDict):
    """What of a machine decides bytes, by its name in :class:`BuildConfiguration`."""

    densegen_version: str
    jpeg_codec: str
    zstd: str | None
    processor: str


def software(position_maps: bool) -> Software:
    """That of this machine; ``zstd`` only for a build with position maps."""
    return Software(
        densegen_version=__version__,
        jpeg_codec=jpeg_codec(),
        zstd=zstd_codec() if position_maps else None,
        processor={"AMD64": "x86_64", "arm64": "aarch64"}.get(platform.machine(), platform.machine()),
    )


def texts_digest(model: MorphableModel, index: VertexIndex) -> str:
    """``texts`` of a :class:`BuildConfiguration`."""
    return hashlib.sha256(f"{format_index(index)}\n{model.name}".encode()).hexdigest()


@lru_cache(maxsize=1)
def _recipe(model_path: Path, index_path: Path, configuration_text: str) -> Recipe:
    """The recipe of a build, made once a process."""
    configuration = BuildConfiguration.model_validate_json(configuration_text)
    model, index = read_model(model_path, mapped=True), read_index(index_path)
    found = (model.fingerprint, index.fingerprint, texts_digest(model, index))
    if found != (configuration.model, configuration.vertex_index, configuration.texts):
        raise BuildError(f"{model_path} or {index_path} changed while the build was running: start it again")
    settings = configuration.settings
    for name, here in software(settings.position_maps).items():
        if here != (planned := getattr(configuration, name)):
            raise BuildError(
                f"a worker's {name} is {here}, that of the machine that planned the build {planned}: their bytes may "
                "differ, so all machines need the same"
            )
    return Recipe(
        model,
        index,
        seed=settings.seed,
        flip=settings.flip,
        position_maps=settings.position_maps,
        crop=configuration.crop,
        jpeg_quality=settings.jpeg_quality,
    )


def _header(recipe: Recipe, configuration: BuildConfiguration) -> ShardHeader:
    return ShardHeader(
        dataset=configuration.dataset,
        version=__version__,
        seed=recipe.seed,
        crop_size=recipe.crop.size,
        vertex_index=format_index(recipe.index),
        vertex_index_fingerprint=recipe.index.fingerprint,
        model_name=recipe.model.name,
        model_fingerprint=recipe.model.fingerprint,
        configuration=configuration.as_text(),
        counts=(len(recipe.index), *recipe.model.component_counts),
        valid_uv=recipe.uv_table.valid if recipe.position_maps else None,
    )
