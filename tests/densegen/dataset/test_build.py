from __future__ import annotations

import dataclasses
import json
import os
import resource
import shutil
import signal
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

from densegen.dataset.build import Plan, build, plan_build
from densegen.dataset.build_record import ShardRecord, read_dataset_manifest
from densegen.dataset.shard_set import open_dataset
from densegen.dataset.shard_task import ShardTask, build_shard
from densegen.dataset.shards import ShardReader
from densegen.dataset.verify import verify_dataset
from densegen.errors import BuildError, ConfigurationError
from densegen.face.model_file import read_model, write_model
from densegen.geometry.crop import box_around
from densegen.sources.manifest import BuildSettings, Manifest, Split, choose_settings, read_manifest
from tests.densegen.dataset.builds import INDEX, digests, plan_for, spoil


def command(corpus: Path, out: Path, *options: str) -> list[str]:
    return [
        sys.executable, "-m", "densegen", "build", "demo", "--root", str(corpus), "--out", str(out),
        "--shard-size", "4", "--position-maps", *options,
    ]  # fmt: skip


def test_a_build_holds_every_sample_and_verifies(dataset: Path, plan: Plan) -> None:
    manifest = verify_dataset(dataset)
    assert manifest.samples == 2 * len(plan.entries) == 32
    assert [record.samples for record in manifest.shards] == [4] * 8
    card = (dataset / "README.md").read_text()
    assert "\n# densegen procedural faces" in card
    assert yaml.safe_load(card.split("---")[1])["task_categories"] == ["keypoint-detection"]
    assert f"vertex index {plan.index.name} {plan.index.version}" in card
    assert f"morphable model {plan.model.name}" in card
    assert (dataset / "rejected.csv").read_text() == "sample_id,image,reason,message\n"
    left = {path.name for path in dataset.iterdir() if path.suffix != ".h5"}
    assert left == {"README.md", "rejected.csv", "manifest.json", "samples.safetensors", "contact_sheet.png", "yaw.png"}


def test_two_processes_write_the_same_bytes(dataset: Path, plan: Plan, tmp_path: Path) -> None:
    build(plan, tmp_path / "out", jobs=2)
    assert digests(tmp_path / "out") == digests(dataset)


def test_killed_three_times_and_continued_it_writes_the_same_bytes(dataset: Path, corpus: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    moments = sorted(np.random.default_rng(int.from_bytes(os.urandom(4), "little")).choice(7, 3, replace=False))
    for finished in moments:
        process = subprocess.Popen(
            command(corpus, out, "--jobs", "2"), start_new_session=True, stderr=subprocess.DEVNULL
        )
        while process.poll() is None and len(list(out.glob("shard-?????.h5"))) <= finished:
            pass
        process.send_signal(signal.SIGKILL)  # the parent alone: its workers have to notice by themselves
        process.wait()
    subprocess.run(command(corpus, out, "--jobs", "2"), check=True, capture_output=True)
    assert digests(out) == digests(dataset), f"killed after {moments} shards"


def test_workers_die_with_a_killed_parent(corpus: Path, tmp_path: Path) -> None:
    process = subprocess.Popen(command(corpus, tmp_path / "out", "--jobs", "2"), stderr=subprocess.DEVNULL)
    deadline = time.monotonic() + 60
    children: list[int] = []
    while len(children) < 2 and process.poll() is None and time.monotonic() < deadline:
        children = _children(process.pid)
    process.kill()
    process.wait()
    while any(_alive(pid) for pid in children) and time.monotonic() < deadline:
        pass
    assert not [pid for pid in children if _alive(pid)]


def _children(pid: int) -> list[int]:
    listing = Path(f"/proc/{pid}/task/{pid}/children")
    return [int(child) for child in listing.read_text().split()] if listing.exists() else []


def _alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False


def test_ctrl_c_says_how_to_go_on(corpus: Path, tmp_path: Path) -> None:
    process = subprocess.Popen(command(corpus, tmp_path / "out", "--jobs", "1"), stderr=subprocess.PIPE, text=True)
    deadline = time.monotonic() + 60
    while not list((tmp_path).glob("out/shard-*.h5")) and time.monotonic() < deadline:
        pass
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=60)
    if process.returncode == 0:
        pytest.skip("the build was done before the signal came")
    assert process.returncode == 130
    assert errors.splitlines()[-1] == "densegen: interrupted; the same command goes on from here"
    assert "Traceback" not in errors
    subprocess.run(command(corpus, tmp_path / "out", "--jobs", "1"), check=True, capture_output=True)
    verify_dataset(tmp_path / "out")


