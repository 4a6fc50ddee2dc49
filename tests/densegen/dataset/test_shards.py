from __future__ import annotations

import dataclasses
import io
import json
import os
import tempfile
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
import simplejpeg
from hypothesis import given
from hypothesis import strategies as st

from densegen.conventions import FRAMES
from densegen.dataset.hdf5 import create_group, new_file
from densegen.dataset.map_codec import pack_map, unpack_map
from densegen.dataset.shards import Sample, ShardHeader, ShardReader, encode_shard
from densegen.errors import ConfigurationError, FormatError
from densegen.files import write_bytes


def sample(number: int, with_map: bool = False) -> Sample:
    rng = np.random.default_rng(number)

    def numbers(*shape: int) -> np.ndarray:
        return rng.normal(size=shape).astype(np.float32)

    return Sample(
        sample_id=f"A/photo_{number}",
        group=f"A/photo_{number // 2}",
        split="validation" if number // 2 == 1 else "train",
        flipped=number % 2 == 1,
        mirrored=False,
        jpeg=rng.bytes(50 + number),
        landmarks=numbers(520, 3),
        keypoints68=numbers(68, 3),
        pose=numbers(7),
        shape=numbers(199),
        expression=numbers(29),
        crop=rng.normal(size=4),
        image_size=(450, 300 + number),
        position_map=pack_map(rng.integers(0, 65535, (256, 256, 3), dtype=np.uint16)) if with_map else None,
    )


def header(with_map: bool = False) -> ShardHeader:
    return ShardHeader(
        dataset="test", version="1.2.3", seed=5, crop_size=256, vertex_index="index text ✓ " * 9000,
        vertex_index_fingerprint="ab", model_name="a model", model_fingerprint="cd", configuration='{"a": 1}',
        counts=(520, 199, 29), valid_uv=np.ones((256, 256), bool) if with_map else None,
    )  # fmt: skip


def write(path: Path, samples: list[Sample], with_map: bool = False) -> Path:
    path.write_bytes(encode_shard(samples, header(with_map)))
    return path


def test_every_field_comes_back(tmp_path: Path) -> None:
    samples = [sample(n, with_map=True) for n in range(5)]
    with ShardReader(write(tmp_path / "s.h5", samples, with_map=True)) as shard:
        assert len(shard) == 5
        assert shard.sample_ids == [s.sample_id for s in samples]
        assert shard.groups == [s.group for s in samples]
        assert shard.splits == [s.split for s in samples]
        for row, expected in enumerate(samples):
            assert shard.jpeg(row) == expected.jpeg
            assert expected.position_map is not None
            assert (shard.position_map(row) == unpack_map(expected.position_map, (256, 256, 3))).all()
            for name in ("landmarks", "keypoints68", "pose", "shape", "expression", "crop"):
                assert (shard.array(name)[row] == getattr(expected, name)).all()
        assert shard.array("image_size").tolist() == [list(s.image_size) for s in samples]
        assert shard.array("flipped").tolist() == [s.flipped for s in samples]
        assert shard.array("landmarks").dtype == np.float32


def test_a_shard_describes_itself(tmp_path: Path) -> None:
    with ShardReader(write(tmp_path / "s.h5", [sample(0)])) as shard:
        attributes = shard.attributes
        assert json.loads(attributes["frames"]) == FRAMES
        assert (attributes["seed"], attributes["densegen_version"], attributes["schema_version"]) == (
            5,
            "1.2.3",
            3,
        )
        assert attributes["configuration"] == '{"a": 1}'
        assert shard.vertex_index == header().vertex_index
        assert b"crop frame" in shard.file["landmarks"].attrs["about"]
        assert not shard.has_position_maps


def test_the_same_samples_give_the_same_bytes() -> None:
    samples = [sample(n) for n in range(3)]
    assert encode_shard(samples, header()) == encode_shard(samples, header())


