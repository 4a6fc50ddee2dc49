from __future__ import annotations

import json
import shutil
from collections import namedtuple
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
import simplejpeg
import torch
from torch.utils.data import DataLoader

from densegen.dataset.build import Plan, build, plan_build
from densegen.dataset.sample_index import SAMPLES
from densegen.dataset.shard_set import ShardSet, open_dataset
from densegen.dataset.shards import ShardReader
from densegen.errors import ConfigurationError, FormatError
from densegen.files import find_data_file
from densegen.sources.manifest import BuildSettings, Manifest
from densetrain.data.batches import BatchDataset, ShardBatches, as_it_is
from densetrain.data.held import hold
from densetrain.data.order import BatchSampler
from tests.densetrain.conftest import edit_manifest, tiny


def test_samples_are_read_as_the_shards_hold_them(dataset: Path, shards: ShardSet) -> None:
    reader = shards.open()
    row = 0
    for path in sorted(dataset.glob("shard-*.h5")):
        with ShardReader(path) as shard:
            landmarks = shard.array("landmarks")
            for place, sample_id in enumerate(shard.sample_ids):
                assert shards.sample_ids[row] == sample_id
                assert (reader.landmarks(row) == landmarks[place]).all()
                assert (reader.image(row) == simplejpeg.decode_jpeg(shard.jpeg(place), "RGB")).all()
                row += 1
    assert row == len(shards) == 32
    reader.close()


def test_workers_and_caches_give_the_same_batches(shards: ShardSet) -> None:
    rows = shards.rows("train")
    assert (rows != np.arange(len(rows))).any()  # positions in a cache and rows of the set differ
    sampler = BatchSampler(rows, 4, seed=0, shuffle=True)

    def batches(dataset: BatchDataset, workers: int = 0) -> list[dict[str, Any]]:
        loader = DataLoader(dataset, batch_size=None, sampler=sampler, num_workers=workers, collate_fn=as_it_is)
        return list(loader)

    settings = tiny()
    plain = batches(BatchDataset(shards, settings))
    held = hold(shards, rows)
    for other in (batches(BatchDataset(shards, settings), 2), batches(BatchDataset(shards, settings, held))):
        for one, two in zip(plain, other, strict=True):
            for name in ("images", "landmarks", "draws"):
                assert torch.equal(one[name], two[name])
            assert isinstance(two["rows"], np.ndarray)
            assert (one["rows"] == two["rows"]).all()
    on_device = batches(BatchDataset(shards, settings, held, on_device=True))
    for one, two in zip(plain, on_device, strict=True):
        places = two["table"].view(torch.int32)[:, 0]
        assert torch.equal(held.images[places], one["images"])
        assert torch.equal(held.landmarks[places], one["landmarks"])
        assert torch.equal(two["table"][:, 1:], one["draws"])


def test_a_corrupt_image_is_an_error_that_names_shard_and_sample(dataset: Path, tmp_path: Path) -> None:
    broken = tmp_path / "broken"
    shutil.copytree(dataset, broken)
    with h5py.File(broken / "shard-00001.h5", "r+") as file:
        start = int(file["image/offsets"][1])
        file["image/bytes"][start : start + 400] = 0
    damaged = open_dataset(broken)
    row = 5  # the second of the second shard
    item = BatchDataset(damaged)[(0, 0, np.array([row]), 1.0)]
    assert isinstance(item, FormatError)
    assert str(item).startswith(f"shard-00001.h5: sample {damaged.sample_ids[row]} is not a readable JPEG")


def test_a_file_cut_while_it_is_read_is_an_error(dataset: Path, tmp_path: Path) -> None:
    broken = tmp_path / "broken"
    shutil.copytree(dataset, broken)
    reader = open_dataset(broken).open()
    assert reader.landmarks(2).shape == (520, 3)
    with (broken / "shard-00000.h5").open("r+b") as file:
        file.truncate(2000)
    with pytest.raises(FormatError, match="behind the end of its file"):
        reader.landmarks(3)


