"""A whole dataset: plan the shards, run them in processes, go on after any interruption, write the manifest.

A shard is one task and depends on nothing but its fits and the settings, so its bytes are the same at any number of
processes, in any order, after any interruption. A folder under construction holds, beside the finished shards, one
small record a shard in ``.progress``; when the last one is there, the records become ``manifest.json``.
"""

from __future__ import annotations

import errno
import hashlib
import json
import math
import os
import shutil
from collections.abc import Iterator
from concurrent.futures import FIRST_COMPLETED, Executor, Future, wait
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from densegen import __version__
from densegen.crop import CropRecipe
from densegen.dataset_card import write_card, write_rejects
from densegen.errors import BuildError, ConfigurationError, SampleError
from densegen.executors import open_executor
from densegen.files import TEMPORARY_SUFFIX, read_json, sha256_of, write_bytes, write_text
from densegen.fits import read_fit
from densegen.manifest import BuildSettings, FitEntry, Manifest, list_fits
from densegen.morphable_model import MorphableModel, read_model
from densegen.pipeline import Recipe, check_components, make_samples
from densegen.schema import SHARD_SCHEMA_VERSION
from densegen.shards import ShardHeader, encode_shard, read_dataset_manifest
from densegen.uv import uv_pixels
from densegen.vertex_index import VertexIndex, format_index, read_index

__all__ = ["Plan", "Progress", "build", "plan_build", "refuse_foreign"]

MANIFEST_NAME = "manifest.json"
PROGRESS_FOLDER = ".progress"


@dataclass(frozen=True)
class Plan:
    """A build that can start: every check that needs no photograph has been made."""

    manifest: Manifest
    settings: BuildSettings
    entries: tuple[FitEntry, ...]
    model: MorphableModel
    index: VertexIndex
    model_path: Path
    index_path: Path

    @property
    def shards(self) -> list[tuple[FitEntry, ...]]:
        size = self.settings.fits_per_shard
        return [self.entries[start : start + size] for start in range(0, len(self.entries), size)]

    @property
    def configuration(self) -> dict[str, Any]:
        """What must be equal for two builds to be the same build."""
        fits = "\n".join(f"{e.sample_id}\t{e.group}\t{e.split}\t{e.flipped}" for e in self.entries)
        return {
            "densegen_version": __version__,
            "shard_schema_version": SHARD_SCHEMA_VERSION,
            "dataset": self.manifest.name,
            "settings": self.settings.model_dump(mode="json", exclude={"max_rejects"}),
            "split": self.manifest.split.model_dump(mode="json"),
            "crop": asdict(CropRecipe()),
            "model": self.model.fingerprint,
            "vertex_index": self.index.fingerprint,
            "fits": len(self.entries),
            "fit_list": hashlib.sha256(fits.encode()).hexdigest(),
        }


@dataclass(frozen=True)
class ShardTask:
    """One shard's work, small enough to travel to another process or machine."""

    number: int
    entries: tuple[FitEntry, ...]
    out: str
    model_path: str
    model_fingerprint: str
    index_path: str
    index_fingerprint: str
    dataset: str
    settings: str
    configuration: str


class Progress(Protocol):
    """Whom a build tells how far it is."""

    def start(self, fits: int, already_done: int) -> None: ...
    def advance(self, fits: int, rejects: int) -> None: ...


class Silent:
    """Tells nobody."""

    def start(self, fits: int, already_done: int) -> None: ...
    def advance(self, fits: int, rejects: int) -> None: ...


def shard_name(number: int) -> str:
    return f"shard-{number:05d}.h5"


def plan_build(manifest: Manifest, root: Path, model_path: Path, index_path: Path, settings: BuildSettings) -> Plan:
    """Read the model and the index, list the fits, and check that they belong together.

    Raises :class:`ConfigurationError` or :class:`FormatError` where they do not: the UV layout or the vertices of the
    index, the number of components, the flip policy.
    """
    entries = list_fits(manifest, root.resolve(), settings.flip)[: settings.limit]
    model, index = read_model(model_path), read_index(index_path)
    index.resolve_mirrored(model)
    _check_keypoints(index, model)
    _check_model_fits(entries[:8], model)
    return Plan(manifest, settings, tuple(entries), model, index, model_path.resolve(), index_path.resolve())


