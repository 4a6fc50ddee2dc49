"""What need not be typed each time, and what the machine has."""

from __future__ import annotations

from pathlib import Path

import pytest

from densegen.remembered import remembered_path
from tests.densegen.command import fails, run


@pytest.fixture(autouse=True)
def _own_folder_of_settings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DENSEGEN_CONFIG_DIR", str(tmp_path / "settings"))
    for name in ("DENSEGEN_MODEL", "DENSEGEN_ROOT"):
        monkeypatch.delenv(name, raising=False)


def test_a_remembered_model_and_root_need_not_be_typed(corpus: Path, tmp_path: Path) -> None:
    model = corpus / "model.safetensors"
    assert "Missing option '--model'" in run("index", "sample", tmp_path / "c.yaml").output
    root = tmp_path / "300W_LP"
    (root / "AFW").mkdir(parents=True)
    (root / "AFW/AFW_1_1_0.mat").write_bytes((corpus / "SYNTH/SYNTH_00000_0.mat").read_bytes())
    kept = run("remember", "--model", model, "--root", f"300w_lp={root}")
    assert kept.exit_code == 0, kept.output
    assert f"model    {model}" in kept.stdout
    assert run("index", "sample", tmp_path / "c.yaml").exit_code == 0
    assert f"300w_lp: {root}" in run("remember").stdout
    # The remembered root is taken, and the manifest's own files are looked for below it.
    assert "AFW: 1 fit," in run("build", "300w_lp", "--out", tmp_path / "out", "--jobs", 1, "--dry-run").stderr
    assert "300w_lp" not in run("remember", "--forget").stdout
    assert "Give its folder with --root" in fails("build", "300w_lp", "--out", tmp_path / "out")


def test_the_environment_wins_over_what_is_remembered(
    corpus: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run("remember", "--model", corpus / "model.safetensors")
    monkeypatch.setenv("DENSEGEN_MODEL", str(tmp_path / "another.safetensors"))
    assert "another.safetensors does not exist" in fails("index", "sample", tmp_path / "c.yaml")


def test_a_dataset_that_brings_its_model_keeps_it(
    corpus: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DENSEGEN_MODEL", str(tmp_path / "another.safetensors"))
    made = run("build", "demo", "--root", corpus, "--out", tmp_path / "out", "--jobs", 1, "--dry-run")
    assert made.exit_code == 0, made.output


def test_what_is_remembered_wrongly_is_said(corpus: Path, tmp_path: Path) -> None:
    assert "is not NAME=FOLDER" in fails("remember", "--root", f"300w_lp={tmp_path / 'nowhere'}")
    assert "did you mean 300w_lp?" in fails("remember", "--root", f"300wlp={tmp_path}")
    assert "holds no fit (*.mat) in AFW, HELEN, IBUG, LFPW: is it the root of 300W-LP" in fails(
        "remember", "--root", f"300w_lp={corpus}"
    )
    assert "needs no folder" in fails("remember", "--root", f"demo={corpus}")
    gone = tmp_path / "gone.safetensors"
    gone.write_bytes((corpus / "model.safetensors").read_bytes())
    run("remember", "--model", gone)
    gone.unlink()
    assert "is gone" in fails("index", "sample", tmp_path / "c.yaml")
    assert "NOT READABLE" in run("doctor").stdout
    remembered_path().write_text("format: densegen remembered\nmodell: x\n")
    assert "modell: there is no such field; did you mean model?" in fails("index", "sample", tmp_path / "c.yaml")


def test_the_doctor_says_what_is_there_and_under_which_licence(corpus: Path, tmp_path: Path) -> None:
    (tmp_path / "AFLW2000").mkdir()
    (tmp_path / "AFLW2000/image00002.mat").write_bytes((corpus / "SYNTH/SYNTH_00000_0.mat").read_bytes())
    kept = run("remember", "--model", corpus / "model.safetensors", "--root", f"aflw2000_3d={tmp_path / 'AFLW2000'}")
    assert kept.exit_code == 0, kept.output
    said = run("doctor")
    assert said.exit_code == 0, said.output
    for words in ("numpy", "processors", str(corpus), "non-commercial research", "1 of 1 folders", "[editor]"):
        assert words in said.stdout
