"""One file that says where all samples of a build lie."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from densegen.dataset.build_record import ShardRecord, read_dataset_manifest, shard_name, write_dataset_manifest
from densegen.dataset.sample_index import (
    SAMPLES,
    SampleIndex,
    gather_samples,
    open_samples,
    shards_fingerprint,
    write_samples,
)
from densegen.dataset.shard_set import open_dataset
from densegen.dataset.texts import Texts
from densegen.dataset.verify import verify_dataset
from densegen.errors import FormatError, VerificationError


@pytest.fixture
def copied(dataset: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(dataset, tmp_path / "copied"))


def arrays(index: SampleIndex) -> dict[str, Any]:
    return {name: getattr(index, name) for name in SampleIndex.__slots__ if name != "about"}


def test_the_file_says_what_the_shards_say(dataset: Path) -> None:
    records = read_dataset_manifest(dataset).filled
    read, gathered = open_samples(dataset, records), gather_samples(dataset, records)
    assert read.about == gathered.about
    for name, array in arrays(gathered).items():
        assert getattr(read, name).dtype == array.dtype
        assert np.array_equal(getattr(read, name), array), name
    assert not read.pose.flags.owndata  # mapped, not read


@pytest.fixture
def opened_files() -> Iterator[list[str]]:
    """The names of files that Python opens from now on."""
    names: list[str] = []
    watching = True

    def watch(event: str, arguments: Any) -> None:
        if watching and event == "open":
            names.append(Path(str(arguments[0])).name)

    sys.addaudithook(watch)  # it can never be taken away
    yield names
    watching = False


def test_a_set_is_opened_without_its_shards(dataset: Path, opened_files: list[str]) -> None:
    samples = open_dataset(dataset)
    assert opened_files.count("manifest.json") == 1
    assert not [name for name in opened_files if name.endswith(".h5")]
    first = samples[0]
    assert [name for name in opened_files if name.endswith(".h5")] == ["shard-00000.h5"]
    assert first.sample_id == samples.sample_ids[0]


def changed(path: Path, **arrays: Any) -> None:
    from safetensors import safe_open

    with safe_open(path, framework="numpy") as file:
        metadata = file.metadata()
    save_file(load_file(path) | arrays, path, metadata)


@pytest.mark.parametrize(
    "damage",
    [
        lambda path: path.unlink(),
        lambda path: path.write_bytes(path.read_bytes()[:-8]),
        lambda path: path.write_bytes(b"\0" * 100),
        lambda path: changed(path, pose=np.zeros((3, 7), np.float32)),
        lambda path: changed(path, pose=load_file(path)["pose"] * np.float32(np.nan)),
        lambda path: changed(path, split=load_file(path)["split"] + np.uint8(7)),
        lambda path: changed(path, image_offsets=load_file(path)["image_offsets"] * -1),
        lambda path: changed(path, image_offsets=load_file(path)["image_offsets"] << 40),
        lambda path: changed(path, at=load_file(path)["at"] - (1 << 40)),
        lambda path: changed(path, at=load_file(path)["at"] + (1 << 40)),
        lambda path: changed(path, id_bytes=np.full_like(load_file(path)["id_bytes"], 0xFF)),
        lambda path: changed(path, id_offsets=load_file(path)["id_offsets"] * (1 << 56)),
        lambda path: changed(path, id_bytes=np.full_like(load_file(path)["id_bytes"], ord("."))),
        lambda path: changed(path, id_bytes=np.full_like(load_file(path)["id_bytes"], ord("/"))),
        lambda path: changed(path, id_offsets=load_file(path)["id_offsets"][::-1].copy()),
    ],
)
def test_a_file_that_is_damaged_is_not_believed(copied: Path, damage: Any) -> None:
    """The shards are asked instead, and ``verify`` says what to do."""
    damage(copied / SAMPLES)
    samples, records = open_dataset(copied), read_dataset_manifest(copied).filled
    for name, array in arrays(gather_samples(copied, records)).items():
        assert np.array_equal(getattr(open_samples(copied, records), name), array), name
    assert np.isfinite(samples[5].landmarks).all()
    with pytest.raises(VerificationError, match=r"samples\.safetensors is missing, or does not say"):
        verify_dataset(copied)


def test_a_file_of_other_shards_is_not_believed(copied: Path, dataset: Path) -> None:
    manifest = read_dataset_manifest(copied)
    first = manifest.filled[0].model_copy(update={"sha256": "0" * 64})
    index = open_samples(copied, [first, *manifest.filled[1:]])
    assert index.pose.flags.owndata  # gathered


def test_a_missing_shard_is_named_at_the_start_and_a_cut_one_when_it_is_read(copied: Path) -> None:
    path = copied / "shard-00000.h5"
    data = path.read_bytes()
    path.write_bytes(data[:-1])
    samples = open_dataset(copied)
    with pytest.raises(FormatError, match=r"shard-00000\.h5 has [\d,]+ bytes, its manifest says"):
        _ = samples[0]
    path.unlink()
    with pytest.raises(FormatError, match=r"shard-00000\.h5 is missing"):
        open_dataset(copied)


def test_the_same_index_gives_the_same_bytes(dataset: Path, tmp_path: Path) -> None:
    write_samples(gather_samples(dataset, read_dataset_manifest(dataset).filled), tmp_path)
    assert (tmp_path / SAMPLES).read_bytes() == (dataset / SAMPLES).read_bytes()


MANY = """
import os, resource, sys, tracemalloc
from pathlib import Path

