"""Which fits lie under a root."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest

from densegen.errors import ConfigurationError
from densegen.sources.fit_list import list_fits
from densegen.sources.manifest import Manifest, read_manifest
from densegen.sources.manifest_init import manifest_of_folder
from tests.densegen.sources.test_manifest import BASE


def tree(root: Path, *names: str) -> Path:
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).touch()
    return root


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


def test_what_cannot_be_listed_says_why(tmp_path: Path) -> None:
    manifest = Manifest.model_validate(BASE)
    with pytest.raises(ConfigurationError, match="is not a folder: give the dataset's with --root"):
        list_fits(manifest, tmp_path / "none", "none")
    with pytest.raises(ConfigurationError, match=r"holds no fit \(\*\.mat\) in A"):
        list_fits(manifest, tmp_path, "none")
    tree(tmp_path, "A/x_1.mat", "A/x_1.jpg", "A/x_1.png")
    with pytest.raises(ConfigurationError, match="two images"):
        list_fits(manifest, tmp_path, "none")


def test_links_are_followed_wherever_they_lead_and_no_folder_is_listed_twice(tmp_path: Path) -> None:
    root, other = tmp_path / "root", tmp_path / "other"
    tree(root, "A/own/x_1.mat", "A/own/x_1.jpg")
    tree(other, "y_1.mat", "y_1.jpg", "deep/er/z_1.mat", "deep/er/z_1.jpg", ".hidden/w_1.mat")
    (root / "A/link").symlink_to(other)
    (other / "deep/back").symlink_to(root / "A")
    manifest = Manifest.model_validate(BASE | {"layout": "nested"})
    assert [entry.sample_id for entry in list_fits(manifest, root, "none")] == [
        "A/link/deep/er/z_1", "A/link/y_1", "A/own/x_1"
    ]  # fmt: skip
    found = manifest_of_folder(root).manifest
    assert sum(subset.fits for subset in found.subsets) == 3


@pytest.mark.parametrize("suffix", [".jpg", ".JPG", ".Jpg", ".Jpeg", ".PNG"])
def test_an_image_is_found_whatever_the_case_of_its_suffix(tmp_path: Path, suffix: str) -> None:
    tree(tmp_path, "A/x_1.mat", f"A/x_1{suffix}")
    (entry,) = list_fits(Manifest.model_validate(BASE), tmp_path, "none")
    assert entry.image == tmp_path / f"A/x_1{suffix}"


def test_names_that_would_mislead_are_refused(tmp_path: Path) -> None:
    tree(tmp_path, "A/x_1+mirror.mat")
    with pytest.raises(ConfigurationError, match="which marks samples that densegen mirrors"):
        list_fits(Manifest.model_validate(BASE), tmp_path, "none")
    (tmp_path / "A/x_1+mirror.mat").rename(tmp_path / "A/nogroup.mat")
    with pytest.raises(ConfigurationError, match="names no source photograph"):
        list_fits(Manifest.model_validate(BASE), tmp_path, "none")
    (tmp_path / "A/nogroup.mat").rename(tmp_path / "A/x\n_1.mat")
    with pytest.raises(ConfigurationError, match="has a line break or the like"):
        list_fits(Manifest.model_validate(BASE), tmp_path, "none")
    (tmp_path / "A/x\n_1.mat").unlink()
    tree(tmp_path, "A/x at 1.00\u202fPM\u3000\u200c_1.mat")  # spaces and marks of other scripts are a name's
    any_name = BASE | {"subsets": [BASE["subsets"][0] | {"group": "^(.+)$"}]}
    assert len(list_fits(Manifest.model_validate(any_name), tmp_path, "none")) == 1
    shutil.rmtree(tmp_path / "A")
    nested = Manifest.model_validate(BASE | {"layout": "nested"})
    for name, words in (("x\\y", "is a path elsewhere"), (os.fsdecode(b"a\xff"), "is not UTF-8")):
        tree(tmp_path, f"A/{name}/x_1.mat")
        with pytest.raises(ConfigurationError, match=words):
            list_fits(nested, tmp_path, "none")
        shutil.rmtree(tmp_path / "A" / name)


def test_two_subsets_are_not_one_folder(tmp_path: Path) -> None:
    tree(tmp_path, "A/x_1.mat", "A/x_1.jpg")
    (tmp_path / "B").symlink_to("A")
    subsets = [BASE["subsets"][0], BASE["subsets"][0] | {"name": "B", "directory": "B", "shipped_flips": None}]
    with pytest.raises(ConfigurationError, match="are one folder: keep one of them"):
        list_fits(Manifest.model_validate(BASE | {"subsets": subsets, "flips": ["mirror", "none"]}), tmp_path, "none")


def test_shipped_flips_that_are_not_there_are_an_error(tmp_path: Path) -> None:
    tree(tmp_path, "A/x_1.mat", "A/x_1.jpg")
    with pytest.raises(ConfigurationError, match="A_Flip holds no fit, but A does: use --flip mirror"):
        list_fits(Manifest.model_validate(BASE), tmp_path, "shipped")


def test_duplicate_ids_are_refused(tmp_path: Path) -> None:
    tree(tmp_path, "A/x_1.mat", "A/x_1.MAT", "A/x_1.jpg")
    with pytest.raises(ConfigurationError, match="two fits have the id A/x_1"):
        list_fits(Manifest.model_validate(BASE), tmp_path, "none")
