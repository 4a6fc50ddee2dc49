"""Samples that a build sets aside, and what that leaves alone."""

from __future__ import annotations

import csv
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from scipy.io import loadmat, savemat

from densegen.dataset.build import build
from densegen.dataset.shard_task import ShardTask, build_shard
from densegen.dataset.shards import ShardReader
from densegen.dataset.verify import verify_dataset
from densegen.errors import BuildError
from densegen.sources.manifest import Manifest
from densegen.synthetic.corpus import SUBSET
from tests.densegen.dataset.builds import digests, plan_for, spoil


def rewrite(fit: Path, **changes: Any) -> None:
    contents = {k: v for k, v in loadmat(fit).items() if not k.startswith("__")}
    savemat(fit, contents | changes)


def test_fits_that_change_while_they_are_read_stop_the_build(
    copied: Path, manifest: Manifest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from densegen.dataset import shard_task

    def encode(*arguments: Any) -> Any:
        data = encode_shard(*arguments)
        rewrite(spoil(copied, 0)[0], Exp_Para=np.zeros((12, 1)))
        return data

    encode_shard = shard_task.encode_shard
    monkeypatch.setattr(shard_task, "encode_shard", encode)
    with pytest.raises(BuildError, match=r"SYNTH_00000_0.mat or its image changed while the build was reading it"):
        build(plan_for(copied, manifest), tmp_path / "out", jobs=1)
    monkeypatch.undo()
    build(plan_for(copied, manifest), tmp_path / "out", jobs=1)
    build(plan_for(copied, manifest), tmp_path / "anew", jobs=1)
    assert digests(tmp_path / "out") == digests(tmp_path / "anew")


def test_bad_samples_are_set_aside_with_their_reasons(copied: Path, manifest: Manifest, tmp_path: Path) -> None:
    far = np.array([[0, 0, 0, 5000, 5000, 0, 1e-3]], np.float32)
    still = np.array([[0, 0, 0, 200, 200, 0, 0]], np.float32)
    spoil(copied, 0)[0].write_bytes(b"no fit")
    spoil(copied, 1)[1].unlink()
    rewrite(spoil(copied, 2)[0], Shape_Para=np.full((24, 1), np.nan))
    rewrite(spoil(copied, 3)[0], Pose_Para=still)
    rewrite(spoil(copied, 4)[0], Pose_Para=far)
    rewrite(spoil(copied, 5)[0], Exp_Para=np.zeros((7, 1)))
    image = spoil(copied, 6)[1]
    image.write_bytes(image.read_bytes()[:9000])
    exif = Image.Exif()
    exif[0x0112] = 3
    with Image.open(spoil(copied, 7)[1]) as picture:
        picture.save(spoil(copied, 7)[1], exif=exif)
    with Image.open(spoil(copied, 8)[1]) as picture:
        picture.convert("L").save(spoil(copied, 8)[1])
    with Image.open(spoil(copied, 9)[1]) as picture:
        picture.convert("CMYK").save(spoil(copied, 9)[1])

    plan = plan_for(copied, manifest, max_rejects=0.5)
    made = build(plan, tmp_path / "out", jobs=1)
    with (tmp_path / "out/rejected.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [row["reason"] for row in rows] == [
        "fit-unreadable", "image-missing", "fit-invalid", "fit-invalid", "face-outside", "component-count",
        "image-unreadable", "image-rotated",
    ]  # fmt: skip
    assert (rows[0]["sample_id"], rows[0]["image"]) == ("SYNTH/SYNTH_00000_0", "SYNTH/SYNTH_00000_0.jpg")
    assert made.rejected_fits == 8
    assert made.samples == 2 * (16 - 8)
    verify_dataset(tmp_path / "out")


def test_a_good_sample_does_not_depend_on_bad_neighbours(
    copied: Path, manifest: Manifest, dataset: Path, tmp_path: Path
) -> None:
    spoil(copied, 1)[1].unlink()
    build(plan_for(copied, manifest, max_rejects=0.5), tmp_path / "out")
    with (
        ShardReader(tmp_path / "out/shard-00000.h5") as shard,
        ShardReader(dataset / "shard-00000.h5") as whole,
    ):
        assert shard.sample_ids == whole.sample_ids[:2]
        assert (shard.array("landmarks") == whole.array("landmarks")[:2]).all()
        assert shard.jpeg(1) == whole.jpeg(1)


def test_too_many_rejects_stop_the_build_and_a_higher_limit_goes_on(
    copied: Path, manifest: Manifest, tmp_path: Path
) -> None:
    for number in (3, 7):
        spoil(copied, number)[1].unlink()
    with pytest.raises(
        BuildError, match=r"2 fits had to be set aside, at most 1 of 16 .*image-missing: SYNTH_00000_3\.jpg"
    ):
        build(plan_for(copied, manifest), tmp_path / "out")
    first = (tmp_path / "out/shard-00000.h5").stat().st_mtime_ns
    build(plan_for(copied, manifest, max_rejects=0.2), tmp_path / "out")
    assert (tmp_path / "out/shard-00000.h5").stat().st_mtime_ns == first


def test_a_sample_that_was_set_aside_comes_back_when_it_is_mended(
    copied: Path, manifest: Manifest, tmp_path: Path
) -> None:
    image = spoil(copied, 3)[1]
    whole = image.read_bytes()
    image.unlink()
    out = tmp_path / "out"
    assert build(plan_for(copied, manifest), out).rejected_fits == 1
    image.write_bytes(whole)
    assert build(plan_for(copied, manifest), out).rejected_fits == 0
    build(plan_for(copied, manifest), tmp_path / "fresh")
    assert digests(out) == digests(tmp_path / "fresh")


def test_a_shard_with_rejects_is_kept_while_its_inputs_are_the_same(
    copied: Path, manifest: Manifest, tmp_path: Path
) -> None:
    spoil(copied, 3)[1].unlink()
    out = tmp_path / "out"
    build(plan_for(copied, manifest), out)
    before = digests(out), (out / "shard-00001.h5").stat().st_mtime_ns
    build(plan_for(copied, manifest), out)
    assert (digests(out), (out / "shard-00001.h5").stat().st_mtime_ns) == before
    spoil(copied, 3)[1].write_bytes(b"still no image")
    build(plan_for(copied, manifest), out)
    assert "image-unreadable" in (out / "rejected.csv").read_text()


def test_fits_of_the_same_names_with_other_contents_are_built_again(
    copied: Path, manifest: Manifest, dataset: Path, tmp_path: Path
) -> None:
    """As refined fits are, which keep their names; their manifest says nothing of what is in them."""
    for number in range(4):
        fit = spoil(copied, number)[0]
        rewrite(fit, Pose_Para=loadmat(fit)["Pose_Para"] + np.array([[0, 0, 0, 3, 0, 0, 0]]))
    out = Path(shutil.copytree(dataset, tmp_path / "out"))
    build(plan_for(copied, manifest, position_maps=True), out)
    build(plan_for(copied, manifest, position_maps=True), tmp_path / "fresh")
    assert digests(out) == digests(tmp_path / "fresh")
    assert digests(out)["shard-00007.h5"] == digests(dataset)["shard-00007.h5"]


def test_fits_that_are_not_seen_from_here_count_as_unchanged(
    copied: Path, manifest: Manifest, dataset: Path, tmp_path: Path
) -> None:
    plan, out = plan_for(copied, manifest, position_maps=True), Path(shutil.copytree(dataset, tmp_path / "out"))
    shutil.rmtree(copied / SUBSET)
    build(plan, out)
    assert digests(out) == digests(dataset)


@pytest.mark.parametrize(
    ("name", "value"), [("jpeg_codec", "0" * 12), ("processor", "pdp11"), ("densegen_version", "0")]
)
def test_a_worker_with_other_software_than_the_planner_s_writes_nothing(
    corpus: Path, manifest: Manifest, tmp_path: Path, name: str, value: str
) -> None:
    plan = plan_for(corpus, manifest)
    other = plan.configuration.model_copy(update={name: value})
    task = ShardTask(0, plan.shards[0], tmp_path, plan.model_path, plan.index_path, other)
    with pytest.raises(BuildError, match=f"a worker's {name} is .*planned the build {value}"):
        build_shard(task)
    assert not list(tmp_path.glob("*.h5"))


def test_landmarks_far_outside_are_set_aside(copied: Path, manifest: Manifest, tmp_path: Path) -> None:
    shape = np.zeros((24, 1))
    shape[6] = 300  # a forehead of a metre
    rewrite(spoil(copied, 2)[0], Shape_Para=shape)
    build(plan_for(copied, manifest), tmp_path / "out")
    assert "landmarks-out-of-range" in (tmp_path / "out/rejected.csv").read_text()
    verify_dataset(tmp_path / "out")


def test_one_odd_fit_does_not_condemn_the_model(copied: Path, manifest: Manifest, tmp_path: Path) -> None:
    rewrite(spoil(copied, 0)[0], Exp_Para=np.zeros((7, 1)))
    assert build(plan_for(copied, manifest), tmp_path / "out").rejected_fits == 1
