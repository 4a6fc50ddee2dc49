"""Files that are whole or not there, folders that one process works in, and reading with bounds."""

from __future__ import annotations

import errno
import hashlib
import os
import re
import secrets
import shutil
import signal
import stat
import threading
import time
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path, PurePosixPath
from typing import Any

from densegen.errors import BuildError, ConfigurationError, FormatError

__all__ = [
    "LOCK_NAMES",
    "TEMPORARY_SUFFIX",
    "file_size",
    "files_below",
    "find_data_file",
    "interrupt_ignored",
    "is_about_the_file",
    "is_leftover",
    "is_utf8",
    "only_one",
    "read_bytes",
    "read_text",
    "remove_leftovers",
    "replace_file",
    "replace_files",
    "replace_into",
    "sha256_of",
    "stays_below",
    "walk",
    "write_bytes",
    "write_many",
    "write_text",
]

TEMPORARY_SUFFIX = ".partial"
LONGEST_NAME_BYTES = 230
"""What a name of at most 255 bytes can have before the end that makes it temporary, and a film's ``.mp4``."""
LOCK_NAME, SOFT_SUFFIX = ".lock", "-without-locks"
SOFT_LOCK_NAME = f"{LOCK_NAME}{SOFT_SUFFIX}"
LOCK_NAMES = {LOCK_NAME, SOFT_LOCK_NAME}


@contextmanager
def replace_file(path: Path) -> Iterator[Path]:
    """Give a temporary name beside ``path`` to write to; sync and rename it when the block ends well.

    After an error, Ctrl-C or a full disk the temporary file is removed and ``path`` is as it was.
    """
    with replace_files([path]) as (temporary,):
        yield temporary


@contextmanager
def replace_files(paths: Sequence[Path]) -> Iterator[list[Path]]:
    """Give a temporary name beside each of ``paths``; rename them all when the block ends well, and none if it does
    not, so that the files of one result are never of two.

    Only the system can come between the renames, with an error or the machine's end.
    """
    for path in paths:
        if path.is_dir():
            raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), str(path))
        path.parent.mkdir(parents=True, exist_ok=True)
    temporaries = [_temporary_name(path) for path in paths]
    try:
        yield temporaries
        for temporary in temporaries:
            with temporary.open("r+b") as file:
                os.fsync(file.fileno())
        with interrupt_ignored():
            for temporary, path in zip(temporaries, paths, strict=True):
                temporary.replace(path)
    except BaseException as error:
        for temporary in temporaries:
            temporary.unlink(missing_ok=True)
        if isinstance(error, OSError) and error.errno is not None and error.filename is None:
            error.filename = str(paths[0])  # a full disk does not say what it had no room for
        raise


@contextmanager
def interrupt_ignored() -> Iterator[None]:
    """Ignore Ctrl-C until the block is over; blocks are short, or tidy up after a first one."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, signal.SIG_DFL if before is None else before)


@contextmanager
def replace_into(folder: Path, first: str = "") -> Iterator[Path]:
    """Give a new folder inside ``folder`` to write to; move its files into ``folder``, over those of the same names,
    when the block ends well. After an error ``folder`` holds what it held.

    first : the file that is moved first: if the process is killed in between, it says whose the others are
    """
    with only_one(folder, f"another command is writing into {folder}: wait for it", wait_s=60):
        remove_leftovers(folder)
        staging = _temporary_name(folder / "new")
        staging.mkdir()
        try:
            yield staging
            made = sorted(staging.iterdir(), key=lambda path: (path.name != first, path.name))
            with replace_files([folder / path.name for path in made]) as temporaries:
                for path, temporary in zip(made, temporaries, strict=True):
                    path.replace(temporary)
        finally:
            shutil.rmtree(staging, ignore_errors=True)


def _temporary_name(path: Path) -> Path:
    name = path.name  # cut, if it would be too long with what is put behind it
    while len(os.fsencode(name)) > LONGEST_NAME_BYTES:
        name = name[:-1]
    # Drawn, not the process's number: machines that share a disk have the same numbers.
    return path.with_name(f"{name}.{secrets.token_hex(4)}{TEMPORARY_SUFFIX}")


def remove_leftovers(folder: Path, untouched_s: float = 0) -> None:
    """Remove what a killed process left of the functions above in ``folder``, and nothing else.

    untouched_s : seconds since a file was last written to, for folders that several processes may write to
    """
    for path in folder.glob(f"*.????????{TEMPORARY_SUFFIX}*"):
        with suppress(FileNotFoundError):  # another process has finished it
            if untouched_s and time.time() - path.stat().st_mtime < untouched_s:
                continue
        if is_leftover(path) and path.is_dir() and not path.is_symlink():
            shutil.rmtree(path, ignore_errors=True)
        elif is_leftover(path):
            path.unlink(missing_ok=True)


def is_leftover(path: Path) -> bool:
    """Whether a file's name is one that :func:`replace_file` writes to."""
    return re.search(rf"\.[0-9a-f]{{8}}{re.escape(TEMPORARY_SUFFIX)}(\.mp4)?$", path.name) is not None


