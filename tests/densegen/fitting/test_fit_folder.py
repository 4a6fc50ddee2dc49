"""Fits for photographs: from points to files that a build reads."""

from __future__ import annotations

import errno
import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from densegen.errors import ConfigurationError
from densegen.face.model_file import write_model
from densegen.face.morphable_model import MorphableModel
from densegen.fitting.face_tasks import FaceTask, FitOutcome, tasks_of_photographs
from densegen.fitting.fit_folder import check_output_folder
from densegen.fitting.fitter import FitterSettings, make_fitter
from densegen.fitting.model_points import aflw21_points, ibug68_points, landmark_points
from densegen.fitting.prior import Prior, prior_of_model
from densegen.geometry.crop import box_size
from densegen.geometry.pose import pose_vertices
from densegen.ibug68 import AFLW21, KEYPOINT_MIRROR, ids_of
from densegen.index.vertex_index import read_index
from densegen.sources.annotations import Annotations, FaceMarks
from densegen.sources.fits import Fit, fit_bytes, read_fit
from densegen.synthetic.corpus import SUBSET
from tests.densegen.command import fails, run
from tests.densegen.fitting.conftest import face


@pytest.fixture
def photos(corpus: Path, tmp_path: Path) -> Path:
    """Photographs of the corpus with ``.pts`` files, their fits thrown away."""
    folder = tmp_path / "photos"
    folder.mkdir()
    for path in sorted((corpus / SUBSET).glob("*.mat"))[:6]:
        points = read_fit(path).keypoints_3d
        assert points is not None
        lines = "\n".join(f"{x:.3f} {y:.3f}" for x, y in points[:2].T)
        (folder / f"{path.stem}.pts").write_text(f"version: 1\nn_points: 68\n{{\n{lines}\n}}\n")
        shutil.copy(path.with_suffix(".jpg"), folder)
    return folder


def points_of(path: Path) -> np.ndarray:
    body = path.read_text().partition("{")[2].partition("}")[0]
    return np.array(body.split(), float).reshape(-1, 2)


def write_points(path: Path, points: np.ndarray) -> None:
    lines = "\n".join(f"{x:.3f} {y:.3f}" for x, y in points)
    path.write_text(f"version: 1\nn_points: {len(points)}\n{{\n{lines}\n}}\n")


def words(photos: Path, model: Path, out: Path) -> tuple[object, ...]:
    """A command line that makes fits of photographs with ``.pts`` files beside them."""
    return ("fits", "make", photos, "--landmarks", photos, "--model", model, "--out", out, "--jobs", 1)


def make(photos: Path, corpus: Path, out: Path) -> str:
    made = run(*words(photos, corpus / "model.safetensors", out))
    assert made.exit_code == 0, made.output
    return made.output


def test_fits_are_made_of_points_and_meet_the_true_ones(
    photos: Path, corpus: Path, tmp_path: Path, model: MorphableModel
) -> None:
    hidden = sorted(photos.glob("*.pts"))[0]
    write_points(hidden, np.where(np.arange(68)[:, None] == 5, -1, points_of(hidden)))
    said = make(photos, corpus, tmp_path / "faces")
    assert "6 fits, 0 set aside" in said
    for path in sorted((tmp_path / "faces/FITS").glob("*.mat")):
        found, true = read_fit(path), read_fit(corpus / SUBSET / path.name)
        posed = [pose_vertices(model.vertices(f.shape, f.expression), f.pose, 450)[:, :2] for f in (found, true)]
        size = np.sqrt(np.prod(np.ptp(posed[1], axis=0)))
        assert np.linalg.norm(posed[0] - posed[1], axis=1).mean() < 0.015 * size
        assert found.keypoints_3d is not None
        np.testing.assert_allclose(found.keypoints_3d[:2] - 1, posed[0][model.keypoints68].T, atol=1e-3)
        assert found.points_2d is not None
        np.testing.assert_allclose(found.points_2d.T, points_of(photos / f"{path.stem}.pts"), atol=1e-3)
        assert path.with_suffix(".jpg").read_bytes() == (photos / f"{path.stem}.jpg").read_bytes()
    report = json.loads((tmp_path / "faces/report.json").read_text())
    assert report["fits"] == 6
    assert report["error_percent"]["largest"] < 1
    assert np.abs(report["bias_px"]).max() < 0.1
    with Image.open(tmp_path / "faces/overlays.png") as sheet:
        assert sheet.width == 6 * 224