def test_damaged_and_mixed_sets_are_refused(
    dataset: Path, plan: Plan, corpus: Path, manifest: Manifest, tmp_path: Path
) -> None:
    def copy(name: str) -> Path:
        """Without the file by which a set is opened: each shard is looked at."""
        shutil.copytree(dataset, tmp_path / name, ignore=shutil.ignore_patterns(SAMPLES))
        return tmp_path / name

    missing = copy("missing")
    (missing / "shard-00002.h5").unlink()
    with pytest.raises(FormatError, match="shard-00002.h5 is missing"):
        open_dataset(missing)
    longer = copy("longer")
    with (longer / "shard-00002.h5").open("ab") as file:
        file.write(b"x")
    with pytest.raises(FormatError, match="its manifest says"):
        open_dataset(longer)
    with pytest.raises(FormatError, match="does not exist: no finished build is here"):
        open_dataset(tmp_path)
    empty = copy("empty")
    edit_manifest(empty, lambda manifest: manifest.update(shards=[]))
    with pytest.raises(ConfigurationError, match="hold no samples"):
        open_dataset(empty)
    schema = copy("schema")
    with h5py.File(schema / "shard-00000.h5", "r+") as file:
        file.attrs["schema_version"] = 99
    size = (schema / "shard-00000.h5").stat().st_size
    edit_manifest(schema, lambda manifest: manifest["shards"][0].update(bytes=size))
    with pytest.raises(FormatError, match="has schema 99, expected 3"):
        open_dataset(schema)
    index = tmp_path / "few.yaml"
    index.write_text(_half_an_index())
    settings = BuildSettings(shard_size=64, limit=2)
    build(plan_build(manifest, corpus, corpus / "model.safetensors", index, settings), tmp_path / "other")
    with pytest.raises(ConfigurationError, match="has another vertex index than"):
        open_dataset(dataset, tmp_path / "other")
    with pytest.raises(ConfigurationError, match="is given twice"):
        open_dataset(dataset, dataset / ".." / dataset.name)
    copied = Path(shutil.copytree(dataset, tmp_path / "copied"))
    assert len(open_dataset(dataset, copied)) == 64


def _replace(file: h5py.File, name: str, data: Any) -> None:
    del file[name]
    file.create_dataset(name, data=data)


def _offsets(file: h5py.File) -> None:
    file["image/offsets"][2] = 10**11


def _split(file: h5py.File) -> None:
    file["split"][1] = 9


def _margin(file: h5py.File) -> None:
    configuration = json.loads(file.attrs["configuration"])
    configuration["crop"]["margin"] = 3.0
    file.attrs["configuration"] = np.bytes_(json.dumps(configuration))


def _pose(file: h5py.File) -> None:
    file["pose"][1, 2] = np.nan


@pytest.mark.parametrize(
    ("edit", "words"),
    [
        (_offsets, "image/offsets is damaged"),
        (lambda file: _replace(file, "image/offsets", np.zeros(2, np.int64)), "image/offsets is damaged"),
        (lambda file: _replace(file, "landmarks", np.zeros((4, 520, 3))), "landmarks is float64"),
        (
            lambda file: _replace(file, "landmarks", np.zeros((4, 68, 3), np.float32)),
            "was not made by the build that its manifest names",
        ),
        (lambda file: _replace(file, "keypoints68", np.zeros((4, 60, 3), np.float32)), "keypoints68 is float32"),
        (lambda file: _replace(file, "split", np.zeros(3, np.uint8)), "split is uint8"),
        (_split, "split names one of 3, not number 9"),
        (_margin, "was not made by the build that its manifest names"),
        (_pose, "pose of SYNTH/SYNTH_00000_2.mirror is not finite"),
    ],
    ids=["offset", "offsets", "type", "landmarks", "keypoints", "short", "split", "margin", "pose"],
)
def test_a_shard_that_is_not_as_the_schema_says_is_refused(
    dataset: Path, tmp_path: Path, edit: Any, words: str
) -> None:
    shutil.copytree(dataset, tmp_path / "edited", ignore=shutil.ignore_patterns(SAMPLES))
    path = tmp_path / "edited/shard-00001.h5"
    with h5py.File(path, "r+") as file:
        edit(file)
    size = path.stat().st_size
    edit_manifest(tmp_path / "edited", lambda manifest: manifest["shards"][1].update(bytes=size))
    with pytest.raises((FormatError, ConfigurationError), match=words):
        open_dataset(tmp_path / "edited")


def test_landmarks_that_are_not_finite_are_named(dataset: Path, tmp_path: Path) -> None:
    shutil.copytree(dataset, tmp_path / "edited")
    with h5py.File(tmp_path / "edited/shard-00000.h5", "r+") as file:
        file["landmarks"][2, 7, 1] = np.nan
    with pytest.raises(FormatError, match="shard-00000.h5: sample SYNTH/SYNTH_00000_1 has landmarks that are not"):
        open_dataset(tmp_path / "edited").open().landmarks(2)


