"""Files that are whole or not there, and YAML that is read safely."""

from __future__ import annotations

import difflib
import errno
import hashlib
import json
import os
import re
import secrets
import stat
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any, TypeVar

from densegen.errors import BuildError, ConfigurationError, FormatError

if TYPE_CHECKING:
    import numpy.typing as npt
    from pydantic import BaseModel, ValidationError

Kind = TypeVar("Kind", bound="BaseModel")

__all__ = [
    "LOCK_NAME",
    "TEMPORARY_SUFFIX",
    "file_size",
    "find_data_file",
    "first_problem",
    "is_about_the_file",
    "is_leftover",
    "only_one",
    "parse_yaml",
    "read_archive",
    "read_json",
    "read_validated",
    "read_yaml",
    "remove_leftovers",
    "replace_file",
    "sha256_of",
    "stays_below",
    "write_bytes",
    "write_text",
]

MAX_YAML_BYTES = 16 << 20
MAX_ARCHIVE_BYTES = 1 << 30

TEMPORARY_SUFFIX = ".partial"
LOCK_NAME = ".lock"


@contextmanager
def replace_file(path: Path) -> Iterator[Path]:
    """Give a temporary name beside ``path`` to write to; sync and rename it when the block ends well.

    After an error, Ctrl-C or a full disk the temporary file is removed and ``path`` is as it was.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    # Drawn, not the process's number: machines that share a disk have the same numbers.
    temporary = path.with_name(f"{path.name}.{secrets.token_hex(4)}{TEMPORARY_SUFFIX}")
    try:
        yield temporary
        with temporary.open("rb") as file:
            os.fsync(file.fileno())
        temporary.replace(path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


def remove_leftovers(folder: Path) -> None:
    """Remove what :func:`replace_file` leaves in ``folder`` where its process is killed, and nothing else."""
    for path in folder.glob(f"*.????????{TEMPORARY_SUFFIX}"):
        if is_leftover(path):
            path.unlink(missing_ok=True)


def is_leftover(path: Path) -> bool:
    """Whether a file's name is one that :func:`replace_file` gives for the while."""
    return re.search(rf"\.[0-9a-f]{{8}}{re.escape(TEMPORARY_SUFFIX)}$", path.name) is not None


@contextmanager
def only_one(folder: Path, busy: str) -> Iterator[None]:
    """Work in ``folder`` as the only process; raises :class:`BuildError`, saying ``busy``, where another one does."""
    from filelock import FileLock, Timeout

    folder.mkdir(parents=True, exist_ok=True)
    try:
        with FileLock(folder / LOCK_NAME, timeout=0):
            try:
                yield
            finally:  # while it is still held: nobody else can be waiting for this file
                (folder / LOCK_NAME).unlink(missing_ok=True)
    except Timeout as error:
        raise BuildError(busy) from error


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


def read_archive(path: Path, names: Iterable[str], what: str) -> dict[str, npt.NDArray[Any]]:
    """The arrays ``names`` of a NumPy archive (``.npz``); nothing in it is unpickled.

    Raises :class:`FormatError`, which names ``what`` it should be, where it is damaged, lacks one, or unpacks to more
    than ``MAX_ARCHIVE_BYTES``.
    """
    import zipfile

    import numpy as np

    try:
        with zipfile.ZipFile(path) as packed:
            if (size := sum(member.file_size for member in packed.infolist())) > MAX_ARCHIVE_BYTES:
                raise FormatError(
                    f"{path.name} unpacks to {size >> 20} MiB, at most {MAX_ARCHIVE_BYTES >> 20} are read"
                )
        with np.load(path, allow_pickle=False) as archive:
            return {name: np.asarray(archive[name]) for name in names}
    except FormatError:
        raise
    except KeyError as error:
        raise FormatError(f"{path.name} is not a {what}: {error.args[0]}") from error
    # A damaged archive surfaces as almost anything: zlib, tokenizer, value and system errors.
    except Exception as error:
        raise FormatError(f"{path.name} is not a readable {what}: {' '.join(str(error).split())[:120]}") from error


def read_yaml(path: Path, what: str) -> Any:
    """The contents of a YAML file of plain values; ``what`` says in errors what it should have been.

    Raises :class:`ConfigurationError` where it does not exist, :class:`FormatError` where it is no YAML.
    """
    if not path.is_file():
        raise ConfigurationError(f"the {what} {path} does not exist")
    if (size := path.stat().st_size) > MAX_YAML_BYTES:
        raise FormatError(f"{path.name} has {size >> 20} MiB, a {what} at most {MAX_YAML_BYTES >> 20}")
    return parse_yaml(path.read_bytes(), path.name)


def parse_yaml(text: bytes | str, name: str) -> Any:
    """The plain values in YAML text; ``name`` stands in the :class:`FormatError` where it is none."""
    import yaml

    try:
        loader = _loader()(text)
        try:
            return loader.get_single_data()
        finally:
            loader.dispose()
    # Beside its own errors, the loader raises what a nonsensical !!bool or !!timestamp makes it raise.
    except (yaml.YAMLError, ValueError, KeyError, IndexError, AttributeError, TypeError) as error:
        raise FormatError(f"{name} is not readable YAML: {' '.join(str(error).split())[:200]}") from error


@cache
def _loader() -> Any:
    """The safe loader, in C where PyYAML was built with it (ten times as fast), without endless numbers."""
    import yaml

    base: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)

    class Loader(base):  # type: ignore[misc]
        def construct_yaml_int(self, node: Any) -> int:
            value: int = super().construct_yaml_int(node)
            # Python refuses to print larger ones, which an error message would want.
            if value.bit_length() > 128:
                raise ValueError(f"a number of {value.bit_length()} bits")
            return value

    Loader.add_constructor("tag:yaml.org,2002:int", Loader.construct_yaml_int)
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
    """The contents of a JSON file; None where it does not exist or is damaged."""
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (FileNotFoundError, ValueError, RecursionError):
        return None
