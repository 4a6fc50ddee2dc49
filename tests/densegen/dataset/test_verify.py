from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import h5py
import numpy as np
import pytest

from densegen.dataset.build_record import read_dataset_manifest
from densegen.dataset.sample_index import gather_samples, write_samples
from densegen.dataset.verify import verify_dataset
from densegen.errors import VerificationError
from densegen.files import sha256_of


@pytest.fixture
def copied(dataset: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(dataset, tmp_path / "dataset"))


def change(folder: Path, edit: Callable[[h5py.File], None]) -> None:
    """Edit shard 3 and make its checksum fit, so that only a look inside can tell."""
    path = folder / "shard-00003.h5"
    with h5py.File(path, "a") as file:
        edit(file)
    manifest = json.loads((folder / "manifest.json").read_text())
    manifest["shards"][3] |= {"sha256": sha256_of(path), "bytes": path.stat().st_size}
    (folder / "manifest.json").write_text(json.dumps(manifest))


def test_every_corrupt_byte_is_found_and_its_shard_named(copied: Path) -> None:
    path = copied / "shard-00003.h5"
    whole = path.read_bytes()
    for position in np.random.default_rng(0).integers(0, len(whole), 4):
        data = bytearray(whole)
        data[position] ^= 0x40
        path.write_bytes(data)
        with pytest.raises(VerificationError, match=r"shard-00003\.h5 has SHA-256 .* it is corrupt"):
            verify_dataset(copied)
    path.write_bytes(whole[:-1])
    with pytest.raises(VerificationError, match=r"shard-00003\.h5 has \d+ bytes, the manifest says"):
        verify_dataset(copied)
    path.unlink()
    with pytest.raises(VerificationError, match=r"shard-00003\.h5 is missing"):
        verify_dataset(copied)


def set_at(name: str, where: object, value: object) -> Callable[[h5py.File], None]:
    def edit(file: h5py.File) -> None:
        array = file[name][()]
        array[where] = value
        file[name][...] = array

    return edit


def spoil_image(file: h5py.File) -> None:
    start = int(file["image/offsets"][2])
    file["image/bytes"][start : start + 4] = 0


def spoil_map(file: h5py.File, row: int = 0) -> None:
    start = int(file["position_map/offsets"][row])
    file["position_map/bytes"][start : start + 4] = 0


def other_crop(file: h5py.File) -> None:
    file.attrs["crop_size"] = 128


@pytest.mark.parametrize(
    ("edit", "words"),
    [
        (set_at("landmarks", (1, 7, 2), np.nan), r"landmarks of SYNTH/SYNTH_00001_2\+mirror out of range"),
        (set_at("keypoints68", (2, 0, 0), 1e6), "keypoints68 of SYNTH/SYNTH_00001_3 out of range"),
        (set_at("pose", (0, 3), np.inf), "pose of SYNTH/SYNTH_00001_2 out of range"),
        (set_at("pose", (0, 6), 0.0), "pose of SYNTH/SYNTH_00001_2 out of range"),
        (set_at("crop", (1, 0), 0.0), r"crop of SYNTH/SYNTH_00001_2\+mirror out of range"),
        (set_at("pose", (1, 1), 0.5), r"SYNTH_00001_2\+mirror has another pose than its partner"),
        (set_at("expression", (1, 2), 0.5), r"SYNTH_00001_2\+mirror has another expression than its partner"),
        (set_at("flipped", 1, False), "SYNTH_00001_2.mirror is not marked as flipped"),
        (set_at("landmarks", (1, 7, 0), 99.0), r"SYNTH/SYNTH_00001_2\+mirror is not the mirror image"),
        (set_at("keypoints68", (3, 7, 1), 99.0), r"SYNTH/SYNTH_00001_3\+mirror is not the mirror image"),
        (set_at("sample_id", 2, "SYNTH/SYNTH_00000_0"), "SYNTH/SYNTH_00000_0 occurs twice"),
        (set_at("sample_id", 0, "SYNTH/other"), r"SYNTH_00001_2\+mirror has no partner"),
        (set_at("split", slice(None), 2), "the photograph SYNTH/SYNTH_00001 is in test and in"),
        (spoil_map, "the position map of SYNTH/SYNTH_00001_2 is damaged"),
        (spoil_image, "the image of SYNTH/SYNTH_00001_3 is not a readable JPEG"),
        (set_at("split", 0, 7), "split names one of 3, not number 7"),
        (lambda file: file.attrs.__delitem__("schema_version"), "has schema None, expected 3"),
        (other_crop, "is 256x256, expected 128x128"),
        (
            lambda file: file.attrs.__setitem__("schema_version", 9),
            r"shard-00003\.h5 has schema 9, expected 3",
        ),
        (lambda file: file.attrs.__setitem__("model_fingerprint", np.bytes_("x")), "made with another model"),
        (lambda file: file.__delitem__("crop"), "lacks crop"),
    ],
)
def test_what_is_wrong_inside_a_shard_is_named(copied: Path, edit: Callable[[h5py.File], None], words: str) -> None:
    change(copied, edit)
    for jobs in (1, 3):
        with pytest.raises(VerificationError, match=words):
            verify_dataset(copied, jobs=jobs)


def cut_image(file: h5py.File) -> None:
    start, stop = map(int, file["image/offsets"][1:3])
    file["image/bytes"][start + 1000 : stop] = 0


@pytest.mark.parametrize(("edit", "words"), [
    (cut_image, r"the image of SYNTH/SYNTH_00001_2\+mirror is not a readable JPEG"),
    (lambda file: spoil_map(file, 1), r"the position map of SYNTH/SYNTH_00001_2\+mirror is damaged"),
])  # fmt: skip
def test_a_sample_that_is_not_the_fifteenth_is_decoded_on_request(
    copied: Path, edit: Callable[[h5py.File], None], words: str
) -> None:
    change(copied, edit)
    manifest = read_dataset_manifest(copied)
    write_samples(gather_samples(copied, manifest.filled), copied)  # it knows the shards by their sums
    verify_dataset(copied)
    with pytest.raises(VerificationError, match=words):
        verify_dataset(copied, every_image=True)


def test_a_stray_shard_is_named(copied: Path) -> None:
    shutil.copy(copied / "shard-00000.h5", copied / "shard-00099.h5")
    with pytest.raises(VerificationError, match=r"shard-00099\.h5 is not in the manifest"):
        verify_dataset(copied)
