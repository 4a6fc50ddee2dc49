"""What a command may write to: a new file, or one that the same command has written."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Literal

from densegen.errors import ConfigurationError

__all__ = ["check_output", "refuse_no_folder"]

_KINDS = {
    ".csv": (b"id,name,region,vertex,uv_column,",),
    ".json": (b"densegen vertex index",),
    ".npy": (b"\x93NUMPY",),
    ".npz": (b"\x00id.npy", b"annotated_by.npy"),
    ".obj": (b"trimesh",),
    ".ply": (b"trimesh",),
    ".png": (b"Software\x00densegen",),
    ".safetensors": (b"densegen morphable model",),
}
"""What stands near the beginning of a file of each kind that densegen or densetrain wrote."""


_FORMAT = re.compile(rb"""^(?:\xef\xbb\xbf)?format: ["']?densegen ([a-z ]+?)["']?\s*$""", re.MULTILINE)
"""What a YAML file of densegen's says that it is."""

_WORDS = {".npz": "a NumPy archive", ".png": "a PNG", ".safetensors": "a safetensors file"}


Format = Literal["vertex index", "candidates", "corrections", "manifest"]


def refuse_no_folder(path: Path) -> None:
    """Refuse a folder for outputs that is a file, or would lie below one; raises :class:`ConfigurationError`."""
    there = next((one for one in (path, *path.parents) if one.exists()), None)
    if there is not None and not there.is_dir():
        raise ConfigurationError(f"{there} is not a folder: choose another one")


def check_output(path: Path, *inputs: Path | None, kind: str | None = None, holds: Format | None = None) -> None:
    """Refuse an output that would replace an input of the same command, or a file that densegen did not write.

    kind : the suffix that the output has to have, if it is one of a kind: ``.png``
    holds : what is written, if that is YAML: a file of another of these is not replaced

    Raises :class:`ConfigurationError`.
    """
    if path.is_dir():
        raise ConfigurationError(f"{path} is a folder: give the name of a file")
    if kind is not None and path.suffix.lower() != kind:
        raise ConfigurationError(f"{path}: what is written is {_WORDS[kind]}; name it {path.with_suffix(kind).name}")
    if not path.exists():
        if (above := next((folder for folder in path.parents if folder.exists()), None)) and not above.is_dir():
            raise ConfigurationError(f"{above} is not a folder: choose another place for {path.name}")
        return
    if any(given is not None and given.exists() and path.samefile(given) for given in inputs):
        raise ConfigurationError(f"{path} is an input of this command: choose another file to write")
    with path.open("rb") as file:
        begin = file.read(8192)
    markers, found = _KINDS.get(path.suffix.lower()), _FORMAT.search(begin)
    if found is not None or path.suffix.lower() in (".yaml", ".yml"):
        ours = found is not None and found[1].decode() == (holds or found[1].decode())
    elif markers is not None:
        ours = any(one in begin for one in markers)
    else:
        ours = not begin.strip(b"0123456789 \r\n\t-") or any(one in begin for known in _KINDS.values() for one in known)
    if not ours and found is not None:
        raise ConfigurationError(f"{path} holds densegen's {found[1].decode()}, not {holds}: choose another name")
    if begin and not ours:
        raise ConfigurationError(f"{path} holds something that densegen did not write: choose another name")