def test_a_build_reads_what_was_made_and_a_rerun_gives_the_same_bytes(
    photos: Path, corpus: Path, tmp_path: Path
) -> None:
    make(photos, corpus, tmp_path / "one")
    make(photos, corpus, tmp_path / "one")  # again into the same folder
    make(photos, corpus, tmp_path / "two")
    files = sorted(p.relative_to(tmp_path / "one") for p in (tmp_path / "one").rglob("*") if p.is_file())
    assert len(files) == 6 * 2 + 3
    for name in files:
        assert (tmp_path / "one" / name).read_bytes() == (tmp_path / "two" / name).read_bytes(), name
    built = run(
        "build", tmp_path / "one/manifest.yaml", "--model", corpus / "model.safetensors", "--out", tmp_path / "shards",
        "--jobs", 1,
    )  # fmt: skip
    assert built.exit_code == 0, built.output
    assert "12 samples" in built.output


def test_faces_that_cannot_be_fitted_are_set_aside_by_reason(photos: Path, corpus: Path, tmp_path: Path) -> None:
    marks = sorted(photos.glob("*.pts"), key=lambda path: abs(read_fit(corpus / SUBSET / f"{path.stem}.mat").pose[1]))
    write_points(marks[0], points_of(marks[0])[KEYPOINT_MIRROR])
    write_points(marks[1], np.full((68, 2), np.nan))
    write_points(marks[2], np.random.default_rng(0).permutation(points_of(marks[2])))
    marks[3].with_suffix(".jpg").unlink()
    marks[4].with_suffix(".jpg").write_bytes(b"no picture")
    make(photos, corpus, tmp_path / "faces")
    report = json.loads((tmp_path / "faces/report.json").read_text())
    assert report["set_aside"] == {
        "image-missing": 1, "image-unreadable": 1, "left-right-swapped": 1, "points-contradict": 1, "points-too-few": 1,
    }  # fmt: skip
    assert report["fits"] == 1
    assert [p.suffix for p in sorted((tmp_path / "faces/FITS").iterdir())] == [".jpg", ".mat"]


def test_one_stray_point_hides_no_wrong_ones(photos: Path, corpus: Path, tmp_path: Path) -> None:
    """It would make a large face of a small one, and what is far off near."""
    rng = np.random.default_rng(0)
    for marks in sorted(photos.glob("*.pts")):
        points = points_of(marks)
        points += rng.normal(0, 0.15 * float(box_size(points)), points.shape)
        points[30] = 4000
        write_points(marks, points)
    made = run(*words(photos, corpus / "model.safetensors", tmp_path / "faces"))
    assert made.exit_code == 1
    assert "no face could be fitted" in made.stderr
    report = json.loads((tmp_path / "faces/report.json").read_text())
    assert report["set_aside"] == {"points-contradict": 6}


def test_what_a_build_would_set_aside_is_not_made(photos: Path, corpus: Path, tmp_path: Path) -> None:
    far, tiny, beside = sorted(photos.glob("*.pts"))[:3]
    write_points(far, points_of(far) * 200)
    write_points(tiny, 200 + points_of(tiny) * 2e-3)
    write_points(beside, points_of(beside) + 3000)
    make(photos, corpus, tmp_path / "faces")
    report = json.loads((tmp_path / "faces/report.json").read_text())
    assert report["set_aside"] == {"face-outside": 1, "face-too-small": 1, "fit-invalid": 1}


def test_a_file_that_takes_left_for_right_is_refused_as_a_whole(photos: Path, corpus: Path, tmp_path: Path) -> None:
    for path in photos.glob("*.pts"):
        write_points(path, points_of(path)[KEYPOINT_MIRROR])
    line = run(*words(photos, corpus / "model.safetensors", tmp_path / "faces")).stderr.splitlines()[-1]  # fmt: skip
    assert "the sides are named the other way round" in line
    assert not (tmp_path / "faces/manifest.yaml").exists()


