from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
import simplejpeg

from densegen.errors import FormatError
from densegen.schema import FRAMES
from densegen.shards import Sample, ShardHeader, ShardReader, encode_shard


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
        position_map=rng.integers(0, 65535, (256, 256, 3), dtype=np.uint16) if with_map else None,
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
            assert (shard.position_map(row) == expected.position_map).all()
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
            1,
        )
        assert attributes["configuration"] == '{"a": 1}'
        assert shard.vertex_index == header().vertex_index
        assert "crop frame" in shard.file["landmarks"].attrs["about"]
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


def test_other_files_are_refused_with_a_reason(tmp_path: Path) -> None:
    path = write(tmp_path / "shard-00003.h5", [sample(0)])
    with h5py.File(path, "a") as file:
        file.attrs["schema_version"] = 9
    with pytest.raises(
        FormatError, match=r"^shard-00003\.h5 has schema 9, expected 1: rebuild it with 'densegen build'$"
    ):
        ShardReader(path)
    with h5py.File(path, "a") as file:
        file.attrs["schema_version"] = 1
        del file["crop"]
    with pytest.raises(FormatError, match="lacks crop"):
        ShardReader(path)
    with h5py.File(tmp_path / "other.h5", "w") as file:
        file["x"] = 1
    with pytest.raises(FormatError, match="not a densegen shard"):
        ShardReader(tmp_path / "other.h5")
    (tmp_path / "cut.h5").write_bytes(path.read_bytes()[:3000])
    with pytest.raises(FormatError, match="not a readable HDF5 file"):
        ShardReader(tmp_path / "cut.h5")
    with pytest.raises(FormatError, match="not a readable HDF5 file"):
        ShardReader(tmp_path / "none.h5")


@pytest.mark.parametrize(
    ("damage", "words"),
    [
        ({"landmarks": {"shape": (2**36, 520, 3), "dtype": "<f4", "chunks": (64, 520, 3)}}, "landmarks is float32"),
        ({"image/bytes": {"shape": (2**40,), "dtype": "u1"}}, "image/bytes claims 1,099,511,627,776 bytes"),
        ({"sample_id": {"shape": (1,), "dtype": h5py.vlen_dtype(np.int32)}}, "sample_id is object"),
        ({"valid_uv": {"shape": (256, 256), "dtype": "?"}}, "lacks position_maps"),
    ],
)
def test_what_a_shard_claims_is_checked_before_memory_is_taken(
    tmp_path: Path, damage: dict[str, Any], words: str
) -> None:
    path = write(tmp_path / "s.h5", [sample(0)])
    with h5py.File(path, "a") as file:
        for name, options in damage.items():
            if name in file:
                del file[name]
            file.create_dataset(name, **options)
    with pytest.raises(FormatError, match=words):
        ShardReader(path)


def test_text_that_is_none_and_what_a_shard_lacks_are_named(tmp_path: Path) -> None:
    path = write(tmp_path / "s.h5", [sample(0)])
    with h5py.File(path, "a") as file:
        del file["vertex_index"]
        file.create_dataset("vertex_index", data=b"\xff\xfe", dtype=h5py.string_dtype())
    with ShardReader(path) as shard, pytest.raises(FormatError, match="vertex_index is not UTF-8"):
        _ = shard.vertex_index
    with h5py.File(path, "a") as file:
        del file.attrs["model_fingerprint"]
    with pytest.raises(FormatError, match="lacks model_fingerprint"):
        ShardReader(path)


def test_an_image_of_another_size_is_not_decoded(tmp_path: Path) -> None:
    huge = simplejpeg.encode_jpeg(np.zeros((16, 4096, 3), np.uint8), 50, "RGB", "420")
    path = write(tmp_path / "s.h5", [dataclasses.replace(sample(0), jpeg=huge)])
    with ShardReader(path) as shard, pytest.raises(FormatError, match=r"is 4096x16, expected 256x256"):
        shard.image(0)


def test_samples_are_immutable() -> None:
    with pytest.raises(dataclasses.FrozenInstanceError):
        sample(0).split = "test"  # type: ignore[misc]
