"""Known answers on real files: set DENSE_REALDATA to a folder of them; skipped, by name, without it."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner
from scipy.spatial.transform import Rotation

from densegen.cli import main
from densegen.dataset.pipeline import mesh_in_image
from densegen.dataset.verify import verify_dataset
from densegen.editor.session import EditSession
from densegen.face.basel import assemble_model, convert_model
from densegen.face.model_file import write_model
from densegen.face.morphable_model import MorphableModel
from densegen.files import find_data_file
from densegen.fitting.model_points import aflw21_points, ibug68_points, landmark_points
from densegen.fitting.prior import EarlierFit, Prior, read_prior
from densegen.fitting.solver import FaceSolver
from densegen.geometry.crop import box_size
from densegen.geometry.flip import flip_keypoints
from densegen.geometry.pose import camera_points, pose_from, rotation_matrix
from densegen.geometry.uv import uv_pixels
from densegen.index.candidates import SEEDS, sample_candidates
from densegen.index.corrections import correct, read_corrections
from densegen.index.formats.exchange import import_index
from densegen.index.landmark import without_side
from densegen.index.quality import coefficient_spread, face_surface, farthest_point_index, measure
from densegen.index.suggestions import suggest_corrections
from densegen.index.vertex_index import VertexIndex, format_index, read_index, write_index
from densegen.sources.fits import read_fit


@pytest.fixture(scope="module")
def basel_files(realdata: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("bfm")
    subprocess.run([sys.executable, str(realdata / "make_bfm.py"), str(out)], check=True)
    return out


@pytest.fixture(scope="module")
def basel(basel_files: Path) -> MorphableModel:
    return assemble_model(basel_files / "raw")


def test_both_ways_to_the_basel_model_agree(basel: MorphableModel, basel_files: Path) -> None:
    converted = convert_model(basel_files / "BFM.mat", basel_files / "BFM_UV.mat")
    assert converted.fingerprint == basel.fingerprint
    assert (basel.vertex_count, len(basel.triangles)) == (53_215, 105_840 + 107 + 7)
    # Its triangles run clockwise; viewers get them the other way round.
    assert (basel.outward_triangles == basel.triangles[:, ::-1]).all()


def test_the_mirror_agrees_with_the_models_symmetry_list(basel: MorphableModel, basel_files: Path) -> None:
    from scipy.io import loadmat

    pairs = loadmat(basel_files / "raw/model_info.mat")["symlist"].astype(int) - 1
    listed = np.full(53_215, -1)
    listed[pairs[0]], listed[pairs[1]] = pairs[1], pairs[0]
    assert (listed >= 0).all()
    # The list itself is no involution in a few places inside the mouth.
    assert 0 < (listed[listed] != np.arange(53_215)).sum() < 20
    assert (basel.mirror != listed).sum() < 20


def test_keypoints_meet_the_published_ones(realdata: Path, basel: MorphableModel) -> None:
    difference = []
    for path in sorted((realdata / "aflw2000").glob("*.mat")):
        fit = read_fit(path)
        assert fit.keypoints_3d is not None
        difference.append(mesh_in_image(basel, fit, 450)[basel.keypoints68] - (fit.keypoints_3d.T - [1, 1, 0]))
    error = np.array(difference)
    bias = error.mean(axis=(0, 1))
    assert len(error) == 50
    assert abs(bias[0]) < 0.02
    assert abs(bias[1]) < 0.35
    assert np.linalg.norm(error[..., :2], axis=-1).mean() <= 1.75


def test_the_keypoints_lie_where_prnet_has_them(realdata: Path, basel: MorphableModel) -> None:
    theirs = np.loadtxt(realdata / "prnet/uv_kpt_ind.txt").T
    ours = uv_pixels(basel.uv[basel.keypoints68])
    assert np.abs(ours - theirs).max() < 1.0
    assert np.abs(ours - theirs).mean() < 0.5


def test_the_committed_index_comes_from_the_committed_corrections(basel: MorphableModel) -> None:
    candidates = sample_candidates(basel, tuple(SEEDS))
    committed = read_corrections(find_data_file("corrections_bfm.yaml"))
    made = correct(candidates, committed, basel)
    assert candidates.counts == [28, 65, 173, 492]
    suggested = suggest_corrections(candidates, basel, name=committed.index_name, count=520, spacing_mm=9.0)
    # Landmarks that got another region kept their place in the file, and so their id: other names, the same places.
    assert suggested.remove == committed.remove
    assert {(one.uv, one.reason) for one in suggested.add} == {(one.uv, one.reason) for one in committed.add}
    assert format_index(made) == find_data_file("vertex_index_520.yaml").read_text()


def test_the_committed_index_can_be_corrected_on_the_basel_model(basel: MorphableModel, tmp_path: Path) -> None:
    """Its mouth corners are each other's partners, and lie a vertex off their mirror images."""
    index = read_index()
    gone = next(one for one in index.landmarks if not one.is_keypoint and one.side == "right")
    session = EditSession.open(index, basel, tmp_path / "c.yaml")
    session.remove(without_side(gone.name), "too near")
    made = correct(index, session.save(), basel)
    assert len(made) == 518
    mine, theirs = ({one.name: one.vertex for one in of.landmarks} for of in (made, index))
    assert mine.items() <= theirs.items()
    assert EditSession.open(index, basel, tmp_path / "c.yaml").names() == [(m.name, m.vertex) for m in made.landmarks]