def test_a_shard_may_be_empty(tmp_path: Path) -> None:
    with ShardReader(write(tmp_path / "s.h5", [])) as shard:
        assert len(shard) == 0
        assert shard.sample_ids == shard.groups == shard.splits == []
        assert shard.array("landmarks").shape == (0, 520, 3)
        assert shard.array("shape").shape == (0, 199)


def edited(path: Path, **changes: Any) -> Path:
    """A shard of one sample in which attributes (a text or a number) or datasets (options, None to leave out) differ,
    in the form that shards have."""
    made = encode_shard([sample(0)], header())
    buffer = io.BytesIO()
    with h5py.File(io.BytesIO(made), "r") as old, new_file(buffer) as new:
        create_group(new, "image")
        for name, value in {
            **old.attrs,
            **{k: v for k, v in changes.items() if not isinstance(v, dict | None)},
        }.items():
            new.attrs[name] = value
        for name in [*(set(old) - {"image"}), "image/bytes", "image/offsets"]:
            options = changes.get(name, {"data": old[name][()], "dtype": old[name].dtype})
            if options is not None:
                new.create_dataset(name, track_times=False, **options)
        for name in changes:
            if name in new.attrs and changes[name] is None:
                del new.attrs[name]
    path.write_bytes(buffer.getvalue())
    return path


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"schema_version": 9}, r"^s\.h5 has schema 9, expected 3: rebuild it with 'densegen build'$"),
        ({"schema_version": float("inf")}, "has schema inf, expected 3"),
        ({"format": np.bytes_("something")}, "is not a densegen shard"),
        ({"crop_size": float("inf")}, "crop_size is no int"),
        ({"crop_size": np.bytes_("256")}, "crop_size is no int"),
        ({"crop_size": 2**40}, "a crop of 1099511627776 px"),
        ({"dataset": np.bytes_(b"\xff\xfe")}, "dataset is not UTF-8"),
        ({"model_fingerprint": None}, "lacks model_fingerprint"),
        ({"crop": None}, "lacks crop"),
        ({"shape": {"data": np.zeros((1, 199), "<f4"), "chunks": (1, 199)}}, "shape is not stored in one piece"),
        ({"landmarks": {"data": np.zeros((1, 520, 2), "<f4")}}, r"landmarks is float32 \(1, 520, 2\)"),
        ({"landmarks": {"data": np.zeros((1, 520, 3), "<f8")}}, "landmarks is float64"),
        ({"sample_id": {"data": np.bytes_("A/a")}}, "sample_id"),
        ({"pose": {"data": np.zeros((2, 7), "<f4")}}, r"pose is float32 \(2, 7\)"),
    ],
)
def test_another_shard_is_refused_with_a_reason(tmp_path: Path, changes: dict[str, Any], words: str) -> None:
    with pytest.raises(FormatError, match=words):
        ShardReader(edited(tmp_path / "s.h5", **changes))


def test_a_shard_as_it_is_stays_readable_after_editing(tmp_path: Path) -> None:
    """The other tests change what they say, and nothing else."""
    with ShardReader(edited(tmp_path / "s.h5")) as shard:
        assert shard.sample_ids == [sample(0).sample_id]


def test_text_that_is_none_is_named(tmp_path: Path) -> None:
    path = edited(tmp_path / "s.h5", vertex_index={"data": np.bytes_(b"\xff\xfe")})
    with ShardReader(path) as shard, pytest.raises(FormatError, match="vertex_index is not UTF-8"):
        _ = shard.vertex_index


def test_what_is_no_file_or_cut_off_is_refused(tmp_path: Path) -> None:
    path = write(tmp_path / "s.h5", [sample(0)])
    (tmp_path / "cut.h5").write_bytes(path.read_bytes()[:3000])
    os.mkfifo(tmp_path / "pipe.h5")
    (tmp_path / "folder.h5").mkdir()
    for name, words in (("cut", "its header says"), ("none", "cannot be read: No such"), ("pipe", "not a regular file"),
                        ("folder", "not a regular file")):  # fmt: skip
        with pytest.raises(FormatError, match=words):
            ShardReader(tmp_path / f"{name}.h5")