def test_complete_shards_are_kept_and_damaged_ones_rebuilt(dataset: Path, plan: Plan, tmp_path: Path) -> None:
    out = Path(shutil.copytree(dataset, tmp_path / "out"))
    kept, damaged = out / "shard-00000.h5", out / "shard-00005.h5"
    before = kept.stat().st_mtime_ns
    data = bytearray(damaged.read_bytes())
    data[len(data) // 2] ^= 1
    damaged.write_bytes(data)
    build(plan, out)
    assert kept.stat().st_mtime_ns == before
    assert digests(out) == digests(dataset)


@pytest.mark.parametrize(
    ("change", "words"),
    [({"seed": 1}, "seed: 0 there, 1 asked for"), ({"flip": "none"}, "flip: mirror there, none asked for")],
)
def test_another_configuration_in_the_folder_is_refused(
    dataset: Path, corpus: Path, manifest: Manifest, tmp_path: Path, change: dict[str, Any], words: str
) -> None:
    other = plan_for(corpus, manifest, position_maps=True, **change)
    with pytest.raises(BuildError, match=f"another configuration .*{words}"):
        build(other, dataset)
    # Unfinished builds, too.
    half = tmp_path / "half"
    (half / ".progress").mkdir(parents=True)
    shutil.copy(dataset / "manifest.json", tmp_path)
    configuration = json.loads((tmp_path / "manifest.json").read_text())["configuration"]
    (half / ".progress/configuration.json").write_text(json.dumps(configuration))
    with pytest.raises(BuildError, match="another configuration"):
        build(other, half)


def test_a_build_is_the_same_in_the_threads_of_one_worker(dataset: Path, plan: Plan, tmp_path: Path) -> None:
    """As a Dask worker runs it."""
    tasks = [
        ShardTask(number, entries, tmp_path, plan.model_path, plan.index_path, plan.configuration)
        for number, entries in enumerate(plan.shards)
    ]
    with ThreadPoolExecutor(4) as threads:
        records = list(threads.map(build_shard, tasks))
    assert tuple(records) == read_dataset_manifest(dataset).shards


def test_an_interrupted_repair_goes_on_from_what_it_mended(
    dataset: Path, plan: Plan, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = Path(shutil.copytree(dataset, tmp_path / "out"))
    for number in (1, 6):
        (out / f"shard-{number:05d}.h5").unlink()

    def interrupted(task: ShardTask) -> ShardRecord:
        if task.number == 6:
            raise KeyboardInterrupt
        return build_shard(task)

    with monkeypatch.context() as patched:
        patched.setattr("densegen.dataset.build.build_shard", interrupted)
        with pytest.raises(KeyboardInterrupt):
            build(plan, out)
    assert not (out / "manifest.json").exists()  # it would claim what is not there
    mended = (out / "shard-00001.h5").stat().st_mtime_ns
    build(plan, out)
    assert (out / "shard-00001.h5").stat().st_mtime_ns == mended
    assert digests(out) == digests(dataset)


def test_a_changed_grouping_is_another_build(dataset: Path, corpus: Path, manifest: Manifest) -> None:
    by_file = manifest.model_copy(update={"subsets": (manifest.subsets[0].model_copy(update={"group": "^(.+)$"}),)})
    with pytest.raises(BuildError, match="another configuration"):
        build(plan_for(corpus, by_file, position_maps=True), dataset)


def test_what_shards_say_of_index_and_model_is_part_of_a_build(
    dataset: Path, corpus: Path, plan: Plan, manifest: Manifest, tmp_path: Path
) -> None:
    """Their fingerprints leave names and descriptions out, but a dataset's shards have to say the same."""
    (tmp_path / "i.yaml").write_text(INDEX.read_text().replace("\nversion: ", "\nversion: 9"))
    write_model(dataclasses.replace(read_model(corpus / "model.safetensors"), name="Other"), tmp_path / "m.safetensors")
    model = corpus / "model.safetensors"
    for changed in ((model, tmp_path / "i.yaml"), (tmp_path / "m.safetensors", INDEX)):
        other = plan_build(manifest, corpus, *changed, plan.settings)
        with pytest.raises(BuildError, match="another configuration .*texts: "):
            build(other, dataset)


def test_an_index_whose_68_are_others_stops_at_once(corpus: Path, manifest: Manifest, tmp_path: Path) -> None:
    text = INDEX.read_text().replace("ibug68: [0, 1, 2,", "ibug68: [100, 1, 2,")
    (tmp_path / "i.yaml").write_text(text)
    with pytest.raises(ConfigurationError, match="ibug68 is not the model's: keypoint 0 lies"):
        plan_build(manifest, corpus, corpus / "model.safetensors", tmp_path / "i.yaml", BuildSettings())


def test_nothing_but_rejects_is_no_dataset(copied: Path, manifest: Manifest, tmp_path: Path) -> None:
    for number in range(16):
        spoil(copied, number)[1].unlink()
    with pytest.raises(BuildError, match="every one of the 16 fits was set aside"):
        build(plan_for(copied, manifest, max_rejects=1.0), tmp_path / "out")


def test_a_finished_build_outlives_its_photographs(copied: Path, manifest: Manifest, tmp_path: Path) -> None:
    out, plan = tmp_path / "out", plan_for(copied, manifest)
    build(plan, out)
    whole = digests(out)
    for number in range(0, 16, 3):
        spoil(copied, number)[1].unlink()
    build(plan, out)
    assert digests(out) == whole
    verify_dataset(out)


def test_a_full_disk_is_an_error_that_loses_nothing(corpus: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"

    def small_files() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (200_000, 200_000))

    whole = command(corpus, out, "--jobs", "1")
    failed = subprocess.run(whole, preexec_fn=small_files, capture_output=True, text=True, check=False)
    assert failed.returncode == 1
    assert "no space left to write into" in failed.stderr.splitlines()[-1]
    assert "Traceback" not in failed.stderr
    assert not list(out.glob("*.h5*"))
    subprocess.run(whole, check=True, capture_output=True)
    verify_dataset(out)


def test_a_model_of_other_components_stops_at_once(corpus: Path, manifest: Manifest, tmp_path: Path) -> None:
    model = read_model(corpus / "model.safetensors")
    fewer = dataclasses.replace(
        model,
        shape_basis=model.shape_basis[:5],
        shape_std=model.shape_std[:5],
        shape_names=model.shape_names[:5],
    )
    write_model(fewer, tmp_path / "m.safetensors")
    with pytest.raises(ConfigurationError, match="24 shape and 12 .* the model 5 and 12: the model does not belong"):
        plan_build(manifest, corpus, tmp_path / "m.safetensors", INDEX, BuildSettings())


def test_an_index_of_another_layout_stops_at_once(corpus: Path, manifest: Manifest, tmp_path: Path) -> None:
    text = INDEX.read_text().replace("uv_layout: bfm-3dmmasstn", "uv_layout: spherical")
    (tmp_path / "i.yaml").write_text(text)
    with pytest.raises(ConfigurationError, match="made for the UV layout spherical"):
        plan_build(manifest, corpus, corpus / "model.safetensors", tmp_path / "i.yaml", BuildSettings())


def test_limit_takes_the_first_fits_and_the_same_samples(
    corpus: Path, manifest: Manifest, dataset: Path, tmp_path: Path
) -> None:
    build(plan_for(corpus, manifest, limit=3), tmp_path / "out")
    with (
        ShardReader(tmp_path / "out/shard-00001.h5") as shard,
        ShardReader(dataset / "shard-00001.h5") as whole,
    ):
        assert shard.sample_ids == whole.sample_ids[:2]
        assert (shard.array("landmarks") == whole.array("landmarks")[:2]).all()


def test_a_crop_has_the_size_and_margin_that_are_asked_for(corpus: Path, tmp_path: Path) -> None:
    manifest = read_manifest("demo")
    settings, crop = choose_settings(
        manifest, limit=4, position_maps=True, crop_size=128, margin=2.0, scale_jitter=0, shift_jitter=0
    )
    build(plan_build(manifest, str(corpus), settings=settings, crop=crop), str(tmp_path / "out"))
    verify_dataset(tmp_path / "out")
    samples = open_dataset(tmp_path / "out")
    assert (samples.crop_size, samples.margin) == (128, 2.0)
    for sample in samples:
        assert sample.image.shape == (128, 128, 3)
        left, top, right, bottom = box_around(sample.keypoints68)
        np.testing.assert_allclose([(left + right) / 2, (top + bottom) / 2], 63.5, atol=0.01)
        assert (right - left + bottom - top) / 2 == pytest.approx(127 / 2, rel=1e-4)
    with ShardReader(next((tmp_path / "out").glob("shard-*.h5"))) as shard:
        maps = shard.file["position_map/bytes"].attrs
        assert (maps["step_px"], maps["offset_px"]) == (1 / 256, -64)


def test_samples_for_testing_have_no_jitter(corpus: Path, manifest: Manifest, tmp_path: Path) -> None:
    testing = manifest.model_copy(update={"split": Split(test=1.0)})
    settings, _ = choose_settings(manifest, limit=4)
    build(plan_build(testing, corpus, settings=settings), tmp_path / "out")
    for sample in open_dataset(tmp_path / "out"):
        left, top, right, bottom = box_around(sample.keypoints68)
        np.testing.assert_allclose([(left + right) / 2, (top + bottom) / 2], 127.5, atol=0.01)
        assert (right - left + bottom - top) / 2 == pytest.approx(255 / 1.5, rel=1e-4)


@pytest.mark.parametrize(
    ("name", "value"), [("crop_size", 63), ("crop_size", 513), ("margin", 0.1), ("shift_jitter", 1)]
)
def test_a_crop_out_of_range_is_refused(manifest: Manifest, name: str, value: float) -> None:
    with pytest.raises(ConfigurationError, match="a crop's"):
        choose_settings(manifest, **{name: value})


def test_a_plan_needs_to_know_where_its_files_are(corpus: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="where is AFLW2000-3D"):
        plan_build("aflw2000_3d")
    with pytest.raises(ConfigurationError, match="which morphable model"):
        plan_build("aflw2000_3d", corpus)
    with pytest.raises(ConfigurationError, match="no manifest 'nonsense'"):
        plan_build("nonsense", tmp_path)
