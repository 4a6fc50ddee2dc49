from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner
from matplotlib.figure import Figure

from densegen.cli import main
from densegen.drawing import save_figure, write_png
from densegen.errors import ConfigurationError
from densegen.files import find_data_file
from densegen.outputs import check_output, refuse_no_folder


@pytest.mark.parametrize(
    ("name", "data"),
    [("notes.txt", b"my notes"), ("photo.png", b"GIF89a"), ("drawn.png", b"\x89PNG"),
     ("i.yaml", b"name: x"), ("m.safetensors", b"weights"),
     ("i.yaml", b"# densegen is good\nname: x"), ("i.npz", b"PK\x03\x04grid.npy"), ("map.npy", b"text"),
     ("i.csv", b"a,b"), ("ids.csv", b"id,name,\n"), ("face.obj", b"v 0 0 0"), ("whatever", b"text")],
)  # fmt: skip
def test_a_foreign_file_is_not_replaced(tmp_path: Path, name: str, data: bytes) -> None:
    (tmp_path / name).write_bytes(data)
    with pytest.raises(ConfigurationError, match="holds something that densegen did not write"):
        check_output(tmp_path / name)


def test_a_file_of_another_kind_of_densegens_is_not_replaced(tmp_path: Path) -> None:
    (tmp_path / "mine.yaml").write_text("# by hand\nformat: densegen corrections\n")
    check_output(tmp_path / "mine.yaml", holds="corrections")
    for other in ("candidates", "vertex index", "manifest"):
        with pytest.raises(ConfigurationError, match=f"holds densegen's corrections, not {other}"):
            check_output(tmp_path / "mine.yaml", holds=other)


def test_an_input_is_not_replaced_by_whatever_name(tmp_path: Path) -> None:
    (tmp_path / "i.yaml").write_bytes(b"format: densegen vertex index")
    os.symlink("i.yaml", tmp_path / "link.yaml")
    check_output(tmp_path / "i.yaml")
    for out in ("i.yaml", "link.yaml", "../" + tmp_path.name + "/i.yaml"):
        with pytest.raises(ConfigurationError, match="is an input of this command"):
            check_output(tmp_path / out, tmp_path / "i.yaml", None)


def test_what_is_written_has_the_suffix_of_its_kind(tmp_path: Path) -> None:
    for name in ("pics", "a.jpg", "sheet.xyz"):
        with pytest.raises(ConfigurationError, match=r"what is written is a PNG; name it \w+\.png"):
            check_output(tmp_path / name, kind=".png")
    (tmp_path / "file").write_bytes(b"x")
    with pytest.raises(ConfigurationError, match="file is not a folder"):
        check_output(tmp_path / "file/a.png", kind=".png")
    check_output(tmp_path / "new/a.PNG", kind=".png")


def test_a_folder_for_outputs_is_none_that_is_a_file_or_lies_below_one(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"x")
    for path in (tmp_path / "file", tmp_path / "file/deep/er"):
        with pytest.raises(ConfigurationError, match="file is not a folder: choose another one"):
            refuse_no_folder(path)
    refuse_no_folder(tmp_path / "new/deep")


def test_a_correction_over_its_own_base_changes_nothing(corpus: Path, tmp_path: Path) -> None:
    base = tmp_path / "base.yaml"
    base.write_bytes(find_data_file("vertex_index_520.yaml").read_bytes())
    corrections = find_data_file("corrections_bfm.yaml")
    asked = ["index", "correct", str(base), str(corrections), str(base), "--model", str(corpus / "model.safetensors")]
    made = CliRunner().invoke(main, asked)
    assert (made.exit_code, made.output.count("\n")) == (1, 1)
    assert "is an input of this command" in made.output
    assert base.read_bytes() == find_data_file("vertex_index_520.yaml").read_bytes()


def test_pictures_that_densegen_wrote_may_be_replaced(tmp_path: Path) -> None:
    write_png(np.zeros((4, 4, 3), np.uint8), tmp_path / "picture.png")
    figure = Figure()
    figure.subplots().plot([0, 1])
    save_figure(figure, tmp_path / "figure.png")
    for name in ("picture.png", "figure.png"):
        check_output(tmp_path / name)
