"""Files that are whole or not there, and YAML that is read safely."""

from __future__ import annotations

import difflib
import errno
import hashlib
import json
import os
import re
import secrets
import shutil
import signal
import stat
import threading
import warnings
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from functools import cache
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any, ClassVar, TypeVar

from densegen.errors import BuildError, ConfigurationError, FormatError

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt
    from pydantic import BaseModel, ValidationError

Kind = TypeVar("Kind", bound="BaseModel")

__all__ = [
    "LOCK_NAMES",
    "TEMPORARY_SUFFIX",
    "file_size",
    "find_data_file",
    "first_problem",
    "interrupt_ignored",
    "is_about_the_file",
    "is_leftover",
    "only_one",
    "parse_yaml",
    "read_archive",
    "read_bytes",
    "read_json",
    "read_text",
    "read_validated",
    "read_yaml",
    "remove_leftovers",
    "replace_file",
    "replace_files",
    "replace_into",
    "sha256_of",
    "stays_below",
    "write_bytes",
    "write_text",
]

MAX_YAML_BYTES = 2 << 20
MAX_YAML_VALUES = 100_000
"""densegen's own index has 13,000 in 120 kB."""

MAX_JSON_BYTES = 256 << 20
"""The manifest of a dataset of 100,000 shards has 40 MB."""

MAX_ARCHIVE_BYTES = 128 << 20

TEMPORARY_SUFFIX = ".partial"
LOCK_NAME, SOFT_LOCK_NAME = ".lock", ".lock-without-locks"
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
    except BaseException:
        for temporary in temporaries:
            temporary.unlink(missing_ok=True)
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
def replace_into(folder: Path) -> Iterator[Path]:
    """Give a new folder inside ``folder`` to write to; move its files into ``folder``, over those of the same names,
    when the block ends well. After an error ``folder`` holds what it held.
    """
    with only_one(folder, f"another command is writing into {folder}: wait for it", wait_s=60):
        remove_leftovers(folder)
        staging = _temporary_name(folder / "new")
        staging.mkdir()
        try:
            yield staging
            with replace_files([folder / path.name for path in sorted(staging.iterdir())]) as temporaries:
                for path, temporary in zip(sorted(staging.iterdir()), temporaries, strict=True):
                    path.replace(temporary)
        finally:
            shutil.rmtree(staging, ignore_errors=True)


def _temporary_name(path: Path) -> Path:
    # Drawn, not the process's number: machines that share a disk have the same numbers.
    return path.with_name(f"{path.name}.{secrets.token_hex(4)}{TEMPORARY_SUFFIX}")


def remove_leftovers(folder: Path) -> None:
    """Remove what a killed process left of the functions above in ``folder``, and nothing else."""
    for path in folder.glob(f"*.????????{TEMPORARY_SUFFIX}*"):
        if is_leftover(path) and path.is_dir() and not path.is_symlink():
            shutil.rmtree(path, ignore_errors=True)
        elif is_leftover(path):
            path.unlink(missing_ok=True)


def is_leftover(path: Path) -> bool:
    """Whether a file's name is one that :func:`replace_file` writes to."""
    return re.search(rf"\.[0-9a-f]{{8}}{re.escape(TEMPORARY_SUFFIX)}(\.mp4)?$", path.name) is not None


@contextmanager
def only_one(folder: Path, busy: str, wait_s: float = 0) -> Iterator[None]:
    """Work in ``folder`` as the only process; raises :class:`BuildError`, saying ``busy``, if another one still does
    after ``wait_s`` seconds.

    A new folder in which nothing was written is taken away again.

    On a disk without locks (some network disks) a file that is there stands for the lock; one that a killed process
    left has to be deleted by hand, and the error says so.
    """
    from filelock import FileLock, SoftFileLock, Timeout

    is_new = not folder.exists()
    folder.mkdir(parents=True, exist_ok=True)
    lock: Any = FileLock(folder / LOCK_NAME, timeout=wait_s)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            try:
                lock.acquire()
            except (NotImplementedError, OSError) as error:
                if isinstance(error, OSError) and (isinstance(error, Timeout) or error.errno not in _NO_LOCKS):
                    raise
                lock, busy = SoftFileLock(folder / SOFT_LOCK_NAME, timeout=wait_s), f"{busy}{_no_locks(folder)}"
                lock.acquire()
    except Timeout as error:
        raise BuildError(busy) from error
    try:
        yield
    finally:  # while it is still held: nobody else can be waiting for this file
        with suppress(PermissionError):  # Windows removes no file that is open
            (folder / LOCK_NAME).unlink(missing_ok=True)
        lock.release()
        if is_new and folder.is_dir() and not any(folder.iterdir()):
            folder.rmdir()


