"""The fits of a dataset, as they lie in its folders: what a build goes through."""

from __future__ import annotations

import os
import re
import unicodedata
from collections.abc import Collection
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path, PurePosixPath

from densegen.conventions import MIRROR_SUFFIX, FlipPolicy
from densegen.errors import ConfigurationError
from densegen.files import is_utf8, stays_below, walk
from densegen.sources.manifest import Manifest, Subset
from densegen.sources.photograph import IMAGE_SUFFIXES

__all__ = ["FitEntry", "check_name", "find_image", "list_fits"]


@dataclass(frozen=True)
class FitEntry:
    """One fit of a dataset: where it lies, and what it counts as.

    flipped : whether it comes from a shipped flip folder
    source : the image's path below the root, with ``/``
    """

    sample_id: str
    fit: Path
    image: Path
    group: str
    split: str
    flipped: bool
    source: str

    @property
    def mirrored_id(self) -> str:
        """The id of the sample that mirroring makes of it."""
        return f"{self.sample_id}{MIRROR_SUFFIX}"


def list_fits(manifest: Manifest, root: Path, flip: FlipPolicy) -> list[FitEntry]:
    """Every fit under ``root``, sorted by sample id; with ``flip="shipped"`` those of the ``_Flip`` folders, too.

    Raises :class:`ConfigurationError` if the policy is not the dataset's, the root or every folder is missing, or
    two fits have the same id.
    """
    manifest.check_flip(flip)
    if not root.is_dir():
        raise ConfigurationError(f"the root {root} is not a folder: give the dataset's with --root")
    entries: list[FitEntry] = []
    place_of: dict[str, Path] = {}  # by the folder that it is, whatever links lead there
    for subset in manifest.subsets:
        folders = [(subset.directory, False)]
        if flip == "shipped" and subset.shipped_flips:
            folders.append((subset.shipped_flips, True))
        for folder, flipped in folders:
            found = _list_folder(manifest, subset, root, folder, flipped)
            for place in {entry.fit.parent for entry in found}:
                if (other := place_of.setdefault(os.path.realpath(place), place)) != place:
                    raise ConfigurationError(f"{other} and {place} are one folder: keep one of them")
            if flipped and not found and any(entry.group.startswith(f"{subset.name}/") for entry in entries):
                raise ConfigurationError(
                    f"{root / folder} holds no fit, but {subset.directory} does: use --flip mirror"
                )
            entries += found
    if not entries:
        folders_tried = ", ".join(subset.directory for subset in manifest.subsets)
        raise ConfigurationError(f"{root} holds no fit (*.mat) in {folders_tried}: is it the root of {manifest.title}?")
    entries.sort(key=lambda entry: entry.sample_id)
    for first, second in pairwise(entries):
        if first.sample_id == second.sample_id:
            raise ConfigurationError(f"two fits have the id {first.sample_id}: {first.fit} and {second.fit}")
    return entries


def _list_folder(manifest: Manifest, subset: Subset, root: Path, name: str, flipped: bool) -> list[FitEntry]:
    folder = root / name
    if not folder.is_dir():
        return []
    below = [place for place, _ in walk(folder)] if manifest.layout == "nested" else [PurePosixPath()]
    return [entry for path in below for entry in _entries_of(manifest, subset, root, name, path, flipped)]


def _entries_of(
    manifest: Manifest, subset: Subset, root: Path, name: str, below: PurePosixPath, flipped: bool
) -> list[FitEntry]:
    """The fits that lie in one folder; ``below`` leads there from the subset's own."""
    here, beside = root / name / below, PurePosixPath(subset.images or name) / below
    files = {path.name for path in here.iterdir()}
    images = root / beside
    pictures = files if images == here else {path.name for path in images.iterdir()} if images.is_dir() else set()
    pattern = re.compile(subset.group)
    prefix = (PurePosixPath(name) if PurePosixPath(name).parts else PurePosixPath(subset.name)) / below
    entries = []
    for file in sorted(files):
        stem, suffix = file[: file.rfind(".")], file[file.rfind(".") :].lower()
        if suffix != ".mat" or file.startswith("."):
            continue
        image = find_image(stem, pictures, images)
        check_name(str(below / stem), root / name)
        match = pattern.search(stem)
        if match is None or match.group(1) is None:
            raise ConfigurationError(f"{here / file}: the pattern {subset.group!r} names no source photograph")
        group = str(PurePosixPath(subset.name) / below / match.group(1))
        image = image or f"{stem}{IMAGE_SUFFIXES[0]}"
        entries.append(
            FitEntry(
                sample_id=str(prefix / stem),
                fit=here / file,
                image=images / image,
                group=group,
                split=manifest.split.of(group),
                flipped=flipped,
                source=str(beside / image),
            )
        )
    return entries


_WRITTEN_SUFFIXES = tuple(written for s in IMAGE_SUFFIXES for written in (s, s.upper(), f".{s[1:].capitalize()}"))
"""As files have them: .jpg, .JPG, .Jpg."""


def find_image(stem: str, names: Collection[str], folder: Path) -> str | None:
    """The name of a fit's image among the names in a folder, if there is one.

    Raises :class:`ConfigurationError` if there are two.
    """
    images = [f"{stem}{suffix}" for suffix in _WRITTEN_SUFFIXES if f"{stem}{suffix}" in names]
    if len(images) > 1:
        raise ConfigurationError(f"{folder / stem}.mat has two images, {images[0]} and {images[1]}: keep one")
    return images[0] if images else None


def check_name(stem: str, folder: Path) -> None:
    """Raise :class:`ConfigurationError` if a fit in a folder has a name without suffix that no sample can have."""
    if not is_utf8(stem):
        raise ConfigurationError(f"{folder} holds a file whose name is not UTF-8: {stem!a}: rename it")
    if any(unicodedata.category(c) in ("Cc", "Zl", "Zp") for c in stem):
        raise ConfigurationError(f"{folder} holds a file whose name has a line break or the like: {stem!a}: rename it")
    if not stays_below(stem):
        raise ConfigurationError(f"{folder} holds a file whose name is a path elsewhere: {stem!r}: rename it")
    if stem.endswith(MIRROR_SUFFIX):
        raise ConfigurationError(f"{folder / stem} ends in {MIRROR_SUFFIX}, which marks samples that densegen mirrors")