def _check_keypoints(index: VertexIndex, model: MorphableModel) -> None:
    """The index's 68 must be the model's: within two pixels of the UV map."""
    if "ibug68" in index.subsets:
        distance = np.linalg.norm(index.subset("ibug68", index.uv) - uv_pixels(model.uv[model.keypoints68]), axis=1)
        if distance.max() > 2:
            k = int(distance.argmax())
            raise ConfigurationError(
                f"{index.name}'s ibug68 is not the model's: keypoint {k} lies {distance[k]:.0f} UV pixels away"
            )


def _check_model_fits(entries: list[FitEntry], model: MorphableModel) -> None:
    """Where every readable one of a few fits has other component counts, the model is the wrong one."""
    mismatch: SampleError | None = None
    for entry in entries:
        try:
            check_components(read_fit(entry.fit, optional=False), model, entry.fit.name)
            return
        except SampleError as error:
            mismatch = error if error.reason == "component-count" else mismatch
    if mismatch is not None:
        raise ConfigurationError(f"{mismatch}: the model does not belong to these fits") from mismatch


def build(
    plan: Plan, out: Path, *, jobs: int = 1, scheduler: str | None = None, progress: Progress | None = None
) -> dict[str, Any]:
    """Build the dataset into ``out``, or finish it, and return its manifest.

    Complete shards are checked by their SHA-256 and kept. ``scheduler`` is the address of a Dask scheduler; otherwise
    ``jobs`` local processes work.

    Raises :class:`BuildError` where the folder holds another build or is in use, the disk is full, or more than
    ``max_rejects`` of the fits had to be set aside; what is complete stays.
    """
    progress, out = progress or Silent(), out.resolve()
    refuse_foreign(out)
    with _disk_errors(out), _locked(out):
        configuration = json.dumps(plan.configuration, sort_keys=True, indent=1)
        _claim(out, configuration)
        tasks = _tasks(plan, out, configuration)
        records = {task.number: record for task in tasks if (record := _finished(out, task.number))}
        progress.start(len(plan.entries), sum(record["fits"] for record in records.values()))
        _check_rejects(plan, records)
        missing = [task for task in tasks if task.number not in records]
        if missing:
            with open_executor(min(jobs, len(missing)), scheduler) as executor:
                for record in _run(executor, missing, in_flight=_in_flight(jobs, scheduler)):
                    records[record["number"]] = record
                    write_text(_record_path(out, record["number"]), json.dumps(record))
                    progress.advance(record["fits"], len(record["rejects"]))
                    _check_rejects(plan, records)
        return _finish(plan, out, [records[task.number] for task in tasks])


def build_shard(task: ShardTask) -> dict[str, Any]:
    """Build one shard and return its record. Runs in a worker; a full disk comes back as ``OSError``."""
    from threadpoolctl import threadpool_limits

    recipe, header = _context(task)
    samples, rejects = [], []
    # One BLAS thread: processes share the cores already, and the split of a product over threads changes its bits.
    with threadpool_limits(1):
        for entry, result in make_samples(task.entries, recipe):
            if isinstance(result, SampleError):
                rejects.append([entry.sample_id, entry.source, result.reason, str(result)])
            else:
                samples += result
    data = encode_shard(samples, header)
    write_bytes(Path(task.out) / shard_name(task.number), data)
    return {
        "number": task.number,
        "file": shard_name(task.number),
        "fits": len(task.entries),
        "samples": len(samples),
        "bytes": len(data),
        "sha256": hashlib.sha256(data).hexdigest(),
        "rejects": rejects,
    }


