"""Make the pictures of these pages from the embedded face: ``make pictures``."""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import simplejpeg
from matplotlib.collections import PolyCollection
from matplotlib.figure import Figure
from PIL import Image

from densegen.dataset.build import build, plan_build
from densegen.dataset.preview import draw_sample
from densegen.dataset.shard_set import open_dataset
from densegen.dataset.shards import ShardReader
from densegen.drawing import REGION_COLOURS, contact_sheet, depth_colours, draw_points
from densegen.editor.session import EditSession
from densegen.face.morphable_model import MorphableModel
from densegen.face.regions import REGIONS
from densegen.files import find_data_file
from densegen.fitting.face_mesh import draw_reconstruction
from densegen.fitting.face_tasks import tasks_of_photographs
from densegen.fitting.fit_folder import run_tasks
from densegen.fitting.fitter import FitSettings, make_fitter
from densegen.fitting.model_points import ibug68_points
from densegen.fitting.prior import prior_of_model
from densegen.fitting.reconstruction import Reconstructor
from densegen.fitting.report import draw_overlays
from densegen.geometry.uv import uv_pixels
from densegen.index.candidates import SEEDS, sample_candidates
from densegen.index.corrections import read_corrections
from densegen.index.figures import draw_coverage, draw_uv, draw_views
from densegen.index.quality import farthest_point_index, measure
from densegen.index.vertex_index import read_index
from densegen.sources.annotations import Annotations, FaceMarks
from densegen.sources.fits import read_fit
from densegen.sources.manifest import BuildSettings, choose_settings, read_manifest
from densegen.sources.photograph import read_photograph
from densegen.synthetic.corpus import make_portrait, write_corpus
from densegen.synthetic.face import face_model

IMAGES = Path(__file__).parent / "images"
sys.path.insert(0, str(Path(__file__).resolve().parent.parent))  # tests.browser
EXPRESSIONS_SHOWN = ("mouth-open", "smile", "frown", "pucker", "brow-raise", "blink")


def save(image: np.ndarray, name: str) -> None:
    Image.fromarray(image).save(IMAGES / name, quality=85)


def portraits() -> None:
    save(contact_sheet([make_portrait(0, n)[1][25:425:2, 25:425:2] for n in range(0, 40, 2)][:14], 7), "portraits.jpg")


def sample(folder: Path) -> None:
    corpus, out = folder / "corpus", folder / "out"
    write_corpus(corpus, 24, seed=0)
    settings = BuildSettings(position_maps=True, shard_size=64)
    plan = plan_build(read_manifest("demo"), corpus, corpus / "model.safetensors", find_data_file(INDEX), settings)
    build(plan, out)
    for name, sample_id in {
        "sample.png": "SYNTH/SYNTH_00002_1",
        "sample_mirror.png": "SYNTH/SYNTH_00002_1+mirror",
    }.items():
        draw_sample(out, sample_id, IMAGES / name)
    tiles = []
    with ShardReader(out / "shard-00000.h5") as shard:
        for row in range(2, 46, 4):
            points = shard.array("landmarks")[row]
            tiles.append(
                draw_points(
                    simplejpeg.decode_jpeg(shard.jpeg(row), "RGB"), points, depth_colours(points), scale=1, radius=1
                )
            )
    save(contact_sheet(tiles[:10], 5), "samples.jpg")


def crops(folder: Path) -> None:
    """One fit, cropped in five ways."""
    index = find_data_file(INDEX)
    figure = Figure(figsize=(15, 3.4), layout="constrained")
    panels = figure.subplots(1, len(CROPS))
    for number, (axes, (title, changes)) in enumerate(zip(panels, CROPS.items(), strict=True)):
        settings, crop = choose_settings(read_manifest("demo"), limit=3, shard_size=8, **changes)
        plan = plan_build(read_manifest("demo"), folder / "corpus", None, index, settings, crop)
        build(plan, folder / f"crops{number}")
        sample = open_dataset(folder / f"crops{number}")[4]
        axes.imshow(sample.image)
        axes.plot(*sample.keypoints68[:, :2].T, ".", color="white", markersize=3)
        axes.set_title(title, fontsize=9)
    figure.savefig(IMAGES / "crops.png", dpi=80)


