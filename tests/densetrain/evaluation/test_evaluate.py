"""Results of evaluations: where they are written, what is drawn, what is refused."""

from __future__ import annotations

import json
import math
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from densetrain.evaluation.evaluate import Result, free_stem, in_words, read_result, worst_cases, write_result
from densetrain.evaluation.metrics import score
from densetrain.evaluation.protocol import Protocol
from densetrain.evaluation.report import tell_apart
from densetrain.network.checkpoint import load_regressor
from tests.densetrain.command import call, fails


@pytest.mark.slow
def test_no_evaluation_takes_the_place_of_another(run: Path, dataset: Path, corpus: Path, tmp_path: Path) -> None:
    asked = ("evaluate", run, "--shards", dataset, "--out", tmp_path / "out")
    for extra in ((), (), ("--threshold", 20), ("--split", "train")):
        assert call(*asked, *extra).exit_code == 0
    names = {path.name for path in (tmp_path / "out").glob("*.json")}
    assert names == {f"shards-{stem}{suffix}.json" for suffix in ("", "-constant")
                     for stem in ("validation", "validation-2", "train")}  # fmt: skip
    # Two runs of one name keep their places beside their names in a report.
    for folder in "ab":
        shutil.copytree(run, tmp_path / folder / "run")
        copied = tmp_path / folder / "run"
        assert call("evaluate", copied, "--shards", dataset, "--threshold", 5).exit_code == 0
    report = call("report", tmp_path / "a/run", tmp_path / "b/run", "--out", tmp_path / "report")
    assert report.exit_code == 0, report.output
    text = (tmp_path / "report/report.md").read_text()
    for folder in "ab":
        assert f"| run/best.ckpt in {tmp_path / folder / 'run'} |" in text
    assert len(list((tmp_path / "report").glob("worst-*.png"))) == 2


def test_somebody_elses_worst_cases_are_drawn(corpus: Path, tmp_path: Path) -> None:
    from densetrain.evaluation.benchmarks import aflw2000

    benchmark = aflw2000(corpus / "SYNTH", None)
    off = np.arange(len(benchmark))[:, None, None].astype(float)
    np.savez(tmp_path / "theirs.npz", names=np.array(benchmark.names), landmarks=benchmark.truth + off)
    asked = ("--benchmark", "aflw2000-3d", "--root", corpus / "SYNTH", "--out", tmp_path / "out")
    made = call("evaluate", "--predictions", tmp_path / "theirs.npz", *asked)
    assert made.exit_code == 0, made.output
    result = read_result(tmp_path / "out/aflw2000-3d-original-theirs.json")
    expected = 100 * np.sqrt(2) * np.arange(len(benchmark)) / benchmark.normaliser
    np.testing.assert_allclose(result.errors, expected, rtol=1e-9)
    assert (tmp_path / "out/aflw2000-3d-original-theirs-worst.png").stat().st_size > 10_000


def test_faces_of_one_name_in_two_builds_are_two_worst_cases() -> None:
    errors, yaw_deg = [2.0, 3.0, 4.0], [10.0, 0.0, -20.0]
    result = Result(
        method="m", made="m", protocol=Protocol(benchmark="b", faces=3, points="p"),
        score=score(np.array(errors), np.array(yaw_deg)), names=["A/x", "A/y", "A/x"], errors=errors, yaw_deg=yaw_deg,
    )  # fmt: skip
    assert worst_cases(result, 3) == {2: "x  4.0 %  yaw -20", 1: "y  3.0 %  yaw 0", 0: "x  2.0 %  yaw 10"}


def result_of(method: str, weights: str | None, errors: tuple[float, ...] = (2.0, 3.0)) -> Result:
    yaw_deg = [10.0, 0.0]
    return Result(
        method=method, made="m", weights=weights, protocol=Protocol(benchmark="b", faces=2, points="p"),
        score=score(np.array(errors), np.array(yaw_deg)), names=["x", "y"], errors=list(errors), yaw_deg=yaw_deg,
    )  # fmt: skip


def test_networks_of_one_name_do_not_replace_each_others_results(tmp_path: Path) -> None:
    one, other = result_of("run/best.ckpt", "a" * 16), result_of("run/best.ckpt", "b" * 16, (4.0, 5.0))
    stem = tmp_path / "shards-validation"
    assert free_stem({"": one}, stem) == stem
    write_result(one, stem.with_suffix(".json"))
    assert free_stem({"": one}, stem) == stem
    assert free_stem({"": other}, stem) == tmp_path / "shards-validation-2"
    (tmp_path / "unreadable.json").write_text("{}")  # is something else, and stays
    assert free_stem({"": one}, tmp_path / "unreadable") == tmp_path / "unreadable-2"
    # In a run's own folder it is an earlier state of the same network.
    assert free_stem({"": other}, stem, retrained=True) == stem
    theirs, others = result_of("theirs", None), result_of("theirs", None, (4.0, 5.0))
    write_result(theirs, tmp_path / "theirs.json")
    assert free_stem({"": theirs}, tmp_path / "theirs") == tmp_path / "theirs"
    assert free_stem({"": others}, tmp_path / "theirs") == tmp_path / "theirs-2"
    # Another evaluation's second file is one, too.
    write_result(others, tmp_path / "their-public-script.json")
    both = {"": theirs, "-public-script": theirs}
    assert free_stem(both, tmp_path / "their") == tmp_path / "their-2"
    names = [result.method for result in tell_apart([("out", one), ("out", other)])]
    assert names == ["run/best.ckpt, weights aaaaaaaaaaaaaaaa", "run/best.ckpt, weights bbbbbbbbbbbbbbbb"]
    assert [result.method for result in tell_apart([("out", one), ("out", one)])] == ["run/best.ckpt"]
    wider = one.model_copy(update={"score": replace(one.score, threshold=30.0)})
    names = [result.method for result in tell_apart([("out", one), ("out", wider)])]
    assert names == ["run/best.ckpt, to 10 %", "run/best.ckpt, to 30 %"]