@pytest.fixture(scope="module")
def published(realdata: Path, basel: MorphableModel) -> VertexIndex:
    folder = realdata / "dense3d"
    numbers, rows = folder / "vertices_520_sel_from_blender.txt", folder / "vertices_68_fil_520.txt"
    return import_index(numbers, basel, "published", numbering="prnet", ibug68=rows)


def test_the_published_index_measures_as_known(published: VertexIndex, basel: MorphableModel) -> None:
    quality = measure(published, basel)
    assert quality.coverage_mm == pytest.approx((34.0, 15.2, 4.50), abs=0.06)
    assert quality.spacing_mm[0] == pytest.approx(0.78, abs=0.005)
    assert quality.mirrored == 140


def test_our_index_keeps_what_it_promises(realdata: Path, basel: MorphableModel) -> None:
    std = coefficient_spread(realdata / "aflw2000", basel)
    ours = measure(read_index(find_data_file("vertex_index_520.yaml")), basel, std)
    largest, percentile, mean = ours.coverage_mm
    assert largest <= 9
    assert percentile <= 7.5
    assert mean <= 4.1
    assert ours.added_spacing_mm >= 2
    assert ours.mirrored == 520
    assert ours.recovery_mm[0] <= 0.43
    # As good as farthest-point sampling, which does nothing else.
    even = measure(farthest_point_index(basel, 520), basel, std)
    assert ours.recovery_mm[0] <= 1.02 * even.recovery_mm[0]


def test_a_build_with_the_published_index_verifies(
    realdata: Path, basel: MorphableModel, published: VertexIndex, tmp_path: Path
) -> None:
    write_model(basel, tmp_path / "bfm.safetensors")
    write_index(published, tmp_path / "published.yaml")
    arguments = ["build", "300w_lp", "--root", str(realdata / "300w_lp"), "--model", str(tmp_path / "bfm.safetensors")]
    arguments += ["--index", str(tmp_path / "published.yaml"), "--out", str(tmp_path / "out")]
    result = CliRunner().invoke(main, arguments)
    assert result.exit_code == 0, result.output
    assert verify_dataset(tmp_path / "out").samples == 6


def test_shipped_flips_are_fits_of_our_mirror_images(realdata: Path, basel: MorphableModel) -> None:
    folder = realdata / "300w_lp"
    for path in sorted((folder / "AFW_Flip").glob("*.mat")):
        original = mesh_in_image(basel, read_fit(folder / "AFW" / path.name), 450)[basel.keypoints68]
        shipped = mesh_in_image(basel, read_fit(path), 450)[basel.keypoints68]
        distance = np.linalg.norm((flip_keypoints(original, 450) - shipped)[:, :2], axis=1)
        assert distance.mean() < 4  # a fit of its own, on a face of 250 px


@pytest.mark.parametrize(
    ("manifest", "folder", "options", "samples"),
    [
        ("aflw2000_3d", "aflw2000", ["--flip", "mirror", "--position-maps"], 100),
        ("aflw2000_3d", "aflw2000", [], 50),
        ("300w_lp", "300w_lp", [], 6),
    ],
)
def test_real_files_build_and_verify(
    realdata: Path, basel: MorphableModel, tmp_path: Path, manifest: str, folder: str, options: list[str], samples: int
) -> None:
    write_model(basel, tmp_path / "bfm.safetensors")
    arguments = ["build", manifest, "--root", str(realdata / folder), "--model", str(tmp_path / "bfm.safetensors")]
    result = CliRunner().invoke(main, [*arguments, "--out", str(tmp_path / "out"), "--jobs", "2", *options])
    assert result.exit_code == 0, result.output
    assert verify_dataset(tmp_path / "out").samples == samples


