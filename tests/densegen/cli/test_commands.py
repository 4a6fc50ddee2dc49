from __future__ import annotations

import hashlib
import json
import math
import re
import sys
from pathlib import Path

import pytest
import yaml

from densegen.dataset.shards import ShardReader
from densegen.files import find_data_file
from densegen.sources.manifest import read_manifest
from tests.densegen.command import fails, run


def test_the_whole_way_from_nothing_to_a_picture(tmp_path: Path) -> None:
    corpus, out = tmp_path / "corpus", tmp_path / "out"
    assert run("synth", corpus, "--samples", 6, "--jobs", 1, "--manifest").exit_code == 0
    built = run("build", corpus / "manifest.yaml", "--root", corpus, "--out", out, "--jobs", 1)
    assert built.exit_code == 0, built.output
    assert "12 samples in 1 shard" in built.stdout
    assert "SYNTH: 6 fits" in built.stderr
    digest = hashlib.sha256((out / "manifest.json").read_bytes()).hexdigest()
    for more in ((), ("--every-image", "--jobs", 1)):
        assert run("verify", out, *more).stdout.splitlines() == [
            f"{out}: 12 samples in 1 shard, all correct",
            f"SHA-256 of manifest.json: {digest}",
        ]
    model = corpus / "model.safetensors"
    sample = "SYNTH/SYNTH_00001_1+mirror"
    assert run("inspect", out, "--sample", sample, "--model", model, "--out", tmp_path / "s.png").exit_code == 0
    assert (tmp_path / "s.png").read_bytes().startswith(b"\x89PNG")
    rebuilt = run("rebuild-maps", out, "--model", model, "--out", tmp_path / "maps", "--sample", sample)
    assert rebuilt.stdout == f"{tmp_path / 'maps'}: 1 position map\n"
    info = run("model", "info", model).stdout
    assert "shape components       24" in info
    assert "mean asymmetry 0.000 mm" in info


def test_crops_beyond_their_photographs_are_counted_and_said(corpus: Path, tmp_path: Path) -> None:
    """The rim of photographs that were cut out around the faces tells a network where they are."""
    for margin, share in ((1.2, 0.0), (3.0, 1.0)):
        out = tmp_path / str(margin)
        made = run(
            "build", "demo", "--root", corpus, "--out", out, "--margin", margin, "--limit", 4, "--flip", "none",
            "--shift-jitter", 0, "--scale-jitter", 0,
        )  # fmt: skip
        assert made.exit_code == 0, made.output
        assert ("of the crops reach beyond their photographs" in made.stderr) is (share == 1)
        assert [r["edges"] for r in json.loads((out / "manifest.json").read_text())["shards"]] == [4 * share]
        assert f"and is black: {100 * share:.1f} %." in (out / "README.md").read_text()