@contextmanager
def only_one(folder: Path, busy: str, wait_s: float = 0, name: str = LOCK_NAME) -> Iterator[None]:
    """Work in ``folder`` as the only process; raises :class:`BuildError`, saying ``busy``, if another one still does
    after ``wait_s`` seconds.

    A new folder in which nothing was written is taken away again.

    name : of the file that is locked in ``folder``; another one for a part of the folder

    On a disk without locks (some network disks) a file that is there stands for the lock; one that a killed process
    left has to be deleted by hand, and the error says so.
    """
    from filelock import FileLock, SoftFileLock, Timeout

    is_new = not folder.exists()
    folder.mkdir(parents=True, exist_ok=True)
    lock: Any = FileLock(folder / name, timeout=wait_s)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            try:
                lock.acquire()
            except (NotImplementedError, OSError) as error:
                if isinstance(error, OSError) and (isinstance(error, Timeout) or error.errno not in _NO_LOCKS):
                    raise
                soft = folder / f"{name}{SOFT_SUFFIX}"
                lock, busy = SoftFileLock(soft, timeout=wait_s), f"{busy}{_no_locks(soft)}"
                lock.acquire()
    except Timeout as error:
        raise BuildError(busy) from error
    try:
        yield
    finally:  # The file goes before the lock: after the release it could be another process's lock file.
        with suppress(PermissionError):  # Windows removes no file that is open
            (folder / name).unlink(missing_ok=True)
        lock.release()
        if is_new and folder.is_dir() and not any(folder.iterdir()):
            folder.rmdir()


_NO_LOCKS = {errno.ENOLCK, errno.EOPNOTSUPP, errno.ENOTSUP, errno.ENOSYS}


def _no_locks(path: Path) -> str:
    return f"; this disk has no locks: if nothing runs there, delete {path}"


def write_bytes(path: Path, data: bytes) -> None:
    """Write ``data`` to ``path``, whole or not at all."""
    with replace_file(path) as temporary:
        temporary.write_bytes(data)


def write_many(contents: dict[Path, bytes]) -> None:
    """Write several files, all of them whole or none."""
    with replace_files(list(contents)) as temporaries:
        for temporary, data in zip(temporaries, contents.values(), strict=True):
            temporary.write_bytes(data)


def write_text(path: Path, text: str) -> None:
    """Write ``text`` to ``path`` as UTF-8 with \\n line ends, whole or not at all."""
    write_bytes(path, text.encode())


def stays_below(path: str) -> bool:
    """Whether a path with ``/`` stays in the folder that it is joined to, on every system."""
    return not path.startswith("/") and ".." not in path.split("/") and not re.search(r"\\|\0|^[A-Za-z]:", path)