def test_shipped_flips_build_where_every_subset_has_them(realdata: Path, basel: MorphableModel, tmp_path: Path) -> None:
    write_model(basel, tmp_path / "bfm.safetensors")
    arguments = ["build", "300w_lp", "--model", str(tmp_path / "bfm.safetensors"), "--flip", "shipped"]
    refused = CliRunner().invoke(main, [*arguments, "--root", str(realdata / "300w_lp"), "--out", str(tmp_path / "no")])
    assert refused.exit_code == 1
    assert "IBUG_Flip holds no fit" in refused.output
    for subset in ("AFW", "AFW_Flip"):
        shutil.copytree(realdata / "300w_lp" / subset, tmp_path / "root" / subset)
    built = CliRunner().invoke(main, [*arguments, "--root", str(tmp_path / "root"), "--out", str(tmp_path / "out")])
    assert built.exit_code == 0, built.output
    assert verify_dataset(tmp_path / "out").samples == 4


def real_faces(realdata: Path) -> list[tuple[np.ndarray, np.ndarray]]:
    """Pose and coefficients of the 50 faces, float64."""
    fits = [read_fit(path) for path in sorted((realdata / "aflw2000").glob("*.mat"))]
    return [(f.pose.astype(float), np.concatenate([f.shape, f.expression]).astype(float)) for f in fits]


def real_prior(realdata: Path, basel: MorphableModel) -> Prior:
    """About the mean face, with the spread of the 50 fits: what ``docs/vertex_index.md`` says of recovery."""
    spread = coefficient_spread(realdata / "aflw2000", basel)
    return Prior(np.zeros(len(spread)), spread)


@pytest.mark.parametrize("dimensions", [2, 3])
def test_exact_landmarks_of_real_fits_give_their_meshes_back(
    realdata: Path, basel: MorphableModel, dimensions: int
) -> None:
    points, prior = landmark_points(basel, read_index()), real_prior(realdata, basel)
    solver, shapes = FaceSolver(points, prior), len(basel.shape_basis)
    for pose, coefficients in real_faces(realdata)[::3]:
        seen = pose[6] * points.at(coefficients) @ rotation_matrix(*pose[:3]).T + pose[3:6]
        found = solver.solve(seen[:, :dimensions], 1e-3)
        meshes = [basel.vertices(*np.split(c.astype(np.float32), [shapes])) for c in (found.coefficients, coefficients)]
        assert np.linalg.norm(meshes[0] - meshes[1], axis=1).mean() * basel.unit_mm < 0.01


@pytest.mark.parametrize(
    ("landmarks", "expressions", "published_mm"),
    [(520, False, 0.398), (520, True, 0.452), (68, False, 0.941), (68, True, 1.140)],
)
def test_noisy_landmarks_of_real_faces_err_as_published(
    realdata: Path, basel: MorphableModel, landmarks: int, expressions: bool, published_mm: float
) -> None:
    points = landmark_points(basel, read_index()) if landmarks == 520 else ibug68_points(basel)
    prior, generator, shapes = real_prior(realdata, basel), np.random.default_rng(0), len(basel.shape_basis)
    if not expressions:
        prior = Prior(prior.mean, np.where(np.arange(len(prior.std)) < shapes, prior.std, 0.0))
    solver = FaceSolver(points, prior)
    surface = face_surface(basel)[0]
    errors = []
    for pose, _ in real_faces(realdata)[::2]:
        coefficients = generator.normal(size=len(prior.std)) * prior.std
        noise_px = 2.0 / basel.unit_mm * pose[6]
        seen = pose[6] * points.at(coefficients) @ rotation_matrix(*pose[:3]).T + pose[3:6]
        seen = seen + generator.normal(0, noise_px, seen.shape)
        # The published figure knows the pose.
        known = EarlierFit(pose.astype(np.float32), prior.mean, rotation_rad=1e-6, scale=1e-6, shift=1e-9, share=1.0)
        found = solver.solve(seen, noise_px, earlier=known)
        meshes = [basel.vertices(*np.split(c.astype(np.float32), [shapes])) for c in (found.coefficients, coefficients)]
        off = surface.gather(meshes[0]) - surface.gather(meshes[1])
        errors.append(np.linalg.norm(off, axis=1).mean() * basel.unit_mm)
    print(f"{landmarks}, expressions {expressions}: {np.mean(errors):.3f} mm")
    assert np.mean(errors) == pytest.approx(published_mm, rel=0.15)


