from __future__ import annotations

import csv
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml

from densegen.dataset.build import Plan, build, plan_build
from densegen.dataset.shard_set import ShardSet, open_dataset
from densegen.errors import ConfigurationError, FormatError
from densegen.files import find_data_file
from densegen.sources.manifest import BuildSettings, Manifest
from densetrain.config import SETTINGS_FILE
from densetrain.data.batches import Batch, ShardBatches
from densetrain.network.checkpoint import BEST, LAST, load_regressor, read_checkpoint
from densetrain.network.description import CHECKPOINT_KEY, PROCESSES_KEY
from densetrain.training.fit import fit, make_module
from densetrain.training.module import LandmarkModule
from tests.densetrain.conftest import TINY, tiny


def weights(run: Path, name: str = LAST) -> dict[str, Any]:
    return dict(read_checkpoint(run / name)["state_dict"])


def same(one: dict[str, Any], two: dict[str, Any]) -> bool:
    return one.keys() == two.keys() and all(torch.equal(one[key], two[key]) for key in one)


def command(dataset: Path, out: Path, *changes: str) -> list[str]:
    sets = [word for change in (*TINY, *changes) for word in ("--set", change)]
    return [sys.executable, "-m", "densetrain", "fit", str(dataset), "--out", str(out), *sets]


@pytest.mark.slow
def test_trained_twice_gives_the_same_weights(dataset: Path, run: Path, tmp_path: Path) -> None:
    fit([dataset], tiny(), tmp_path / "again")
    assert same(weights(run), weights(tmp_path / "again"))
    fit([dataset], tiny("seed=1"), tmp_path / "other")
    assert not same(weights(run), weights(tmp_path / "other"))


@pytest.mark.slow
def test_killed_and_resumed_gives_the_same_weights(dataset: Path, tmp_path: Path) -> None:
    """With weight averaging, accumulation, a schedule and dropout: all of their state must come back."""
    changes = ("trainer.epochs=6", "trainer.ema_decay=0.9", "trainer.accumulate=2", "data.workers=1")
    fit([dataset], tiny(*changes), tmp_path / "whole")
    cut = tmp_path / "cut"
    process = subprocess.Popen(command(dataset, cut, *changes), stderr=subprocess.PIPE, stdout=subprocess.DEVNULL)
    deadline = time.monotonic() + 120
    while not (cut / LAST).is_file() and process.poll() is None:
        assert time.monotonic() < deadline
        time.sleep(0.02)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert process.returncode == -signal.SIGKILL, process.stderr.read() if process.stderr else ""
    process.stderr and process.stderr.close()
    at = read_checkpoint(cut / LAST)["epoch"]
    assert at < 5
    fit([dataset], tiny(*changes), cut)
    assert same(weights(tmp_path / "whole"), weights(cut))
    assert read_checkpoint(cut / LAST)["epoch"] == 5