def test_points_by_name_and_several_faces_of_one_photograph(
    photos: Path, corpus: Path, tmp_path: Path, model: MorphableModel
) -> None:
    name = sorted(photos.glob("*.jpg"))[0].stem
    points = points_of(photos / f"{name}.pts") - 1
    some = {str(k): points[k].tolist() for k in range(0, 68, 2)}
    (tmp_path / "marks.json").write_text(json.dumps({f"{name}.jpg": [some, some]}))
    made = run(
        "fits", "make", photos, "--landmarks", tmp_path / "marks.json", "--model", corpus / "model.safetensors",
        "--out", tmp_path / "faces", "--jobs", 1,
    )  # fmt: skip
    assert made.exit_code == 0, made.output
    files = sorted(p.name for p in (tmp_path / "faces/FITS").glob("*.mat"))
    assert files == [f"{name}_face0.mat", f"{name}_face1.mat"]
    found, true = (read_fit(p) for p in (tmp_path / "faces/FITS" / files[0], corpus / SUBSET / f"{name}.mat"))
    assert np.abs(found.pose[:3] - true.pose[:3]).max() < 0.15


def test_a_persons_points_and_a_networks_make_better_fits_together(
    photos: Path, corpus: Path, tmp_path: Path, model: MorphableModel
) -> None:
    """A person's points are each off by 3 % of the face, a network's 520 all alike by half as much."""
    index, generator = read_index(), np.random.default_rng(0)
    dense = landmark_points(model, index)
    names, few, many, true = [], [], [], []
    for path in sorted(photos.glob("*.jpg")):
        fit = read_fit(corpus / SUBSET / f"{path.stem}.mat")
        places = dense.at(np.concatenate([fit.shape, fit.expression]).astype(np.float64)).astype(np.float32)
        points = pose_vertices(places, fit.pose, 450)[:, :2]
        keypoints = points_of(path.with_suffix(".pts")) - 1
        size = float(np.sqrt(np.prod(np.ptp(keypoints, axis=0))))
        names.append(path.stem)
        true.append(points)
        many.append(points + size * generator.normal(0, 0.015, 2) + generator.normal(0, 0.2, points.shape))
        few.append(
            np.stack([keypoints[ids_of(point)].mean(axis=0) for point in AFLW21])
            + size * generator.normal(0, 0.03, (21, 2))
        )
    few[0][3:] = -1  # three visible points alone are too few
    np.savez(tmp_path / "few.npz", names=names, landmarks=np.array(few))
    np.savez(tmp_path / "many.npz", names=[*names[::-1], "not-there"], landmarks=[*many[::-1], many[0]])

    def error(out: Path, *arguments: object) -> float:
        made = run(
            "fits", "make", photos, *arguments, "--model", corpus / "model.safetensors", "--out", out, "--jobs", 1
        )  # fmt: skip
        assert made.exit_code == 0, made.output
        errors = []
        for name, points in list(zip(names, true, strict=True))[1:]:
            fit = read_fit(out / f"FITS/{name}.mat")
            places = dense.at(np.concatenate([fit.shape, fit.expression]).astype(np.float64)).astype(np.float32)
            off = np.linalg.norm(pose_vertices(places, fit.pose, 450)[:, :2] - points, axis=1).mean()
            errors.append(off / np.sqrt(np.prod(np.ptp(points, axis=0))))
        return 100 * float(np.mean(errors))

    persons = ("--landmarks", tmp_path / "few.npz", "--sigma", 0.03)
    networks = ("--landmarks", tmp_path / "many.npz", "--sigma", 0.35)
    alone, other, together = (
        error(tmp_path / "alone", *persons), error(tmp_path / "other", *networks),
        error(tmp_path / "together", *persons, *networks),
    )  # fmt: skip
    assert together < 0.9 * min(alone, other), (alone, other, together)
    first = f"FITS/{names[0]}.mat"
    assert not (tmp_path / "alone" / first).exists()
    marks = read_fit(tmp_path / "together" / first).points_2d
    assert marks is not None
    np.testing.assert_allclose(marks.T - 1, many[0], atol=1e-2)  # the network's: the person's are too few
    report = json.loads((tmp_path / "together/report.json").read_text())
    assert report["set_aside"] == {"image-missing": 1}
    assert [source["points"] for source in report["sources"]] == ["aflw21", "names"]
    assert report["residual_of_points"][0]["name"] == "1/0"
    misuse = run("fits", "make", photos, *persons, "--landmarks", tmp_path / "many.npz", "--out", tmp_path / "x",
                 "--model", corpus / "model.safetensors")  # fmt: skip
    assert misuse.exit_code == 2
    assert "--sigma is given 1 time for 2 --landmarks" in misuse.stderr


