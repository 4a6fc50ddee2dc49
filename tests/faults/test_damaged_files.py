"""Every reader against damaged files: accepted or refused in one line, never an escape, a hang or gigabytes.

``make test`` reads a few hundred of each kind, ``make long`` 20,000.
"""

from __future__ import annotations

import io
import json
import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import simplejpeg
import yaml
from PIL import Image

from densegen.dataset.build_record import ShardRecord
from densegen.dataset.map_codec import pack_map
from densegen.dataset.row_reader import RowReader
from densegen.dataset.sample_index import gather_samples
from densegen.dataset.shards import ShardReader, encode_shard
from densegen.errors import DensegenError
from densegen.face.model_file import read_model, write_model
from densegen.face.morphable_model import MorphableModel
from densegen.files import find_data_file
from densegen.index.candidates import read_candidates, sample_candidates, write_candidates
from densegen.index.corrections import read_corrections
from densegen.index.formats.exchange import export_index, import_index
from densegen.index.vertex_index import VertexIndex, read_index
from densegen.sources.fits import read_fit
from densegen.sources.manifest import read_manifest
from densegen.sources.photograph import read_photograph
from tests.densegen.dataset.test_shards import header, sample, write
from tests.faults.mutations import Outcome, mutate, mutate_text, run_cases

CASES = int(os.environ.get("DENSE_FAULT_CASES", "200"))


def check(outcome: Outcome, cases: int) -> None:
    assert not outcome.broken, outcome.broken[:5]
    assert outcome.accepted + outcome.refused == cases


@pytest.fixture(scope="module")
def small(model: MorphableModel) -> MorphableModel:
    """The procedural face with few components, and few vertices in its file."""
    import dataclasses

    return dataclasses.replace(
        model, shape_basis=model.shape_basis[:2], expression_basis=model.expression_basis[:1],
        shape_std=model.shape_std[:2], expression_std=model.expression_std[:1], shape_names=model.shape_names[:2],
        expression_names=model.expression_names[:1],
    )  # fmt: skip


def read_manifest_file(path: Path) -> None:
    read_manifest(str(path))


def read_shard(path: Path) -> None:
    with ShardReader(path) as shard:
        _ = shard.vertex_index
        _ = shard.attributes, shard.sample_ids, shard.groups, shard.splits, shard.counts
        for name in ("landmarks", "keypoints68", "pose", "crop", "flipped", "mirrored", "image_size"):
            shard.array(name)
        for row in range(len(shard)):
            shard.jpeg(row)
            if shard.has_position_maps:
                shard.position_map(row)


def read_rows(path: Path) -> None:
    """As :func:`~densegen.dataset.shard_set.open_dataset` reads, past HDF5."""
    with ShardReader(path) as shard:
        count = len(shard)
    record = ShardRecord.model_construct(file=path.name, samples=count, bytes=path.stat().st_size, sha256="")
    rows = RowReader(gather_samples(path.parent, [record]).places(path.parent, [record], 0))
    for number in range(count):
        _ = rows.jpeg(number), rows.landmarks(number), rows.fit(number), rows.position_map(number)
    rows.close()


def seeds(small: MorphableModel, index: VertexIndex, corpus: Path, folder: Path) -> dict[str, tuple[Any, ...]]:
    """A good file of each kind, what reads it, and how it is damaged."""
    write_model(small, folder / "m.safetensors")
    write(folder / "s.h5", [sample(n) for n in range(3)])
    smooth = np.add.outer(np.arange(256), np.arange(768)).reshape(256, 256, 3).astype(np.uint16)
    rows = [
        replace(sample(0), position_map=pack_map(smooth)),
        sample(1, with_map=True),
    ]  # few bytes, and many
    write(folder / "maps.h5", rows, with_map=True)
    (folder / "rows.h5").write_bytes(
        encode_shard(rows, replace(header(True), configuration='{"crop": {"margin": 1.5}}'))
    )
    for kind in ("csv", "npz", "json"):
        export_index(index, folder / f"i.{kind}", small)
    export_index(index, folder / "i.obj", small)
    export_index(index, folder / "i.ply", small, whole_mesh=False)
    (folder / "n.txt").write_text(" ".join(map(str, range(0, 5000, 10))))
    write_candidates(sample_candidates(small, ("jaw", "nose-tip")), folder / "c.yaml")
    picture = np.random.default_rng(0).integers(0, 255, (40, 50, 3), dtype=np.uint8)
    png = io.BytesIO()
    Image.fromarray(picture).quantize(16).save(png, format="PNG")
    fit = (corpus / "SYNTH/SYNTH_00000_0.mat").read_bytes()

    def imported(path: Path) -> None:
        import_index(path, small, name="x", numbering="bfm-53215")

    def at(name: str) -> bytes:
        return (folder / name).read_bytes()

    return {
        "model": (at("m.safetensors"), read_model, mutate, ".safetensors"),
        "shard": (at("s.h5"), read_shard, mutate, ".h5"),
        "shard with maps": (at("maps.h5"), read_shard, mutate, ".h5"),
        "rows with maps": (at("rows.h5"), read_rows, mutate, ".h5"),
        "fit": (fit, read_fit, mutate, ".mat"),
        "jpeg": (simplejpeg.encode_jpeg(picture, 80, "RGB", "420"), read_photograph, mutate, ".jpg"),
        "png": (png.getvalue(), read_photograph, mutate, ".png"),
        "manifest": (
            find_data_file("300w_lp.yaml").read_bytes(),
            lambda p: read_manifest(str(p)),
            mutate_text,
            ".yaml",
        ),
        "index": (find_data_file("vertex_index_520.yaml").read_bytes()[:9000], read_index, mutate_text, ".yaml"),
        "corrections": (find_data_file("corrections_bfm.yaml").read_bytes(), read_corrections, mutate_text, ".yaml"),
        "candidates": (at("c.yaml")[:4000], read_candidates, mutate_text, ".yaml"),
        "index csv": (at("i.csv")[:6000], imported, mutate_text, ".csv"),
        "index npz": (at("i.npz"), imported, mutate, ".npz"),
        "index numbers": (at("n.txt"), imported, mutate_text, ".txt"),
        "obj": (at("i.obj")[:3000], imported, mutate_text, ".obj"),
        "ply": (at("i.ply")[:3000], imported, mutate, ".ply"),
    }


