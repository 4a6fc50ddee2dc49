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
from densegen.dataset.pipeline import mesh_in_image
from densegen.dataset.preview import draw_sample, list_samples
from densegen.dataset.shard_set import open_dataset
from densegen.dataset.shards import ShardReader
from densegen.drawing import REGION_COLOURS, contact_sheet, depth_colours, draw_points, with_depth_bar
from densegen.editor.session import EditSession
from densegen.face.morphable_model import MorphableModel
from densegen.face.regions import REGIONS
from densegen.files import find_data_file
from densegen.fitting.face_mesh import draw_reconstruction
from densegen.fitting.face_tasks import tasks_of_photographs
from densegen.fitting.fit_folder import run_tasks, writing
from densegen.fitting.fitter import FitterSettings, make_fitter
from densegen.fitting.model_points import ibug68_points
from densegen.fitting.prior import prior_of_model
from densegen.fitting.reconstruction import Reconstructor
from densegen.fitting.report import draw_overlays
from densegen.geometry.crop import box_around, crop_of_box, warp
from densegen.geometry.pose import pose_vertices
from densegen.geometry.position_map import make_uv_table
from densegen.geometry.renderer import rasterise, vertex_normals
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
    turned = next(name for name, _, yaw in list_samples(out) if 20 < abs(yaw) < 30 and not name.endswith("+mirror"))
    draw_sample(out, turned, IMAGES / "sample.png")
    draw_sample(out, f"{turned}+mirror", IMAGES / "sample_mirror.png")
    tiles = []
    with ShardReader(out / "shard-00000.h5") as shard:
        for row in (2, 6, 10, 22, 30, 38):
            points = shard.array("landmarks")[row]
            image = simplejpeg.decode_jpeg(shard.jpeg(row), "RGB")
            tiles.append(draw_points(image, points, depth_colours(points), scale=2, radius=2.2, rim=1.0))
    save(with_depth_bar(contact_sheet(tiles, 3)), "samples.jpg")


def pipeline() -> None:
    """What becomes of one photograph, step by step: a face turned by about 25 degrees."""
    model, index = face_model(), read_index(find_data_file(INDEX))
    fit, image = next(
        (fit, image) for fit, image in (make_portrait(0, n) for n in range(200)) if 22 < np.rad2deg(-fit.pose[1]) < 28
    )
    mesh = mesh_in_image(model, fit, image.shape[0])
    keypoints = mesh[model.keypoints68]
    crop = crop_of_box(box_around(keypoints), 1.5, 256)
    small = warp(image, crop)
    posed = crop.apply(mesh)
    table = make_uv_table(model.uv, model.triangles)
    position_map = table.position_map(posed)
    landmarks = index.resolve(model).gather(posed)
    drawn = rasterise(mesh, model.outward_triangles, vertex_normals(mesh, model.outward_triangles), *image.shape[:2])
    shade = np.clip(-drawn[0] @ np.array([-0.3, 0.45, 0.84], np.float32), 0.1, 1)[..., None]
    over = np.where(np.isfinite(drawn[1])[..., None], 40 + 200 * shade, image).astype(np.uint8)
    shown = position_map - np.nanmin(np.where(table.valid[..., None], position_map, np.nan), axis=(0, 1))
    colours = np.where(table.valid[..., None], 255 * shown / np.nanmax(shown, axis=(0, 1)), 255).clip(0, 255)
    white = np.array([255, 255, 255], np.uint8)
    steps = [
        ("1  a photograph", image),
        ("2  its fit: the posed mesh", over),
        ("3  the 68 keypoints", draw_points(image, keypoints, white, scale=2, radius=4.0, rim=1.6)),
        ("4  the crop, 256 x 256", small),
        ("5  the UV position map", colours.astype(np.uint8)),
        (
            "6  520 landmarks, by depth",
            draw_points(small, landmarks, depth_colours(landmarks), scale=3, radius=3.2, rim=1.4),
        ),
    ]
    figure = Figure(figsize=(15, 3.1), layout="constrained")
    for axes, (title, picture) in zip(figure.subplots(1, len(steps)), steps, strict=True):
        axes.imshow(picture)
        axes.set_title(title, fontsize=11)
        axes.set_axis_off()
    figure.savefig(IMAGES / "pipeline.png", dpi=110)