@lru_cache(maxsize=1)
def _recipe(task_key: tuple[str, str, str, str, str]) -> Recipe:
    model_path, model_fingerprint, index_path, index_fingerprint, settings_json = task_key
    settings = BuildSettings.model_validate_json(settings_json)
    model, index = read_model(Path(model_path)), read_index(Path(index_path))
    if (model.fingerprint, index.fingerprint) != (model_fingerprint, index_fingerprint):
        raise BuildError(f"{model_path} or {index_path} changed while the build was running: start it again")
    return Recipe(
        model,
        index,
        seed=settings.seed,
        flip=settings.flip,
        position_maps=settings.position_maps,
        jpeg_quality=settings.jpeg_quality,
    )


def _context(task: ShardTask) -> tuple[Recipe, ShardHeader]:
    recipe = _recipe((task.model_path, task.model_fingerprint, task.index_path, task.index_fingerprint, task.settings))
    header = ShardHeader(
        dataset=task.dataset,
        version=__version__,
        seed=recipe.seed,
        crop_size=recipe.crop.size,
        vertex_index=format_index(recipe.index),
        vertex_index_fingerprint=recipe.index.fingerprint,
        model_name=recipe.model.name,
        model_fingerprint=recipe.model.fingerprint,
        configuration=task.configuration,
        counts=(len(recipe.index), len(recipe.model.shape_basis), len(recipe.model.expression_basis)),
        valid_uv=recipe.uv_table.valid if recipe.position_maps else None,
    )
    return recipe, header


def _tasks(plan: Plan, out: Path, configuration: str) -> list[ShardTask]:
    return [
        ShardTask(
            number=number,
            entries=entries,
            out=str(out),
            model_path=str(plan.model_path),
            model_fingerprint=plan.model.fingerprint,
            index_path=str(plan.index_path),
            index_fingerprint=plan.index.fingerprint,
            dataset=plan.manifest.name,
            settings=plan.settings.model_dump_json(),
            configuration=configuration,
        )
        for number, entries in enumerate(plan.shards)
    ]


def _run(executor: Executor, tasks: list[ShardTask], in_flight: int) -> Iterator[dict[str, Any]]:
    """Records as they come; never more than ``in_flight`` tasks wait in the executor."""
    queue = iter(tasks)
    pending: set[Future[dict[str, Any]]] = set()
    try:
        while True:
            while len(pending) < in_flight and (task := next(queue, None)) is not None:
                pending.add(executor.submit(build_shard, task))
            if not pending:
                return
            done, pending = wait(pending, return_when=FIRST_COMPLETED)
            for future in done:
                yield future.result()
    finally:
        for future in pending:
            future.cancel()


def _in_flight(jobs: int, scheduler: str | None) -> int:
    """Enough that no worker waits for its next task, few enough that a stop is prompt."""
    if scheduler is not None:
        return 256
    return 1 if jobs == 1 else 2 * jobs


def _record_path(out: Path, number: int) -> Path:
    return out / PROGRESS_FOLDER / f"shard-{number:05d}.json"


def _finished(out: Path, number: int) -> dict[str, Any] | None:
    """The record of a shard that is complete and intact; None where it has to be built.

    A shard from which fits were set aside is built again: what was missing then may be there now.
    """
    record = read_json(_record_path(out, number))
    shard = out / shard_name(number)
    if record is None or record["rejects"] or not shard.is_file() or shard.stat().st_size != record["bytes"]:
        return None
    return record if sha256_of(shard) == record["sha256"] else None


def refuse_foreign(out: Path) -> None:
    """Refuse a folder that holds files but no build, before anything is written into it."""
    if out.exists() and not out.is_dir():
        raise BuildError(f"{out} is not a folder: choose another one")
    names = {path.name for path in out.iterdir()} if out.is_dir() else set()
    if names - {LOCK_NAME} and not names & {MANIFEST_NAME, PROGRESS_FOLDER}:
        raise BuildError(f"{out} is not empty and holds no build (found {min(names)}): choose another folder")


