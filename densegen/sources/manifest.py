"""Dataset manifests: where a dataset's fits lie, how many there should be, how they are grouped and split."""

from __future__ import annotations

import hashlib
import importlib
import re
from dataclasses import replace
from itertools import permutations
from pathlib import Path, PurePosixPath
from typing import Annotated, Any, Literal

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    ValidationError,
    ValidationInfo,
    field_validator,
    model_validator,
)

from densegen.conventions import FlipPolicy
from densegen.errors import ConfigurationError, did_you_mean
from densegen.files import find_data_file, is_utf8, stays_below
from densegen.geometry.crop import CropRecipe
from densegen.records import first_problem, read_validated, refuse_switch

__all__ = [
    "BuildSettings",
    "FlipPolicy",
    "Manifest",
    "manifest_text_of",
    "named_manifests",
    "read_manifest",
    "read_named_manifest",
]

Seed = Annotated[int, Field(ge=0, lt=2**63)]


def _below_root(value: str) -> str:
    if not is_utf8(value):
        raise ValueError(f"the path {value!a} is not UTF-8")
    if "\\" in value:
        raise ValueError(f"the path {value!r} has a backslash: write / between folders")
    if not stays_below(value):
        raise ValueError(f"the path {value!r} leaves the root: give one below it")
    return value


BelowRoot = Annotated[str, AfterValidator(_below_root)]


class _Settings(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)

    @field_validator("*", mode="before")
    @classmethod
    def _no_switch_for_a_number(cls, value: Any, info: ValidationInfo) -> Any:
        return refuse_switch(cls, str(info.field_name), value)


MAX_REPEATS = 4


def _can_take_for_ever(pattern: str) -> bool:
    """Whether a pattern has a repetition inside a repetition, or alternatives in one, whose trials can double with each
    character; or more than a few repetitions, or parts that may be missing, one after the other.
    """
    # Python's own reading of a pattern, which has no public door.
    codes: Any = importlib.import_module("re._constants")
    parser: Any = importlib.import_module("re._parser")

    repeats = {codes.MAX_REPEAT, codes.MIN_REPEAT, codes.POSSESSIVE_REPEAT}
    count = optional = 0

    def walk(parts: Any, inside: bool) -> bool:
        nonlocal count, optional
        for code, argument in parts:
            if code in repeats and argument[1] > 1:
                count += 1
                if inside or walk(argument[2], True):
                    return True
            elif code is codes.BRANCH:
                if inside or any(walk(branch, inside) for branch in argument[1]):
                    return True
            elif code in repeats:
                optional += argument[0] < argument[1]
                if walk(argument[2], inside):
                    return True
            elif isinstance(argument, tuple) and any(isinstance(part, parser.SubPattern) for part in argument):
                if any(walk(part, inside) for part in argument if isinstance(part, parser.SubPattern)):
                    return True
            elif isinstance(argument, parser.SubPattern) and walk(argument, inside):
                return True
        return False

    return walk(parser.parse(pattern), False) or max(count, optional) > MAX_REPEATS


class Subset(_Settings):
    """One folder of ``.mat`` files with their images."""

    name: Annotated[str, Field(pattern=r"^[A-Za-z0-9_-]+$")]
    """In counts and groups; sample ids begin with the directory, or with the name if that is the root itself."""
    directory: BelowRoot
    """The folder of the fits, relative to the root, with ``/``; never leaves it."""
    images: BelowRoot | None = None
    """The folder of the images, relative to the root, if they do not lie beside the fits; named as the fits are."""
    shipped_flips: BelowRoot | None = None
    """The folder of mirrored photographs that the dataset ships, if any."""
    fits: Annotated[int, Field(ge=0)]
    """How many fits the complete folder holds."""
    group: str = "^(.+)$"
    """A regular expression; its first group in the file name is the source photograph. By default the whole name."""

    @field_validator("group")
    @classmethod
    def _is_pattern(cls, value: str) -> str:
        try:
            groups = re.compile(value).groups
        except (re.error, OverflowError, RecursionError) as error:
            raise ValueError(f"the pattern {value[:80]!r} is no regular expression: {error}") from error
        if groups < 1:
            raise ValueError(f"the pattern {value!r} has no group for the source photograph")
        if _can_take_for_ever(value):
            raise ValueError(
                f"the pattern {value[:80]!r} repeats what repeats itself, or repeats too often: it could take for ever"
            )
        return value