def test_each_source_has_to_be_right_by_itself(
    photos: Path, corpus: Path, tmp_path: Path, model: MorphableModel
) -> None:
    """A person's few points beside a network's many: their sides swapped, those of another face, or not there."""
    index = read_index()
    dense = landmark_points(model, index)
    path = min(photos.glob("*.jpg"), key=lambda path: abs(read_fit(corpus / SUBSET / f"{path.stem}.mat").pose[1]))
    fit = read_fit(corpus / SUBSET / f"{path.stem}.mat")
    places = dense.at(np.concatenate([fit.shape, fit.expression]).astype(np.float64)).astype(np.float32)
    network = Annotations(
        "names", tuple(map(str, range(len(index)))),
        (FaceMarks(path.stem, pose_vertices(places, fit.pose, 450)[:, :2].astype(np.float64)),), 0, index.fingerprint,
    )  # fmt: skip
    true = np.stack([(points_of(path.with_suffix(".pts")) - 1)[ids_of(point)].mean(axis=0) for point in AFLW21])
    settings = FitterSettings(sigma=(0.03, 0.4))

    def outcome(points: np.ndarray, *others: Annotations) -> tuple[FitOutcome, Fit | None]:
        sources = [Annotations("aflw21", tuple(map(str, range(21))), (FaceMarks(path.stem, points),), 0), *others]
        fitter = make_fitter(
            sources, model, index, prior_of_model(model), settings if others else FitterSettings((0.03,))
        )
        (task,), _ = tasks_of_photographs(photos, sources)
        return fitter.run(task)

    assert outcome(true, network)[0].reason is None
    across = aflw21_points(model).mirror
    assert across is not None
    assert outcome(true[across], network)[0].reason == "left-right-swapped"
    assert outcome(true + 150, network)[0].reason == "points-contradict"
    # A network that does not know the face changes nothing.
    silent = replace(network, faces=(FaceMarks(path.stem, np.full((len(index), 2), np.nan)),))
    turned = true.copy()
    turned[[0, 1, 2, 6, 7, 8, 12, 13, 17]] = np.nan
    for points in (true, turned):
        alone, beside = outcome(points)[1], outcome(points, silent)[1]
        assert alone is not None
        assert beside is not None
        np.testing.assert_allclose(beside.pose, alone.pose, rtol=1e-5, atol=1e-6)
        np.testing.assert_allclose(beside.shape, alone.shape, rtol=1e-4, atol=1e-4)
    other = replace(network, vertex_index="0" * 64)
    with pytest.raises(ConfigurationError, match="landmarks of another vertex index than densegen-520"):
        outcome(true, other)