def walk(folder: Path) -> Iterator[tuple[PurePosixPath, list[str]]]:
    """A folder and all below it, sorted: the path of each from ``folder``, and the names of its files, sorted.

    What is hidden (``.name``) is left out. Links to folders are followed, and no folder is entered twice. Raises
    ``OSError`` if one cannot be read.
    """
    entered = {os.path.realpath(folder)}

    def fail(error: OSError) -> None:
        raise error

    def enter(path: str) -> bool:
        real = os.path.realpath(path)
        new = real not in entered
        entered.add(real)
        return new

    for place, folders, files in os.walk(folder, onerror=fail, followlinks=True):
        folders[:] = [one for one in sorted(folders) if not one.startswith(".") and enter(os.path.join(place, one))]
        yield (
            PurePosixPath(*Path(place).relative_to(folder).parts),
            sorted(one for one in files if not one.startswith(".")),
        )


def files_below(folder: Path, suffixes: tuple[str, ...]) -> list[Path]:
    """The files of :func:`walk` with one of these suffixes, upper or lower case, sorted by path."""
    return sorted(
        folder / place / name for place, names in walk(folder) for name in names if name.lower().endswith(suffixes)
    )


def file_size(path: Path) -> int:
    """Bytes of a file; raises ``OSError`` if it is none: a device or a pipe would never end."""
    status = path.stat()
    if not stat.S_ISREG(status.st_mode):
        raise OSError(errno.EINVAL, "not a regular file", str(path))
    return status.st_size


def is_about_the_file(error: OSError) -> bool:
    """Whether an error says something of the file itself (it is not there, is a folder, a pipe, a loop of links), and
    not of a disk that faltered: that may read it the next time.
    """
    return error.errno in _OF_THE_FILE


_OF_THE_FILE = {errno.ENOENT, errno.ENOTDIR, errno.EISDIR, errno.EINVAL, errno.ELOOP, errno.ENAMETOOLONG}


def sha256_of(path: Path) -> str:
    """SHA-256 of a file's bytes, as hexadecimal; raises ``OSError`` if it cannot be read or is no file."""
    file_size(path)
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def is_utf8(name: str | Path) -> bool:
    """Whether a name or path can be written down: Linux allows any bytes, and Python holds those as surrogates."""
    try:
        str(name).encode()
    except UnicodeEncodeError:
        return False
    return True


def find_data_file(name: str) -> Path:
    """A file of ``data_manifests``, from the installed package or from a source tree."""
    package = Path(__file__).resolve().parent
    for folder in (package / "data_manifests", package.parent / "data_manifests"):
        if (folder / name).is_file():
            return folder / name
    raise ConfigurationError(f"densegen's own file {name} is missing: reinstall densegen")


def read_bytes(path: Path, what: str, max_bytes: int) -> bytes:
    """The bytes of a file that a person gave; ``what`` says in errors what it should have been.

    Raises :class:`ConfigurationError` if it does not exist, :class:`FormatError` if it is no file (a pipe would be
    waited for, a device read for ever) or larger than ``max_bytes``, ``OSError`` if it cannot be read.
    """
    try:
        size = file_size(path)
    except FileNotFoundError as error:
        raise ConfigurationError(f"the {what} {path} does not exist") from error
    except OSError as error:
        if not is_about_the_file(error):
            raise
        raise FormatError(f"{path} is no {what}: {error.strerror}") from error
    if size > max_bytes:
        raise FormatError(f"{path.name} has {size:,} bytes, a {what} at most {max_bytes:,}")
    return path.read_bytes()


def read_text(path: Path, what: str, max_bytes: int) -> str:
    """The same as UTF-8 text; raises :class:`FormatError` if it is none."""
    try:
        return read_bytes(path, what, max_bytes).decode("utf-8")
    except UnicodeDecodeError as error:
        raise FormatError(f"{path.name} is no {what}: it is not UTF-8 text") from error