class Split(_Settings):
    """Which share of the source photographs goes where; the rest is for training.

    A photograph's split follows from ``seed`` and its name alone, so that it never changes with what else is there.
    """

    seed: Annotated[int, Field(ge=-(2**63), lt=2**63)] = 0
    """Another seed, another split."""
    validation: Annotated[float, Field(ge=0, le=1)] = 0.0
    """Share of the photographs for validation."""
    test: Annotated[float, Field(ge=0, le=1)] = 0.0
    """Share of the photographs for tests; their crops have no jitter."""

    @model_validator(mode="after")
    def _fits_in_one(self) -> Split:
        if self.validation + self.test > 1:
            raise ValueError(f"validation {self.validation} and test {self.test} are more than everything")
        return self

    def of(self, group: str) -> str:
        digest = hashlib.sha256(f"densegen split\n{self.seed}\n{group}".encode()).digest()
        share = int.from_bytes(digest[:8], "big") / 2**64
        if share < self.validation:
            return "validation"
        return "test" if share < self.validation + self.test else "train"


class Synthetic(_Settings):
    """The embedded corpus that ``densegen build`` writes first if its root does not hold it yet."""

    samples: Annotated[int, Field(ge=1)]
    """How many portraits are drawn."""
    seed: Seed = 0
    """Of the portraits."""