def frames() -> None:
    """Where each frame begins, and which way its axes point."""
    fit, image = make_portrait(0, 1)
    model = face_model()
    mesh = mesh_in_image(model, fit, image.shape[0])
    crop = crop_of_box(box_around(mesh[model.keypoints68]), 1.5, 256)
    height, width = image.shape[:2]
    figure = Figure(figsize=(14, 4.6), layout="constrained")
    left, middle, right = figure.subplots(1, 3)
    left.imshow(image)
    corners = crop.invert(np.array([[0, 0, 0], [255, 0, 0], [255, 255, 0], [0, 255, 0], [0, 0, 0]], np.float32))
    left.plot(*corners[:, :2].T, color="#ff8800", linewidth=2)
    left.text(*(corners[0, :2] + [4, -6]), "crop", color="#ff8800", fontsize=10, weight="bold")
    for origin, x, y, name, colour in (
        ((0, 0), (90, 0), (0, 90), "image: (0, 0) is this pixel's centre", "#0055cc"),
        ((-1, height), (90, 0), (0, -90), "camera: MATLAB's pixels, from 1, y up", "#009944"),
    ):
        for way in (x, y):
            left.annotate("", np.add(origin, way), origin, arrowprops={"arrowstyle": "->", "color": colour, "lw": 2.5})
        left.text(origin[0] + 8, origin[1] + (22 if y[1] > 0 else -14), name, color=colour, fontsize=9, weight="bold",
                  bbox={"facecolor": "white", "alpha": 0.8, "edgecolor": "none", "pad": 2})  # fmt: skip
    left.set(xlim=(-12, width), ylim=(height + 12, -12), title="image and camera frame; the crop's square")
    middle.imshow(warp(image, crop))
    for way, name in (((60, 0), "x"), ((0, 60), "y")):
        middle.annotate("", way, (0, 0), arrowprops={"arrowstyle": "->", "color": "#ff8800", "lw": 2.5})
        middle.text(way[0] + 3, way[1] + 10, name, color="#ff8800", fontsize=11, weight="bold")
    middle.text(75, 48, "z: towards the viewer,\nsmallest of the mesh = 0", color="#ff8800", fontsize=9, weight="bold")
    middle.set(title="crop frame: corners are centres of pixels 0 and 255", xticks=(0, 255), yticks=(0, 255))
    pixels = uv_pixels(model.uv)
    right.triplot(*pixels.T, model.triangles, color="#bbbbbb", linewidth=0.15)
    right.plot(*pixels[model.keypoints68].T, ".", color="#cc3311", markersize=4)
    right.axvline(127.5, color="#0055cc", linestyle=":")
    right.set(xlim=(-4, 259), ylim=(259, -4), aspect="equal", xticks=(0, 127.5, 255), yticks=(0, 255),
              title="UV frame: column = 255 u, row = 255 (1 - v)")  # fmt: skip
    figure.savefig(IMAGES / "frames.png", dpi=90)


def signs() -> None:
    """What positive angles mean: each pose by the code that poses a fit."""
    model = face_model()
    figure = Figure(figsize=(14, 4.0), layout="constrained")
    names = {
        "all angles 0": (0, 0, 0),
        "pitch +25: the face looks up": (25, 0, 0),
        "yaw +25: turned towards the image's left,\nthe subject's right": (0, 25, 0),
        "roll +25: the top of the head leans\ntowards the image's right": (0, 0, 25),
    }
    for axes, (title, degrees) in zip(figure.subplots(1, 4), names.items(), strict=True):
        pose = np.array([*np.deg2rad(degrees), 0, 0, 0, 1e-3], np.float32)
        points = pose_vertices(model.mean, pose, 0) * [1, -1, 1]
        shaded(axes, model, points * 1000)
        axes.set_title(title, fontsize=10)
    figure.savefig(IMAGES / "signs.png", dpi=90)


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


def rim(folder: Path) -> None:
    """A photograph that was cut out around a face, as AFLW's are, in crops of two margins."""
    path = sorted((folder / "corpus/SYNTH").glob("*.jpg"))[2]
    points = read_fit(path.with_suffix(".mat")).keypoints_3d
    assert points is not None
    left, top, right, bottom = box_around(points.T - [1, 1, 0])
    half = 1.49 / 2 * ((right - left) + (bottom - top)) / 2
    x, y = round((left + right) / 2 - half), round((top + bottom) / 2 - half)
    picture = np.ascontiguousarray(read_photograph(path)[y : y + round(2 * half), x : x + round(2 * half)])
    box = np.array([left - x, top - y, right - x, bottom - y])
    figure = Figure(figsize=(9, 3.4), layout="constrained")
    shown = [("the photograph, 1.49 times the face", picture)]
    for margin in (1.5, 1.25):
        crop = crop_of_box(box, margin, 256, factor=1.1, shift=(0.06, 0.06))
        black = crop.share_outside(*picture.shape[:2])
        shown.append((f"margin {margin}, jittered: {black:.0%} black", warp(picture, crop)))
    for axes, (title, image) in zip(figure.subplots(1, 3), shown, strict=True):
        axes.imshow(image)
        axes.set_title(title, fontsize=10)
        axes.set(xticks=[], yticks=[])
    figure.savefig(IMAGES / "rim.png", dpi=80)


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
    shaded(axes, model, vertices @ turn.T)


