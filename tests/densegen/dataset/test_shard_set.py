"""A finished build as one sequence."""

from __future__ import annotations

import contextlib
import copy
import dataclasses
import json
import pickle
import shutil
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import h5py
import numpy as np
import pytest

from densegen.dataset.build import build, plan_build
from densegen.dataset.build_record import read_dataset_manifest
from densegen.dataset.shard_set import ShardSet, StoredSample, open_dataset
from densegen.dataset.shards import ShardReader
from densegen.errors import ConfigurationError, FormatError
from densegen.face.morphable_model import MorphableModel
from densegen.sources.manifest import Manifest, Split, choose_settings


@pytest.fixture(scope="module")
def samples(dataset: Path) -> ShardSet:
    return open_dataset(str(dataset))


def same(one: StoredSample, other: StoredSample) -> bool:
    return one.sample_id == other.sample_id and all(
        np.array_equal(getattr(one, name), getattr(other, name))
        for name in ("image", "landmarks", "keypoints68", "pose", "mirrored", "split", "position_map")
    )


def test_every_sample_is_the_one_in_its_shard(samples: ShardSet, dataset: Path) -> None:
    read = iter(samples)
    for record in read_dataset_manifest(dataset).shards:
        with ShardReader(dataset / record.file) as shard:
            for row, sample_id in enumerate(shard.sample_ids):
                sample = next(read)
                assert (sample.sample_id, sample.split) == (sample_id, shard.splits[row])
                assert sample.mirrored == sample_id.endswith("+mirror")
                assert np.array_equal(sample.image, shard.image(row))
                for name in ("landmarks", "keypoints68", "pose"):
                    assert np.array_equal(getattr(sample, name), shard.array(name)[row])
    assert next(read, None) is None


def test_it_counts_as_a_sequence_does(samples: ShardSet) -> None:
    assert len(samples) == 32
    assert same(samples[-1], samples[31])
    assert [one.sample_id for one in samples[3:9:2]] == [samples[n].sample_id for n in (3, 5, 7)]
    assert same(samples[3:9][-1], samples[np.int64(8)])
    for beyond in (32, -33):
        with pytest.raises(IndexError, match="of 32"):
            samples[beyond]
    with pytest.raises(IndexError, match="of 6"):
        samples[3:9][6]


def test_an_order_is_a_function_of_seed_and_epoch(samples: ShardSet) -> None:
    def order(seed: int, epoch: int = 0) -> list[str]:
        return [samples.sample_ids[row] for row in samples.shuffled(seed, epoch).rows]

    assert order(1) == order(1)
    assert sorted(order(1)) == sorted(samples.sample_ids)
    assert len({tuple(order(1)), tuple(order(2)), tuple(order(1, 1))}) == 3


def test_a_split_holds_its_samples(corpus: Path, manifest: Manifest, tmp_path: Path) -> None:
    halves = manifest.model_copy(update={"split": Split(seed=2, validation=0.3)})
    build(plan_build(halves, corpus), tmp_path / "out")
    samples = open_dataset(tmp_path / "out")
    train, validation = samples.of_split("train"), samples.of_split("validation")
    assert len(train) + len(validation) == len(samples)
    assert {one.split for one in validation} == {"validation"}
    assert {one.split for one in train.shuffled(3)[:4]} == {"train"}
    with pytest.raises(ConfigurationError, match="no sample of the split 'test'"):
        samples.of_split("test")


def test_position_maps_are_read_or_rendered_the_same(dataset: Path, model: MorphableModel) -> None:
    stored = open_dataset(dataset, position_maps=True)
    rendered = copy.deepcopy(open_dataset(dataset, position_maps=model))
    assert open_dataset(dataset)[0].position_map is None
    for one, two in zip(stored, rendered, strict=True):
        assert one.position_map is not None
        assert two.position_map is not None
        assert one.valid_uv is not None
        assert two.valid_uv is not None
        assert np.array_equal(one.valid_uv, two.valid_uv)
        assert np.abs(one.position_map - two.position_map).max() < 1 / 256 + 1e-4
        assert not two.position_map[~two.valid_uv].any()
        # Every landmark lies on the map: a neighbour of four of its pixels is never farther than 3 px.
        on_map = two.position_map[two.valid_uv]
        nearest = np.linalg.norm(on_map[None, ::4] - one.landmarks[::40, None], axis=2).min(axis=1)
        assert nearest.max() < 3
    last = rendered[len(rendered) - 1].position_map
    assert two.position_map is not None
    assert np.array_equal(last, two.position_map)


def test_a_copy_of_a_renderer_leaves_out_what_it_computed(dataset: Path, model: MorphableModel) -> None:
    rendered = open_dataset(dataset, position_maps=model)
    before = len(pickle.dumps(rendered))
    assert rendered[0].position_map is not None
    assert len(pickle.dumps(rendered)) == before


def test_an_error_in_one_sample_does_not_end_an_iteration(dataset: Path, tmp_path: Path) -> None:
    copied = Path(shutil.copytree(dataset, tmp_path / "copied"))
    with h5py.File(copied / "shard-00000.h5", "r+") as file:
        offsets = file["image/offsets"][()]
        file["image/bytes"][offsets[1] : offsets[2]] = 0
    read, found = iter(open_dataset(copied)), []
    for _ in range(4):
        with contextlib.suppress(FormatError):
            found.append(next(read).sample_id)
    assert len(found) == 3


def test_a_build_of_another_schema_says_so(dataset: Path, tmp_path: Path) -> None:
    copied = Path(shutil.copytree(dataset, tmp_path / "copied"))
    manifest = json.loads((copied / "manifest.json").read_text())
    (copied / "manifest.json").write_text(json.dumps(manifest | {"schema_version": 2}))
    with pytest.raises(FormatError, match="is of a build of schema 2, expected 3: build it again"):
        open_dataset(copied)


def test_position_maps_need_the_builds_own_model(
    dataset: Path, model: MorphableModel, corpus: Path, tmp_path: Path, manifest: Manifest
) -> None:
    other = dataclasses.replace(model, shape_mean=model.shape_mean + 1)
    with pytest.raises(ConfigurationError, match="was made with densegen procedural face"):
        open_dataset(dataset, position_maps=other)
    settings, _ = choose_settings(manifest, limit=2)
    build(plan_build(manifest, corpus, settings=settings), tmp_path / "out")
    with pytest.raises(ConfigurationError, match="holds no position maps: build with --position-maps"):
        open_dataset(tmp_path / "out", position_maps=True)


def test_copies_and_threads_read_the_same(samples: ShardSet) -> None:
    first = samples[7]
    assert same(copy.deepcopy(samples)[7], first)
    with ThreadPoolExecutor(8) as threads:
        assert all(threads.map(lambda _: same(samples[7], first), range(32)))
    assert same(samples.shuffled(0)[0], copy.deepcopy(samples.shuffled(0))[0])


def test_a_split_that_there_is_not_is_named(dataset: Path) -> None:
    with pytest.raises(ConfigurationError, match="there is no split 'validatoin': train, .*did you mean validation"):
        open_dataset(dataset).of_split("validatoin")