class BuildSettings(_Settings):
    """Everything that decides the bytes of a build, besides the data, the model and the index.

    A manifest gives defaults for them; an option of ``densegen build`` wins.
    """

    flip: FlipPolicy = "mirror"
    """``mirror`` makes mirror images, ``shipped`` reads those of the dataset, ``none`` does neither."""
    position_maps: bool = False
    """Whether shards hold UV position maps."""
    seed: Seed = 0
    """Of the crops' jitter."""
    shard_size: Annotated[int, Field(ge=2, le=65536)] = 512
    """Samples a shard; with ``flip: mirror`` a fit makes two."""
    max_rejects: Annotated[float, Field(ge=0, le=1, allow_inf_nan=False)] = 0.01
    """The share of fits that may be set aside before the build stops; above 0, one always may."""
    limit: Annotated[int, Field(ge=1)] | None = None
    """Build only the first so many fits."""
    jpeg_quality: Annotated[int, Field(ge=1, le=100)] = 95
    """Of the crops in the shards, 1 to 100."""

    @property
    def samples_per_fit(self) -> int:
        return 2 if self.flip == "mirror" else 1

    @property
    def fits_per_shard(self) -> int:
        return max(1, self.shard_size // self.samples_per_fit)


class Manifest(_Settings):
    """A dataset manifest; see ``docs/manifests.md``."""

    format: Literal["densegen manifest"] = "densegen manifest"
    format_version: Literal[1] = 1
    name: Annotated[str, Field(pattern=r"^[a-z0-9_-]+$")]
    """Names the dataset in shards, runs and cards."""
    title: str
    """For people."""
    layout: Literal["300w_lp", "nested"]
    """``300w_lp``: folders of ``.mat`` files with images of the same name. ``nested``: in all folders below, too."""
    model: BelowRoot | None = None
    """The morphable model, relative to the root, for datasets that bring their own."""
    subsets: Annotated[tuple[Subset, ...], Field(min_length=1)]
    """The folders of the dataset."""
    split: Split = Split()
    """Which photographs train, validate and test."""
    flips: Annotated[tuple[FlipPolicy, ...], Field(min_length=1)] = ("mirror", "none")
    """The flip policies that make sense here; the first is the default."""
    synthetic: Synthetic | None = None
    """For the embedded corpus alone: what is drawn."""
    build: BuildSettings = BuildSettings()
    """Defaults of ``densegen build``."""
    crop: CropRecipe = CropRecipe()
    """Defaults of its crops: ``size`` (pixels), ``margin``, ``scale_jitter``, ``shift_jitter``."""
    licence: str
    """What may be done with the data; stands in the dataset card."""
    citation: str
    """What to cite; stands in the dataset card."""

    @property
    def default_flip(self) -> FlipPolicy:
        return self.build.flip if "flip" in self.build.model_fields_set else self.flips[0]

    def check_flip(self, flip: FlipPolicy) -> None:
        """Raise :class:`ConfigurationError` if a flip policy is not the dataset's."""
        if flip not in self.flips:
            raise ConfigurationError(f"{self.name} has no {flip!r} flips: use one of {', '.join(self.flips)}")

    def expected_fits(self, flip: FlipPolicy) -> dict[str, int]:
        """How many fits each subset of the complete dataset gives."""
        return {s.name: s.fits * (2 if flip == "shipped" else 1) for s in self.subsets}

    @model_validator(mode="after")
    def _is_consistent(self) -> Manifest:
        names = [subset.name for subset in self.subsets]
        folders = [folder for s in self.subsets for folder in (s.directory, s.shipped_flips) if folder]
        for what, values in (("name", names), ("folder", folders)):
            if twice := {value for value in values if values.count(value) > 1}:
                raise ValueError(f"two subsets have the {what} {min(twice)!r}")
        if self.layout == "nested":
            for upper, lower in permutations(map(PurePosixPath, folders), 2):
                if upper in lower.parents:
                    raise ValueError(f"the folder {str(lower)!r} lies in {str(upper)!r}: its fits would be there twice")
        if any(subset.images and subset.shipped_flips for subset in self.subsets):
            raise ValueError("a subset names both images and shipped_flips: mirrored photographs lie beside their fits")
        if "shipped" in self.flips and not all(subset.shipped_flips for subset in self.subsets):
            raise ValueError("flips allow 'shipped', but a subset names no shipped_flips folder")
        if self.default_flip not in self.flips:
            raise ValueError(f"build.flip is {self.build.flip!r}, but flips allow {', '.join(self.flips)}")
        return self


def choose_settings(manifest: Manifest, **given: Any) -> tuple[BuildSettings, CropRecipe]:
    """A build's settings: a manifest's defaults, and the fields of :class:`BuildSettings` and
    :class:`~densegen.geometry.crop.CropRecipe` (its size as ``crop_size``) that are given and not None.

    Raises :class:`ConfigurationError` if one has no such value, TypeError if there is no such field.
    """
    chosen = {name: value for name, value in given.items() if value is not None}
    recipe = {name: chosen.pop(key) for name, key in _CROP_FIELDS.items() if key in chosen}
    if unknown := set(chosen) - set(BuildSettings.model_fields):
        raise TypeError(f"a build has no setting {min(unknown)!r}")
    defaults = {"flip": manifest.default_flip} | manifest.build.model_dump(exclude_unset=True)
    try:
        settings = BuildSettings.model_validate(defaults | chosen)
        manifest.check_flip(settings.flip)
        return settings, replace(manifest.crop, **recipe)
    except ValidationError as error:
        raise ConfigurationError(first_problem(error)) from error
    except ValueError as error:
        raise ConfigurationError(str(error)) from error


_CROP_FIELDS = {"size": "crop_size", "margin": "margin", "scale_jitter": "scale_jitter", "shift_jitter": "shift_jitter"}


def named_manifests() -> list[str]:
    """Names of the manifests that come with densegen."""
    folder = find_data_file("demo.yaml").parent
    return sorted(
        path.stem
        for path in folder.glob("*.yaml")
        if f"\nformat: {Manifest.model_fields['format'].default}\n" in path.read_text("utf-8")
    )


def read_manifest(name_or_path: str | Path) -> Manifest:
    """Read a manifest by file, or by the name of one that comes with densegen (``300w_lp``).

    Raises :class:`ConfigurationError` if there is none, :class:`FormatError` if it is not a manifest.
    """
    path = Path(name_or_path)
    if str(name_or_path) in named_manifests() or not path.is_file():
        path = _find(str(name_or_path), "a file, or one of ")
    return read_validated(Manifest, path, "manifest")


def read_named_manifest(name: str) -> Manifest:
    """A manifest that comes with densegen; raises :class:`ConfigurationError` if there is none of that name."""
    return read_validated(Manifest, _find(name, ""), "manifest")


def manifest_text_of(name: str) -> str:
    """The text of a manifest that comes with densegen; raises :class:`ConfigurationError` if there is none."""
    return _find(name, "").read_text("utf-8")


def _find(name: str, before: str) -> Path:
    known = named_manifests()
    if name not in known:
        inside = Path(name) / "manifest.yaml"
        hint = f"; did you mean {inside}?" if inside.is_file() else did_you_mean(name, known)
        raise ConfigurationError(f"there is no manifest {name!r}: give {before}{', '.join(known)}{hint}")
    return find_data_file(f"{name}.yaml")
