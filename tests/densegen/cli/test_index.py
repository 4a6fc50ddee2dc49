"""The index commands."""

from __future__ import annotations

import re
from pathlib import Path

from densegen.files import find_data_file
from densegen.index.vertex_index import read_index
from tests.densegen.command import fails, run


def test_index_commands_make_an_index(corpus: Path, tmp_path: Path) -> None:
    model = corpus / "model.safetensors"
    sampled = run("index", "sample", tmp_path / "c.yaml", "--model", model)
    assert sampled.stdout == f"{tmp_path / 'c.yaml'}: 28 -> 65 -> 173 -> 492 points\n"
    (tmp_path / "corrections.yaml").write_text("index_name: plain\nindex_version: 0.0.1\ncount: 520\n")
    made = run(
        "index", "correct", tmp_path / "c.yaml", tmp_path / "corrections.yaml", tmp_path / "i.yaml", "--model", model
    )
    assert "plain 0.0.1, 520 landmarks, closed under the mirror" in made.stdout
    out = tmp_path / "out"
    built = run("build", "demo", "--root", corpus, "--index", tmp_path / "i.yaml", "--out", out, "--jobs", 1)
    assert built.exit_code == 0, built.output
    assert run("verify", out).exit_code == 0


def test_index_tools_work_together(corpus: Path, tmp_path: Path) -> None:
    model = corpus / "model.safetensors"
    ours = find_data_file("vertex_index_520.yaml")
    checked = run("index", "check", "--model", model, "--baselines", "--fits", corpus, "--picture", tmp_path / "c.png")
    assert checked.exit_code == 0, checked.output
    assert "densegen-520 1.3.0" in checked.stdout
    assert "520 of 520" in checked.stdout
    assert run("index", "show", "--model", model, "--out", tmp_path / "show").exit_code == 0
    assert {path.name for path in (tmp_path / "show").iterdir()} == {"uv.png", "views.png", "sheets.pdf"}
    assert run("index", "export", ours, tmp_path / "i.csv", "--model", model).exit_code == 0
    back = run("index", "import", tmp_path / "i.csv", tmp_path / "i.yaml", "--model", model, "--name", "back")
    assert "back 1.0.0, 520 landmarks, closed under the mirror" in back.stdout
    same = run("index", "diff", ours, tmp_path / "i.yaml", "--model", model, "--picture", tmp_path / "d.png")
    assert "0 added, 0 removed, 0 moved, 0 renamed, 520 the same" in same.stdout
    (tmp_path / "p.txt").write_text("0\n100\n43000\n")
    numbers = ("index", "import", tmp_path / "p.txt", tmp_path / "p.yaml", "--model", model)
    assert "say with --numbering what they count" in fails(*numbers)
    for name in ("a\nb", ""):
        assert run(*numbers, "--numbering", "prnet", "--name", name).exit_code == 2
    assert run(*numbers, "--numbering", "prnet").exit_code == 0
    assert "does not exist" in fails("index", "diff", ours, tmp_path / "none.yaml")
    edit = ("index", "edit", tmp_path / "p.yaml", "--model", model, "--corrections", tmp_path / "e.yaml")
    assert "p-000 is no vertex with a mirror partner" in fails(*edit)
    assert not (tmp_path / "e.yaml").exists()


def test_our_landmarks_are_made_and_others_suggested(corpus: Path, tmp_path: Path) -> None:
    model = ("--model", corpus / "model.safetensors")
    made = run("index", "make", tmp_path / "i.yaml", *model)
    # On another topology it is another index, and does not pass for densegen's own.
    assert re.search(r"densegen-520-[0-9a-f]{8} 1\.3\.0, 520 landmarks, closed under the mirror", made.stdout)
    assert run("index", "sample", tmp_path / "s.yaml", *model).exit_code == 0
    ours = find_data_file("corrections_bfm.yaml")
    again = run("index", "correct", tmp_path / "s.yaml", ours, tmp_path / "c.yaml", *model)
    assert again.stdout.split()[1:] == made.stdout.split()[1:]
    for name in ("s.yaml", "c.yaml"):
        (tmp_path / name).unlink()
    named = run("index", "make", tmp_path / "n.yaml", *model, "--name", "mine")
    assert "mine 1.3.0, 520 landmarks" in named.stdout
    (tmp_path / "n.yaml").unlink()
    assert run("index", "sample", tmp_path / "c.yaml", *model).exit_code == 0
    suggest = ("index", "suggest", tmp_path / "c.yaml", tmp_path / "s.yaml", *model, "--count", 300, "--spacing", 12)
    assert "to add, 300 landmarks" in run(*suggest, "--weight", "lid=2", "--weight", "nose=1.5").stdout
    others = run("index", "make", tmp_path / "o.yaml", *model, "--corrections", tmp_path / "s.yaml")
    assert "my-landmarks 1.0.0, 300 landmarks, closed under the mirror" in others.stdout
    assert "regions are jaw, chin" in fails(*suggest, "--weight", "elbow=2")
    assert "factors lie above 0" in fails(*suggest, "--weight", "lid=0")
    assert "is not REGION=FACTOR" in fails(*suggest, "--weight", "lid")
    assert "has room for" in fails(
        "index", "suggest", tmp_path / "c.yaml", tmp_path / "n.yaml", *model, "--count", 9999
    )
    assert not (tmp_path / "n.yaml").exists()