def test_the_demo_draws_its_own_corpus(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    text = find_data_file("demo.yaml").read_text().replace("samples: 96", "samples: 4").replace("fits: 96", "fits: 4")
    (tmp_path / "small.yaml").write_text(text)
    result = run("build", tmp_path / "small.yaml", "--out", tmp_path / "shards", "--jobs", 1)
    assert result.exit_code == 0, result.output
    assert (tmp_path / "shards-corpus/model.safetensors").exists()


def test_samples_are_listed_and_the_first_is_drawn(
    dataset: Path, corpus: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    listed = run("inspect", dataset, "--list").stdout.splitlines()
    with ShardReader(dataset / "shard-00000.h5") as shard:
        first, yaw = shard.sample_ids[0], math.degrees(shard.array("pose")[0, 1])
        split = shard.splits[0]
    assert len(listed) == 32
    assert listed[0] == f"{first}  {split}  yaw {yaw:.0f}"
    # A mirrored face looks to the other side.
    assert listed[1].split()[-1] == f"{-round(yaw)}"
    monkeypatch.chdir(tmp_path)
    assert run("inspect", dataset).stdout == f"{first.replace('/', '-')}.png\n"
    assert (tmp_path / f"{first.replace('/', '-')}.png").is_file()
    assert run("inspect", dataset, "--list", "--sample", first).exit_code == 2


def test_without_a_terminal_progress_is_a_line_now_and_then(
    corpus: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    build = ("build", "demo", "--root", corpus, "--jobs", 1, "--limit", 4)
    assert "building" not in run(*build, "--out", tmp_path / "quick").stderr
    monkeypatch.setattr("densegen.console.LINE_EVERY_S", -1.0)
    assert "building: 4 of 4 fits\n" in run(*build, "--out", tmp_path / "slow").stderr


def test_an_option_wins_over_the_yaml(corpus: Path, tmp_path: Path) -> None:
    text = yaml.safe_load(find_data_file("demo.yaml").read_text())
    text["build"] = {"seed": 3, "flip": "none", "shard_size": 8}
    (tmp_path / "m.yaml").write_text(yaml.safe_dump(text))
    out = tmp_path / "out"
    common = ("build", tmp_path / "m.yaml", "--root", corpus, "--out", out, "--jobs", 1, "--limit", 2)
    assert run(*common, "--seed", 9).exit_code == 0
    settings = json.loads((out / "manifest.json").read_text())["configuration"]["settings"]
    assert (settings["seed"], settings["flip"], settings["shard_size"]) == (9, "none", 8)


def test_a_dry_run_counts_and_writes_nothing(corpus: Path, tmp_path: Path) -> None:
    result = run("build", "demo", "--root", corpus, "--out", tmp_path / "out", "--dry-run", "--jobs", 1)
    assert result.exit_code == 0
    assert "SYNTH: 16 fits, the manifest says 96" in result.stderr
    assert "32 samples in 1 shard" in result.stderr
    assert list(tmp_path.iterdir()) == []


def test_nothing_is_drawn_or_built_where_the_inputs_are_wrong(corpus: Path, dataset: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine/thesis.tex").write_text("precious")
    demo = ("build", "demo", "--out", out, "--jobs", 1)
    assert "the vertex index nowhere.yaml does not exist" in fails(*demo, "--index", "nowhere.yaml")
    assert "the model nowhere.h5 does not exist" in fails(*demo, "--model", "nowhere.h5")
    assert "something else than a drawn corpus (thesis.tex)" in fails(*demo, "--root", tmp_path / "mine")
    assert [path.name for path in tmp_path.rglob("*")] == ["mine", "thesis.tex"]
    # A dry run refuses what the build would refuse.
    rerun = ("build", "demo", "--root", corpus, "--out", dataset, "--jobs", 1, "--seed", 9, "--dry-run")
    assert "holds a build of another configuration" in fails(*rerun)


def test_the_published_kind_of_index_builds_and_verifies(corpus: Path, tmp_path: Path) -> None:
    """UV pixels without mirror partners: flips are gathered at mirrored places, not permuted."""
    model = corpus / "model.safetensors"
    (tmp_path / "p.txt").write_text("".join(f"{number}\n" for number in range(0, 43_867, 211)))
    imported = run("index", "import", tmp_path / "p.txt", tmp_path / "p.yaml", "--model", model, "--numbering", "prnet")
    assert "with a mirror partner" in imported.stdout
    out = tmp_path / "out"
    built = run("build", "demo", "--root", corpus, "--index", tmp_path / "p.yaml", "--out", out, "--jobs", 1)
    assert built.exit_code == 0, built.output
    assert run("verify", out).exit_code == 0


def test_manifests_and_schemas_are_printed() -> None:
    assert "61,225 fits  300W-LP" in run("manifests").stdout
    for what in ("manifest", "index", "corrections", "candidates"):
        assert json.loads(run("schema", what).stdout)["type"] == "object"


def test_wrong_input_is_one_line_and_exit_1(corpus: Path, dataset: Path, tmp_path: Path) -> None:
    (tmp_path / "text.yaml").write_text("hello")
    (tmp_path / "file").write_text("hello")
    out = tmp_path / "out"
    model = corpus / "model.safetensors"
    assert "no manifest 'nobody'" in fails("build", "nobody", "--out", out)
    assert "where is 300W-LP? Give its folder with --root" in fails("build", "300w_lp", "--out", out)
    assert "which morphable model?" in fails("build", "300w_lp", "--root", tmp_path, "--out", out)
    assert "is not a folder" in fails("build", "300w_lp", "--root", tmp_path / "x", "--model", model, "--out", out)
    assert "holds no fit" in fails("build", "300w_lp", "--root", tmp_path, "--model", model, "--out", out)
    assert "text.yaml" in fails("build", tmp_path / "text.yaml", "--out", out)
    bad = ("build", "demo", "--root", corpus, "--jobs", 1)
    assert "does not exist" in fails(*bad, "--index", tmp_path / "none.yaml", "--out", out)
    assert "not a vertex index" in fails(*bad, "--index", tmp_path / "text.yaml", "--out", out)
    assert "not a readable model" in fails(*bad, "--model", tmp_path / "file", "--out", out)
    assert not out.exists()
    assert "shard_size" in fails(*bad, "--shard-size", 100000, "--out", out)
    assert "max_rejects" in fails(*bad, "--max-rejects", "nan", "--out", out)
    assert "seed" in fails(*bad, "--seed", 10**30, "--out", out)
    (tmp_path / "text.yaml").write_text("a: !!timestamp x")
    assert "not readable YAML" in fails("build", tmp_path / "text.yaml", "--out", out)
    assert "too few to triangulate" in fails("index", "sample", out, "--model", model, "--seeds", "nose-tip")
    assert "01_MorphableModel.mat (from" in fails("model", "build", tmp_path, tmp_path / "m.safetensors")
    assert "does not exist" in fails(
        "model", "convert", tmp_path / "B.mat", "--uv", tmp_path / "U.mat", tmp_path / "m.safetensors"
    )
    for making in (("build", tmp_path), ("convert", tmp_path / "B.mat", "--uv", tmp_path / "U.mat")):
        assert "name it m.safetensors" in fails("model", *making, tmp_path / "m.npz")
    assert "does not exist" in fails("model", "info", tmp_path / "m.safetensors")
    assert "no finished build is here" in fails("verify", tmp_path)
    assert "no sample 'x'" in fails("inspect", dataset, "--sample", "x")
    assert "no seed group" in fails("index", "sample", tmp_path / "c.yaml", "--model", model, "--seeds", "ears")
    assert str(tmp_path / "file") in fails("synth", tmp_path / "file", "--samples", 1, "--jobs", 1)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["file", "text.yaml"]


def test_a_folder_that_is_a_file_is_refused(corpus: Path, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("hello")
    common = ("build", "demo", "--root", corpus, "--jobs", 1)
    result = run(*common, "--out", tmp_path / "file")
    assert result.exit_code == 1
    assert result.stderr.splitlines()[-1].endswith("is not a folder: choose another one")


def test_wrong_usage_is_exit_2() -> None:
    assert run("build").exit_code == 2
    assert run("build", "demo", "--out", "x", "--jobs", 0).exit_code == 2
    assert run("build", "demo", "--out", "x", "--flip", "sideways").exit_code == 2
    assert run("nothing").exit_code == 2


def test_a_missing_dask_names_its_install_line(corpus: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "distributed", None)
    result = run("build", "demo", "--root", corpus, "--out", tmp_path / "out", "--scheduler", "tcp://127.0.0.1:1")
    assert result.exit_code == 1
    assert re.search(r"--scheduler needs Dask: pip install .*\[cluster\]'$", result.stderr.splitlines()[-1])


def test_a_manifest_that_comes_along_can_be_begun_with(tmp_path: Path) -> None:
    (tmp_path / "mine.yaml").write_text(run("manifests", "300w_lp").stdout)
    assert read_manifest(tmp_path / "mine.yaml") == read_manifest("300w_lp")


def test_what_cannot_be_is_said_before_anything_is_drawn(tmp_path: Path) -> None:
    for dry in ((), ("--dry-run",)):
        line = fails("build", "demo", "--flip", "shipped", "--out", tmp_path / "out", *dry)
        assert "demo has no 'shipped' flips: use one of" in line
    assert not list(tmp_path.iterdir())