import numpy as np
from densegen.dataset.shard_set import open_dataset

resource.setrlimit(resource.RLIMIT_NOFILE, (256, 256))
opened = []
sys.addaudithook(lambda event, arguments: opened.append(str(arguments[0])) if event == "open" else None)
tracemalloc.start()
samples = open_dataset(sys.argv[1])
held = tracemalloc.get_traced_memory()[0]
at_start = sum(name.endswith(".h5") for name in opened)
rows = np.random.default_rng(0).permutation(len(samples))[:1000]
ids = {samples[int(row)].sample_id for row in rows}
print(len(samples), at_start, held // 4000, len(ids), len(os.listdir("/proc/self/fd")))
"""


@pytest.mark.skipif(not Path("/proc/self/fd").is_dir(), reason="needs /proc")
def test_four_thousand_shards_open_with_one_read_and_few_files(dataset: Path, tmp_path: Path) -> None:
    """One shard under 4,000 names."""
    manifest = read_dataset_manifest(dataset)
    first = manifest.filled[0]
    records = []
    for number in range(4000):
        os.link(dataset / first.file, tmp_path / shard_name(number))
        records.append(first.model_copy(update={"number": number, "file": shard_name(number)}))
    many = manifest.model_copy(update={"shards": tuple(records), "samples": 4000 * first.samples})
    one = gather_samples(dataset, [first])
    repeated = {name: np.concatenate([array] * 4000) for name, array in arrays(one).items()}
    ids = Texts.joined([one.sample_ids] * 4000)
    about = one.about.model_copy(update={"shards": shards_fingerprint(records)})
    write_samples(SampleIndex(about, **(repeated | {"id_bytes": ids.data, "id_offsets": ids.offsets})), tmp_path)
    write_dataset_manifest(many, tmp_path)
    run = subprocess.run([sys.executable, "-c", MANY, str(tmp_path)], capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stderr[-500:]
    count, at_start, bytes_a_shard, found, open_files = map(int, run.stdout.split())
    assert (count, at_start, found) == (4000 * first.samples, 0, first.samples)
    assert open_files < 150  # 128 of the shards
    assert bytes_a_shard < 8000  # beside what is mapped


def test_there_are_names_for_more_than_a_hundred_thousand_shards(dataset: Path) -> None:
    record = read_dataset_manifest(dataset).filled[0]
    assert shard_name(99_999) == "shard-99999.h5"
    more = record.model_dump() | {"number": 1_234_567, "file": shard_name(1_234_567)}
    assert ShardRecord.model_validate(more).file == "shard-1234567.h5"


def test_texts_are_a_sequence() -> None:
    texts = Texts.of(["a", "", "größer", "b"])
    assert list(texts) == ["a", "", "größer", "b"]
    assert list(texts[1:3]) == ["", "größer"]
    assert list(texts[3:1]) == []
    assert list(texts[::-2]) == ["b", ""]
    assert texts[-1] == "b"
    assert list(Texts.joined([texts, texts[1:3], texts[0:1]])) == [*texts, "", "größer", "a"]
    with pytest.raises(IndexError, match="text 4 of 4"):
        texts[4]