@pytest.mark.parametrize("yaw_deg", [0.0, 45.0, 65.0, 84.0, -86.0])
def test_swapped_sides_are_refused_as_if_every_face_were_solved_whole(
    photos: Path, tmp_path: Path, model: MorphableModel, yaw_deg: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    """From 55 degrees on, the mean face meets a picture and its swapped one equally well, and soon each face does."""
    photograph = sorted(photos.glob("*.jpg"))[0]
    across = ibug68_points(model).mirror
    assert across is not None
    tasks = []
    for seed in range(4):
        pose, coefficients = face(prior_of_model(model), seed, yaw_deg, 0.0)
        fit = Fit(*(part.astype(np.float32) for part in (pose, *np.split(coefficients, [len(model.shape_basis)]))))
        seen = pose_vertices(ibug68_points(model).at(coefficients).astype(np.float32), fit.pose, 450)
        marks = seen[:, :2] + np.random.default_rng(seed).normal(0, 0.035 * box_size(seen), (68, 2))
        earlier = tmp_path / f"{seed}.mat"
        earlier.write_bytes(fit_bytes(fit, "test"))
        tasks += [FaceTask("face", photograph, p, near) for p in (marks, marks[across]) for near in (None, earlier)]
    source = Annotations("ibug68", tuple(map(str, range(68))), (FaceMarks("face", marks),), 0)
    fitter = make_fitter([source], model, read_index(), prior_of_model(model), FitterSettings((0.03,)))
    reasons = [fitter.run(task)[0].reason for task in tasks]
    monkeypatch.setattr("densegen.fitting.fitter.AS_LIKELY", np.inf)
    assert [fitter.run(task)[0].reason for task in tasks] == reasons
    if abs(yaw_deg) < 50:
        assert [reason is not None for reason in reasons] == [False, False, True, True] * 4
        assert "left-right-swapped" in reasons


def test_of_several_sources_each_point_counts_by_its_sigma(
    photos: Path, corpus: Path, tmp_path: Path, model: MorphableModel
) -> None:
    path = sorted(photos.glob("*.jpg"))[0]
    points = points_of(path.with_suffix(".pts")) - 1
    one = Annotations("ibug68", tuple(map(str, range(68))), (FaceMarks(path.stem, points),), 0)
    far = Annotations("ibug68", tuple(map(str, range(68))), (FaceMarks(path.name, points + 40),), 0)
    settings = FitterSettings(sigma=(0.01, 1.0), max_residual=0.05)
    fitter = make_fitter([one, far], model, read_index(), prior_of_model(model), settings)
    (task,), missing = tasks_of_photographs(photos, [one, far])
    assert not missing
    outcome, fit = fitter.run(task)
    assert fit is not None  # all points alike, the mean distance would be half of 57 px
    assert outcome.error < 0.01
    assert fit.points_2d is not None
    np.testing.assert_allclose(fit.points_2d.T, points + 1, atol=1e-3)
    with pytest.raises(ConfigurationError, match="3 sigmas for 2 sources"):
        make_fitter([one, far], model, read_index(), prior_of_model(model), FitterSettings(sigma=(0.1, 0.1, 0.1)))
    with pytest.raises(ConfigurationError, match="one file of landmarks has to have them"):
        make_fitter([one, far], model, read_index(), prior_of_model(model), FitterSettings(jaw="outline"))
    both = Annotations(one.kind, one.names, one.faces * 2, 0)
    with pytest.raises(ConfigurationError, match="has several faces in one of 2 files of landmarks"):
        tasks_of_photographs(photos, [both, far])


def test_refining_brings_wrong_fits_nearer_and_leaves_the_others(
    photos: Path, corpus: Path, tmp_path: Path, prior: Prior
) -> None:
    root = tmp_path / "wrong/SYNTH"
    root.mkdir(parents=True)
    others = [read_fit(p) for p in sorted((corpus / SUBSET).glob("*.mat"))]
    for number, path in enumerate(sorted(photos.glob("*.jpg"))):
        shutil.copy(path, root)
        true = read_fit(corpus / SUBSET / f"{path.stem}.mat")
        pose = true.pose + np.array([0.05, -0.05, 0.03, 4, -3, 0, 0], np.float32)
        (root / f"{path.stem}.mat").write_bytes(
            fit_bytes(Fit(pose, others[-1 - number].shape, true.expression), "test")
        )
    names = [path.stem for path in sorted(photos.glob("*.pts"))]
    (photos / f"{names[0]}.pts").unlink()
    refined = run(
        "fits", "refine", tmp_path / "wrong", "--landmarks", photos, "--model", corpus / "model.safetensors",
        "--out", tmp_path / "better", "--jobs", 1,
    )  # fmt: skip
    assert refined.exit_code == 0, refined.output
    assert "6 fits, 0 set aside, 1 without landmarks" in refined.output
    assert "landmarks with no fit" not in refined.stderr
    same = tmp_path / "better/SYNTH" / f"{names[0]}.mat"
    assert same.read_bytes() == (root / f"{names[0]}.mat").read_bytes()
    assert "both sides of the split" in refined.stderr  # there was no manifest to say which fits are of one photograph
    report = json.loads((tmp_path / "better/report.json").read_text())
    assert report["error_percent"]["median"] < report["error_before_percent"]["median"] / 3


def test_points_that_count_from_one_and_are_taken_to_count_from_zero_are_noticed(corpus: Path, tmp_path: Path) -> None:
    rows = ["image,point,x,y"]
    for path in sorted((corpus / SUBSET).glob("*.mat"))[:10]:
        points = read_fit(path).keypoints_3d
        assert points is not None
        rows += [f"{path.stem}.jpg,{k},{x:.3f},{y:.3f}" for k, (x, y) in enumerate(points[:2].T)]
    (tmp_path / "marks.csv").write_text("\n".join(rows) + "\n")
    arguments = (
        "fits", "refine", corpus, "--landmarks", tmp_path / "marks.csv", "--model", corpus / "model.safetensors",
        "--jobs", 1,
    )  # fmt: skip
    wrong = run(*arguments, "--out", tmp_path / "wrong")
    assert wrong.exit_code == 0, wrong.output
    assert "try --first-pixel 1" in wrong.stderr
    assert "(+1.00, +1.00) px from the fits" in wrong.output
    right = run(*arguments, "--out", tmp_path / "right", "--first-pixel", 1)
    assert "try --first-pixel" not in right.stderr
    cells = [row.split(",") for row in rows[1:]]
    moved = [f"{image},{point},{float(x) + 1},{float(y) + 1}" for image, point, x, y in cells]
    (tmp_path / "marks.csv").write_text("\n".join([rows[0], *moved, "nobody.jpg,0,1,1"]) + "\n")
    both = run(*arguments, "--out", tmp_path / "both", "--first-pixel", 1)
    assert "(+1.00, +1.00) px from the fits" in both.output
    assert "try --first-pixel" not in both.stderr  # which was given
    assert "1 face of the landmarks with no fit, the first is nobody.jpg" in both.stderr


def test_points_of_which_most_are_in_one_place_are_refused_or_fitted(corpus: Path, tmp_path: Path) -> None:
    """As tools write hidden ones."""
    marks = {}
    for path in sorted((corpus / SUBSET).glob("*.mat"))[:2]:
        points = read_fit(path).keypoints_3d
        assert points is not None
        marks[f"{path.stem}.jpg"] = np.where(np.arange(68)[:, None] < 40, 0.0, points[:2].T - 1).tolist()
    (tmp_path / "marks.json").write_text(json.dumps(marks))
    made = run(
        "fits", "refine", corpus, "--landmarks", tmp_path / "marks.json", "--model", corpus / "model.safetensors",
        "--out", tmp_path / "out", "--jobs", 1,
    )  # fmt: skip
    assert made.exit_code == 0, made.output
    assert "set aside, points-contradict: 2" in made.stderr


def test_the_report_stays_if_no_manifest_can_be_made(photos: Path, corpus: Path, tmp_path: Path) -> None:
    """More folders than a manifest names one by one, and mirrored photographs among them."""
    first = sorted(photos.glob("*.jpg"))[0]
    for name in [*(f"p{number}" for number in range(17)), "p0_Flip"]:
        (tmp_path / "many" / name).mkdir(parents=True)
        for path in (first, first.with_suffix(".pts")):
            shutil.copy(path, tmp_path / "many" / name)
    made = run(*words(tmp_path / "many", corpus / "model.safetensors", tmp_path / "out"))
    assert made.exit_code == 1
    assert "write a manifest by hand" in made.stderr
    assert json.loads((tmp_path / "out/report.json").read_text())["fits"] == 18


def test_photographs_whose_names_no_sample_can_have_are_set_aside(photos: Path, corpus: Path, tmp_path: Path) -> None:
    first, second, *_ = sorted(photos.glob("*.jpg"))
    for path in (first, first.with_suffix(".pts")):
        path.rename(path.with_name(f"a+mirror{path.suffix}"))
    second.rename(second.with_suffix(".jPg"))
    made = run(*words(photos, corpus / "model.safetensors", tmp_path / "out"))
    assert made.exit_code == 0, made.output
    assert "set aside, image-name: 1" in made.stderr
    assert "5 fits, 1 set aside" in made.output
    assert "without an image" not in made.stderr
    assert (tmp_path / "out/FITS" / f"{second.stem}.jpg").is_file()


def test_wrong_inputs_are_one_line_and_write_nothing(
    photos: Path, corpus: Path, tmp_path: Path, model: MorphableModel
) -> None:
    model_path, out = corpus / "model.safetensors", tmp_path / "faces"

    def refused(*arguments: object, photos: Path = photos) -> str:
        line = fails("fits", "make", photos, "--model", model_path, "--out", out, "--jobs", 1, *arguments)
        assert not out.exists()
        return line

    assert "does not exist" in refused("--landmarks", tmp_path / "none.csv")
    assert "landmarks are a folder of .pts files, or" in refused("--landmarks", model_path)
    assert "is not a folder of photographs" in refused("--landmarks", photos, photos=model_path)
    empty = tmp_path / "empty"
    empty.mkdir()
    assert "holds no .pts file" in refused("--landmarks", empty)
    assert "not one has a photograph in" in refused("--landmarks", photos, photos=empty)
    assert "max_residual is 7.0, expected 0.001 to 1" in refused("--landmarks", photos, "--max-residual", 7)
    (tmp_path / "cut.npz").write_bytes(b"PK")
    assert "cut.npz is not a readable file of landmarks" in refused("--landmarks", tmp_path / "cut.npz")
    assert "none.npz does not exist" in refused("--landmarks", tmp_path / "none.npz")
    np.savez(tmp_path / "bytes.npz", names=np.array([b"\xff"]), landmarks=np.zeros((1, 68, 2)))
    assert "'names' are no list of texts" in refused("--landmarks", tmp_path / "bytes.npz")
    np.savez(tmp_path / "names.npz", names=["a"])
    assert "names.npz is not a file of landmarks" in refused("--landmarks", tmp_path / "names.npz")
    np.savez(tmp_path / "more.npz", names=["a"], landmarks=np.zeros((2, 68, 2)))
    assert "more.npz has 2 faces and 1 names" in refused("--landmarks", tmp_path / "more.npz")
    assert "holds 0 fits of" in refused("--landmarks", photos, "--prior", empty)
    (tmp_path / "named.json").write_text('{"a.jpg": {"left-ear-lobe": [1, 2]}}')
    assert "neither the 68 nor AFLW's 21, nor names of" in refused(
        "--landmarks", tmp_path / "named.json", photos=_one_photo(tmp_path, photos)
    )
    marks = json.dumps({"a.jpg": points_of(sorted(photos.glob("*.pts"))[0])[:21].tolist()})
    (tmp_path / "21.json").write_text(marks)
    one = _one_photo(tmp_path, photos)
    assert "one file of landmarks has to have them" in refused(
        "--landmarks", tmp_path / "21.json", "--jaw", "outline", photos=one
    )
    (tmp_path / "out.json").write_text(marks.replace("a.jpg", "../a.jpg"))
    assert "leaves" in refused("--landmarks", tmp_path / "out.json", photos=one)
    flat = MorphableModel(
        **{**vars_of(model), "shape_std": model.shape_std * 0 + 1, "expression_std": model.expression_std * 0 + 1}
    )
    write_model(flat, tmp_path / "flat.safetensors")
    line = fails(*words(photos, tmp_path / "flat.safetensors", out))
    assert "give a folder of fits whose coefficients say them, with --prior" in line
    assert "choose another folder" in fails(*words(photos, model_path, photos))
    out.mkdir()
    (out / "mine.txt").touch()
    assert "holds something else than these fits (mine.txt)" in fails(*words(photos, model_path, out))
    assert "none of 16 fits has landmarks" in fails(
        "fits", "refine", corpus, "--landmarks", tmp_path / "21.json", "--model", model_path, "--out", tmp_path / "x",
        "--jobs", 1,
    )  # fmt: skip


def _one_photo(folder: Path, photos: Path) -> Path:
    target = folder / "one"
    target.mkdir(exist_ok=True)
    shutil.copy(sorted(photos.glob("*.jpg"))[0], target / "a.jpg")
    return target


def vars_of(model: MorphableModel) -> dict[str, object]:
    return model.__getstate__()


def test_names_mean_one_photograph_or_none(corpus: Path, tmp_path: Path) -> None:
    root = tmp_path / "photos"
    for name in ("a.jpg", "old/a.jpg", "b/c.jpg", "d/c.jpg", "img.001.jpg", "img.jpg", ".hidden/e.jpg"):
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).touch()
    points = np.zeros((68, 2))

    def meant(*names: str) -> list[str]:
        marks = Annotations("ibug68", tuple(map(str, range(68))), tuple(FaceMarks(n, points) for n in names), 0)
        tasks, missing = tasks_of_photographs(root, [marks])
        said = [task.image.relative_to(root).as_posix() for task in tasks]
        return said + [str(one.reason) for one in missing]

    assert meant("a.jpg") == ["a.jpg"]
    assert meant("old/a") == ["old/a.jpg"]
    assert meant("img.001") == ["img.001.jpg"]
    assert meant("a", "c", "e", "img.002") == ["a.jpg", "image-ambiguous", "image-missing", "image-missing"]


