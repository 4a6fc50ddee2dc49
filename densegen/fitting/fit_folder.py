"""The folder that fits are written into: whose it is, and every face's files whole or not there."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path, PurePosixPath

from densegen.errors import ConfigurationError
from densegen.executors import INLINE, Pool
from densegen.files import (
    LOCK_NAMES,
    is_leftover,
    only_one,
    remove_leftovers,
    replace_file,
    sha256_of,
    write_bytes,
    write_text,
)
from densegen.fitting.face_tasks import FaceTask, FitOutcome
from densegen.fitting.fitter import Fitter
from densegen.outputs import refuse_no_folder
from densegen.records import read_json
from densegen.sources.fits import fit_bytes

__all__ = [
    "MANIFEST_NAME",
    "OVERLAYS_NAME",
    "REPORT_FORMAT",
    "REPORT_NAME",
    "check_output_folder",
    "run_tasks",
    "writing",
]

MAKER = "densegen fits"

MANIFEST_NAME, REPORT_NAME, OVERLAYS_NAME = "manifest.yaml", "report.json", "overlays.png"

REPORT_FORMAT = "densegen fits report"

CHUNK = 16
"""Faces a task of a worker."""


@contextmanager
def writing(out: Path, tasks: Sequence[FaceTask]) -> Iterator[None]:
    """While fits and what is said of them are written into a folder: for one process at a time, and without an earlier
    run's manifest, which is written last and says that all is there.

    Raises what :func:`check_output_folder` raises, and :class:`BuildError` if another process writes there.
    """
    with only_one(out, f"another process is writing fits into {out}: wait for it, or choose another folder"):
        check_output_folder(out, tasks)
        for name in (MANIFEST_NAME, OVERLAYS_NAME):  # before the report that knows the manifest
            (out / name).unlink(missing_ok=True)
        write_text(out / REPORT_NAME, json.dumps({"format": REPORT_FORMAT, "status": "running"}) + "\n")
        for folder in {out, *((out / task.name).parent for task in tasks)}:
            folder.mkdir(parents=True, exist_ok=True)
            remove_leftovers(folder)
        yield


def run_tasks(
    fitter: Fitter, tasks: Sequence[FaceTask], out: Path, pool: Pool = INLINE,
    advance: Callable[[int, int], None] = lambda done, aside: None,
) -> list[FitOutcome]:  # fmt: skip
    """Fit each face, and write ``OUT/NAME.mat`` and its photograph beside it; the outcomes in the order of the tasks.

    out : a folder that is :func:`writing`
    advance : told how many more are done, and how many of them were set aside
    """
    outcomes: dict[str, FitOutcome] = {}
    chunks = (tasks[first : first + CHUNK] for first in range(0, len(tasks), CHUNK))
    for done in pool.run(partial(_run_chunk, fitter, out), chunks):
        outcomes |= {outcome.task.name: outcome for outcome in done}
        advance(len(done), sum(outcome.reason is not None for outcome in done))
    return [outcomes[task.name] for task in tasks]


def _run_chunk(fitter: Fitter, out: Path, tasks: Iterable[FaceTask]) -> list[FitOutcome]:
    from threadpoolctl import threadpool_limits

    outcomes = []
    with threadpool_limits(1):
        for task in tasks:
            outcome, fit = fitter.run(task)
            path = out / f"{task.name}.mat"
            image = path.with_suffix(task.image.suffix.lower())
            if outcome.reason is None and task.points is None and task.earlier is not None:
                _copy(task.earlier, path)
            elif fit is not None:
                write_bytes(path, fit_bytes(fit, MAKER))
            if outcome.reason is None:
                _copy(task.image, image)
            else:  # of an earlier run with other settings
                path.unlink(missing_ok=True)
                image.unlink(missing_ok=True)
            outcomes.append(outcome)
    return outcomes


def _copy(source: Path, target: Path) -> None:
    if not source.exists():
        return
    with replace_file(target) as temporary:
        temporary.write_bytes(source.read_bytes())


def check_output_folder(out: Path, tasks: Sequence[FaceTask]) -> None:
    """Refuse a folder that is not empty and not of an earlier run with the same faces, or that holds what is read, or a
    manifest that a person has edited; writes nothing.

    Raises :class:`ConfigurationError`.
    """
    refuse_no_folder(out)
    own = os.path.realpath(out)
    sources = {os.path.realpath(source.parent) for task in tasks for source in (task.image, task.earlier) if source}
    if any(source == own or source.startswith(f"{own}{os.sep}") for source in sources):
        raise ConfigurationError(f"{out} holds what is read: choose another folder to write")
    known = {f"{task.name}{suffix}" for task in tasks for suffix in (".mat", task.image.suffix.lower())}
    known |= {MANIFEST_NAME, REPORT_NAME, OVERLAYS_NAME, *LOCK_NAMES}
    there = [path for path in out.rglob("*") if not path.is_dir() and not is_leftover(path)] if out.is_dir() else []
    contents = read_json(out / REPORT_NAME) if there else None
    report = contents if isinstance(contents, dict) else {}
    ours = report.get("format") == REPORT_FORMAT
    for path in there:
        name = PurePosixPath(*path.relative_to(out).parts)
        if str(name) not in known or not (ours or str(name) in LOCK_NAMES):
            raise ConfigurationError(f"{out} holds something else than these fits ({name}): choose another folder")
    if (out / MANIFEST_NAME).is_file() and ours and report.get("manifest_sha256") != sha256_of(out / MANIFEST_NAME):
        raise ConfigurationError(f"{out / MANIFEST_NAME} was edited: move it away, or choose another folder")