@pytest.mark.slow
def test_a_report_tells_networks_of_one_name_apart(run: Path, dataset: Path, tmp_path: Path) -> None:
    """Rows, pictures of the worst faces, and the mean landmarks, of which each network has its own."""
    import torch

    other = tmp_path / "other" / run.name
    shutil.copytree(run, other)
    contents = torch.load(other / "best.ckpt", weights_only=True)
    contents["state_dict"]["net.mean_landmarks"] += 5
    contents["densetrain"]["mean_landmarks"] = [[x + 5, y, z] for x, y, z in contents["densetrain"]["mean_landmarks"]]
    torch.save(contents, other / "best.ckpt")
    digests = [load_regressor(folder).weights for folder in (run, other)]
    for folder in (run, other):
        assert call("evaluate", folder, "--shards", dataset, "--out", tmp_path / "out").exit_code == 0
    assert call("report", tmp_path / "out", "--out", tmp_path / "report").exit_code == 0
    text = (tmp_path / "report/report.md").read_text()
    for digest in digests:
        assert f"| {run.name}/best.ckpt, weights {digest} |" in text
        assert f"Worst cases of {run.name}/best.ckpt, weights {digest} in " in text
        assert f"| mean landmarks of the training set, weights {digest} |" in text


def test_results_are_json_that_every_reader_takes(tmp_path: Path) -> None:
    def no_number(word: str) -> float:
        raise AssertionError(word)

    result, path = result_of("m", None), tmp_path / "r.json"
    write_result(result, path)
    contents = json.loads(path.read_text(), parse_constant=no_number)
    assert contents["score"]["bins"] == [2.5, None, None]  # no face beyond 30 degrees
    read = read_result(path)
    np.testing.assert_array_equal(read.score.bins, result.score.bins)
    del contents["weights"]
    contents["score"]["bins"] = [2.5, math.nan, math.nan]  # as versions before wrote it
    path.write_text(json.dumps(contents))
    np.testing.assert_array_equal(read_result(path).score.bins, result.score.bins)


def test_damaged_results_are_refused(tmp_path: Path) -> None:
    whole: dict[str, Any] = {
        "format": "densetrain evaluation", "method": "a $\\frac{$ b", "made": "m", "names": ["a"],
        "protocol": {"benchmark": "$\\frac{$", "faces": 1, "points": "p"},
        "errors": [1.0], "yaw_deg": [0.0], "groups": {}, "score": {
            "bins": [1.0, 1.0, 1.0], "counts": [1, 0, 0], "mean": 1.0, "std": 0.0, "all_images": 1.0, "balanced": 1.0,
            "balanced_std": 0.0, "balanced_size": 1, "seed": 0, "auc": 90.0, "failures": 0.0, "threshold": 10.0,
        },
    }  # fmt: skip
    path = tmp_path / "r.json"
    path.write_text(json.dumps(whole))
    made = call("report", path, "--out", tmp_path / "out")
    assert made.exit_code == 0, made.output  # matplotlib takes no dollar sign for a formula
    for key, value in [("errors", "1"), ("errors", [None]), ("groups", []), ("score", None), ("method", 3)]:
        path.write_text(json.dumps(whole | {key: value}))
        assert f"damaged result: {key}" in fails("report", path, "--out", tmp_path / "out")
    for damage in ({"threshold": float("inf")}, {"bins": [1.0]}):
        path.write_text(json.dumps(whole | {"score": {**whole["score"], **damage}}))
        assert "the score is damaged" in fails("report", path, "--out", tmp_path / "out")
    path.write_text(json.dumps(whole | {"names": ["a", "b"]}))
    assert "2 names, 1 errors" in fails("report", path, "--out", tmp_path / "out")
    path.write_text(json.dumps(whole | {"method": "\ud800"}))
    assert "is no text" in fails("report", path, "--out", tmp_path / "out")
    path.write_text("[" * 100_000)
    assert "is no result" in fails("report", path, "--out", tmp_path / "out")


def test_a_detectors_boxes_are_part_of_a_methods_name() -> None:
    """Two curves of one network would bear one name, if only what they were made from told them apart."""
    (true, made), (found, found_made) = in_words("run", None, 0), in_words("run", "yunet", 14)
    assert (true, found) == ("run", "run, boxes of yunet")
    assert made == "crops around the true boxes"
    assert "around the true box for 14 not found" in found_made