@pytest.mark.slow
def test_stopped_within_an_epoch_it_goes_on_from_its_last_step(
    dataset: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    changes = (
        "trainer.epochs=3",
        "trainer.ema_decay=0.9",
        "trainer.save_steps=3",
        "data.batch_size=2",
        "data.window=2",
    )
    fit([dataset], tiny(*changes), tmp_path / "whole")
    steps = len(open_dataset(dataset).rows("train")) // 2
    step, made, lasts = LandmarkModule.training_step, list[int](), steps + 5  # into the second epoch

    def failing(self: LandmarkModule, batch: Any, number: int) -> torch.Tensor:
        made.append(number)
        if len(made) == lasts:
            raise OSError(5, "the power is gone")
        return step(self, batch, number)

    monkeypatch.setattr(LandmarkModule, "training_step", failing)
    with pytest.raises(OSError, match="the power is gone"):
        fit([dataset], tiny(*changes), tmp_path / "cut")
    said: list[str] = []
    at, lasts = made[-1], 0
    made.clear()
    fit([dataset], tiny(*changes), tmp_path / "cut", say=said.append)
    assert any(line.startswith("goes on after epoch 1 of 3 and ") for line in said)
    assert sum("mobilenet_v2 at 32 px normalises single numbers over the batch, and 2 are few" in s for s in said) == 1
    assert 0 < made[0] <= at
    assert same(weights(tmp_path / "whole"), weights(tmp_path / "cut"))
    assert same(weights(tmp_path / "whole", BEST), weights(tmp_path / "cut", BEST))
    for name in ("validation_nme", "flip_line"):
        first, second = (read_checkpoint(tmp_path / run / LAST)[CHECKPOINT_KEY][name] for run in ("whole", "cut"))
        assert first == second
    assert losses_of_epochs(tmp_path / "cut") == pytest.approx(losses_of_epochs(tmp_path / "whole"), rel=1e-5)


def losses_of_epochs(run: Path) -> dict[str, float]:
    logs = [path.read_text().splitlines() for path in sorted(run.glob("csv/version_*/metrics.csv"))]
    rows = [row for lines in logs for row in csv.DictReader(lines)]
    return {row["epoch"]: float(row["train_loss_epoch"]) for row in rows if row.get("train_loss_epoch")}


@pytest.mark.slow
def test_two_processes_that_share_what_is_decoded_learn_the_same(dataset: Path, tmp_path: Path) -> None:
    changes = ("trainer.epochs=2", "trainer.devices=2", "data.batch_size=4", "data.workers=0")
    for cache in ("none", "memory"):
        made = subprocess.run(
            command(dataset, tmp_path / cache, *changes, f"data.cache={cache}"),
            capture_output=True,
            text=True,
            check=False,
        )
        assert made.returncode == 0, made.stderr
    assert same(weights(tmp_path / "none"), weights(tmp_path / "memory"))


@pytest.mark.slow
def test_two_processes_learn_what_one_learns_that_accumulates(dataset: Path, tmp_path: Path) -> None:
    """One step of plain SGD: the same gradient, to 3 % of its norm.

    A convolution of a batch of 4 and one of 2 x 4 are other kernels of oneDNN, and other processors have others again;
    batch normalisation over 4 samples at 1x1 pixels magnifies their rounding. 0.1 % held on one processor and not on
    another. A gradient that is summed, not averaged, is off by 100 %, one that misses a process by about half.
    """
    rate = ("optimiser.name=sgd", "optimiser.lr=1e-4", "optimiser.momentum=0", "optimiser.weight_decay=0")
    changes = ("trainer.epochs=1", "data.limit=8", *rate, "schedule.warmup_epochs=0")
    fit([dataset], tiny(*changes, "trainer.accumulate=2"), tmp_path / "one")
    made = subprocess.run(
        command(dataset, tmp_path / "two", *changes, "trainer.devices=2"), capture_output=True, text=True, check=False
    )
    assert made.returncode == 0, made.stderr
    one, two = weights(tmp_path / "one"), weights(tmp_path / "two")
    start = make_module(open_dataset(dataset), tiny(*changes)).state_dict()
    # Each process has batch statistics of its own; everything else moved by the same gradient.
    learnt = [name for name in start if "running" not in name and "num_batches" not in name]
    step = torch.cat([(one[name] - start[name]).flatten() for name in learnt])
    other = torch.cat([(two[name] - start[name]).flatten() for name in learnt])
    assert step.norm() > 1e-3
    assert (other - step).norm() < 3e-2 * step.norm()


@pytest.mark.slow
def test_a_run_learns(dataset: Path, tmp_path: Path) -> None:
    plain = ("augment.rotate_deg=0", "augment.scale=0", "augment.shift=0", "data.validate_on=train")
    network = ("model.backbone=resnet18", "model.width=1.0", "model.input_size=32", "trainer.epochs=10")
    made = fit([dataset], tiny(*plain, *network), tmp_path / "run")
    assert made["val_nme"] < 0.9 * made["val_nme_constant"]


def test_a_run_is_checkpoints_settings_and_logs(run: Path, shards: ShardSet) -> None:
    names = {path.name for path in run.iterdir()}
    assert {BEST, LAST, "fit-settings.yaml", "csv", "tensorboard"} <= names
    regressor = load_regressor(run)
    assert regressor.index.fingerprint == shards.index.fingerprint
    assert (regressor.about.crop_size, regressor.about.margin) == (256, 1.5)
    assert regressor(shards.open().image(0)[None]).shape == (1, 520, 3)


def test_the_logs_hold_every_tenth_step_and_each_epochs_mean(
    dataset: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[tuple[float, int]] = []
    step = LandmarkModule.training_step

    def watched(module: LandmarkModule, batch: Batch, number: int) -> torch.Tensor:
        loss = step(module, batch, number)
        seen.append((float(loss.detach()), len(batch["images"])))
        return loss

    monkeypatch.setattr(LandmarkModule, "training_step", watched)
    fit([dataset], tiny("data.batch_size=3", "trainer.epochs=2", "trainer.clip=100.0"), tmp_path / "run")
    assert len(seen) % 2 == 0
    assert len(seen) >= 10
    with (tmp_path / "run/csv/version_0/metrics.csv").open() as file:
        rows = list(csv.DictReader(file))
    steps = {int(row["step"]): row for row in rows if row["train_loss"]}
    assert sorted(steps) == list(range(9, len(seen), 10))
    for number, row in steps.items():
        assert float(row["train_loss"]) == pytest.approx(seen[number][0], rel=1e-5)
        assert float(row["gradient_norm"]) > 0
    means = [float(row["train_loss_epoch"]) for row in rows if row["train_loss_epoch"]]
    half = len(seen) // 2
    expected = [sum(loss * n for loss, n in part) / sum(n for _, n in part) for part in (seen[:half], seen[half:])]
    assert means == pytest.approx(expected, rel=1e-5)


def test_a_finished_run_is_left_as_it_is(dataset: Path, run: Path) -> None:
    before = (run / LAST).read_bytes()
    fit([dataset], tiny(), run)
    assert (run / LAST).read_bytes() == before


def test_nothing_of_somebody_elses_is_touched(dataset: Path, tmp_path: Path) -> None:
    (tmp_path / "movie.mkv.partial").touch()
    (tmp_path / "settings.yaml").write_text("# my notes\ntrainer: {epochs: 1}\n")
    (tmp_path / f"{LAST}.0123abcd.partial").touch()
    with pytest.raises(ConfigurationError, match="no classification network"):
        fit([dataset], tiny("model.backbone=nonsense"), tmp_path)
    assert not (tmp_path / "fit-settings.yaml").exists()
    fit([dataset], tiny("trainer.epochs=1"), tmp_path)
    assert (tmp_path / "movie.mkv.partial").exists()
    assert (tmp_path / "settings.yaml").read_text().startswith("# my notes")
    assert not (tmp_path / f"{LAST}.0123abcd.partial").exists()


def test_another_runs_folder_is_refused(dataset: Path, run: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match=r"run of other settings \(seed: 0 there, 7 asked for\)"):
        fit([dataset], tiny("seed=7"), run)
    shutil.copy(run / LAST, tmp_path / LAST)
    with pytest.raises(ConfigurationError, match=r"checkpoints, but no fit-settings.yaml"):
        fit([dataset], tiny(), tmp_path)


def test_a_checkpoint_of_another_index_or_version_is_refused(dataset: Path, run: Path, tmp_path: Path) -> None:
    shutil.copytree(run, tmp_path / "run")
    contents = torch.load(run / LAST, weights_only=True)
    contents["densetrain"]["vertex_index_fingerprint"] = "f" * 64
    torch.save(contents, tmp_path / "run" / LAST)
    with pytest.raises(ConfigurationError, match="another vertex index than the shards have"):
        fit([dataset], tiny(), tmp_path / "run")
    contents["densetrain"]["version"] = 99
    torch.save(contents, tmp_path / "run" / LAST)
    with pytest.raises(FormatError, match="has checkpoint version 99, expected 1: update densetrain"):
        fit([dataset], tiny(), tmp_path / "run")
    contents, longer = torch.load(run / LAST, weights_only=True), tiny("trainer.epochs=3")
    (tmp_path / "run" / SETTINGS_FILE).write_text(yaml.safe_dump(longer.model_dump(mode="json")))
    for key, value in (("optimizer_states", [{}]), ("lr_schedulers", None), ("state_dict", {})):
        torch.save(contents | {key: value}, tmp_path / "run" / LAST)
        with pytest.raises(FormatError, match="failed before the first step|is not a checkpoint to go on from"):
            fit([dataset], longer, tmp_path / "run")
    torch.save({"state_dict": {}}, tmp_path / "run" / LAST)
    with pytest.raises(FormatError, match="no checkpoint of densetrain"):
        read_checkpoint(tmp_path / "run" / LAST)


def test_a_corrupt_shard_in_mid_epoch_is_one_line(dataset: Path, tmp_path: Path) -> None:
    import h5py

    broken = tmp_path / "broken"
    shutil.copytree(dataset, broken)
    with h5py.File(broken / "shard-00001.h5", "r+") as file:
        file["image/bytes"][:300] = 0
    made = subprocess.run(
        command(broken, tmp_path / "run", "data.workers=1", "data.validate_on=train"),
        capture_output=True,
        text=True,
        check=False,
    )
    assert made.returncode == 1
    assert made.stderr.splitlines()[-1].startswith("densetrain: error: shard-00001.h5: sample ")
    assert "Traceback" not in made.stderr


@pytest.mark.parametrize("cache", ["memory", "device"])
def test_a_cache_changes_no_weight(dataset: Path, run: Path, tmp_path: Path, cache: str) -> None:
    fit([dataset], tiny(f"data.cache={cache}"), tmp_path / "cached")
    assert same(weights(run), weights(tmp_path / "cached"))


@pytest.mark.long
def test_torchrun_says_how_many_processes_there_are(dataset: Path, tmp_path: Path) -> None:
    words = command(dataset, tmp_path / "run", "trainer.devices=auto", "trainer.epochs=1")
    launcher = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    made = subprocess.run([*launcher, *words[1:]], capture_output=True, text=True, check=False)
    assert made.returncode == 0, made.stderr
    assert made.stdout.count("validation NME of the 520") == 1
    assert "sync_dist" not in made.stderr
    assert read_checkpoint(tmp_path / "run" / LAST)["global_step"] == 24 // 4 // 2


def test_a_run_of_another_number_of_processes_is_not_gone_on_with(dataset: Path, run: Path, tmp_path: Path) -> None:
    """Its steps would see other samples, and its rate would end elsewhere."""
    out = Path(shutil.copytree(run, tmp_path / "run"))
    contents = torch.load(out / LAST, weights_only=True)
    assert contents[PROCESSES_KEY] == 1
    contents |= {PROCESSES_KEY: 2, "epoch": 0}
    torch.save(contents, out / LAST)
    with pytest.raises(ConfigurationError, match="was trained by 2 processes, not by 1"):
        fit([dataset], tiny(), out)


def test_training_that_stopped_early_stays_stopped(dataset: Path, tmp_path: Path) -> None:
    """The rate is so small that no epoch is better than the first."""
    changes = ("trainer.patience=1", "trainer.epochs=9", "optimiser.lr=1e-12", "model.width=0.25")
    fit([dataset], tiny(*changes), tmp_path / "run")
    before = (tmp_path / "run" / LAST).read_bytes()
    assert read_checkpoint(tmp_path / "run" / LAST)["epoch"] < 8
    said: list[str] = []
    fit([dataset], tiny(*changes), tmp_path / "run", say=said.append)
    assert "trained already" in said[-1]
    assert (tmp_path / "run" / LAST).read_bytes() == before


def test_another_set_of_shards_is_refused(
    dataset: Path, run: Path, plan: Plan, corpus: Path, manifest: Manifest, tmp_path: Path
) -> None:
    index_file = find_data_file("vertex_index_520.yaml")
    settings = BuildSettings(seed=5, shard_size=64)
    build(plan_build(manifest, corpus, corpus / "model.safetensors", index_file, settings), tmp_path / "other")
    shutil.copytree(run, tmp_path / "run")
    with pytest.raises(ConfigurationError, match="was trained with other shards"):
        fit([tmp_path / "other"], tiny(), tmp_path / "run")


def test_learning_by_heart_validates_on_what_was_learnt(shards: ShardSet) -> None:
    batches = ShardBatches(shards, tiny("data.limit=8", "data.validate_on=train"))
    assert batches.validation_rows.tolist() == batches.train_rows.tolist()
    assert len(batches.train_rows) == 8


def test_devices_that_are_not_here_are_one_line(dataset: Path, tmp_path: Path) -> None:
    if torch.cuda.is_available():
        pytest.skip("there is a GPU")
    with pytest.raises(ConfigurationError, match="trainer.accelerator=gpu"):
        fit([dataset], tiny("trainer.accelerator=gpu"), tmp_path / "a")
    with pytest.raises(ConfigurationError, match="fp16 needs a GPU"):
        fit([dataset], tiny("trainer.precision=fp16"), tmp_path / "b")


@pytest.mark.slow
def test_ctrl_c_before_anything_is_kept_says_so(dataset: Path, tmp_path: Path) -> None:
    cut = tmp_path / "cut"
    process = subprocess.Popen(
        command(dataset, cut, "trainer.epochs=1", "data.workers=0", "data.batch_size=1", "model.input_size=640"),
        stderr=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
    )  # fmt: skip
    assert process.stdout is not None
    assert "samples to train on" in process.stdout.readline()
    time.sleep(1)
    process.send_signal(signal.SIGINT)
    _, said = process.communicate(timeout=120)
    assert process.returncode == 130
    assert said.splitlines()[-1] == "densetrain: interrupted; nothing is kept before the first epoch ends"


@pytest.mark.slow
def test_ctrl_c_is_one_line(dataset: Path, tmp_path: Path) -> None:
    cut = tmp_path / "cut"
    process = subprocess.Popen(
        command(dataset, cut, "trainer.epochs=200"), stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True
    )
    deadline = time.monotonic() + 120
    while not (cut / LAST).is_file() and process.poll() is None:
        assert time.monotonic() < deadline
        time.sleep(0.02)
    process.send_signal(signal.SIGINT)
    _, said = process.communicate(timeout=120)
    assert process.returncode == 130
    assert said.splitlines()[-1] == "densetrain: interrupted; the same command goes on from here"
    assert "Traceback" not in said


def test_two_runs_do_not_train_into_one_folder(dataset: Path, tmp_path: Path) -> None:
    from filelock import FileLock

    from densegen.errors import BuildError

    (tmp_path / "run").mkdir()
    with FileLock(tmp_path / "run/.lock"), pytest.raises(BuildError, match="another run is training into"):
        fit([dataset], tiny(), tmp_path / "run")


@pytest.mark.slow
@pytest.mark.parametrize("epochs", [2, 4])
def test_machines_that_do_not_share_the_runs_folder_end_at_once(dataset: Path, tmp_path: Path, epochs: int) -> None:
    """As two machines under torchrun, the first with a run to go on from, or a finished one: they would not meet."""
    settings = (f"trainer.epochs={epochs}",)
    fit([dataset], tiny(*settings), tmp_path / "first")
    kept = torch.load(tmp_path / "first" / LAST, weights_only=True)
    torch.save(kept | {"epoch": 1}, tmp_path / "first" / LAST)
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        port = taken.getsockname()[1]
    shared = {"WORLD_SIZE": "2", "LOCAL_WORLD_SIZE": "1", "LOCAL_RANK": "0", "MASTER_ADDR": "127.0.0.1"}
    processes = [
        subprocess.Popen(
            command(dataset, tmp_path / name, *settings), stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True,
            env=os.environ | shared | {"MASTER_PORT": str(port), "RANK": rank, "GROUP_RANK": rank, "NODE_RANK": rank},
        )
        for rank, name in (("0", "first"), ("1", "second"))
    ]  # fmt: skip
    for process, epoch in zip(processes, (2, 0), strict=True):
        _, errors = process.communicate(timeout=120)
        assert process.returncode == 1, errors
        assert f"would begin after epoch {epoch} and 0 steps, others after epoch 0 or 2: all machines" in errors
        assert "Traceback" not in errors
