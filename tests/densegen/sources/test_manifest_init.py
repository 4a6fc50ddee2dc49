"""Manifests for folders that have none, and the layouts that they find."""

from __future__ import annotations

from pathlib import Path

import pytest
from pydantic import ValidationError

from densegen.errors import ConfigurationError
from densegen.sources.fit_list import list_fits
from densegen.sources.manifest import Manifest, read_manifest
from densegen.sources.manifest_init import manifest_of_folder, manifest_of_part, write_manifest
from tests.densegen.command import fails, run
from tests.densegen.sources.test_fit_list import tree
from tests.densegen.sources.test_manifest import BASE


def test_folders_of_fits_become_subsets_with_their_flips(tmp_path: Path) -> None:
    tree(
        tmp_path, "A/x.mat", "A/x.jpg", "A/y.mat", "A_Flip/x.mat", "A_Flip/x.jpg", "B/z.mat", "B/z.PNG", ".hidden/w.mat"
    )
    found = manifest_of_folder(tmp_path)
    subsets = {s.name: s for s in found.manifest.subsets}
    assert {name: (s.directory, s.fits, s.shipped_flips) for name, s in subsets.items()} == {
        "A": ("A", 2, "A_Flip"), "B": ("B", 1, None),
    }  # fmt: skip
    assert found.manifest.flips == ("mirror", "none")  # B has no flips
    assert "1 fit without an image (*.jpg, *.jpeg, *.png), the first is A/y.mat" in found.notes
    write_manifest(found.manifest, tmp_path / "manifest.yaml")
    entries = list_fits(read_manifest(tmp_path / "manifest.yaml"), tmp_path, "mirror")
    assert [e.sample_id for e in entries] == ["A/x", "A/y", "B/z"]


def test_fits_in_the_root_itself_and_faces_of_one_photograph_stay_together(tmp_path: Path) -> None:
    tree(tmp_path, "p_face0.mat", "p_face0.jpg", "p_face1.mat", "p_face1.jpg", "q.mat", "q.jpg")
    found = manifest_of_folder(tmp_path, "My Faces!")
    assert (found.manifest.name, found.manifest.title) == ("my-faces", "My Faces!")
    entries = list_fits(found.manifest, tmp_path, "none")
    assert len({e.group for e in entries}) == 2
    assert len(entries) == 3


def test_fits_named_as_300w_lp_s_are_grouped_as_there(tmp_path: Path) -> None:
    names = [f"{subset}/{photo}_{view}" for subset, photo in (("HELEN", "HELEN_12_1"), ("LFPW", "LFPW_image_test_7"))
             for view in range(18)]  # fmt: skip
    tree(tmp_path, *(f"{name}.{kind}" for name in names for kind in ("mat", "jpg")))
    found = manifest_of_folder(tmp_path)
    groups = {e.group for e in list_fits(found.manifest, tmp_path, "none")}
    assert groups == {"HELEN/HELEN_12", "LFPW/LFPW_image_test_7"}
    assert not any("both sides of the split" in note for note in found.notes)
    tree(tmp_path, "HELEN/mine_3.mat", "HELEN/mine_3.jpg")
    found = manifest_of_folder(tmp_path)
    assert any("both sides of the split" in note for note in found.notes)


def test_images_elsewhere_are_found_by_their_names(tmp_path: Path) -> None:
    tree(tmp_path, "fits/a.mat", "fits/b.mat", "photos/a.jpg", "photos/b.jpeg", "other/c.jpg")
    found = manifest_of_folder(tmp_path)
    (subset,) = found.manifest.subsets
    assert (subset.directory, subset.images) == ("fits", "photos")
    entries = list_fits(found.manifest, tmp_path, "none")
    assert [e.image.relative_to(tmp_path).as_posix() for e in entries] == ["photos/a.jpg", "photos/b.jpeg"]
    assert [e.source for e in entries] == ["photos/a.jpg", "photos/b.jpeg"]


