"""The report of several networks."""

from __future__ import annotations

import re
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from densegen.drawing import as_label
from densetrain.evaluation.evaluate import Result, read_result
from densetrain.evaluation.metrics import score
from densetrain.evaluation.protocol import Protocol
from densetrain.evaluation.report import _published, draw_ced
from tests.densetrain.command import call


@pytest.mark.slow
def test_shards_are_scored_beside_the_constant_prediction_and_reported(
    run: Path, dataset: Path, tmp_path: Path
) -> None:
    shutil.copytree(run, tmp_path / "run")
    made = call("evaluate", tmp_path / "run", "--shards", dataset)
    assert made.exit_code == 0, made.output
    assert "mean landmarks of the training set" in made.output
    assert "region: " in made.output
    assert "expression strength: weakest third" in made.output
    result = read_result(tmp_path / "run/evaluation/shards-validation.json")
    assert len(result.errors) == 8
    assert result.score.all_images == pytest.approx(np.mean(result.errors))
    (tmp_path / "report").mkdir()
    for name in ("report.html", "worst-7.png", "mine-7.png"):  # of a report before, and of a person
        (tmp_path / "report" / name).write_bytes(b"")
    asked = ("report", tmp_path / "run", tmp_path / "report/../run")  # twice the same
    report = call(*asked, "--out", tmp_path / "report", "--profile", "mobilenet_v2")
    assert report.exit_code == 0, report.output
    assert not (tmp_path / "report/worst-7.png").exists()
    assert (tmp_path / "report/mine-7.png").exists()
    text = (tmp_path / "report/report.md").read_text()
    assert f"| {result.score.mean:.3f} |" in text
    assert "| mobilenet_v2 | 1 | 520 | 256 | 4.222 | 0.393 |" in text
    assert "<table>" in (tmp_path / "report/report.html").read_text()
    assert (tmp_path / "report/ced-0.png").is_file()
    for picture in re.findall(r"!\[.*\]\((.*)\)", text):
        assert (tmp_path / "report" / picture).is_file()
    assert "### Worst cases of run/best.ckpt in " in text
    assert "![training curves](training.png)" in text
    assert "| trainer.epochs | 2 | 40 |" in text  # a setting that is not the default
    assert re.search(r"\| run/best.ckpt \| .*\*\*", text)  # the best values are marked


@pytest.mark.parametrize(
    "change",
    [
        {"dimensions": "3D"},
        {"alignment": "rigid ICP"},
        {"yaw": "new-pose"},
        {"faces": 50},
        {"points": "520 landmarks of densegen-520 1.3.0"},
        {"labels": "reannotated"},
    ],
)
def test_published_rows_stand_beside_what_they_measure_alone(change: dict[str, Any]) -> None:
    published = Protocol(
        benchmark="AFLW2000-3D", faces=2000, all_faces=2000, points="68 points", labels="original", yaw="pose"
    )
    assert len(_published(published)) > 5
    assert _published(published.model_copy(update={"yaw": "fit"}))
    assert not _published(published.model_copy(update=change))


@pytest.mark.filterwarnings("error")
def test_a_picture_is_drawn_of_any_name_and_any_error(tmp_path: Path) -> None:
    errors = np.array([1e100, 1.5e100])
    result = Result(
        method="\N{CJK UNIFIED IDEOGRAPH-9854}", made="m", protocol=Protocol(benchmark="b", faces=2, points="p"),
        score=score(errors, np.zeros(2)), names=["x", "y"], errors=errors.tolist(), yaw_deg=[0.0, 0.0],
    )  # fmt: skip
    draw_ced([result.model_copy(update={"errors": [1.5e308] * 3})], tmp_path / "ced.png")  # no axis to infinity
    assert (tmp_path / "ced.png").stat().st_size > 10_000


def test_a_legend_shows_every_name_as_it_is() -> None:
    from matplotlib.figure import Figure

    axes = Figure().subplots()
    for name in ("_theirs", "$x$"):
        axes.plot([0, 1], label=as_label(name))
    texts = [text.get_text() for text in axes.legend().get_texts()]
    assert texts == ["\N{ZERO WIDTH SPACE}_theirs", r"\$x\$"]