INDEX = "vertex_index_520.yaml"
NO_JITTER = {"scale_jitter": 0, "shift_jitter": 0}
CROPS: dict[str, dict[str, Any]] = {
    "as published: margin 1.5, jittered": {},
    "no jitter (the split test)": NO_JITTER,
    "--margin 1.2": NO_JITTER | {"margin": 1.2},
    "--margin 2.2": NO_JITTER | {"margin": 2.2},
    "--crop-size 64": NO_JITTER | {"crop_size": 64},
}


def mesh(axes: object, model: MorphableModel, vertices: np.ndarray, yaw: float) -> None:
    turn = np.array([[np.cos(yaw), 0, np.sin(yaw)], [0, 1, 0], [-np.sin(yaw), 0, np.cos(yaw)]])
    corners = (vertices @ turn.T / 1000)[model.triangles]
    normals = np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0])
    normals /= np.linalg.norm(normals, axis=1, keepdims=True)
    light = np.clip(normals @ [0.35, 0.45, 0.82], 0, 1) * 0.85 + 0.12
    seen = np.argsort(corners[:, :, 2].mean(axis=1))
    seen = seen[normals[seen, 2] > 0]
    grey = np.repeat(light[seen, None], 3, axis=1)
    axes.add_collection(PolyCollection(corners[seen][:, :, :2], facecolors=grey, edgecolors=grey, linewidths=0.2))  # type: ignore[attr-defined]
    axes.set(xlim=(-130, 130), ylim=(-115, 110), aspect="equal")  # type: ignore[attr-defined]
    axes.set_axis_off()  # type: ignore[attr-defined]


def components() -> None:
    model = face_model()
    figure = Figure(figsize=(14, 4.6), layout="constrained")
    rows = figure.subplots(2, 7)
    for axes, yaw in zip(rows[0][:3], (0.0, -0.7, -1.5), strict=True):
        mesh(axes, model, model.mean, yaw)
        axes.set_title(f"mean, {np.rad2deg(-yaw):.0f}°", fontsize=9)
    for axes, name in zip(rows[0][3:], ("jaw-width", "nose-length", "forehead-height", "cheek-fullness"), strict=True):
        mesh(axes, model, model.mean + 2 * model.shape_basis[model.shape_names.index(name)], -0.3)
        axes.set_title(f"{name}, +2", fontsize=9)
    for axes, name in zip(rows[1], (*EXPRESSIONS_SHOWN, "cheek-puff"), strict=True):
        mesh(axes, model, model.mean + model.expression_basis[model.expression_names.index(name)], -0.3)
        axes.set_title(name, fontsize=9)
    figure.savefig(IMAGES / "components.png", dpi=80)


def rounds() -> None:
    model = face_model()
    candidates = sample_candidates(model, tuple(SEEDS))
    index = read_index(find_data_file(INDEX))
    figure = Figure(figsize=(15, 4.3), layout="constrained")
    panels = figure.subplots(1, 4)
    for axes in panels:
        axes.set(xlim=(0, 255), ylim=(255, 0), aspect="equal", xticks=(0, 127.5, 255), yticks=(0, 255))
        axes.tick_params(labelsize=7)
    colours = ("#222222", "#cc3311", "#ee7733", "#33bbee")
    for number, points in enumerate(candidates.rounds):
        for axes in panels[:2] if number < 2 else panels[1:2]:
            axes.plot(
                *np.array(points).T,
                ".",
                color=colours[number],
                markersize=9 - 2 * number,
                label=f"round {number}: {len(points)}",
            )
    panels[0].set_title("the 28 seeds and the first round's centroids", fontsize=9)
    panels[1].set_title(f"three rounds: {' → '.join(map(str, candidates.counts))}", fontsize=9)
    panels[1].legend(fontsize=7, loc="lower left")
    added = np.array([a.uv for a in read_corrections(find_data_file("corrections_bfm.yaml")).add])
    kept = np.array([m.uv for m in index.landmarks if m.origin.startswith("delaunay")])
    panels[2].plot(*kept.T, ".", color="#33bbee", markersize=4, label=f"kept candidates: {len(kept)}")
    panels[2].plot(*added.T, ".", color="#009988", markersize=5, label=f"added: {len(added)}, and mirrored")
    panels[2].plot(*uv_pixels(model.uv[model.keypoints68]).T, ".", color="#222222", markersize=4, label="the iBUG 68")
    panels[2].legend(fontsize=7, loc="lower left")
    panels[2].set_title("the corrections", fontsize=9)
    for region in REGIONS:
        points = np.array([m.uv for m in index.landmarks if m.region == region])
        panels[3].plot(*points.T, ".", color=REGION_COLOURS[region], markersize=6, label=region)
    panels[3].legend(fontsize=6, loc="lower left", ncols=3)
    panels[3].set_title("the 520 by region", fontsize=9)
    figure.savefig(IMAGES / "index_rounds.png", dpi=80)