def test_many_nested_folders_are_one_subset(tmp_path: Path) -> None:
    names = [f"fits/{n // 10}/{n}/f.{kind}" for n in range(20) for kind in ("mat",)]
    tree(tmp_path, *names, *(f"images/{n // 10}/{n}/f.jpg" for n in range(20)))
    found = manifest_of_folder(tmp_path)
    assert found.manifest.layout == "nested"
    (subset,) = found.manifest.subsets
    assert (subset.directory, subset.images, subset.fits) == ("fits", "images", 20)
    entries = list_fits(found.manifest, tmp_path, "none")
    assert len({e.sample_id for e in entries}) == len(entries) == 20
    assert all(e.image.is_file() for e in entries)
    assert not any("no image" in note for note in found.notes)


def test_mirrored_photographs_are_never_taken_for_others(tmp_path: Path) -> None:
    tree(tmp_path, "A/x.mat", "A_Flip/x.mat", "A_Flip/x.jpg", "photos/x.jpg")
    found = manifest_of_folder(tmp_path)
    (subset,) = found.manifest.subsets
    assert (subset.images, subset.shipped_flips) == ("photos", None)
    assert any("A_Flip: 1 fit left out" in note for note in found.notes)
    many = tmp_path / "many"
    tree(many, *(f"{n}/x.mat" for n in range(20)), "3_Flip/x.mat")
    with pytest.raises(ConfigurationError, match="1 of them of mirrored photographs"):
        manifest_of_folder(many)


def test_names_of_folders_that_cannot_stand_in_a_manifest_are_said(tmp_path: Path) -> None:
    tree(tmp_path, "a\\b/x.mat")
    with pytest.raises(ConfigurationError, match="rename the folder"):
        manifest_of_folder(tmp_path)
    other = tmp_path / "other"
    tree(other, "a/b/x.mat", "a-b/x.mat", "a-b-2/x.mat")
    names = [subset.name for subset in manifest_of_folder(other).manifest.subsets]
    assert len(set(names)) == 3


def test_a_part_of_a_dataset_keeps_its_splits(tmp_path: Path) -> None:
    whole = read_manifest("300w_lp")
    part = manifest_of_part(whole, ["AFW/AFW_1_1_0", "AFW/AFW_1_1_1", "LFPW/LFPW_image_test_0001_0"])
    assert {s.name: s.fits for s in part.subsets if s.fits} == {"AFW": 2, "LFPW": 1}
    assert [s.group for s in part.subsets] == [s.group for s in whole.subsets]
    assert (part.split, part.flips) == (whole.split, ("mirror", "none"))
    write_manifest(part, tmp_path / "manifest.yaml")
    assert read_manifest(tmp_path / "manifest.yaml") == part


def test_the_command_says_what_it_found_and_refuses_what_is_none(tmp_path: Path) -> None:
    tree(tmp_path, "faces/a.mat", "faces/a.jpg")
    made = run("manifest", "init", tmp_path / "faces")
    assert made.exit_code == 0, made.output
    assert "1 fit in 1 folder" in made.output
    assert run("manifest", "init", tmp_path / "faces").exit_code == 0  # the same again
    with (tmp_path / "faces/manifest.yaml").open("a") as file:
        file.write("# mine\n")
    assert "exists and says something else" in fails("manifest", "init", tmp_path / "faces")
    (tmp_path / "faces/manifest.yaml").write_text("mine: 1\n")
    assert "did not write" in fails("manifest", "init", tmp_path / "faces")
    (tmp_path / "empty").mkdir()
    assert "holds no fit" in fails("manifest", "init", tmp_path / "empty")
    assert "is not a folder" in fails("manifest", "init", tmp_path / "none")


def test_mirrored_photographs_lie_beside_their_fits() -> None:
    subsets = [{**BASE["subsets"][0], "images": "I"}]
    with pytest.raises(ValidationError, match="names both images and shipped_flips"):
        Manifest.model_validate({**BASE, "subsets": subsets})


def test_a_part_counts_each_fit_in_one_folder(tmp_path: Path) -> None:
    for place in ("a", "b", "sub/c", "sub/d"):
        (tmp_path / place).parent.mkdir(exist_ok=True)
        (tmp_path / f"{place}.mat").write_bytes(b"")
    whole = manifest_of_folder(tmp_path).manifest
    part = manifest_of_part(whole, ["a", "b", "sub/c"])
    assert {subset.directory: subset.fits for subset in part.subsets} == {".": 2, "sub": 1}
