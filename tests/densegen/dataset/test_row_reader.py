"""Samples read past HDF5."""

from __future__ import annotations

import gc
import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from densegen.dataset import row_reader
from densegen.dataset.shard_set import open_dataset


@pytest.mark.skipif(not Path("/proc/self/fd").is_dir(), reason="counts open files as Linux lists them")
def test_few_files_are_open_at_a_time(dataset: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(row_reader, "MAX_OPEN", 2)
    gc.collect()
    before = len(os.listdir("/proc/self/fd"))
    samples = open_dataset(dataset)
    with ThreadPoolExecutor(8) as threads:
        read = threads.map(samples.__getitem__, [*range(32)] * 6)
        assert [sample.sample_id for sample in read] == list(samples.sample_ids) * 6
    assert len(os.listdir("/proc/self/fd")) <= before + 2 + 1  # and what all samples share
    del samples, read
    gc.collect()
    assert len(os.listdir("/proc/self/fd")) <= before


@pytest.mark.parametrize("number", [-1, 32, 1000])
def test_a_number_that_the_set_has_not_is_refused(dataset: Path, number: int) -> None:
    reader = open_dataset(dataset).open()
    for read in (reader.image, reader.landmarks, reader.keypoints68, reader.fit):
        with pytest.raises(IndexError, match=f"there is no sample {number}: the last of this set is 31"):
            read(number)
