from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import yaml

from densegen.errors import ConfigurationError, FormatError
from densegen.sources.manifest import Split, named_manifests, read_manifest

BASE: dict[str, Any] = {
    "name": "test",
    "title": "A test",
    "layout": "300w_lp",
    "subsets": [{"name": "A", "directory": "A", "shipped_flips": "A_Flip", "fits": 2, "group": r"^(\w+)_\d+$"}],
    "flips": ["mirror", "shipped", "none"],
    "licence": "none",
    "citation": "none",
}


def test_the_manifests_that_come_along_are_complete() -> None:
    assert named_manifests() == ["300w_lp", "aflw2000_3d", "demo"]
    lp = read_manifest("300w_lp")
    assert sum(subset.fits for subset in lp.subsets) == 61_225
    assert {s.name: s.fits for s in lp.subsets} == {"AFW": 5207, "HELEN": 37676, "IBUG": 1786, "LFPW": 16556}
    assert sum(s.fits for s in read_manifest("aflw2000_3d").subsets) == 2000
    assert lp.default_flip == "mirror"


def test_a_manifest_is_found_by_name_even_beside_a_folder_of_that_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "demo").mkdir()
    monkeypatch.chdir(tmp_path)
    assert read_manifest("demo").name == "demo"
    with pytest.raises(
        ConfigurationError, match="no manifest 'nothing': give a file, or one of 300w_lp, aflw2000_3d, demo"
    ):
        read_manifest("nothing")


def test_the_split_follows_the_photograph_and_nothing_else() -> None:
    split = Split(validation=0.2, test=0.1)
    groups = [f"photo {n}" for n in range(3000)]
    shares = [split.of(group) for group in groups]
    assert shares == [split.of(group) for group in groups]
    assert shares.count("validation") / 3000 == pytest.approx(0.2, abs=0.03)
    assert shares.count("test") / 3000 == pytest.approx(0.1, abs=0.03)
    assert {Split(test=1.0).of(group) for group in groups} == {"test"}
    # A larger share keeps what was in the smaller one.
    larger = Split(validation=0.4)
    assert all(larger.of(g) == "validation" for g, s in zip(groups, shares, strict=True) if s == "validation")


@pytest.mark.parametrize("folder", ["/etc", "../other", "A/../../b", "..", "C:/x", "a\\..\\b"])
def test_a_path_that_leaves_its_root_is_refused(tmp_path: Path, folder: str) -> None:
    for change in ({"directory": folder}, {"shipped_flips": folder}):
        content = {**BASE, "subsets": [{**BASE["subsets"][0], **change}]}
        (tmp_path / "m.yaml").write_text(yaml.safe_dump(content))
        with pytest.raises(FormatError, match="has a backslash" if "\\" in folder else "leaves the root"):
            read_manifest(str(tmp_path / "m.yaml"))
    (tmp_path / "m.yaml").write_text(yaml.safe_dump({**BASE, "model": "../model.safetensors"}))
    with pytest.raises(FormatError, match="leaves the root"):
        read_manifest(str(tmp_path / "m.yaml"))


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"colour": "red"}, "colour: there is no such field"),
        ({"subsets": [{"name": "A", "directory": "A", "fits": 1, "group": "(a{99999999999999})"}]}, "no regular expr"),
        ({"split": {"seed": 1 << 200}}, r"split.seed: Input should be less than"),
        ({"subsets": []}, "subsets"),
        ({"layout": "other"}, "layout"),
        ({"split": {"validation": 0.8, "test": 0.3}}, "more than everything"),
        ({"subsets": [{"name": "A", "directory": "A", "fits": 1, "group": "("}]}, "no regular expression"),
        (
            {"subsets": [{"name": "A", "directory": "A", "fits": 1, "group": "abc"}], "flips": ["none"]},
            "has no group",
        ),
        ({"subsets": [{"name": "A", "directory": "A", "fits": 1}]}, "names no shipped_flips"),
        ({"subsets": BASE["subsets"] * 2}, "two subsets have the name 'A'"),
        ({"flips": ["none"], "build": {"flip": "mirror"}}, "flips allow none"),
        ({"build": {"shard_size": 0}}, "shard_size"),
        ({"crop": {"sise": 128}}, r"crop.sise: there is no such field; did you mean crop.size\?"),
        (
            {
                "layout": "nested",
                "subsets": [
                    BASE["subsets"][0],
                    {**BASE["subsets"][0], "name": "B", "directory": "A/b", "shipped_flips": "B_Flip"},
                ],
            },
            "the folder 'A/b' lies in 'A': its fits would be there twice",
        ),
        ({"crop": {"size": 32}}, "crop: a crop's size is 32, expected 64 to 512"),
        ({"crop": {"margin": float("nan")}}, "crop: a crop's margin is nan"),
        ({"format": "another"}, "format"),
    ],
)
def test_a_manifest_that_cannot_work_is_refused(tmp_path: Path, change: dict[str, Any], words: str) -> None:
    (tmp_path / "m.yaml").write_text(json.dumps(BASE | change))
    with pytest.raises(FormatError, match=words):
        read_manifest(str(tmp_path / "m.yaml"))


@pytest.mark.parametrize("pattern", ["^((a+)+)$", "^((?:a|ab)*)$", "(.*)(.*)(.*)(.*)(.*)$", "^(.?.?.?.?.?.?)!$"])
def test_a_pattern_that_could_take_for_ever_is_refused(tmp_path: Path, pattern: str) -> None:
    subset = {"name": "A", "directory": "A", "fits": 1, "group": pattern}
    (tmp_path / "m.yaml").write_text(json.dumps(BASE | {"subsets": [subset], "flips": ["none"]}))
    with pytest.raises(FormatError, match="could take for ever"):
        read_manifest(str(tmp_path / "m.yaml"))