def test_fits_of_the_68_in_2d_meet_the_real_ones_at_every_yaw(realdata: Path, basel: MorphableModel) -> None:
    points, prior = ibug68_points(basel), real_prior(realdata, basel)
    solver = FaceSolver(points, prior, robust=True)
    for path in sorted((realdata / "aflw2000").glob("*.mat")):
        fit = read_fit(path)
        assert fit.keypoints_3d is not None
        seen = camera_points(fit.keypoints_3d[:2].T - 1, 450)
        size = np.sqrt(np.prod(np.ptp(seen, axis=0)))
        found = solver.solve(seen, 0.01 * size)
        between = rotation_matrix(*map(float, found.pose[:3])) @ rotation_matrix(*map(float, fit.pose[:3])).T
        assert np.rad2deg(np.arccos(np.clip((np.trace(between) - 1) / 2, -1, 1))) < 8


@pytest.mark.long
def test_the_table_of_fits_on_the_whole_of_aflw2000(realdata: Path, basel: MorphableModel) -> None:
    """What ``docs/fitting.md`` prints; DENSE_AFLW2000 is a folder of all pairs and ``AFLW2000-3D.pts21.npy``."""
    if not (folder := os.environ.get("DENSE_AFLW2000")):
        pytest.skip("DENSE_AFLW2000 is not set")
    paths = sorted(Path(folder).glob("*.mat"))
    marks = np.load(Path(folder) / "AFLW2000-3D.pts21.npy").transpose(0, 2, 1).astype(float)
    fits, prior = [read_fit(path) for path in paths], read_prior(Path(folder), basel)
    points = {68: ibug68_points(basel), 21: aflw21_points(basel), 520: landmark_points(basel, read_index())}
    solvers = {count: FaceSolver(points[count], prior, robust=True) for count in (68, 21)}
    generator, errors, yaw = np.random.default_rng(0), [], []

    def seen(count: int, pose: np.ndarray, coefficients: np.ndarray) -> np.ndarray:
        turned = points[count].at(coefficients) @ rotation_matrix(*map(float, pose[:3])).T
        return (float(pose[6]) * turned + pose[3:6].astype(float))[:, :2]

    for number, (fit, mark) in enumerate(zip(fits, marks, strict=True)):
        own, other = (
            np.concatenate([f.shape, f.expression]).astype(float) for f in (fit, fits[(7 * number + 13) % 2000])
        )
        shapes, truth = len(basel.shape_basis), seen(68, fit.pose, own)
        size = float(box_size(truth))
        hidden = (mark == -1).any(axis=1, keepdims=True)
        given = np.where(hidden, np.nan, camera_points(mark - 1, 450))
        axis = generator.normal(size=3)
        turn = Rotation.from_rotvec(np.deg2rad(5) * axis / np.linalg.norm(axis)).as_matrix()
        rotation = turn @ rotation_matrix(*map(float, fit.pose[:3]))
        off = pose_from(rotation, fit.pose[3:6].astype(float), float(fit.pose[6]))
        wrong = EarlierFit(off, np.concatenate([other[:shapes], own[shapes:]]))
        found = [
            solvers[68].solve(truth, 0.02 * size),
            solvers[21].solve(given, 0.03 * float(box_size(given[~hidden[:, 0]]))),
            wrong,
            solvers[21].solve(given, 0.03 * float(box_size(seen(68, off, wrong.coefficients))), earlier=wrong),
        ]
        apart = [
            [
                100 * np.linalg.norm(seen(n, one.pose, one.coefficients) - seen(n, fit.pose, own), axis=1).mean() / size
                for n in (68, 520)
            ]
            for one in found
        ]
        errors.append(apart)
        yaw.append(abs(np.rad2deg(float(fit.pose[1]))))
    bins = np.searchsorted([30, 60], yaw, side="left")
    table = np.stack([np.array(errors)[bins == number].mean(axis=0) for number in range(3)], axis=1)
    for name, row in zip(("68 in 2D", "AFLW's 21", "wrong", "refined"), table, strict=True):
        print(f"{name}: " + ", ".join(f"{a:.2f} / {b:.2f}" for a, b in row))
    assert (table[3] < 0.65 * table[2]).all()
    assert (table[0] < 0.7).all()