def test_what_is_seldom_needed_is_read_when_it_is_asked_for(dataset: Path, tmp_path: Path) -> None:
    """To open a set reads neither keypoints nor expressions; a sample's own are its own."""
    shutil.copytree(dataset, tmp_path / "edited")
    with h5py.File(tmp_path / "edited/shard-00000.h5", "r+") as file:
        file["keypoints68"][1, 7, 1] = np.nan
        file["expression"][2, 0] = np.inf
    shards = open_dataset(tmp_path / "edited")
    with pytest.raises(FormatError, match="SYNTH_00000_0.mirror has keypoints68 that are not finite"):
        shards.open().keypoints68(1)
    with pytest.raises(FormatError, match="SYNTH/SYNTH_00000_1 has expression that are not finite"):
        shards.open().expression(2)
    whole, reader = open_dataset(dataset), shards.open()
    assert "keypoints68" not in whole.__dict__
    np.testing.assert_array_equal(whole.keypoints68[5], reader.keypoints68(5))
    np.testing.assert_array_equal(whole.expression[5], reader.expression(5))
    assert whole.keypoints68.shape == (32, 68, 3)
    assert "keypoints68" not in whole.__getstate__()


def test_a_photograph_in_two_splits_is_refused(dataset: Path, corpus: Path, manifest: Manifest, tmp_path: Path) -> None:
    """Two builds of the same photographs whose manifests split them differently."""
    split = manifest.split.model_copy(update={"seed": 5, "validation": 0.5})
    other = manifest.model_copy(update={"split": split})
    index_file = find_data_file("vertex_index_520.yaml")
    build(
        plan_build(other, corpus, corpus / "model.safetensors", index_file, BuildSettings(shard_size=64)),
        tmp_path / "other",
    )
    with pytest.raises(ConfigurationError, match="the photograph SYNTH/SYNTH_0000. of demo is in"):
        open_dataset(dataset, tmp_path / "other")


def _half_an_index() -> str:
    """The 68 alone."""
    import yaml

    contents = yaml.safe_load(find_data_file("vertex_index_520.yaml").read_text())
    contents |= {"landmarks": contents["landmarks"][:68], "name": "few"}
    return str(yaml.safe_dump(contents))


def test_a_cache_that_does_not_fit_is_refused_before_it_is_made(
    shards: ShardSet, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("densetrain.data.held._free_memory", lambda: 1_000_000)
    with pytest.raises(ConfigurationError, match="data.cache needs"):
        hold(shards, shards.rows("train"))


def test_a_split_without_samples_is_refused(shards: ShardSet) -> None:
    with pytest.raises(ConfigurationError, match="no sample of the split 'test'"):
        shards.rows("test")


def test_batches_that_do_not_fit_into_shared_memory_are_refused_before_the_first(
    shards: ShardSet, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A container has 64 MB there unless it is told otherwise, and torch's loader waits for ever."""
    usage = namedtuple("usage", "free")
    monkeypatch.setattr("densetrain.data.batches.SHARED_MEMORY", tmp_path)
    monkeypatch.setattr("shutil.disk_usage", lambda path: usage(64 << 20))
    paper = tiny("data.batch_size=128", "data.workers=8")
    largest = max(len(shards.rows("train")), len(shards.rows("validation")))  # no batch holds more
    needed = 17 * largest * shards.crop_size**2 * 3
    monkeypatch.setattr("shutil.disk_usage", lambda path: usage(needed - 1))
    with pytest.raises(ConfigurationError, match=rf"batches of 8 workers need {needed / 1e6:,.0f}: .*--shm-size"):
        ShardBatches(shards, paper).check_shared_memory()
    monkeypatch.setattr("shutil.disk_usage", lambda path: usage(needed))
    ShardBatches(shards, paper).check_shared_memory()
    monkeypatch.setattr("shutil.disk_usage", lambda path: usage(64 << 20))
    for fits in ("data.workers=0", "data.cache=memory", "data.batch_size=1"):
        ShardBatches(shards, tiny("data.batch_size=128", "data.workers=8", fits)).check_shared_memory()
    few = ShardBatches(shards, tiny("data.batch_size=16", "data.workers=8"))
    few.check_shared_memory()
    with pytest.raises(ConfigurationError, match="batches of 16 workers need 107"):
        few.check_shared_memory(2)
