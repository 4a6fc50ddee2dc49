"""Builds in the formats of other tools."""

from __future__ import annotations

import hashlib
import json
import tarfile
from pathlib import Path

import numpy as np
import pytest

from densegen.dataset.interchange import Format, export_dataset
from densegen.dataset.shard_set import open_dataset
from densegen.errors import ConfigurationError
from tests.densegen.command import fails, run

FORMATS: list[Format] = ["webdataset", "parquet"]


def files(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}


@pytest.mark.filterwarnings("ignore")  # of the library that reads it
@pytest.mark.parametrize("kind", FORMATS)
def test_a_hub_library_reads_what_the_shards_hold(
    dataset: Path, tmp_path: Path, kind: Format, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    hub = pytest.importorskip("datasets")
    out = tmp_path / "hub"
    made = run("export", dataset, "--format", kind, "--out", out, "--samples", 5)
    assert made.exit_code == 0, made.output
    ours = open_dataset(dataset)
    theirs = hub.load_dataset(str(out), cache_dir=str(tmp_path / "cache"))
    assert sum(map(len, theirs.values())) == len(ours)
    for split, rows in theirs.items():
        for sample, row in zip(ours.of_split(split), rows, strict=True):
            if kind == "parquet":
                image, landmarks, about = row["image"], row["landmarks"], row
            else:
                image, landmarks, about = row["jpg"], row["landmarks.npy"], row["json"]
            assert about["sample_id"] == sample.sample_id
            np.testing.assert_array_equal(np.asarray(image), sample.image)
            np.testing.assert_array_equal(np.asarray(landmarks, np.float32), sample.landmarks)
            np.testing.assert_array_equal(np.asarray(about["pose"], np.float32), sample.pose)
            assert about["mirrored"] == sample.mirrored == sample.sample_id.endswith("+mirror")


@pytest.mark.filterwarnings("ignore")  # of the libraries that check it
@pytest.mark.parametrize("kind", FORMATS)
def test_the_croissant_description_is_valid(dataset: Path, tmp_path: Path, kind: Format) -> None:
    mlcroissant = pytest.importorskip("mlcroissant")
    out = tmp_path / "hub"
    export_dataset(dataset, out, kind)
    described = mlcroissant.Dataset(jsonld=str(out / "croissant.json"))
    assert not described.metadata.ctx.issues.errors
    for part in json.loads((out / "croissant.json").read_text())["distribution"]:
        if part["@type"] == "cr:FileObject":
            assert hashlib.sha256((out / part["contentUrl"]).read_bytes()).hexdigest() == part["sha256"]
    if kind == "parquet":
        record = next(iter(described.records("samples")))
        first = open_dataset(dataset).of_split("train")[0]
        assert record["samples/sample_id"].decode() in {first.sample_id, *map(str, open_dataset(dataset).sample_ids)}
        assert np.asarray([list(point) for point in record["samples/landmarks"]]).shape == first.landmarks.shape


@pytest.mark.parametrize("kind", FORMATS)
def test_an_interrupted_export_goes_on_to_the_same_bytes(dataset: Path, tmp_path: Path, kind: Format) -> None:
    whole, broken = tmp_path / "whole", tmp_path / "broken"
    export_dataset(dataset, whole, kind, samples_a_part=4)
    seen = 0

    def stop(samples: int) -> None:
        nonlocal seen
        seen += samples
        if seen > 12:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        export_dataset(dataset, broken, kind, samples_a_part=4, progress=stop)
    parts = sorted((broken / "data").iterdir())
    assert 2 < len(parts) < len(list((whole / "data").iterdir()))
    assert not (broken / "croissant.json").exists()
    parts[0].write_bytes(b"damaged")
    kept = parts[1].stat().st_mtime_ns
    export_dataset(dataset, broken, kind, samples_a_part=4)
    assert files(broken) == files(whole)
    assert parts[1].stat().st_mtime_ns == kept


@pytest.mark.parametrize("kind", FORMATS)
def test_an_export_that_was_killed_in_its_first_part_goes_on(
    dataset: Path, tmp_path: Path, kind: Format, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole, broken = tmp_path / "whole", tmp_path / "broken"
    export_dataset(dataset, whole, kind)

    def fails(*_: object) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr("densegen.dataset.interchange.replace_file", fails)
        with pytest.raises(OSError, match="No space"):
            export_dataset(dataset, broken, kind)
    (broken / ".parts.json.0123abcd.partial").write_text("half")  # and what a kill leaves
    export_dataset(dataset, broken, kind)
    assert files(broken) == files(whole)


def test_a_tar_names_no_moment_and_no_user(dataset: Path, tmp_path: Path) -> None:
    export_dataset(dataset, tmp_path / "hub", "webdataset")
    with tarfile.open(next((tmp_path / "hub/data").glob("train-*.tar"))) as tar:
        members = tar.getmembers()
    assert {(m.mtime, m.uid, m.uname) for m in members} == {(0, 0, "")}
    assert [m.name.split(".", 1)[1] for m in members[:4]] == ["jpg", "landmarks.npy", "keypoints68.npy", "json"]


def test_a_folder_of_something_else_is_refused(dataset: Path, tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("mine")
    assert "notes.txt, which no export wrote" in fails("export", dataset, "--format", "webdataset", "--out", tmp_path)
    out = tmp_path / "hub"
    export_dataset(dataset, out, "webdataset")
    with pytest.raises(ConfigurationError, match="in another form"):
        export_dataset(dataset, out, "webdataset", samples_a_part=3)
    progress = out / ".parts.json"
    progress.write_text(progress.read_text().replace('"edition": 2', '"edition": 1'))
    with pytest.raises(ConfigurationError, match="of another densegen, with other columns"):
        export_dataset(dataset, out, "webdataset")
    assert "no folder" in fails("export", tmp_path / "nowhere", "--format", "webdataset", "--out", tmp_path / "x")


def test_samples_that_are_one_name_in_a_tar_are_named(
    dataset: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("densegen.dataset.interchange._key", lambda name: name[-1])
    with pytest.raises(ConfigurationError, match=r"SYNTH/\S+ and SYNTH/\S+ are one name in a tar.*parquet"):
        export_dataset(dataset, tmp_path / "tars", "webdataset")
    pytest.importorskip("pyarrow")
    assert export_dataset(dataset, tmp_path / "tables", "parquet").samples == 32