def test_an_image_of_another_size_is_not_decoded(tmp_path: Path) -> None:
    huge = simplejpeg.encode_jpeg(np.zeros((16, 4096, 3), np.uint8), 50, "RGB", "420")
    path = write(tmp_path / "s.h5", [dataclasses.replace(sample(0), jpeg=huge)])
    with ShardReader(path) as shard, pytest.raises(FormatError, match=r"is 4096x16, expected 256x256"):
        shard.image(0)


TOTAL = -9
"""Stands for the number of all bytes."""


# Differences of the last wrap around to positive numbers.
@pytest.mark.parametrize("places", [[1, TOTAL], [0, 3], [0, 2**40, TOTAL], [0, 2**63 - 1, -(2**63), -1, TOTAL]])
@pytest.mark.parametrize("name", ["image", "position_map"])
def test_offsets_that_lead_elsewhere_are_refused(tmp_path: Path, name: str, places: list[int]) -> None:
    samples = [sample(number, with_map=True) for number in range(len(places) - 1)]
    path = write(tmp_path / "s.h5", samples, with_map=True)
    with h5py.File(path, "r+") as file:
        total = len(file[f"{name}/bytes"])
        file[f"{name}/offsets"][...] = [total if place == TOTAL else place for place in places]
    with ShardReader(path) as shard, pytest.raises(FormatError, match=f"{name}/offsets is damaged"):
        getattr(shard, f"{name}_offsets")


def test_a_map_of_more_bytes_than_it_can_have_is_not_read(tmp_path: Path) -> None:
    packed = pack_map(np.zeros((256, 256, 3), np.uint16)) + bytes(1_000_000)
    path = write(tmp_path / "s.h5", [dataclasses.replace(sample(0), position_map=packed)], with_map=True)
    with ShardReader(path) as shard, pytest.raises(FormatError, match="position_map/offsets is damaged"):
        shard.position_map(0)


def test_a_damaged_map_is_named(tmp_path: Path) -> None:
    path = write(tmp_path / "s.h5", [dataclasses.replace(sample(0), position_map=b"no map")], with_map=True)
    with ShardReader(path) as shard, pytest.raises(FormatError, match="the position map of A/photo_0 is damaged"):
        shard.position_map(0)
    with ShardReader(write(path, [sample(0)])) as shard:
        with pytest.raises(ConfigurationError, match="holds no position maps"):
            shard.position_map(0)
        with pytest.raises(IndexError, match="sample -1 of 1"):
            shard.jpeg(-1)


def test_samples_are_immutable() -> None:
    with pytest.raises(dataclasses.FrozenInstanceError):
        sample(0).split = "test"  # type: ignore[misc]


names = st.text(st.characters(exclude_categories=["Cs", "Cc"]), min_size=1, max_size=12)


@given(st.lists(names, min_size=1, max_size=4, unique=True), st.integers(0, 2**32))
def test_a_shard_gives_back_what_was_put_in(ids: list[str], seed: int) -> None:
    rng = np.random.default_rng(seed)
    made = [Sample(**{**{f: getattr(sample(0), f) for f in Sample.__dataclass_fields__}, "sample_id": f"A{name}",
                      "group": name, "jpeg": rng.bytes(int(rng.integers(1, 90))),
                      "landmarks": rng.normal(size=(520, 3)).astype(np.float32)}) for name in ids]  # fmt: skip
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "s.h5"
        write_bytes(path, encode_shard(made, header()))
        with ShardReader(path) as shard:
            assert shard.groups == ids
            assert [shard.jpeg(row) for row in range(len(made))] == [one.jpeg for one in made]
            assert (shard.array("landmarks") == np.stack([one.landmarks for one in made])).all()