def test_a_manifest_that_was_edited_and_a_foreign_folder_are_refused(
    photos: Path, corpus: Path, tmp_path: Path
) -> None:
    out = tmp_path / "faces"
    make(photos, corpus, out)
    with (out / "manifest.yaml").open("a") as file:
        file.write("# mine\n")
    assert "was edited: move it away" in fails(*words(photos, corpus / "model.safetensors", out))
    other = tmp_path / "other"
    other.mkdir()
    (other / "report.json").write_text("{}")
    assert "holds something else than these fits (report.json)" in fails(
        *words(photos, corpus / "model.safetensors", other)
    )


def test_a_run_that_ended_between_its_last_files_is_gone_on_with(
    photos: Path, corpus: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """At each of them, as on a full disk."""
    out = tmp_path / "faces"
    for broken in ("densegen.fitting.report.write_text", "densegen.files.write_text"):
        with monkeypatch.context() as patched:
            patched.setattr(broken, _full_disk)
            assert run(*words(photos, corpus / "model.safetensors", out)).exit_code == 1
        assert not (out / "manifest.yaml").exists()
        make(photos, corpus, out)


def _full_disk(path: Path, text: str) -> None:
    raise OSError(errno.ENOSPC, "no space left", str(path))


def test_no_other_run_may_write_until_the_report_is_there(
    photos: Path, corpus: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out, said = tmp_path / "faces", []

    def meanwhile(*arguments: object) -> int:
        said.append(fails(*words(photos, corpus / "model.safetensors", out)))
        return 0

    monkeypatch.setattr("densegen.fitting.report.draw_overlays", meanwhile)
    make(photos, corpus, out)
    assert len(said) == 1
    assert "another process is writing fits into" in said[0]


def test_landmarks_that_mean_two_fits_are_refused(corpus: Path, tmp_path: Path) -> None:
    for name in ("s", "q"):
        (tmp_path / "root" / name).mkdir(parents=True)
        shutil.copy(sorted((corpus / SUBSET).glob("*.mat"))[0], tmp_path / "root" / name / "a.mat")
    (tmp_path / "marks.json").write_text(json.dumps({"a.jpg": [[1, 2]] * 68}))
    line = fails(
        "fits", "refine", tmp_path / "root", "--landmarks", tmp_path / "marks.json", "--model",
        corpus / "model.safetensors", "--out", tmp_path / "out", "--jobs", 1,
    )  # fmt: skip
    assert "a.jpg names 2 fits: give their folders" in line


def test_the_output_folder_may_not_hold_what_is_read(photos: Path, corpus: Path) -> None:
    with pytest.raises(ConfigurationError, match="holds what is read"):
        check_output_folder(photos, [FaceTask("FITS/a", photos / "a.jpg", None)])
