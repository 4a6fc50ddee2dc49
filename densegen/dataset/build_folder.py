"""The folder of a build: whose it is, which shards are finished, and what is left when a build is interrupted.

A folder under construction holds, beside the finished shards, one small record a shard in ``.progress``; when the last
one is there, the records become ``manifest.json``.
"""

from __future__ import annotations

import errno
import json
import os
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from densegen.dataset.build_record import (
    MANIFEST_NAME,
    BuildConfiguration,
    DatasetManifest,
    Reject,
    ShardRecord,
    inputs_digest,
    read_dataset_manifest,
    read_record,
    shard_inputs,
    shard_name,
    write_dataset_manifest,
)
from densegen.errors import BuildError
from densegen.files import LOCK_NAMES, only_one, remove_leftovers, sha256_of, write_text
from densegen.sources.fit_list import FitEntry

__all__ = ["BuildFolder"]

PROGRESS_FOLDER, CONFIGURATION_NAME = ".progress", "configuration.json"


@dataclass(frozen=True)
class BuildFolder:
    """The folder that a build writes into; ``path`` need not exist yet."""

    path: Path

    def check(self, configuration: BuildConfiguration) -> None:
        """Refuse a folder that holds a build of another configuration, or files but no build; writes nothing.

        Raises :class:`BuildError`, and :class:`FormatError` if the folder's own manifest is damaged.
        """
        self.refuse_foreign()
        found, wanted = self._configuration(), configuration.as_text()
        if found is not None and found != wanted:
            raise BuildError(
                f"{self.path} holds a build of another configuration ({_difference(found, wanted)}): choose another "
                "folder"
            )

    def refuse_foreign(self) -> None:
        """Refuse a folder that holds files but no build; writes nothing."""
        if self.path.exists() and not self.path.is_dir():
            raise BuildError(f"{self.path} is not a folder: choose another one")
        names = {path.name for path in self.path.iterdir()} if self.path.is_dir() else set()
        begun = names <= {PROGRESS_FOLDER, *LOCK_NAMES} or (self._progress / CONFIGURATION_NAME).is_file()
        if names - LOCK_NAMES and not (begun or MANIFEST_NAME in names):
            raise BuildError(f"{self.path} is not empty and holds no build (found {min(names)}): choose another folder")

    @contextmanager
    def open(self, configuration: BuildConfiguration) -> Iterator[None]:
        """Make this the folder of one build, for one process at a time.

        Raises what :meth:`check` raises, and :class:`BuildError` if another build is running in it, the disk is
        full, or the system refuses to read or write.
        """
        self.refuse_foreign()
        busy = f"another build is running in {self.path}: wait for it, or choose another folder"
        with self._disk_errors(), only_one(self.path, busy):
            self.check(configuration)
            self._progress.mkdir(exist_ok=True)
            write_text(self._progress / CONFIGURATION_NAME, configuration.as_text())
            if (self.path / MANIFEST_NAME).is_file():
                # Finished: built again on top of what is intact. Records there are newer than the manifest.
                for record in read_dataset_manifest(self.path).shards:
                    if not self._record_path(record.number).exists():
                        self.keep(record)
            for folder in (self.path, self._progress):
                remove_leftovers(folder)
            yield

    def finished(self, number: int, entries: Sequence[FitEntry]) -> ShardRecord | None:
        """The record of a shard that is complete and intact; None if it has to be built.

        A shard is built again if a few of its fits or photographs, spread over it, or one that was set aside, are not
        the files that it was made of. Files that are not there, or not seen from here, count as unchanged: without them
        a shard could only become a poorer one.
        """
        record, shard = read_record(self._record_path(number)), self.path / shard_name(number)
        if record is None or not shard.is_file() or shard.stat().st_size != record.bytes:
            return None
        entry_of = {entry.sample_id: entry for entry in entries}
        if any(_differs(reject, entry_of.get(reject.sample_id)) for reject in record.rejects):
            return None
        if record.inputs is not None and shard_inputs(entries, record.rejects) not in (record.inputs, None):
            return None
        return record if sha256_of(shard) == record.sha256 else None

    def begin(self) -> None:
        """Take away the manifest of a finished build before one of its shards is built again."""
        (self.path / MANIFEST_NAME).unlink(missing_ok=True)

    def keep(self, record: ShardRecord) -> None:
        """Keep the record of a finished shard."""
        write_text(self._record_path(record.number), record.model_dump_json())

    def finish(self, manifest: DatasetManifest) -> None:
        """Write the manifest: from now on the folder is a finished build."""
        write_dataset_manifest(manifest, self.path)
        shutil.rmtree(self._progress)

    @property
    def _progress(self) -> Path:
        return self.path / PROGRESS_FOLDER

    def _record_path(self, number: int) -> Path:
        return self._progress / f"shard-{number:05d}.json"

    def _configuration(self) -> str | None:
        """The configuration of the build that is there, as text; None if there is none."""
        kept = self._progress / CONFIGURATION_NAME
        if (self.path / MANIFEST_NAME).is_file():
            return read_dataset_manifest(self.path).configuration.as_text()
        return kept.read_text(encoding="utf-8", errors="replace") if kept.is_file() else None

    @contextmanager
    def _disk_errors(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
                free = shutil.disk_usage(self.path).free >> 20 if self.path.is_dir() else 0
                raise BuildError(
                    f"no space left to write into {self.path} ({os.strerror(error.errno)}; {free} MiB free): make room "
                    "and run the same command again, complete shards are kept"
                ) from error
            raise BuildError(
                f"{error.filename or self.path}: {error.strerror or error}; complete shards are kept: run the same "
                "command again"
            ) from error


def _differs(reject: Reject, entry: FitEntry | None) -> bool:
    """Whether a fit that was set aside has other files now, and both of them."""
    if entry is None:
        return True
    return entry.fit.is_file() and entry.image.is_file() and inputs_digest(entry) != reject.inputs


def _difference(found: str, wanted: str) -> str:
    """The first few settings in which two configurations differ, in words."""
    try:
        old, new = (_flat(json.loads(text)) for text in (found, wanted))
    except (ValueError, AttributeError, KeyError, TypeError):
        return "unreadable"
    keys = [key for key in new if old.get(key) != new[key]]
    return ", ".join(f"{key}: {str(old.get(key))[:16]} there, {str(new[key])[:16]} asked for" for key in keys[:3])


def _flat(configuration: dict[str, Any]) -> dict[str, Any]:
    return {**configuration, **configuration["settings"], "settings": None}
