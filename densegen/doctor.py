"""What a machine has and lacks for both commands: rows of a name and a sentence, gathered without loading libraries."""

from __future__ import annotations

import os
import platform
import shutil
import sys
from collections.abc import Callable, Iterable, Iterator
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from densegen.console import processors
from densegen.errors import DensegenError
from densegen.extras import EXTRAS_OF, install_line
from densegen.remembered import MODEL_VARIABLE, remembered_model, remembered_path, remembered_root

__all__ = ["Row", "describe_datasets", "describe_libraries", "describe_machine", "describe_model", "show"]

Row = tuple[str, str]

PACKAGE_OF = {"cv2": ("opencv-python-headless", "opencv-python", "opencv-contrib-python")}
"""The distributions of a library that is not called as it is imported."""


def show(title: str, rows: Iterable[Row], say: Callable[[str], None]) -> None:
    """Print a part of the report."""
    say(f"{title}:")
    for name, text in rows:
        say(f"  {name:18} {text}")


def describe_machine() -> Iterator[Row]:
    """Python, processors, memory, and the space where the command was called."""
    yield "python", f"{platform.python_version()}, {sys.platform}, {platform.machine()}"
    yield "processors", f"{processors()}"
    if hasattr(os, "sysconf") and "SC_PHYS_PAGES" in os.sysconf_names:
        yield "memory", f"{os.sysconf('SC_PAGE_SIZE') * os.sysconf('SC_PHYS_PAGES') / 2**30:.1f} GiB"
    yield "free disk here", f"{shutil.disk_usage(Path.cwd()).free / 2**30:.1f} GiB"


def describe_libraries(base: Iterable[str], extras: Iterable[str]) -> Iterator[Row]:
    """The versions of ``base``, which are always there, and of what the extras bring, or how to get it."""
    yield "densegen", version("densegen")
    for name in base:
        yield name, _version(name) or "MISSING: reinstall densegen"
    for extra in extras:
        found = {name: _version(name) for name, of in EXTRAS_OF.items() if extra in of}
        lacking = [name for name, known in found.items() if known is None]
        has = ", ".join(f"{name} {known}" for name, known in found.items() if known)
        lacks = f"lacks {', '.join(lacking)}: {install_line(extra)}" if lacking else ""
        yield f"[{extra}]", "; ".join(filter(None, [has, lacks]))


def _version(library: str) -> str | None:
    for package in PACKAGE_OF.get(library, (library,)):
        try:
            return version(package)
        except PackageNotFoundError:
            continue
    return None


def describe_model() -> Iterator[Row]:
    """The model that commands take without ``--model``, and what may be done with it."""
    from densegen.face.model_file import read_model

    yield "embedded", "procedural face: MIT, as the code"
    try:
        path = remembered_model()
        if path is None:
            yield "Basel Face Model", f"none remembered: 'densegen remember --model FILE', or ${MODEL_VARIABLE}"
            yield "", "made from its downloads by 'densegen model build'"
        else:
            model = read_model(path)
            components = f"{len(model.shape_basis)} + {len(model.expression_basis)} components"
            yield model.name, f"{path}: {len(model.mean):,} vertices, {components}"
    except (DensegenError, OSError) as error:
        yield "remembered", f"NOT READABLE: {error}"
    yield "licence", "Basel Face Model and what is made of it: non-commercial research, no redistribution"


def describe_datasets() -> Iterator[Row]:
    """Of each manifest that comes along: where its files lie, how many of its folders are there, its licence."""
    from densegen.sources.manifest import named_manifests, read_manifest

    yield "remembered in", f"{remembered_path()}"
    for name in named_manifests():
        manifest = read_manifest(name)
        try:
            root = None if manifest.synthetic else remembered_root(name)
        except (DensegenError, OSError) as error:
            yield name, f"NOT READABLE: {error}"
            continue
        if manifest.synthetic:
            where = "drawn when it is built"
        elif root is None:
            where = f"no folder remembered: 'densegen remember --root {name}=FOLDER'"
        else:
            there = sum((root / subset.directory).is_dir() for subset in manifest.subsets)
            where = f"{root}: {there} of {len(manifest.subsets)} folders"
        yield name, where
        yield "", f"licence: {' '.join(manifest.licence.split())}"
