"""A whole dataset: plan the shards, run them in processes, go on after any interruption, write the manifest.

A shard is one task and depends on nothing but its fits and the settings, so its bytes are the same at any number of
processes, in any order, after any interruption.
"""

from __future__ import annotations

import hashlib
import math
import time
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Protocol

import numpy as np

from densegen.conventions import OWN_INDEX, SHARD_SCHEMA_VERSION
from densegen.dataset.build_folder import BuildFolder
from densegen.dataset.build_record import BuildConfiguration, DatasetManifest, Reject, ShardRecord, shard_name
from densegen.dataset.card import REJECTS, format_rejects, write_card
from densegen.dataset.sample_index import gather_samples, write_samples
from densegen.dataset.shard_task import ShardTask, build_shard, software, texts_digest
from densegen.errors import BuildError, ConfigurationError, SampleError
from densegen.executors import open_pool
from densegen.face.model_file import read_model
from densegen.face.morphable_model import MorphableModel
from densegen.files import find_data_file, write_text
from densegen.geometry.crop import CropRecipe
from densegen.index.vertex_index import VertexIndex, read_index
from densegen.sources.fit_list import FitEntry, list_fits
from densegen.sources.fits import check_components, read_fit
from densegen.sources.manifest import BuildSettings, Manifest, choose_settings, read_manifest

__all__ = ["Plan", "Progress", "build", "plan_build"]


@dataclass(frozen=True)
class Plan:
    """A build that can start: every check that needs no photograph has been made."""

    manifest: Manifest
    settings: BuildSettings
    crop: CropRecipe
    entries: tuple[FitEntry, ...]
    model: MorphableModel
    index: VertexIndex
    model_path: Path
    index_path: Path

    @property
    def shards(self) -> list[tuple[FitEntry, ...]]:
        """The fits of each shard."""
        size = self.settings.fits_per_shard
        return [self.entries[start : start + size] for start in range(0, len(self.entries), size)]

    @cached_property
    def configuration(self) -> BuildConfiguration:
        fits = "\n".join(f"{e.sample_id}\t{e.group}\t{e.split}\t{e.flipped}" for e in self.entries)
        return BuildConfiguration(
            shard_schema_version=SHARD_SCHEMA_VERSION,
            dataset=self.manifest.name,
            settings=self.settings,
            split=self.manifest.split,
            crop=self.crop,
            model=self.model.fingerprint,
            vertex_index=self.index.fingerprint,
            texts=texts_digest(self.model, self.index),
            fits=len(self.entries),
            fit_list=hashlib.sha256(fits.encode()).hexdigest(),
            **software(self.settings.position_maps),
        )


MAX_SHARDS = 10_000_000
"""A build of more is a mistake; names have five digits, and more from the 100,000th on."""


class Progress(Protocol):
    """Whom a build tells how far it is."""

    def start(self, total: int, done: int = 0) -> None: ...
    def advance(self, done: int, set_aside: int = 0) -> None: ...


class Silent:
    """Tells nobody."""

    def start(self, total: int, done: int = 0) -> None: ...
    def advance(self, done: int, set_aside: int = 0) -> None: ...


def plan_build(
    manifest: Manifest | str | Path,
    root: str | Path | None = None,
    model: str | Path | None = None,
    index: str | Path | None = None,
    settings: BuildSettings | None = None,
    crop: CropRecipe | None = None,
) -> Plan:
    """Read the model and the index, list the fits, and check that they belong together.

    manifest : one that was read, its file, or the name of one that comes with densegen
    root : the dataset's folder; by default that of the manifest's file
    model : a model file; by default the manifest's own
    index : a vertex index; by default densegen's 520
    settings, crop : by default the manifest's; see :func:`~densegen.sources.manifest.choose_settings`

    Raises :class:`FormatError` if a file is damaged or of another kind, and :class:`ConfigurationError` if a file is
    missing or the parts do not belong together: the UV layout or the vertices of the index, the number of components,
    the flip policy.
    """
    if not isinstance(manifest, Manifest):
        root = default_root(manifest) if root is None else root
        manifest = read_manifest(manifest)
    if root is None:
        raise ConfigurationError(f"where is {manifest.title}? Give its folder")
    settings, crop = settings or choose_settings(manifest)[0], crop or manifest.crop
    root, index_path = Path(root), find_data_file(OWN_INDEX) if index is None else Path(index)
    model_path = Path(model) if model is not None else _own_model(manifest, root)
    return _plan(manifest, settings, crop, root, model_path, index_path)


def default_root(manifest: str | Path) -> Path:
    """The folder of a manifest's file; raises :class:`ConfigurationError` if it is none but a name."""
    if not Path(manifest).is_file():
        raise ConfigurationError(f"where is {read_manifest(manifest).title}? Give its folder with --root")
    return Path(manifest).parent


def _own_model(manifest: Manifest, root: Path) -> Path:
    if manifest.model is None:
        raise ConfigurationError(
            "which morphable model? Make one with 'densegen model build' or 'convert' and give it with --model"
        )
    return root / manifest.model


def _plan(
    manifest: Manifest, settings: BuildSettings, crop: CropRecipe, root: Path, model_path: Path, index_path: Path
) -> Plan:
    entries = list_fits(manifest, root.resolve(), settings.flip)[: settings.limit]
    if len(entries) > MAX_SHARDS * settings.fits_per_shard:
        raise ConfigurationError(
            f"{len(entries):,} fits make more than {MAX_SHARDS:,} shards of {settings.shard_size}: choose a larger "
            "--shard-size"
        )
    model, index = read_model(model_path, mapped=True), read_index(index_path)
    index.resolve_mirrored(model)
    _check_keypoints(index, model)
    _check_model_fits(entries[:8], model)
    return Plan(manifest, settings, crop, tuple(entries), model, index, model_path.resolve(), index_path.resolve())


