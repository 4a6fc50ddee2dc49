"""The log of a run, as its folder holds it."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
from matplotlib.figure import Figure

from densetrain.evaluation.training_log import TrainingLog, draw_curves, read_log

HEADER = "epoch,step,train_loss,val_nme,val_nme_constant\n"


def start(run: Path, number: int, rows: str) -> None:
    folder = run / f"csv/version_{number}"
    folder.mkdir(parents=True)
    (folder / "metrics.csv").write_text(HEADER + rows)


def test_a_run_that_went_on_is_one_curve_and_one_that_began_anew_is_its_own(tmp_path: Path) -> None:
    (tmp_path / "fit-settings.yaml").write_text("seed: 0\n")
    start(tmp_path, 0, "0,9,900.0,,\n0,19,800.0,,\n0,29,700.0,,\n")  # stopped before a checkpoint was kept
    start(tmp_path, 1, "0,9,90.0,,\n0,11,,5.0,20.0\n1,19,80.0,,\n")
    start(tmp_path, 2, "1,19,80.0,,\n1,23,,4.0,20.0\n2,29,70.0,,\n")  # went on after the first epoch
    log = read_log(tmp_path)
    assert log is not None
    assert log.losses == ((9, 90.0), (19, 80.0), (29, 70.0))
    assert log.nme == ((11, 5.0), (23, 4.0))
    assert log.constant == 20.0


def test_a_run_of_short_epochs_that_went_on_keeps_its_first_validation(tmp_path: Path) -> None:
    (tmp_path / "fit-settings.yaml").write_text("seed: 0\n")
    start(tmp_path, 0, "0,7,,24.0,20.0\n1,9,900.0,,\n")  # stopped at step 12 of epochs of 8
    start(tmp_path, 1, "1,9,900.0,,\n1,15,,30.0,20.0\n2,19,800.0,,\n")
    log = read_log(tmp_path)
    assert log is not None
    assert log.nme == ((7, 24.0), (15, 30.0))
    start(tmp_path, 2, "0,7,,25.0,20.0\n")  # its checkpoints were taken away
    log = read_log(tmp_path)
    assert log is not None
    assert (log.losses, log.nme) == ((), ((7, 25.0),))


def test_curves_show_losses_below_zero_and_the_best_of_the_finite(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    drawn: list[Figure] = []
    monkeypatch.setattr("densetrain.evaluation.training_log.save_figure", lambda figure, path: drawn.append(figure))
    nme = ((1, math.nan), (2, 2.5), (3, 2.75))
    draw_curves([TrainingLog("run", {}, ((1, 4.0), (2, -5.0)), nme, None)], tmp_path / "c.png")
    draw_curves([TrainingLog("run", {}, ((1, 4.0), (2, 0.5)), nme, None)], tmp_path / "c.png")
    assert [figure.axes[0].get_yscale() for figure in drawn] == ["linear", "log"]
    assert [text.get_text() for text in drawn[0].axes[1].get_legend().get_texts()] == ["run", "best: 2.500 %"]