_NO_LOCKS = {errno.ENOLCK, errno.EOPNOTSUPP, errno.ENOTSUP, errno.ENOSYS}


def _no_locks(folder: Path) -> str:
    return f"; this disk has no locks: if nothing runs there, delete {folder / SOFT_LOCK_NAME}"


def write_bytes(path: Path, data: bytes) -> None:
    """Write ``data`` to ``path``, whole or not at all."""
    with replace_file(path) as temporary:
        temporary.write_bytes(data)


def write_text(path: Path, text: str) -> None:
    """Write ``text`` to ``path`` as UTF-8 with \\n line ends, whole or not at all."""
    write_bytes(path, text.encode())


def stays_below(path: str) -> bool:
    """Whether a path with ``/`` stays in the folder that it is joined to, on every system."""
    pure = PurePosixPath(path)
    return not pure.is_absolute() and ".." not in pure.parts and not re.search(r"\\|\0|^[A-Za-z]:", path)


def file_size(path: Path) -> int:
    """Bytes of a file; raises ``OSError`` where it is none: a device or a pipe would never end."""
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
    """SHA-256 of a file's bytes, as hexadecimal; raises ``OSError`` where it cannot be read or is no file."""
    file_size(path)
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


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


def read_archive(path: Path, names: Iterable[str], what: str) -> dict[str, npt.NDArray[Any]]:
    """The arrays ``names`` of a NumPy archive (``.npz``); nothing in it is unpickled.

    Raises :class:`FormatError`, which names ``what`` it should be, if it is damaged, lacks one, or unpacks to more
    than ``MAX_ARCHIVE_BYTES``.
    """
    import zipfile

    import numpy as np

    try:
        file_size(path)
        with zipfile.ZipFile(path) as packed:
            members = packed.infolist()
            # Other methods unpack by whole blocks, whatever size a member says it has.
            if any(member.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED) for member in members):
                raise FormatError(f"{path.name} is packed in another way than NumPy packs: save it with np.savez")
            if (size := sum(member.file_size for member in members)) > MAX_ARCHIVE_BYTES:
                raise FormatError(
                    f"{path.name} unpacks to {size >> 20} MiB, at most {MAX_ARCHIVE_BYTES >> 20} are read"
                )
        with np.load(path, allow_pickle=False) as archive:
            arrays = {name: np.asarray(archive[name]) for name in names}
        for name, array in arrays.items():
            # NumPy keeps text as numbers, and a number that is no character ends Python's own text functions.
            if array.dtype.kind == "U" and (_code_points(array) >= 0x110000).any():
                raise FormatError(f"{path.name} is not a readable {what}: {name} holds what is no character")
        return arrays
    except FormatError:
        raise
    except KeyError as error:
        raise FormatError(f"{path.name} is not a {what}: {error.args[0]}") from error
    # A damaged archive surfaces as almost anything: zlib, tokenizer, value and system errors.
    except Exception as error:
        raise FormatError(f"{path.name} is not a readable {what}: {' '.join(str(error).split())[:120]}") from error


def _code_points(texts: npt.NDArray[np.str_]) -> npt.NDArray[np.uint32]:
    import numpy as np

    return np.frombuffer(texts.astype(texts.dtype.newbyteorder("=")).tobytes(), np.uint32)


def read_yaml(path: Path, what: str) -> Any:
    """The contents of a YAML file of plain values; ``what`` says in errors what it should have been.

    Raises :class:`ConfigurationError` if it does not exist, :class:`FormatError` if it is no YAML.
    """
    return parse_yaml(read_bytes(path, what, MAX_YAML_BYTES), path.name)


