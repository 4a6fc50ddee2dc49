from __future__ import annotations

from pathlib import Path

import pytest

from densegen.dataset.build_record import find_sample, read_dataset_manifest, read_record, write_dataset_manifest
from densegen.dataset.shards import ShardReader
from densegen.errors import ConfigurationError, FormatError


def test_a_manifest_survives_reading_and_writing(dataset: Path, tmp_path: Path) -> None:
    write_dataset_manifest(read_dataset_manifest(dataset), tmp_path)
    assert (tmp_path / "manifest.json").read_bytes() == (dataset / "manifest.json").read_bytes()


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"number": 0}', "\x00"])
def test_a_damaged_record_is_none(tmp_path: Path, text: str) -> None:
    (tmp_path / "record.json").write_text(text)
    assert read_record(tmp_path / "record.json") is None


def test_a_sample_is_found_by_its_id(dataset: Path) -> None:
    with ShardReader(dataset / "shard-00002.h5") as shard:
        wanted = shard.sample_ids[3]
    assert find_sample(dataset, wanted) == (dataset / "shard-00002.h5", 3)
    with pytest.raises(ConfigurationError, match="no sample 'nobody'; the first is 'SYNTH/SYNTH_00000_0'"):
        find_sample(dataset, "nobody")


def test_a_folder_without_a_manifest_is_no_dataset(tmp_path: Path) -> None:
    with pytest.raises(FormatError, match="does not exist: no finished build is here"):
        read_dataset_manifest(tmp_path)
    (tmp_path / "manifest.json").write_text("{}")
    with pytest.raises(FormatError, match="not a dataset's manifest"):
        read_dataset_manifest(tmp_path)