def shaded(axes: object, model: MorphableModel, vertices: np.ndarray) -> None:
    """A face in grey from the front, (V, 3) micrometres, y up."""
    corners = (vertices / 1000)[model.outward_triangles]
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
        axes.set_title(f"mean, {abs(np.rad2deg(yaw)):.0f}°", fontsize=9)
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
    for size in (800, 1400, 2560):
        session = EditSession.open(read_index(find_data_file(INDEX)), face_model(), folder / f"{size}.yaml")
        with visit(session, 8090 + size % 7, (size, EDITOR_HEIGHT[size]), folder / "corpus") as person:
            page = person.page
            page.panel.heat.value = True
            page.draw()
            page._show_next_gap()
            if size < 2000:  # without a graphics card a large page is too slow to be clicked
                person.unfold("show")
            page.select("cheek-add-10-l")
            person.tab.wait_for_timeout(6000)
            person.picture(folder / "editor.png")
        name = "index_editor.png" if size == 1400 else f"index_editor_{size}.png"
        Image.open(folder / "editor.png").convert("RGB").quantize(256).save(IMAGES / name, optimize=True)
    session = EditSession.open(read_index(find_data_file(INDEX)), face_model(), folder / "front.yaml")
    with visit(session, 8099, (1400, 800), folder / "corpus") as person:
        person.page.panel.sample.value = 7
        person.page._show_sample()
        person.press("front")
        person.page._edit(lambda: person.page._step("Up"))
        person.tab.wait_for_timeout(8000)
        person.picture(folder / "editor.png")
    Image.open(folder / "editor.png").convert("RGB").quantize(256).save(
        IMAGES / "index_editor_front.png", optimize=True
    )


EDITOR_HEIGHT = {800: 600, 1400: 820, 2560: 1300}


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
    settings = FitterSettings()
    fitter = make_fitter([annotations], model, read_index(), prior_of_model(model), settings)
    tasks, _ = tasks_of_photographs(photos, [annotations])
    with writing(folder / "fits", tasks):
        outcomes = run_tasks(fitter, tasks, folder / "fits")
    draw_overlays(folder / "overlays.png", outcomes, folder / "fits")
    save(read_photograph(folder / "overlays.png"), "fits.jpg")
    find = Reconstructor(model, ibug68_points(model), prior_of_model(model), robust=True, sigma=0.005)
    tiles = []
    for row in (1, 6, 9, 14):
        image = read_photograph(photos / marks[row].image)
        tiles.append(draw_reconstruction(image, [find(boxes[row], len(image))], model)[60:400, :])
    save(contact_sheet(tiles, 2)[::2, ::2], "reconstructed.jpg")


def expected_nme() -> None:
    """The table of ``accuracy.md``, drawn."""
    from matplotlib.figure import Figure

    table = (
        Path(__file__)
        .with_name("accuracy.md")
        .read_text()
        .split("| expected NME, % | true NME, % |")[1]
        .split("\n\n")[0]
    )
    rows = [[float(cell) for cell in line.strip("| ").split("|")] for line in table.splitlines()[2:]]
    expected, true = np.array(rows).T
    figure = Figure(figsize=(4.2, 3.2), layout="constrained")
    axes = figure.subplots()
    axes.plot(expected, true, "o-", color="#4477aa")
    axes.plot([1.5, 5.5], [1.5, 5.5], color="#888888", linewidth=1, linestyle="--")
    axes.set(xlabel="expected NME, %", ylabel="true NME, %", xlim=(1.5, 3.5), ylim=(1.5, 5.6))
    figure.savefig(IMAGES / "expected_nme.png", dpi=110, metadata={"Software": None})


if __name__ == "__main__":
    IMAGES.mkdir(exist_ok=True)
    expected_nme()
    pipeline()
    frames()
    signs()
    index_pictures()
    with tempfile.TemporaryDirectory() as scratch:
        sample(Path(scratch))
        crops(Path(scratch))
        rim(Path(scratch))
        fits(Path(scratch))
        editor(Path(scratch))
    portraits()
    components()
    rounds()