def _claim(out: Path, configuration: str) -> None:
    """Make ``out`` this build's folder, or refuse it where it holds a build of another configuration."""
    progress, finished = out / PROGRESS_FOLDER, out / MANIFEST_NAME
    found: str | None = None
    if finished.is_file():
        manifest = read_dataset_manifest(out)
        found = json.dumps(manifest["configuration"], sort_keys=True, indent=1)
    elif (progress / "configuration.json").is_file():
        found = (progress / "configuration.json").read_text(encoding="utf-8")
    if found is not None and found != configuration:
        raise BuildError(
            f"{out} holds a build of another configuration ({_difference(found, configuration)}): choose another folder"
        )
    progress.mkdir(exist_ok=True)
    write_text(progress / "configuration.json", configuration)
    if finished.is_file():
        # Build it again on top of what is intact; the manifest comes back at the end.
        for record in read_dataset_manifest(out)["shards"]:
            write_text(_record_path(out, record["number"]), json.dumps(record))
    for leftover in [*out.glob(f"*{TEMPORARY_SUFFIX}"), *progress.glob(f"*{TEMPORARY_SUFFIX}")]:
        leftover.unlink(missing_ok=True)


def _difference(found: str, wanted: str) -> str:
    try:
        old, new = json.loads(found), json.loads(wanted)
    except ValueError:
        return "unreadable"
    flat_old, flat_new = {**old, **old.get("settings", {})}, {**new, **new["settings"]}
    keys = [key for key in flat_new if key != "settings" and flat_old.get(key) != flat_new[key]]
    return ", ".join(
        f"{key}: {str(flat_old.get(key))[:16]} there, {str(flat_new[key])[:16]} asked for" for key in keys[:3]
    )


def _check_rejects(plan: Plan, records: dict[int, dict[str, Any]]) -> None:
    rejects = [reject for record in records.values() for reject in record["rejects"]]
    share = plan.settings.max_rejects
    allowed = max(math.floor(share * len(plan.entries) + 1e-9), int(share > 0))
    if len(rejects) > allowed:
        sample_id, _, reason, message = rejects[0]
        raise BuildError(
            f"{len(rejects)} fits had to be set aside, at most {allowed} of {len(plan.entries)} may be "
            f"(--max-rejects {share:g}); the first, {sample_id}: {reason}: {message}"
        )


def _finish(plan: Plan, out: Path, records: list[dict[str, Any]]) -> dict[str, Any]:
    rejects = [reject for record in records for reject in record["rejects"]]
    manifest = {
        "format": "densegen dataset",
        "schema_version": SHARD_SCHEMA_VERSION,
        "configuration": plan.configuration,
        "landmarks": len(plan.index),
        "samples": sum(record["samples"] for record in records),
        "rejected_fits": len(rejects),
        "shards": records,
    }
    if manifest["samples"] == 0:
        raise BuildError(f"every one of the {len(plan.entries)} fits was set aside: there is nothing to write")
    write_rejects(out / "rejected.csv", rejects)
    write_card(out, plan.manifest, manifest)
    write_text(out / MANIFEST_NAME, json.dumps(manifest, indent=1) + "\n")
    shutil.rmtree(out / PROGRESS_FOLDER)
    return manifest


LOCK_NAME = ".lock"


@contextmanager
def _locked(out: Path) -> Iterator[None]:
    from filelock import FileLock, Timeout

    out.mkdir(parents=True, exist_ok=True)
    try:
        with FileLock(out / LOCK_NAME, timeout=0):
            try:
                yield
            finally:  # while it is still held: nobody else can be waiting for this file
                (out / LOCK_NAME).unlink(missing_ok=True)
    except Timeout as error:
        raise BuildError(f"another build is running in {out}: wait for it, or choose another folder") from error


@contextmanager
def _disk_errors(out: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
            free = shutil.disk_usage(out).free >> 20 if out.is_dir() else 0
            raise BuildError(
                f"no space left to write into {out} ({os.strerror(error.errno)}; {free} MiB free): make room and run "
                "the same command again, complete shards are kept"
            ) from error
        raise BuildError(f"{error.filename or out}: {error.strerror or error}") from error
