"""Make the pictures of the training pages from what ``make demo`` left: ``make pictures``, ten minutes.

With names of functions, those alone: ``python docs/make_training_pictures.py backbones`` trains five networks in two
hours.
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
from PIL import Image

from densegen.dataset.shard_set import open_dataset
from densegen.drawing import contact_sheet, depth_colours, draw_lines, draw_points, with_depth_bar
from densegen.face.model_file import read_model
from densegen.fitting.face_tasks import tasks_of_photographs
from densegen.fitting.fitter import FitterSettings, make_fitter
from densegen.fitting.prior import prior_of_model
from densegen.geometry.crop import box_around, box_size, crop_of_box, warp
from densegen.index.formats.mesh import landmark_triangles
from densegen.sources.annotations import Annotations, FaceMarks
from densegen.sources.fits import read_fit
from densegen.sources.manifest_init import fits_below
from densegen.sources.photograph import read_photograph
from densetrain.config import read_settings
from densetrain.evaluation.evaluate import evaluate_shards
from densetrain.evaluation.metrics import points21
from densetrain.evaluation.report import draw_ced
from densetrain.network.checkpoint import load_regressor
from densetrain.network.profile import profile
from densetrain.network.regressor import FlipTested
from densetrain.prediction.annotate import annotate
from densetrain.prediction.drawing import draw_faces
from densetrain.prediction.faces import find_faces
from densetrain.preview import draw_augmented
from densetrain.training.fit import fit

ROOT = Path(__file__).resolve().parent.parent
IMAGES, DEMO = ROOT / "docs/images", ROOT / "demo"

SMALL = (
    "model.backbone=mobilenet_v2", "model.width=0.5", "model.input_size=96", "loss.name=hybrid",
    "loss.axis_weights=[1, 1, 1]",
)  # fmt: skip
"""What the studies of losses and backbones train, beside the settings ``demo``."""
sys.path.insert(0, str(ROOT))  # tests.browser
LOSSES = ("hybrid", "wing", "mse", "l1", "smooth-l1")
EPOCHS = 6
BACKBONES: dict[str, tuple[str, tuple[str, ...]]] = {
    "mobilenet_v2": ("MobileNetV2", ()),
    "resnet18": ("ResNet-18", ()),
    # It normalises pooled features over the batch, and 16 crops are too few for that; twice the epochs, half the steps.
    "timm:mobilenetv4_conv_small": ("MobileNetV4 small*", ("data.batch_size=64", "trainer.epochs=32")),
    "timm:efficientnet_lite0": ("EfficientNet-lite0", ()),
    "timm:repvit_m0_9": ("RepViT m0.9", ()),
}


def save(image: np.ndarray, name: str) -> None:
    Image.fromarray(image).save(IMAGES / name, quality=85)


def augmented() -> None:
    sheet = DEMO / "augmented.png"
    draw_augmented(open_dataset(DEMO / "shards"), read_settings("paper"), 8, sheet, columns=4)
    save(np.asarray(Image.open(sheet).convert("RGB")), "augmented.jpg")


def held_out() -> None:
    worst = Image.open(DEMO / "run/evaluation/shards-validation-worst.png").convert("RGB")
    save(np.asarray(worst), "worst.jpg")
    ced = Image.open(DEMO / "run/evaluation/shards-validation-ced.png").convert("RGB")
    ced.quantize(64).save(IMAGES / "ced.png", optimize=True)
    curves = Image.open(DEMO / "report/training.png").convert("RGB")
    curves.quantize(64).save(IMAGES / "training.png", optimize=True)
    page(DEMO / "report/report.html", IMAGES / "report.png")


def page(file: Path, picture: Path) -> None:
    """A page as a browser shows it, if there is one."""
    from tests.browser import FLAGS, find_browser

    if find_browser() is None:
        print(f"no Chromium here: {picture.name} stays as it is")
        return
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=find_browser(), args=FLAGS)
        tab = browser.new_page(viewport={"width": 1150, "height": 760})
        tab.goto(file.as_uri())
        tab.screenshot(path=str(picture))
        browser.close()
    Image.open(picture).convert("RGB").quantize(128).save(picture, optimize=True)


def qualitative() -> None:
    """Unseen faces from the front to the side: the photograph, the landmarks by depth, the mesh."""
    regressor, shards = load_regressor(DEMO / "run"), open_dataset(DEMO / "shards")
    triangles = landmark_triangles(regressor.index)
    rows = [row for row in shards.rows("validation") if not shards.mirrored[row]]
    rows.sort(key=lambda row: abs(shards.pose[row, 1]))
    reader, tiles = shards.open(), []
    for row in (rows[int(share * (len(rows) - 1))] for share in (0.02, 0.3, 0.55, 0.8, 0.97)):
        image = reader.image(int(row))
        found = regressor(image[None])[0]
        twice = np.repeat(np.repeat(image, 2, axis=0), 2, axis=1)
        points = draw_points(image, found, depth_colours(found), scale=2, radius=2.4, rim=1.0)
        places = (found[:, :2] + 0.5) * 2 - 0.5
        edges = triangles[:, [0, 1, 1, 2, 2, 0]].reshape(-1, 2)
        lines = draw_lines(twice, places[edges[:, 0]], places[edges[:, 1]], (235, 235, 235), scale=1)
        tiles.append(np.concatenate([twice, points, lines]))
    reader.close()
    save(with_depth_bar(contact_sheet(tiles, 5)), "qualitative.jpg")


def predicted() -> None:
    """Three portraits of people that the network never saw."""
    regressor, shards = load_regressor(DEMO / "run"), open_dataset(DEMO / "shards")
    triangles, tiles = landmark_triangles(regressor.index), []
    ids = [str(shards.sample_ids[row]) for row in shards.rows("validation")]
    originals = [name for name in ids if not name.endswith("+mirror")]
    turned = {name: abs(read_fit(DEMO / f"corpus/{name}.mat").pose[1]) for name in originals}
    order = sorted(originals, key=lambda name: turned[name])
    for name in (order[0], order[len(order) // 3], order[2 * len(order) // 3]):
        fit_of, image = read_fit(DEMO / f"corpus/{name}.mat"), np.asarray(Image.open(DEMO / f"corpus/{name}.jpg"))
        assert fit_of.keypoints_3d is not None
        points = fit_of.keypoints_3d[:2].T - 1
        box = np.concatenate([points.min(axis=0), points.max(axis=0)])
        drawn = Image.fromarray(draw_faces(image, find_faces(regressor, image, box[None]), triangles))
        centre, reach = box[:2] + box[2:], 1.7 * (box[2:] - box[:2]).max()
        around = (*(centre - [reach, 1.2 * reach]), *(centre + [reach, 0.8 * reach]))
        tiles.append(np.asarray(drawn.resize((448, 448), Image.Resampling.LANCZOS, tuple(map(float, around)))))
    save(contact_sheet(tiles, 3), "predicted.jpg")


def together() -> None:
    """Fits of a person's noisy points, a network's landmarks, and fits of both, each against the true 68."""
    model, regressor, shards = (
        read_model(DEMO / "corpus/model.safetensors"),
        load_regressor(DEMO / "run"),
        DEMO / "shards",
    )
    unseen = open_dataset(shards)
    ids = {str(unseen.sample_ids[row]) for row in unseen.rows("validation")}
    entries = [entry for entry in fits_below(DEMO / "corpus")[1] if entry.sample_id in ids][::4]
    found, generator = annotate(FlipTested(regressor), entries, DEMO / "corpus"), np.random.default_rng(0)
    many = tuple(FaceMarks(n, p.astype(np.float64)) for n, p in zip(found.names, found.landmarks, strict=True))
    true, few = {}, []
    for entry, name in zip(entries, found.names, strict=True):
        keypoints = read_fit(entry.fit).keypoints_3d
        assert keypoints is not None
        true[name] = keypoints[:2].T - 1.0
        marks = points21(true[name][None])[0].astype(np.float64)
        few.append(FaceMarks(name, marks + generator.normal(0, 0.03 * float(box_size(true[name])), marks.shape)))
    person = Annotations("aflw21", tuple(map(str, range(21))), tuple(few), 0)
    network = Annotations("names", tuple(map(str, range(len(regressor.index)))), many, 0)
    answers = regressor.index.subset("ibug68", np.pad(found.landmarks, ((0, 0), (0, 0), (0, 1))))
    shown: list[dict[str, np.ndarray]] = []
    for sources, sigma in (([person], (0.03,)), ([person, network], (0.03, 0.4))):
        settings = FitterSettings(sigma=sigma, max_residual=1.0)
        fitter = make_fitter(sources, model, regressor.index, prior_of_model(model), settings)
        outcomes = [fitter.run(task) for task in tasks_of_photographs(DEMO / "corpus", sources)[0]]
        fitted = {one.task.name.removeprefix("FITS/"): f.keypoints_3d for one, f in outcomes if f is not None}
        shown.append({name: places[:2].T - 1.0 for name, places in fitted.items() if places is not None})
    shown.insert(1, dict(zip(found.names, answers[..., :2], strict=True)))
    for title, places in zip(("a person's 21", "a network's 520", "both"), shown, strict=True):
        errors = [100 * np.linalg.norm(p - true[n], axis=1).mean() / box_size(true[n]) for n, p in places.items()]
        print(f"{title}: {np.mean(errors):.2f} % of {len(errors)} faces of {len(entries)}")
    tiles, everywhere = [], [name for name in found.names if all(name in places for places in shown)]
    for name in everywhere[:: len(everywhere) // 4][:4]:
        crop = crop_of_box(box_around(true[name]), 1.5, 256)
        tile = warp(read_photograph(DEMO / f"corpus/{name}.jpg"), crop)
        for places in shown:
            ends = [crop.apply(np.pad(p, ((0, 0), (0, 1))).astype(np.float32)) for p in (places[name], true[name])]
            lines = draw_lines(tile, *ends, (255, 220, 0), scale=2)
            tiles.append(draw_points(lines, 2 * ends[0][:, :2] + 0.5, (255, 255, 255), scale=1, radius=2.6, rim=1.0))
    sheet = contact_sheet([tiles[3 * face + kind] for kind in range(3) for face in range(4)], 4)
    save(sheet[::2, ::2], "together.jpg")


def turned() -> None:
    """Crops on their side and head: what the network says, and what it says after a look at the other quarter turns."""
    regressor, shards = load_regressor(DEMO / "run"), open_dataset(DEMO / "shards")
    rows = [row for row in shards.rows("validation") if abs(shards.pose[row, 1]) < 0.5][:3]
    reader = shards.open()
    crops = np.stack([np.rot90(reader.image(int(row)), turns) for turns, row in enumerate(rows, start=1)])
    reader.close()
    tiles = []
    for network in (regressor, FlipTested(regressor)):
        for crop, found in zip(crops, network(crops), strict=True):
            tiles.append(draw_points(crop, found, depth_colours(found), scale=1, radius=1.6, rim=0.7))
    save(contact_sheet(tiles, 3), "turned.jpg")


def losses() -> None:
    """The loss study: everything equal but the loss."""
    results = []
    for name in LOSSES:
        run = DEMO / f"losses/{name}"
        settings = read_settings("demo", (*SMALL, f"loss.name={name}", f"trainer.epochs={EPOCHS}"))
        fit([DEMO / "shards"], settings, run, say=print)
        result = evaluate_shards(load_regressor(run), open_dataset(DEMO / "shards"), "validation", threshold=20.0)
        results.append(result.model_copy(update={"method": name}))
    draw_ced(results, IMAGES / "losses.png")


def backbones() -> None:
    """Networks from random weights, everything equal but the network, and one's batches: error against cost."""
    from matplotlib.figure import Figure

    shards, errors, costs = open_dataset(DEMO / "shards"), {}, {}
    settings = {
        name: read_settings("demo", (*SMALL, f"model.backbone={name}", "model.width=1", "trainer.epochs=16", *more))
        for name, (_, more) in BACKBONES.items()
    }
    for name in BACKBONES:
        run = DEMO / f"backbones/{name.removeprefix('timm:')}"
        fit([DEMO / "shards"], settings[name], run, say=print)
        errors[name] = evaluate_shards(load_regressor(run), shards, "validation").score.all_images
    for _ in range(7):  # in turn, and the fastest counts, so that a slow moment of the machine falls on none
        for name in BACKBONES:
            costs.setdefault(name, []).append(profile(settings[name].model, len(shards.index)))
    rows = []
    for name, (title, _) in BACKBONES.items():
        fastest = min(cost.latency_ms[0] for cost in costs[name] if cost.latency_ms is not None)
        rows.append((title, errors[name], costs[name][0].macs / 1e6, fastest))
        print(f"{title}: {costs[name][0].parameters / 1e6:.1f} M parameters, NME, MACs in millions, ms: {rows[-1][1:]}")
    figure = Figure(figsize=(8, 3.2), layout="constrained")
    labels = ("multiply-accumulates, millions", "ms a face, one thread")
    for axes, place, label in zip(figure.subplots(1, 2, sharey=True), (2, 3), labels, strict=True):
        for row in rows:
            axes.plot(row[place], row[1], "o", color="#4477aa")
            below = row[0] == "MobileNetV2"  # another one is above it
            axes.annotate(
                row[0], (row[place], row[1]), xytext=(5, -10 if below else 4), textcoords="offset points", fontsize=8
            )
        axes.set(xlabel=label, xlim=(0, 1.35 * max(row[place] for row in rows)), ylim=(2, 6))
        axes.grid(alpha=0.3)
    figure.axes[0].set_ylabel("NME of the 520, %")
    figure.savefig(IMAGES / "backbones.png", dpi=110, metadata={"Software": None})


ALL = (augmented, held_out, predicted, qualitative, together, turned, losses)

if __name__ == "__main__":
    named = {function.__name__: function for function in (*ALL, backbones)}
    for draw in [named[name] for name in sys.argv[1:]] or ALL:
        draw()