def _check_keypoints(index: VertexIndex, model: MorphableModel) -> None:
    """The index's 68 must be the model's: within two pixels of the UV map."""
    if "ibug68" in index.subsets:
        distance = np.linalg.norm(index.subset("ibug68", index.uv) - model.keypoint_pixels, axis=1)
        if distance.max() > 2:
            k = int(distance.argmax())
            raise ConfigurationError(
                f"{index.name}'s ibug68 is not the model's: keypoint {k} lies {distance[k]:.0f} UV pixels away"
            )


def _check_model_fits(entries: list[FitEntry], model: MorphableModel) -> None:
    """Refuse the model if every readable one of a few fits has other component counts."""
    mismatch: SampleError | None = None
    for entry in entries:
        try:
            check_components(read_fit(entry.fit, optional=False), model.component_counts, entry.fit.name)
            return
        except SampleError as error:
            mismatch = error if error.reason == "component-count" else mismatch
    if mismatch is not None:
        raise ConfigurationError(f"{mismatch}: the model does not belong to these fits") from mismatch


def build(
    plan: Plan, out: str | Path, *, jobs: int = 1, scheduler: str | None = None, progress: Progress | None = None
) -> DatasetManifest:
    """Build the dataset into ``out``, or finish it, and return its manifest.

    Complete shards are checked by their SHA-256 and kept. ``scheduler`` is the address of a Dask scheduler; otherwise
    ``jobs`` local processes work.

    Raises :class:`BuildError` if the folder holds another build or is in use, the disk is full, or more than
    ``max_rejects`` of the fits had to be set aside; what is complete stays.
    """
    if jobs < 1:
        raise ConfigurationError(f"jobs is {jobs}, expected at least 1")
    progress, folder = progress or Silent(), BuildFolder(Path(out).resolve())
    with folder.open(plan.configuration):
        tasks = [
            ShardTask(number, entries, folder.path, plan.model_path, plan.index_path, plan.configuration)
            for number, entries in enumerate(plan.shards)
        ]
        records = {task.number: record for task in tasks if (record := folder.finished(task.number, task.entries))}
        progress.start(len(plan.entries), sum(record.fits for record in records.values()))
        rejects = [reject for record in records.values() for reject in record.rejects]
        _check_rejects(plan, rejects)
        missing = [task for task in tasks if task.number not in records]
        if missing:
            folder.begin()
            if scheduler is not None:  # what an earlier build left could pass for what a worker writes elsewhere
                for task in missing:
                    (folder.path / shard_name(task.number)).unlink(missing_ok=True)
            with open_pool(min(jobs, len(missing)), scheduler) as pool:
                for record in pool.run(build_shard, missing):
                    if scheduler is not None:
                        _check_shared(folder, tasks[record.number].entries, record)
                    records[record.number] = record
                    folder.keep(record)
                    progress.advance(record.fits, len(record.rejects))
                    rejects += record.rejects
                    _check_rejects(plan, rejects)
        return _finish(plan, folder, [records[task.number] for task in tasks])


ARRIVES_S = 60
"""How long a shard of another machine may take until it is seen here: network disks keep what they know for a while."""


def _check_shared(folder: BuildFolder, entries: Sequence[FitEntry], record: ShardRecord) -> None:
    """Raise :class:`BuildError` if a worker did not see files that this machine sees, or wrote to another folder."""
    entry_of = {entry.sample_id: entry for entry in entries}
    for reject in record.rejects:
        entry = entry_of[reject.sample_id]
        path = {"fit-missing": entry.fit, "image-missing": entry.image}.get(reject.reason)
        if path is not None and path.is_file():
            (folder.path / record.file).unlink(missing_ok=True)
            raise BuildError(f"a worker does not see {path}, which is there: all machines must see the same paths")
    until = time.monotonic() + ARRIVES_S
    path = folder.path / record.file
    while not (path.is_file() and path.stat().st_size == record.bytes):
        if time.monotonic() > until:
            raise BuildError(
                f"a worker wrote {record.file} where it is not seen here: all machines must share {folder.path}"
            )
        time.sleep(0.1)


def _check_rejects(plan: Plan, rejects: Sequence[Reject]) -> None:
    share = plan.settings.max_rejects
    allowed = max(math.floor(share * len(plan.entries) + 1e-9), int(share > 0))
    if len(rejects) > allowed:
        first = rejects[0]
        raise BuildError(
            f"{len(rejects)} fits had to be set aside, at most {allowed} of {len(plan.entries)} may be "
            f"(--max-rejects {share:g}); the first, {first.sample_id}: {first.reason}: {first.message}"
        )


def _finish(plan: Plan, folder: BuildFolder, records: list[ShardRecord]) -> DatasetManifest:
    manifest = DatasetManifest(
        schema_version=SHARD_SCHEMA_VERSION,
        configuration=plan.configuration,
        landmarks=len(plan.index),
        samples=sum(record.samples for record in records),
        rejected_fits=sum(len(record.rejects) for record in records),
        shards=tuple(records),
    )
    if manifest.samples == 0:
        first = manifest.rejects[0]
        raise BuildError(
            f"every one of the {len(plan.entries)} fits was set aside: there is nothing to write; the first, "
            f"{first.sample_id}: {first.reason}: {first.message}"
        )
    # The shards are read: if the folder was taken away meanwhile, nothing is left in its place.
    samples = gather_samples(folder.path, manifest.filled)
    write_card(folder.path, plan.manifest, manifest, samples, plan.index, plan.model.name)
    write_samples(samples, folder.path)
    write_text(folder.path / REJECTS, format_rejects(manifest.rejects))
    folder.finish(manifest)
    return manifest