KINDS = (
    "model", "shard", "shard with maps", "rows with maps", "fit", "jpeg", "png", "manifest", "index", "corrections",
    "candidates", "index csv", "index npz", "index numbers", "obj", "ply",
)  # fmt: skip


@pytest.fixture(scope="module")
def good(
    small: MorphableModel, index: VertexIndex, corpus: Path, tmp_path_factory: pytest.TempPathFactory
) -> dict[str, tuple[Any, ...]]:
    return seeds(small, index, corpus, tmp_path_factory.mktemp("good"))


@pytest.mark.parametrize("kind", KINDS)
def test_a_damaged_file_is_read_or_refused(good: dict[str, tuple[Any, ...]], kind: str, tmp_path: Path) -> None:
    data, read, change, suffix = good[kind]
    assert set(good) == set(KINDS)
    check(run_cases(read, data, tmp_path / f"case{suffix}", range(CASES), change), CASES)


@pytest.mark.parametrize(
    "kind",
    [
        "model",
        "shard",
        "shard with maps",
        "rows with maps",
        "fit",
        "jpeg",
        "png",
        "manifest",
        "corrections",
        "index npz",
    ],
)
def test_the_good_file_itself_is_accepted(good: dict[str, tuple[Any, ...]], kind: str, tmp_path: Path) -> None:
    data, read, _, suffix = good[kind]
    path = tmp_path / f"good{suffix}"
    path.write_bytes(data)
    read(path)


def hung(path: Path) -> None:
    while True:
        pass


def escaped(path: Path) -> None:
    raise RuntimeError("not ours")


def died(path: Path) -> None:
    os.kill(os.getpid(), 11)


@pytest.mark.parametrize(("read", "words"), [(escaped, "escaped: RuntimeError"), (died, "died of signal 11")])
def test_the_watch_sees_what_goes_wrong(read: Callable[[Path], object], words: str, tmp_path: Path) -> None:
    outcome = run_cases(read, b"abc", tmp_path / "case", range(2))
    assert len(outcome.broken) == 2
    assert all(words in said for _, said in outcome.broken)


@pytest.mark.parametrize(
    "text",
    [
        "name: " + "1:" * 200 + "1.0",
        "name: " + ":".join("1" for _ in range(200_000)),
        "[" + ",".join(["1"] * 400_000) + "]",
        "[" + ",".join(["[]"] * 300_000) + "]",
        "x: &b [" + "0," * 100 + "0]\ny: [" + "*b," * 100 + "*b]",
        "a: &a [1]\nb: {<<: [*a, *a]}",
        "!!python/object/apply:os.system ['true']",
        "x: !!int '" + "9" * 100_000 + "'",
        "x: !!float '1:" + "9" * 400 + "'",
        "[" * 50_000,
    ],
    ids=lambda text: text[:20],
)
def test_a_yaml_bomb_is_refused_at_once(text: str, tmp_path: Path) -> None:
    path = tmp_path / "bomb.yaml"
    path.write_text(text)
    for read in (read_manifest_file, read_index, read_corrections):
        outcome = run_cases(read, text.encode(), path, range(1), lambda data, case: data)
        assert (outcome.refused, outcome.broken) == (1, [])


def test_json_and_text_files_that_never_end_are_refused(tmp_path: Path) -> None:
    from densegen.records import read_json

    os.mkfifo(tmp_path / "pipe.json")
    for path in (tmp_path / "pipe.json", Path("/dev/zero"), tmp_path):
        with pytest.raises(DensegenError, match="no JSON file"):
            read_json(path)
    (tmp_path / "broken.json").write_text("{")
    assert read_json(tmp_path / "broken.json") is None
    assert read_json(tmp_path / "none.json") is None
    (tmp_path / "good.json").write_text(json.dumps([1]))
    assert read_json(tmp_path / "good.json") == [1]
    assert yaml.safe_load("1") == 1