def parse_yaml(text: bytes | str, name: str) -> Any:
    """The plain values in YAML text; ``name`` stands in the :class:`FormatError` if it is none.

    Numbers are those of YAML 1.2: ``1:30`` is text, ``1e3`` a number. Aliases are refused: a few bytes of them can
    stand for gigabytes.
    """
    import yaml

    data = text if isinstance(text, bytes) else text.encode("utf-8", "surrogatepass")
    # Each value begins with one of these; values of a few bytes take seconds and hundreds of megabytes by the million.
    if sum(map(data.count, (b",", b"[", b"{", b"\n", b"- ", b": ", b"? "))) > MAX_YAML_VALUES:
        raise FormatError(f"{name} holds too many values: at most {MAX_YAML_VALUES:,} are read")
    try:
        if b"*" in data and any(isinstance(event, yaml.AliasEvent) for event in yaml.parse(data, Loader=_loader())):
            raise FormatError(f"{name} holds an alias (*): write its value out")
        loader = _loader()(data)
        try:
            return loader.get_single_data()
        finally:
            loader.dispose()
    except FormatError:
        raise
    # Beside its own errors, the loader raises whatever a nonsensical !!bool or !!timestamp makes it raise.
    except Exception as error:
        raise FormatError(f"{name} is not readable YAML: {' '.join(str(error).split())[:200]}") from error


_YAML_INT = re.compile(r"^[-+]?(?:[0-9]{1,30}|0x[0-9a-fA-F]{1,24})$")
_YAML_FLOAT = re.compile(
    r"^[-+]?(?:[0-9]{1,60}\.[0-9]{0,60}|\.[0-9]{1,60}|[0-9]{1,60}(?=[eE]))(?:[eE][-+]?[0-9]{1,5})?$"
    r"|^[-+]?\.(?:inf|Inf|INF)$|^\.(?:nan|NaN|NAN)$"
)


@cache
def _loader() -> Any:
    """The safe loader, in C if PyYAML was built with it (ten times as fast), with numbers of bounded length."""
    import yaml

    base: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
    int_tag, float_tag = "tag:yaml.org,2002:int", "tag:yaml.org,2002:float"

    class Loader(base):  # type: ignore[misc]
        yaml_implicit_resolvers: ClassVar[dict[str, list[Any]]] = {
            first: [(tag, pattern) for tag, pattern in resolvers if tag not in (int_tag, float_tag)]
            for first, resolvers in base.yaml_implicit_resolvers.items()
        }

        def construct_number(self, node: Any) -> int | float:
            word = str(self.construct_scalar(node))
            if _YAML_INT.match(word):
                return int(word, 16 if "x" in word else 10)
            if _YAML_FLOAT.match(word):
                return float(word.lower().replace(".inf", "inf").replace(".nan", "nan"))
            raise ValueError(f"{word[:40]!r} is no number")

    for tag, pattern in ((int_tag, _YAML_INT), (float_tag, _YAML_FLOAT)):
        Loader.add_implicit_resolver(tag, pattern, list("-+.0123456789"))
        Loader.add_constructor(tag, Loader.construct_number)
    return Loader


def read_validated(kind: type[Kind], path: Path, what: str) -> Kind:
    """A YAML file as a pydantic model; raises :class:`FormatError` with the first thing that is wrong in it."""
    from pydantic import ValidationError

    try:
        return kind.model_validate(read_yaml(path, what))
    except ValidationError as error:
        raise FormatError(f"{path.name}: {first_problem(error, kind)}") from error


def first_problem(error: ValidationError, kind: type[BaseModel] | None = None) -> str:
    """The first thing that is wrong, on one line, with its place: ``landmarks.3.uv: Field required``.

    kind : what was validated, where an unknown name shall bring the known one that it resembles
    """
    first = error.errors()[0]
    place = ".".join(map(str, first["loc"]))
    message = first["msg"].removeprefix("Value error, ")
    if first["type"] == "extra_forbidden":
        message = f"there is no such field{_resembling(first['loc'], kind)}"
    return f"{place}: {message}" if place else message


def _resembling(place: tuple[int | str, ...], kind: Any) -> str:
    for part in place[:-1]:
        field = getattr(kind, "model_fields", {}).get(part)
        kind = None if field is None else field.annotation
    known = difflib.get_close_matches(str(place[-1]), list(getattr(kind, "model_fields", {})), n=1)
    return f"; did you mean {'.'.join(map(str, (*place[:-1], known[0])))}?" if known else ""


def read_json(path: Path) -> Any | None:
    """The contents of a JSON file; None if it does not exist or is damaged.

    Raises :class:`FormatError` if it is no file or larger than ``MAX_JSON_BYTES``, ``OSError`` if it cannot be read.
    """
    try:
        return json.loads(read_bytes(path, "JSON file", MAX_JSON_BYTES))
    except (ConfigurationError, ValueError, RecursionError):
        return None
