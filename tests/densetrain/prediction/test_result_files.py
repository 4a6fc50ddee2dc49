"""The files of an image's faces."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path

from densetrain.prediction.result_files import ResultNames
from tests.densetrain.command import call


def test_no_input_is_overwritten_and_no_result_either(run: Path, corpus: Path, tmp_path: Path) -> None:
    from PIL import Image

    photograph = corpus / "SYNTH/SYNTH_00000_0.jpg"
    for folder in "abc":
        (tmp_path / folder).mkdir()
        shutil.copy(photograph, tmp_path / folder / "x.jpg")
    box = ("--box", 120, 120, 330, 330)
    three = [tmp_path / folder / "x.jpg" for folder in "abc"]
    assert call("predict", run, *three, *box, "--out", tmp_path / "out").exit_code == 0
    assert {path.name for path in (tmp_path / "out").glob("*.json")} == {"x.json", "x-2.json", "x-3.json"}
    Image.open(photograph).save(tmp_path / "a/y.png")
    before = (tmp_path / "a/y.png").read_bytes()
    (tmp_path / "a/y.json").write_text('{"y.png": [[120, 120, 330, 330]]}')
    boxes = ("--boxes", tmp_path / "a/y.json")
    assert call("predict", run, tmp_path / "a/y.png", *boxes, "--out", tmp_path / "a").exit_code == 0
    assert "120" in (tmp_path / "a/y.json").read_text()
    assert (tmp_path / "a/y.png").read_bytes() == before
    assert (tmp_path / "a/y-2.png").is_file()


def test_files_of_somebody_elses_beside_the_photographs_stay(run: Path, corpus: Path, tmp_path: Path) -> None:
    for name in ("x", "y"):
        shutil.copy(corpus / "SYNTH/SYNTH_00000_0.jpg", tmp_path / f"{name}.jpg")
    (tmp_path / "x.json").write_text('{"shapes": "marked by hand"}')
    asked = ("predict", run, tmp_path / "x.jpg", tmp_path / "y.jpg", "--box", 120, 120, 330, 330, "--out", tmp_path)
    for _ in range(2):  # what the first call wrote, the second replaces
        assert call(*asked).exit_code == 0
        assert {path.name for path in tmp_path.glob("*.json")} == {"x.json", "x-2.json", "y.json"}
    assert "by hand" in (tmp_path / "x.json").read_text()


def test_results_that_cannot_be_written_do_not_end_the_others(run: Path, corpus: Path, tmp_path: Path) -> None:
    (tmp_path / "out/a.png").mkdir(parents=True)
    names = ["a.jpg", f"{'long' * 62}.jpg", os.fsdecode(b"b\xff.jpg"), "c.jpg"]
    (tmp_path / "in").mkdir()
    for name in names:
        shutil.copy(corpus / "SYNTH/SYNTH_00000_0.jpg", tmp_path / "in" / name)
    made = call("predict", run, tmp_path / "in", "--box", 120, 120, 330, 330, "--out", tmp_path / "out")
    assert made.exit_code == 1
    assert "a.png cannot be written: Is a directory" in made.stderr
    assert "1 of 4 inputs have no result, the first is a.jpg" in made.stderr
    assert len(list((tmp_path / "out").glob("*.json"))) == 3
    record = (tmp_path / "out" / os.fsdecode(b"b\xff.json")).read_text()
    assert json.loads(record)["image"] == "b\\udcff.jpg"


def test_results_have_names_of_their_own_and_replace_no_input(tmp_path: Path) -> None:
    names = ResultNames(tmp_path, [tmp_path / "b-0-texture.png", tmp_path / "c.jpg", tmp_path / "elsewhere/d.png"])
    assert names.stem_of(Path("x/a.jpg")) == tmp_path / "a"
    assert names.stem_of(Path("y/a.jpg")) == tmp_path / "a-2"
    assert [names.stem_of(Path(f"{name}.jpg")).name for name in "bcd"] == ["b-2", "c", "d"]
    assert [names.stem_of(Path(name)).name for name in ("IMG.jpg", "img.png")] == ["IMG", "img-2"]
    phone = ResultNames(tmp_path, [tmp_path / "PHOTO.PNG"])
    assert phone.stem_of(Path("PHOTO.PNG")).name == "PHOTO-2"  # on some disks PHOTO.png is the same file
    # A record of the same image, by the same command, is replaced; another's is not.
    (tmp_path / "e.jpg").touch()
    for _ in range(2):
        of_surfaces = ResultNames(tmp_path, [tmp_path / "e.jpg"], after_image="faces").stem_of(tmp_path / "e.jpg")
        assert of_surfaces.name == "e"
        (tmp_path / "e.json").write_text('{"image":"e.jpg","faces":[]}')
    assert ResultNames(tmp_path, [tmp_path / "e.jpg"]).stem_of(tmp_path / "e.jpg").name == "e-2"
    # The files of an .obj name each other, and readers split names at spaces.
    plain = ResultNames(tmp_path, [], plain=True)
    assert [plain.stem_of(Path(name)).name for name in ("a b.jpg", "a_b.jpg")] == ["a_b", "a_b-2"]
