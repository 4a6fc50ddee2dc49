"""A manifest for a folder of fits that has none: what lies where, and what is missing."""

from __future__ import annotations

import os
import re
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path, PurePosixPath
from typing import Any

from pydantic import ValidationError

from densegen.console import counted
from densegen.errors import ConfigurationError
from densegen.files import walk, write_text
from densegen.records import first_problem
from densegen.sources.fit_list import FitEntry, find_image, list_fits
from densegen.sources.manifest import Manifest, read_manifest, read_named_manifest
from densegen.sources.photograph import IMAGE_SUFFIXES

__all__ = ["FoundManifest", "fits_below", "manifest_of_folder", "manifest_of_part", "manifest_text", "write_manifest"]

HEAD = "# densegen manifest, written by 'densegen manifest init' or 'densegen fits': correct what it got wrong.\n"

MOST_SUBSETS = 16
"""Of more folders, one subset is made, with all folders below it."""

SAME_PHOTOGRAPH = r"^(.+?)(?:_face\d+)?$"
"""The faces of one photograph, as 'densegen fits make' names them, stay in one split."""

GROUPED = ("300w_lp",)
"""Manifests of datasets with several fits of one photograph, whose file names say so."""

FLIP_SUFFIX = "_Flip"


@dataclass(frozen=True)
class FoundManifest:
    """A manifest, and in lines what a person should know of it."""

    manifest: Manifest
    notes: tuple[str, ...]


@dataclass(frozen=True)
class _Tree:
    """What lies in a folder and in those below it, by their paths from it.

    fits : names of the fits, without ``.mat``
    pictures : names of the images
    """

    folder: Path
    fits: dict[PurePosixPath, list[str]]
    pictures: dict[PurePosixPath, set[str]]

    @classmethod
    def of(cls, folder: Path) -> _Tree:
        fits: dict[PurePosixPath, list[str]] = {}
        pictures: dict[PurePosixPath, set[str]] = {}
        for place, files in walk(folder):
            if stems := [one[:-4] for one in files if one.lower().endswith(".mat")]:
                fits[place] = stems
            if images := {one for one in files if one.lower().endswith(IMAGE_SUFFIXES)}:
                pictures[place] = images
        return cls(folder, fits, pictures)

    @cached_property
    def flips(self) -> dict[PurePosixPath, PurePosixPath]:
        """The folder of a folder's mirrored photographs, if it has one."""
        named = {place: place.with_name(place.name + FLIP_SUFFIX) for place in self.fits if place.name}
        return {place: flip for place, flip in named.items() if flip in self.fits}

    def name_of(self, place: PurePosixPath, text: str) -> str:
        """A subset's name: what a manifest may have of ``text``, or at the top of the folder's own name."""
        return re.sub(r"[^A-Za-z0-9_-]+", "-", text if place.parts else self.folder.resolve().name).strip("-") or "FITS"


def manifest_of_folder(folder: Path, name: str | None = None) -> FoundManifest:
    """The manifest of the fits in ``folder`` and below it.

    Each folder with fits is a subset; of many, the root is one. Folders named ``X_Flip`` beside an ``X`` are its
    mirrored photographs. If images do not lie beside the fits, a folder with images of the same names is looked for.

    Raises :class:`ConfigurationError` if there is no folder or no fit, or a folder has a name that cannot stand in a
    manifest.
    """
    if not folder.is_dir():
        raise ConfigurationError(f"{folder} is not a folder")
    tree = _Tree.of(folder)
    if not tree.fits:
        raise ConfigurationError(f"{folder} holds no fit (*.mat), neither do the folders in it")
    title = (name or folder.resolve().name).encode("utf-8", "replace").decode()
    many = len(tree.fits) - len(tree.flips) > MOST_SUBSETS
    if many and tree.flips:
        raise ConfigurationError(
            f"{folder} has {len(tree.fits):,} folders of fits, {len(tree.flips):,} of them of mirrored photographs "
            f"(*{FLIP_SUFFIX}): write a manifest by hand, or move those away; a build mirrors by itself"
        )
    subsets = [_whole(tree)] if many else _subsets(tree)
    flips = ["mirror", "none"]
    if all("shipped_flips" in subset for subset in subsets):
        flips.insert(1, "shipped")
    contents = {
        "name": re.sub(r"[^a-z0-9_-]+", "-", title.lower()).strip("-") or "fits",
        "title": title,
        "layout": "nested" if many else "300w_lp",
        "subsets": subsets,
        "split": {"seed": 0, "validation": 0.05},
        "flips": flips,
        "licence": "unknown: say under which terms the photographs and the model may be used",
        "citation": "unknown: say what has to be cited",
    }
    try:
        manifest = Manifest.model_validate(contents)
    except ValidationError as error:
        raise ConfigurationError(f"{folder}: {first_problem(error)}: rename the folder") from error
    return FoundManifest(manifest, tuple(_notes(tree, subsets, many)))


