"""What is kept of a run, and when."""

from __future__ import annotations

import errno
import os
from pathlib import Path
from typing import Any

import pytest
import torch

from densetrain.errors import TrainingError
from densetrain.network.checkpoint import BEST, LAST, read_checkpoint
from densetrain.training.fit import fit
from tests.densetrain.conftest import tiny


def test_a_loss_that_is_not_finite_stops_and_keeps_the_last_checkpoint(
    dataset: Path, run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from densetrain.training.losses import LandmarkLoss

    plain = LandmarkLoss.forward
    calls: list[int] = []

    def poisoned(self: LandmarkLoss, predicted: Any, truth: Any) -> Any:
        calls.append(1)
        loss = plain(self, predicted, truth)
        return loss * torch.tensor([1.0, float("nan"), 1.0, 1.0][: len(loss)]) if len(calls) == 11 else loss

    monkeypatch.setattr(LandmarkLoss, "forward", poisoned)
    with pytest.raises(TrainingError, match="not finite in epoch 1, for 1 of 4 samples, the first SYNTH/"):
        fit([dataset], tiny("trainer.epochs=4"), tmp_path / "run")
    kept = read_checkpoint(tmp_path / "run" / LAST)
    assert kept["epoch"] == 0
    assert all(value.isfinite().all() for value in kept["state_dict"].values())


def test_a_full_disk_at_a_checkpoint_keeps_the_one_before(
    dataset: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plain, saved = torch.save, []

    def full(contents: Any, path: Any, **options: Any) -> None:
        saved.append(path)
        if len(saved) > 1:
            Path(path).write_bytes(b"half a checkpoint")
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        plain(contents, path, **options)

    monkeypatch.setattr(torch, "save", full)
    with pytest.raises(TrainingError, match="could not be written \\(No space left on device\\)"):
        fit([dataset], tiny("trainer.epochs=4"), tmp_path / "run")
    monkeypatch.undo()
    assert read_checkpoint(tmp_path / "run" / LAST)["epoch"] == 0
    assert not list((tmp_path / "run").glob("*.partial"))
    fit([dataset], tiny("trainer.epochs=4"), tmp_path / "run")
    assert read_checkpoint(tmp_path / "run" / LAST)["epoch"] == 3


def test_a_network_that_gives_no_numbers_is_not_kept(dataset: Path, tmp_path: Path) -> None:
    """One step an epoch, far too large: its loss was finite, what it left is not."""
    huge = ("optimiser.lr=1e30", "schedule.warmup_epochs=0", "data.batch_size=64")
    with pytest.raises(TrainingError, match="not finite in epoch 0.*the last checkpoint is kept"):
        fit([dataset], tiny(*huge), tmp_path / "run")
    assert not (tmp_path / "run" / LAST).exists()
    assert not (tmp_path / "run" / BEST).exists()


def test_every_epochs_checkpoint_is_kept_on_request_and_a_moved_run_goes_on(dataset: Path, tmp_path: Path) -> None:
    from densetrain.training.callbacks import Best, Checkpoints

    fit([dataset], tiny("trainer.keep_every=1"), tmp_path / "run")
    assert {"epoch-000.ckpt", "epoch-001.ckpt"} <= {path.name for path in (tmp_path / "run").iterdir()}
    state = read_checkpoint(tmp_path / "run" / LAST)["callbacks"]["Checkpoints of best"]
    moved = Best(tmp_path / "elsewhere", "best", Checkpoints(tmp_path / "elsewhere", "last"), monitor="val_nme")
    moved.load_state_dict(state)
    assert moved.best_model_score == state["best_model_score"]
    assert Path(moved.best_model_path) == tmp_path / "elsewhere/best.ckpt"


def test_the_best_checkpoint_is_the_last_ones_second_name_and_gets_it_after_a_kill(
    dataset: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from densetrain.training.callbacks import Best, WholeFiles

    written: list[str] = []
    save = WholeFiles.save_checkpoint

    def count(self: WholeFiles, checkpoint: Any, path: Any, storage_options: Any = None) -> None:
        written.append(Path(path).name)
        save(self, checkpoint, path, storage_options)

    monkeypatch.setattr(WholeFiles, "save_checkpoint", count)
    fit([dataset], tiny(), tmp_path / "whole")
    assert written == [LAST, LAST]

    def die(self: Best, trainer: Any) -> None:
        if self.step == trainer.global_step:
            raise KeyboardInterrupt

    name_last = Best.name_last
    monkeypatch.setattr(Best, "name_last", die)
    with pytest.raises(KeyboardInterrupt):
        fit([dataset], tiny(), tmp_path / "killed")
    assert not (tmp_path / "killed" / BEST).exists()
    names: list[int] = []

    def look(self: Best, trainer: Any) -> None:
        name_last(self, trainer)
        names.append((tmp_path / "killed" / LAST).samefile(tmp_path / "killed" / BEST))

    monkeypatch.setattr(Best, "name_last", look)
    fit([dataset], tiny(), tmp_path / "killed")
    assert names[0]  # before its first step, the epoch's checkpoint that the kill had left without its second name
    killed, whole = (read_checkpoint(tmp_path / run / BEST) for run in ("killed", "whole"))
    assert killed["epoch"] == whole["epoch"]
    assert all(torch.equal(killed["state_dict"][name], value) for name, value in whole["state_dict"].items())