def test_a_release_goes_forward(corpus: Path, tmp_path: Path) -> None:
    model, base = corpus / "model.safetensors", tmp_path / "base.yaml"
    assert run("index", "make", base, "--model", model, "--name", "mine").exit_code == 0
    version = read_index(base).version

    def corrected(version: str) -> Path:
        path = tmp_path / "corrections.yaml"
        path.write_text(
            f"index_name: mine\nindex_version: {version}\ncount: 522\n"
            "add: [{name: hole, uv: [88.0, 24.0], reason: a hole}]\n"
        )
        return path

    out = tmp_path / "out.yaml"
    for old in (version, "0.9.0"):
        line = fails("index", "correct", base, corrected(old), out, "--model", model)
        assert f"index_version {old} is not newer than {version}" in line
    assert run("index", "correct", base, corrected("9.0.0"), out, "--model", model).exit_code == 0
    assert read_index(out).description == read_index(base).description != ""
    out.write_text(out.read_text().replace("version: 9.0.0", f"version: {version}"))
    compared = run("index", "diff", base, out)
    assert f"need a newer version than {version}" in compared.stderr


def test_swapped_and_mistyped_arguments_are_named(corpus: Path, tmp_path: Path) -> None:
    model, candidates = corpus / "model.safetensors", tmp_path / "c.yaml"
    run("index", "sample", candidates, "--model", model)
    corrections = tmp_path / "corrections.yaml"
    corrections.write_text(
        "format: densegen corrections\nindex_name: mine\nindex_version: 1.0.0\ncount: 520\n"
        "remove: [{name: d1-0003, reason: x}]\n"
    )
    swapped = fails("index", "correct", corrections, candidates, tmp_path / "o.yaml", "--model", model)
    assert "are two arguments swapped?" in swapped
    mistyped = fails("index", "correct", candidates, corrections, tmp_path / "o.yaml", "--model", model)
    assert "did you mean d1-0" in mistyped
    assert "is a text file, not a model" in fails("index", "sample", tmp_path / "d.yaml", "--model", candidates)
    assert ".txt, .csv, .npz, .json, .ply, .obj" in fails(
        "index", "export", find_data_file("vertex_index_520.yaml"), tmp_path / "o.xyz", "--model", model
    )
    assert "does not exist" in fails("model", "build", tmp_path / "downlods", tmp_path / "m.safetensors")
    assert "not the folder of the downloads" in fails("model", "build", model, tmp_path / "m.safetensors")
    assert "did you mean demo?" in fails("manifests", "dmo")


def test_two_peoples_corrections_become_one(corpus: Path, tmp_path: Path) -> None:
    model, base = corpus / "model.safetensors", tmp_path / "base.yaml"
    run("index", "make", base, "--model", model, "--name", "mine")
    head = "index_name: mine\nindex_version: 9.{}.0\ncount: 1000\nchangelog: ['{}']\n"
    ann, ben, both = (tmp_path / f"{name}.yaml" for name in ("ann", "ben", "both"))
    shared = "remove: [{name: d1-003, reason: too near}]\n"
    ann.write_text(head.format(0, "ann") + shared + "move: [{name: d1-004, uv: [60.0, 119.0], reason: lower}]\n")
    ben.write_text(head.format(1, "ben") + shared + "add: [{name: hole, uv: [88.0, 24.0], reason: a hole}]\n")
    made = run("index", "merge", base, ann, ben, both, "--model", model)
    assert made.exit_code == 0, made.output
    assert "1 added, 1 removed, 1 moved, 520 landmarks, version 9.1.0" in made.stdout
    applied = run("index", "correct", base, both, tmp_path / "next.yaml", "--model", model)
    assert applied.exit_code == 0, applied.output
    assert read_index(tmp_path / "next.yaml").changelog[-2:] == ("ann", "ben")

    ben.write_text(head.format(1, "ben") + "remove: [{name: d1-004, reason: too near}]\n")
    line = fails("index", "merge", base, ann, ben, both, "--model", model)
    assert "d1-004: the first moves it to (60, 119) (lower), the second removes it (too near)" in line
    for prefer, moved in (("first", 1), ("second", 0)):
        made = run("index", "merge", base, ann, ben, both, "--model", model, "--prefer", prefer)
        assert f"{2 - moved} removed, {moved} moved" in made.stdout
        assert f"the {prefer} wins" in made.stderr
    # Two people number what they add alike: both are kept.
    ann.write_text(head.format(0, "ann") + "add: [{name: hole-1, uv: [88.0, 24.0], reason: a hole}]\n")
    ben.write_text(head.format(1, "ben") + "add: [{name: hole-1, uv: [60.0, 20.0], reason: another}]\n")
    assert "2 added" in run("index", "merge", base, ann, ben, both, "--model", model).stdout
    assert run("index", "correct", base, both, tmp_path / "two.yaml", "--model", model).exit_code == 0
    assert {"hole-1-r", "hole-1-2-r"} <= {landmark.name for landmark in read_index(tmp_path / "two.yaml").landmarks}
    # What could not be applied is not written.
    ben.write_text(head.format(1, "ben") + "add: [{name: hole-2, uv: [88.0, 24.0], reason: the same}]\n")
    assert "fall on the same vertex" in fails("index", "merge", base, ann, ben, both, "--model", model)
    # A landmark that is taken out and put elsewhere under its name stays so.
    ann.write_text(head.format(0, "ann") + shared + "add: [{name: d1-003, uv: [88.0, 24.0], reason: elsewhere}]\n")
    ben.write_text(head.format(1, "ben") + "remove: [{name: d1-004, reason: too near}]\n")
    assert "1 added, 2 removed" in run("index", "merge", base, ann, ben, both, "--model", model).stdout
    ben.write_text("index_name: theirs\nindex_version: 1.0.0\ncount: 520\n")
    assert "one corrects mine, the other theirs" in fails("index", "merge", base, ann, ben, both, "--model", model)
