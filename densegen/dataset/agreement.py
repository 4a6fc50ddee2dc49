"""Whether several builds can be one set of samples."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from densegen.conventions import SPLITS
from densegen.dataset.row_reader import ShardPlace
from densegen.dataset.sample_index import SampleIndex
from densegen.dataset.shards import ShardReader
from densegen.errors import ConfigurationError

__all__ = ["check_alike", "check_different", "check_splits"]


def check_different(folders: Sequence[Path]) -> None:
    """A build given twice would count each of its samples twice: raises :class:`ConfigurationError`."""
    resolved = [folder.resolve() for folder in folders]
    for folder, path in zip(folders, resolved, strict=True):
        if resolved.count(path) > 1:
            raise ConfigurationError(f"{folder} is given twice")


def check_alike(opened: Sequence[SampleIndex], folders: Sequence[Path]) -> None:
    """Builds of one set share what a network's answers depend on; raises :class:`ConfigurationError` if they do not."""

    def shared(one: SampleIndex) -> dict[str, str | int | float]:
        return {
            "vertex index": one.about.vertex_index_fingerprint,
            "crop size": one.about.crop_size,
            "margin": one.about.margin,
            "number of expression components": one.about.counts[2],
        }

    mine = shared(opened[0])
    for path, one in zip(folders[1:], opened[1:], strict=True):
        for name, theirs in shared(one).items():
            if theirs != mine[name]:
                raise ConfigurationError(
                    f"{path} has another {name} than {folders[0]}: {str(theirs)[:12]}, not {str(mine[name])[:12]}; "
                    "train on builds that share it"
                )


def check_splits(opened: Sequence[SampleIndex], folders: Sequence[Path], places: Sequence[ShardPlace]) -> None:
    """A photograph that one build trains on and another validates on would make the validation worthless: raises
    :class:`ConfigurationError`.
    """
    group = np.concatenate([one.group for one in opened])
    split = np.concatenate([one.split for one in opened])
    order = np.argsort(group, kind="stable")
    apart = (group[order][1:] == group[order][:-1]) & (split[order][1:] != split[order][:-1])
    if not apart.any():
        return
    at = int(np.argmax(apart))
    build_of = np.repeat(np.arange(len(opened)), [len(one) for one in opened])
    first, second = (int(order[at + n]) for n in (0, 1))
    place = next(place for place in reversed(places) if place.first <= first)
    with ShardReader(place.path) as reader:
        name = reader.groups[first - place.first]
    here, there = (folders[build_of[n]] for n in (second, first))
    raise ConfigurationError(
        f"the photograph {name} of {opened[build_of[first]].about.dataset} is in {SPLITS[split[second]]} in {here}, in "
        f"{SPLITS[split[first]]} in {there}: build both with the same split, or give manifests of different "
        "photographs different names"
    )
