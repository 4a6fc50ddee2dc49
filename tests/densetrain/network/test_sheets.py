"""The sheets beside an exported network: how to use it without densetrain."""

from __future__ import annotations

import functools
import json
import re
import runpy
import shutil
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import onnx
import pytest
import yaml

from densegen.geometry.crop import crop_of_box, warp
from densegen.sources.photograph import read_photograph
from densetrain import load, predict
from tests.browser import FLAGS, find_browser

BOX = (120.0, 110.0, 330.0, 340.0)


@pytest.fixture(params=[1.0, 1.1, 1.5, 4.0])
def photograph(request: pytest.FixtureRequest, corpus: Path, tmp_path: Path) -> tuple[Path, tuple[float, ...]]:
    """A photograph and its box: the crop takes 1.3 pixels for one, or that many times as many. Noise shows what is
    averaged: 1.4 pixels are not, 1.9 are.
    """
    small = corpus / "SYNTH/SYNTH_00000_0.jpg"
    if request.param == 1:
        return small, BOX
    from PIL import Image

    image = Image.open(small)
    larger = np.asarray(image.resize((round(image.width * request.param), round(image.height * request.param))), float)
    noisy = (larger + np.random.default_rng(0).normal(0, 15, larger.shape)).clip(0, 255).astype(np.uint8)
    Image.fromarray(noisy).save(tmp_path / "larger.png")
    return tmp_path / "larger.png", tuple(request.param * side + 1 for side in BOX)


def test_the_python_sheet_finds_what_densetrain_finds(
    exported: Path, photograph: tuple[Path, tuple[float, ...]]
) -> None:
    path, box = photograph
    made = subprocess.run(
        [sys.executable, str(exported / "use_onnx.py"), str(path), *map(str, box)],
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    network = load(exported / "model.onnx")
    (face,) = predict(network, path, boxes=[box])
    rows = [line.split() for line in made.stdout.splitlines()]
    assert [row[1] for row in rows] == [landmark.name for landmark in network.index.landmarks]
    found = np.array([row[2:] for row in rows], float)
    scale = (box[2] - box[0]) / 210
    assert np.abs(found - face.landmarks).max() < 1.0 * scale  # the crop is interpolated by another library


def test_the_python_sheet_sees_what_densetrain_sees(
    exported: Path, photograph: tuple[Path, tuple[float, ...]], monkeypatch: pytest.MonkeyPatch
) -> None:
    path, box = photograph
    monkeypatch.setattr(sys, "argv", ["use_onnx.py", str(path), *map(str, box)])
    (theirs,) = runpy.run_path(str(exported / "use_onnx.py"))["images"]
    network = load(exported / "model.onnx")
    ours = warp(read_photograph(path), crop_of_box(np.array(box), network.about.margin, 256)).transpose(2, 0, 1)
    difference = np.abs(theirs - ours.astype(float))
    assert difference.mean() < 1.0
    assert np.percentile(difference, 99) < 8


def test_the_python_sheet_says_how_it_is_called(exported: Path) -> None:
    made = subprocess.run([sys.executable, str(exported / "use_onnx.py")], capture_output=True, text=True, check=False)
    assert made.returncode == 1
    assert made.stderr.endswith("python use_onnx.py photo.jpg LEFT TOP RIGHT BOTTOM\n")
    assert "Traceback" not in made.stderr


def test_the_metadata_holds_plain_tables(exported: Path) -> None:
    about = json.loads((exported / "config.json").read_text())
    index = load(exported / "model.onnx").index
    assert [one["name"] for one in about["landmarks"]] == [landmark.name for landmark in index.landmarks]
    assert np.array(about["triangles"]).shape[1] == 3
    assert np.array(about["triangles"]).max() < len(index)
    assert [ids for (ids,) in about["subsets"]["ibug68"]] == list(range(68))
    assert about["tensors"]["images"]["shape"] == ["batch", 3, 256, 256]
    for name in ("model.onnx", "model-fp16.onnx", "model-int8.onnx"):
        model = onnx.load(str(exported / name))
        used = {node.domain for node in model.graph.node} | {""}
        assert {one.domain for one in model.opset_import} <= used
        (described,) = (p.value for p in model.metadata_props if p.key == "densetrain")
        assert json.loads(described) == about


def test_the_card_has_the_front_matter_of_a_hub_and_code_that_is_the_sheet(exported: Path) -> None:
    card = (exported / "README.md").read_text()
    front = yaml.safe_load(card.split("---")[1])
    assert front["pipeline_tag"] == "keypoint-detection"
    (code,) = re.findall(r"```python\n(.*?)```", card, re.S)
    assert code == (exported / "use_onnx.py").read_text()


@pytest.fixture
def server(exported: Path, tmp_path: Path) -> Iterator[str]:
    folder = tmp_path / "site"
    shutil.copytree(exported, folder)
    # A runtime that keeps what it is given: the sheet's own part is tested, not somebody's runtime.
    (folder / "ort.min.js").write_text(
        "globalThis.ort = {Tensor: class { constructor(kind, data, dims) { this.data = data; this.dims = dims; } },"
        "InferenceSession: {create: async () => ({run: async ({images}) => { globalThis.seen = images;"
        "const n = 520, data = new Float32Array(3 * n).map((_, i) => i % 200); return {landmarks: {data}}; }})}};"
    )
    handler = functools.partial(SimpleHTTPRequestHandler, directory=str(folder))
    handler.func.log_message = lambda *_: None  # type: ignore[attr-defined]
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as served:
        threading.Thread(target=served.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{served.server_port}"
        served.shutdown()


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")  # of the libraries between here and the browser
@pytest.mark.skipif(find_browser() is None, reason="no Chromium here")
def test_the_browser_sheet_crops_and_maps_as_densetrain_does(
    server: str, exported: Path, photograph: tuple[Path, tuple[float, ...]]
) -> None:
    sync_api = pytest.importorskip("playwright.sync_api")
    path, box = photograph
    with sync_api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=find_browser(), args=FLAGS)
        page = browser.new_page()
        page.goto(f"{server}/use_onnx.html")
        page.set_input_files("#file", str(path))
        page.wait_for_function("photo !== null")
        found = page.evaluate(
            "async (box) => { const {about, session} = await ready; return landmarksOf(session, photo, box, about); }",
            list(box),
        )
        tensor = page.evaluate("({dims: seen.dims, data: Array.from(seen.data)})")
        # And as a person does it: a box is drawn with the pointer.
        page.mouse.move(60, 150)
        page.mouse.down()
        page.mouse.move(200, 300, steps=4)
        page.mouse.up()
        page.wait_for_function("found !== null")
        assert "520 landmarks" in page.locator("#says").inner_text()
        browser.close()
    network = load(exported / "model.onnx")
    image = read_photograph(path)
    crop = crop_of_box(np.array(box), network.about.margin, 256)
    ours = warp(image, crop).astype(float)
    theirs = np.array(tensor["data"]).reshape(tensor["dims"])[0].transpose(1, 2, 0)
    difference = np.abs(theirs - ours)
    assert difference.mean() < 1.0
    assert np.percentile(difference, 99) < 8
    constant = (np.arange(3 * 520) % 200).reshape(520, 3).astype(np.float32)
    np.testing.assert_allclose(found, crop.invert(constant), atol=1e-2)