def index_pictures() -> None:
    model, index = face_model(), read_index(find_data_file(INDEX))
    draw_uv(index, IMAGES / "index_uv.png")
    draw_views(index, model, IMAGES / "index_views.png")
    baselines = [farthest_point_index(model, count) for count in (520, 68)]
    draw_coverage([measure(one, model) for one in (index, *baselines)], IMAGES / "index_coverage.png")


def editor(folder: Path) -> None:
    """The editing page, in a headless Chromium if there is one."""
    from tests.browser import find_browser, visit

    if find_browser() is None:
        print("no Chromium here: index_editor.png stays as it is")
        return
    session = EditSession.open(read_index(find_data_file(INDEX)), face_model(), folder / "c.yaml")
    with visit(session, 8097, (1500, 820)) as person:
        person.click_at(person.page.face[dict(session.names())["cheek-add-10-l"]])
        person.check(1)
        person.check(2)
        person.picture(IMAGES / "index_editor.png")


def fits(folder: Path) -> None:
    """Fits of noisy points, and the surfaces that clean ones make."""
    model = face_model()
    photos = folder / "photos"
    write_corpus(folder / "faces", 24, seed=5)
    photos.mkdir()
    generator, marks, boxes = np.random.default_rng(0), [], []
    for path in sorted((folder / "faces/SYNTH").glob("*.mat")):
        keypoints = read_fit(path).keypoints_3d
        assert keypoints is not None
        points = keypoints[:2].T - 1.0
        size = float(np.sqrt(np.prod(np.ptp(points, axis=0))))
        noisy = points + generator.normal(0, 0.02 * size, points.shape)
        noisy[generator.integers(68)] += 0.3 * size
        marks.append(FaceMarks(f"{path.stem}.jpg", noisy))
        boxes.append(points)
        (photos / f"{path.stem}.jpg").write_bytes(path.with_suffix(".jpg").read_bytes())
    annotations = Annotations("ibug68", tuple(map(str, range(68))), tuple(marks), 0)
    settings = FitSettings()
    fitter = make_fitter(annotations, model, read_index(), prior_of_model(model), settings)
    tasks, _ = tasks_of_photographs(photos, annotations)
    outcomes = run_tasks(fitter, tasks, folder / "fits")
    draw_overlays(folder / "overlays.png", outcomes, folder / "fits")
    save(read_photograph(folder / "overlays.png"), "fits.jpg")
    find = Reconstructor(model, ibug68_points(model), prior_of_model(model), robust=True, sigma=0.005)
    tiles = []
    for row in (1, 6, 9, 14):
        image = read_photograph(photos / marks[row].image)
        tiles.append(draw_reconstruction(image, [find(boxes[row], len(image))], model)[60:400, :])
    save(contact_sheet(tiles, 2)[::2, ::2], "reconstructed.jpg")


if __name__ == "__main__":
    IMAGES.mkdir(exist_ok=True)
    index_pictures()
    with tempfile.TemporaryDirectory() as scratch:
        sample(Path(scratch))
        crops(Path(scratch))
        fits(Path(scratch))
        editor(Path(scratch))
    portraits()
    components()
    rounds()
