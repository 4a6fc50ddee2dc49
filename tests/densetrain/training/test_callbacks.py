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
from densetrain.training.callbacks import Checkpoints
from densetrain.training.fit import fit
from densetrain.training.module import LandmarkModule
from tests.densetrain.conftest import tiny


def test_a_loss_that_is_not_finite_stops_and_keeps_the_last_checkpoint(
    dataset: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from densetrain.training.losses import LandmarkLoss

    plain = LandmarkLoss.forward
    calls: list[int] = []

    def poisoned(self: LandmarkLoss, predicted: Any, truth: Any) -> Any:
        calls.append(1)
        loss = plain(self, predicted, truth)
        return loss * torch.tensor([1.0, float("nan"), 1.0, 1.0][: len(loss)]) if len(calls) == 11 else loss

    left: list[bool] = []

    def put_away(self: LandmarkModule) -> LandmarkModule:
        left.extend(parameter.grad is not None for parameter in self.parameters())
        return self

    monkeypatch.setattr(LandmarkLoss, "forward", poisoned)
    monkeypatch.setattr(LandmarkModule, "cpu", put_away)
    monkeypatch.setattr("densetrain.training.module.LOOK_EVERY", 1)  # before a validation there are none, anyway
    with pytest.raises(TrainingError, match="not finite in epoch 2, for 1 of 4 samples, the first SYNTH/"):
        fit([dataset], tiny("trainer.epochs=4"), tmp_path / "run")
    assert left
    assert not any(left), "of CUDA graphs, gradients cannot be looked at any more"
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
    saved.append("as if the first had been written")
    with pytest.raises(TrainingError, match=r"\(No space left on device\): there is none before it; make room"):
        fit([dataset], tiny("trainer.epochs=1"), tmp_path / "none")
    saved.clear()
    with pytest.raises(TrainingError, match=r"\(No space left on device\): the checkpoint before it is kept"):
        fit([dataset], tiny("trainer.epochs=4"), tmp_path / "run")
    monkeypatch.undo()
    assert read_checkpoint(tmp_path / "run" / LAST)["epoch"] == 0
    assert not list((tmp_path / "run").glob("*.partial"))
    fit([dataset], tiny("trainer.epochs=4"), tmp_path / "run")
    assert read_checkpoint(tmp_path / "run" / LAST)["epoch"] == 3


def test_a_network_that_gives_no_numbers_is_not_kept(dataset: Path, tmp_path: Path) -> None:
    """One step an epoch, far too large: its loss was finite, what it left is not."""
    huge = ("optimiser.lr=1e30", "schedule.warmup_epochs=0", "data.batch_size=64")
    with pytest.raises(TrainingError, match="not finite in epoch 1.*earlier checkpoints stay"):
        fit([dataset], tiny(*huge), tmp_path / "run")
    assert not (tmp_path / "run" / LAST).exists()
    assert not (tmp_path / "run" / BEST).exists()


def test_every_epochs_checkpoint_is_kept_on_request_and_a_moved_run_goes_on(dataset: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    fit([dataset], tiny("trainer.keep_every=1"), run)
    assert [read_checkpoint(run / f"epoch-00{number}.ckpt")["epoch"] for number in (1, 2)] == [0, 1]
    state = read_checkpoint(run / LAST)["callbacks"]["Checkpoints of best"]
    moved = Checkpoints(tmp_path / "elsewhere", "best", monitor="val_nme")
    moved.load_state_dict(state)
    assert moved.best_model_score == state["best_model_score"]
    assert Path(moved.best_model_path) == tmp_path / "elsewhere/best.ckpt"


@pytest.mark.parametrize("names", ["links", "copies"])
def test_a_checkpoint_of_several_names_is_written_once(
    dataset: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, names: str
) -> None:
    plain, run, written = torch.save, tmp_path / "run", []

    def count(contents: Any, path: Any, **options: Any) -> None:
        written.append(path)
        plain(contents, path, **options)

    def refuse(self: Path, target: Path) -> None:
        raise OSError(errno.EPERM, os.strerror(errno.EPERM))

    monkeypatch.setattr(torch, "save", count)
    if names == "copies":
        monkeypatch.setattr(Path, "hardlink_to", refuse)
    fit([dataset], tiny("trainer.keep_every=1"), run)
    assert len(written) == 2
    last, best = run / LAST, run / BEST
    kept = run / f"epoch-00{read_checkpoint(best)['epoch'] + 1}.ckpt"
    assert best.read_bytes() == kept.read_bytes()
    assert (run / "epoch-002.ckpt").read_bytes() == last.read_bytes()
    assert last.samefile(run / "epoch-002.ckpt") == (names == "links")
    assert not list(run.glob("*.partial"))


def test_after_a_kill_between_its_names_a_run_ends_with_the_same_best(
    dataset: Path, run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In its last epoch, when 'best.ckpt' is there already and 'last.ckpt' not yet."""
    replace, killed = Path.replace, tmp_path / "killed"

    def die(self: Path, target: Path) -> Path:
        if target.name == LAST and (killed / LAST).exists():
            raise KeyboardInterrupt
        return replace(self, target)

    with monkeypatch.context() as patch:
        patch.setattr(Path, "replace", die)
        with pytest.raises(KeyboardInterrupt):
            fit([dataset], tiny(), killed)
    assert read_checkpoint(killed / LAST)["epoch"] == 0
    fit([dataset], tiny(), killed)
    for name in (BEST, LAST):
        ours, theirs = read_checkpoint(killed / name), read_checkpoint(run / name)
        assert ours["epoch"] == theirs["epoch"]
        assert all(torch.equal(ours["state_dict"][key], value) for key, value in theirs["state_dict"].items())