def fits_below(root: Path, manifest_name: str | None = None) -> tuple[FoundManifest, list[FitEntry]]:
    """The manifest that says where the fits of a folder lie, and these, those of shipped flips left out.

    manifest_name : by default the root's own ``manifest.yaml``; without one, fits may lie anywhere below the root

    Raises :class:`ConfigurationError` if there are no fits, or only those of shipped flips.
    """
    if manifest_name is None and (root / "manifest.yaml").is_file():
        manifest_name = str(root / "manifest.yaml")
    found = FoundManifest(read_manifest(manifest_name), ()) if manifest_name else manifest_of_folder(root)
    dataset = found.manifest
    flips = [flip for flip in dataset.flips if flip != "shipped"]
    if not flips:
        raise ConfigurationError(
            f"{dataset.name} allows shipped flips alone, which are not refined: add 'none' or 'mirror' to its flips"
        )
    return found, list_fits(dataset, root, flips[0])


def _subsets(tree: _Tree) -> list[dict[str, Any]]:
    without = {place: images for place, images in tree.pictures.items() if not place.name.endswith(FLIP_SUFFIX)}
    names: Counter[str] = Counter()
    subsets = []
    for place, stems in sorted(tree.fits.items()):
        if place in tree.flips.values():
            continue
        name = tree.name_of(place, str(place))
        while names[name] and names[f"{name}-{names[name] + 1}"]:
            names[name] += 1
        names[name] += 1
        own = name if names[name] == 1 else f"{name}-{names[name]}"
        names[own] = max(names[own], 1)
        subset: dict[str, Any] = {
            "name": own,
            "directory": str(place),
            "fits": len(stems),
            "group": _group_of(stems),
        }
        if (images := _images_of(place, stems, without)) is not None:
            subset["images"] = str(images)
        elif place in tree.flips:
            subset["shipped_flips"] = str(tree.flips[place])
        subsets.append(subset)
    return subsets


def _group_of(stems: list[str]) -> str:
    """The pattern of the source photograph: that of a known dataset whose names these all are, such as 300W-LP's, which
    has several views of each photograph; or else :data:`SAME_PHOTOGRAPH`.
    """
    known = (subset.group for name in GROUPED for subset in read_named_manifest(name).subsets)
    return next((group for group in known if all(re.search(group, stem) for stem in stems)), SAME_PHOTOGRAPH)


def _whole(tree: _Tree) -> dict[str, Any]:
    """One subset of all folders: the root, or the folder in which all fits are if images lie in another."""
    fits, top = tree.fits, PurePosixPath()
    if top not in fits:
        top = PurePosixPath(os.path.commonpath([str(place) for place in fits]))
    subset: dict[str, Any] = {
        "name": tree.name_of(top, top.name),
        "directory": str(top),
        "fits": sum(map(len, fits.values())),
        "group": _group_of([stem for stems in fits.values() for stem in stems]),
    }
    place, stems = max(fits.items(), key=lambda pair: len(pair[1]))
    below = place.relative_to(top)
    images = _images_of(place, stems, tree.pictures, below)
    if images is not None and below.parts:
        images = PurePosixPath(*images.parts[: -len(below.parts)])
    if images is not None:
        subset["images"] = str(images)
    return subset


