from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import yaml

from densegen.errors import ConfigurationError, FormatError
from densegen.sources.fit_list import list_fits
from densegen.sources.manifest import Manifest, Split, named_manifests, read_manifest

BASE: dict[str, Any] = {
    "name": "test",
    "title": "A test",
    "layout": "300w_lp",
    "subsets": [{"name": "A", "directory": "A", "shipped_flips": "A_Flip", "fits": 2, "group": r"^(\w+)_\d+$"}],
    "flips": ["mirror", "shipped", "none"],
    "licence": "none",
    "citation": "none",
}


def tree(root: Path, *names: str) -> Path:
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).touch()
    return root


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


@pytest.mark.parametrize(
    ("name", "group"),
    [
        ("AFW/AFW_134212_1_0", "AFW/AFW_134212"),
        ("AFW/AFW_134212_2_5", "AFW/AFW_134212"),
        ("HELEN/HELEN_232194_1_17", "HELEN/HELEN_232194"),
        ("IBUG/IBUG_image_008_1_0", "IBUG/IBUG_image_008"),
        ("IBUG/IBUG_image_092 _01_0", "IBUG/IBUG_image_092"),  # the space is in the dataset
        ("LFPW/LFPW_image_train_0001_4", "LFPW/LFPW_image_train_0001"),
        ("LFPW/LFPW_image_test_0224_14", "LFPW/LFPW_image_test_0224"),
    ],
)
def test_300w_lp_is_grouped_by_photograph(tmp_path: Path, name: str, group: str) -> None:
    tree(tmp_path, f"{name}.mat", f"{name}.jpg")
    (entry,) = list_fits(read_manifest("300w_lp"), tmp_path, "mirror")
    assert (entry.sample_id, entry.group) == (name, group)
    assert entry.image == tmp_path / f"{name}.jpg"
    assert not entry.flipped


def test_shipped_flips_are_used_or_left_never_both(tmp_path: Path) -> None:
    tree(tmp_path, "A/x_1.mat", "A/x_1.jpg", "A/x_2.mat", "A/x_2.jpg", "A_Flip/x_1.mat", "A_Flip/x_1.jpg")
    manifest = Manifest.model_validate(BASE)
    assert [e.sample_id for e in list_fits(manifest, tmp_path, "mirror")] == ["A/x_1", "A/x_2"]
    shipped = list_fits(manifest, tmp_path, "shipped")
    assert [(e.sample_id, e.flipped) for e in shipped] == [
        ("A/x_1", False),
        ("A/x_2", False),
        ("A_Flip/x_1", True),
    ]
    assert {e.group for e in shipped} == {"A/x"}  # a photograph and its flips stay in one split
    with pytest.raises(ConfigurationError, match="has no 'shipped' flips: use one of none, mirror"):
        list_fits(read_manifest("aflw2000_3d"), tmp_path, "shipped")


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
        with pytest.raises(FormatError, match="leaves the root"):
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
        ({"crop": {"size": 32}}, "crop: a crop's size is 32, expected 64 to 512"),
        ({"crop": {"margin": float("nan")}}, "crop: a crop's margin is nan"),
        ({"format": "another"}, "format"),
    ],
)
def test_a_manifest_that_cannot_work_is_refused(tmp_path: Path, change: dict[str, Any], words: str) -> None:
    (tmp_path / "m.yaml").write_text(json.dumps(BASE | change))
    with pytest.raises(FormatError, match=words):
        read_manifest(str(tmp_path / "m.yaml"))


def test_what_cannot_be_listed_says_why(tmp_path: Path) -> None:
    manifest = Manifest.model_validate(BASE)
    with pytest.raises(ConfigurationError, match="is not a folder: give the dataset's with --root"):
        list_fits(manifest, tmp_path / "none", "none")
    with pytest.raises(ConfigurationError, match=r"holds no fit \(\*\.mat\) in A"):
        list_fits(manifest, tmp_path, "none")
    tree(tmp_path, "A/x_1.mat", "A/x_1.jpg", "A/x_1.png")
    with pytest.raises(ConfigurationError, match="two images"):
        list_fits(manifest, tmp_path, "none")


def test_names_that_would_mislead_are_refused(tmp_path: Path) -> None:
    tree(tmp_path, "A/x_1+mirror.mat")
    with pytest.raises(ConfigurationError, match="which marks samples that densegen mirrors"):
        list_fits(Manifest.model_validate(BASE), tmp_path, "none")
    (tmp_path / "A/x_1+mirror.mat").rename(tmp_path / "A/nogroup.mat")
    with pytest.raises(ConfigurationError, match="names no source photograph"):
        list_fits(Manifest.model_validate(BASE), tmp_path, "none")


def test_shipped_flips_that_are_not_there_are_an_error(tmp_path: Path) -> None:
    tree(tmp_path, "A/x_1.mat", "A/x_1.jpg")
    with pytest.raises(ConfigurationError, match="A_Flip holds no fit, but A does: use --flip mirror"):
        list_fits(Manifest.model_validate(BASE), tmp_path, "shipped")


def test_duplicate_ids_are_refused(tmp_path: Path) -> None:
    tree(tmp_path, "A/x_1.mat", "A/x_1.MAT", "A/x_1.jpg")
    with pytest.raises(ConfigurationError, match="two fits have the id A/x_1"):
        list_fits(Manifest.model_validate(BASE), tmp_path, "none")


@pytest.mark.parametrize("pattern", ["^((a+)+)$", "^((?:a|ab)*)$", "(.*)(.*)(.*)(.*)(.*)$"])
def test_a_pattern_that_could_take_for_ever_is_refused(tmp_path: Path, pattern: str) -> None:
    subset = {"name": "A", "directory": "A", "fits": 1, "group": pattern}
    (tmp_path / "m.yaml").write_text(json.dumps(BASE | {"subsets": [subset], "flips": ["none"]}))
    with pytest.raises(FormatError, match="could take for ever"):
        read_manifest(str(tmp_path / "m.yaml"))