def _images_of(
    place: PurePosixPath, stems: list[str], pictures: dict[PurePosixPath, set[str]], below: PurePosixPath | None = None
) -> PurePosixPath | None:
    """The folder with the most images of the fits' names, if that is not the fits' own.

    below : where the fits lie in their subset; the images have to lie there in theirs
    """

    def count(other: PurePosixPath) -> int:
        stems_there = {name.rpartition(".")[0] for name in pictures[other]}
        return len(stems_there.intersection(stems))

    if place in pictures and count(place) > 0:
        return None
    fitting = [
        p for p in sorted(pictures) if below is None or p.parts[len(p.parts) - len(below.parts) :] == below.parts
    ]
    best = max(fitting, key=count, default=None)
    return best if best is not None and count(best) > 0 else None


def _notes(tree: _Tree, subsets: list[dict[str, Any]], many: bool) -> list[str]:
    """What a person should look at."""
    notes = []
    for subset in subsets:
        flips = f", its mirrored photographs in {subset['shipped_flips']}" if "shipped_flips" in subset else ""
        images = f", images in {subset['images']}" if "images" in subset else ""
        notes.append(f"{subset['name']}: {counted(subset['fits'], 'fit')} in {subset['directory']}{images}{flips}")
        flip = tree.flips.get(PurePosixPath(subset["directory"]))
        if "images" in subset and flip is not None:
            left_out = counted(len(tree.fits[flip]), "fit")
            notes.append(f"{flip}: {left_out} left out: mirrored photographs have to lie beside them")
    lacking = []
    elsewhere = {subset["directory"]: subset.get("images") for subset in subsets}
    for place, stems in sorted(tree.fits.items()):
        own = PurePosixPath(elsewhere.get(str(place)) or place)
        if many and "images" in subsets[0]:
            own = PurePosixPath(subsets[0]["images"]) / place.relative_to(subsets[0]["directory"])
        there = tree.pictures.get(own, set())
        lacking += [f"{place / stem}" for stem in stems if find_image(stem, there, tree.folder / own) is None]
    if lacking:
        suffixes, first = f"*{', *'.join(IMAGE_SUFFIXES)}", f"{lacking[0]}.mat"
        notes.append(f"{counted(len(lacking), 'fit')} without an image ({suffixes}), the first is {first}")
    if any(subset["group"] == SAME_PHOTOGRAPH for subset in subsets):
        notes.append(
            "each fit counts as a photograph of its own, but for NAME_face0 and NAME_face1: if others are of one "
            "photograph, give the pattern of its name ('group'), or they land on both sides of the split"
        )
    notes.append("licence and citation are yours to fill in")
    return notes


def manifest_of_part(dataset: Manifest, names: Iterable[str]) -> Manifest:
    """The manifest of some of a dataset's fits, copied with the images beside them, without its model; a build mirrors
    them itself.

    names : of the fits, below the root, without ``.mat``
    """
    paths = [PurePosixPath(name) for name in names]
    subsets = []
    for subset in dataset.subsets:
        directory = PurePosixPath(subset.directory)
        below = dataset.layout == "nested"
        count = sum(directory == path.parent or (below and directory in path.parents) for path in paths)
        subsets.append(subset.model_copy(update={"fits": count, "images": None, "shipped_flips": None}))
    flips = tuple(flip for flip in dataset.flips if flip != "shipped")
    build = dataset.build.model_copy(update={"flip": flips[0]}) if dataset.build.flip == "shipped" else dataset.build
    changed = {"subsets": tuple(subsets), "flips": flips, "build": build, "synthetic": None, "model": None}
    return dataset.model_copy(update=changed)


def manifest_text(manifest: Manifest) -> str:
    """A manifest as YAML."""
    import yaml

    contents = {"format": manifest.format} | manifest.model_dump(mode="json", exclude_unset=True, exclude_none=True)
    return HEAD + yaml.safe_dump(contents, sort_keys=False, allow_unicode=True, width=100)


def write_manifest(manifest: Manifest, path: Path) -> None:
    """Write a manifest as YAML, whole or not at all."""
    write_text(path, manifest_text(manifest))
