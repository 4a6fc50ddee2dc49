from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest
from filelock import FileLock

from densegen.dataset.pipeline import mesh_in_image
from densegen.errors import BuildError, ConfigurationError
from densegen.executors import open_pool
from densegen.face.morphable_model import MorphableModel, read_model, write_model
from densegen.files import sha256_of
from densegen.geometry.pose import pose_vertices
from densegen.geometry.renderer import rasterise, vertex_normals
from densegen.geometry.uv import uv_pixels
from densegen.sources.fits import read_fit
from densegen.synthetic.appearance import random_appearance
from densegen.synthetic.components import EXPRESSIONS, IDENTITY, lower_lip_share
from densegen.synthetic.corpus import DRAWN, make_portrait, random_pose, write_corpus
from densegen.synthetic.face import face_model, keypoint_pixels
from densegen.synthetic.portrait import draw_portrait, random_light


def test_the_face_and_every_component_are_symmetric_to_the_last_bit(model: MorphableModel) -> None:
    for field in (model.mean, *model.shape_basis, *model.expression_basis):
        assert (field[model.mirror] * [-1, 1, 1] == field).all()


def test_the_keypoints_lie_on_the_layouts_keypoints(model: MorphableModel) -> None:
    np.testing.assert_allclose(uv_pixels(model.uv[model.keypoints68]), keypoint_pixels(), atol=1e-9)


def test_the_face_has_a_humans_proportions(model: MorphableModel) -> None:
    mm = model.mean[model.keypoints68] * model.unit_mm
    assert 120 < mm[16, 0] - mm[0, 0] < 160  # from ear to ear
    assert 80 < np.linalg.norm(mm[45] - mm[36]) < 100  # outer corners of the eyes
    assert 40 < mm[54, 0] - mm[48, 0] < 60  # width of the mouth
    assert mm[30, 2] == mm[:, 2].max()  # the tip of the nose is in front
    assert mm[27, 1] > mm[30, 1] > mm[51, 1] > mm[57, 1] > mm[8, 1]  # bridge, tip, lips, chin from top to bottom


def test_no_triangle_of_the_mean_is_degenerate(model: MorphableModel) -> None:
    corners = model.mean[model.triangles] * model.unit_mm
    area = np.linalg.norm(np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0]), axis=1) / 2
    assert area.min() > 1e-3


@pytest.mark.parametrize(
    ("name", "keypoint", "axis", "sign"),
    [
        ("mouth-open", 57, 1, -1),
        ("smile", 54, 1, 1),
        ("frown", 48, 1, -1),
        ("pucker", 51, 2, 1),
        ("brow-raise", 19, 1, 1),
        ("blink", 37, 1, -1),
        ("nose-wrinkle", 31, 1, 1),
    ],
)
def test_an_expression_moves_what_its_name_says(
    model: MorphableModel, name: str, keypoint: int, axis: int, sign: int
) -> None:
    move = model.expression_basis[model.expression_names.index(name)][model.keypoints68[keypoint]] * model.unit_mm
    assert sign * move[axis] > 1.0


def test_an_open_mouth_opens_and_leaves_the_upper_face_alone(model: MorphableModel) -> None:
    move = model.expression_basis[model.expression_names.index("mouth-open")][model.keypoints68] * model.unit_mm
    assert np.linalg.norm(move[66] - move[62]) > 10
    assert np.abs(move[17:48]).max() < 2
    assert lower_lip_share(np.array([[127.5, 130.0], [127.5, 150.0]])).tolist() == [0, 1]


def test_components_have_names_of_their_own() -> None:
    names = [component.name for component in (*IDENTITY, *EXPRESSIONS)]
    assert len(names) == len(set(names))
    assert {"jaw-width", "nose-length", "mouth-open", "smile", "blink", "brow-raise"} <= set(names)


def test_a_fit_read_back_gives_its_own_keypoints(corpus: Path, model: MorphableModel) -> None:
    for path in sorted((corpus / "SYNTH").glob("*.mat"))[:4]:
        fit = read_fit(path)
        assert fit.points_2d is not None
        assert fit.keypoints_3d is not None
        keypoints = mesh_in_image(model, fit, 450)[model.keypoints68]
        np.testing.assert_allclose(keypoints[:, :2] + 1, fit.points_2d.T, atol=1e-2)
        np.testing.assert_allclose(keypoints + [1, 1, 0], fit.keypoints_3d.T, atol=1e-2)
        assert (keypoints[:, :2] > 0).all()
        assert (keypoints[:, :2] < 449).all()


def test_the_corpus_covers_large_yaw() -> None:
    vertices = face_model().mean
    yaw = np.rad2deg([random_pose(np.random.default_rng(n), vertices)[1] for n in range(200)])
    assert yaw.min() < -80
    assert yaw.max() > 80


def test_the_same_seed_writes_the_same_bytes_at_any_number_of_processes(corpus: Path, tmp_path: Path) -> None:
    with open_pool(2) as pool:
        write_corpus(tmp_path, 10, seed=1, pool=pool)
    for path in sorted(tmp_path.rglob("*.*")):
        assert sha256_of(path) == sha256_of(corpus / path.relative_to(tmp_path))
    assert read_model(tmp_path / "model.safetensors").fingerprint == face_model().fingerprint


def _interrupt(count: int) -> None:
    raise KeyboardInterrupt


def test_a_corpus_is_drawn_where_it_is_the_only_thing(corpus: Path, tmp_path: Path) -> None:
    write_corpus(tmp_path / "c", 2, seed=0)
    # What a killed process leaves is taken away, and the same corpus drawn again.
    (tmp_path / "c/model.safetensors.0123abcd.partial").touch()
    write_corpus(tmp_path / "c", 2, seed=0)
    assert sorted(path.name for path in (tmp_path / "c").iterdir()) == ["SYNTH", "model.safetensors"]
    assert len(list((tmp_path / "c/SYNTH").iterdir())) == 4
    # A redraw that is cut off does not pass for a whole corpus.
    with pytest.raises(KeyboardInterrupt):
        write_corpus(tmp_path / "c", 4, seed=5, advance=_interrupt)
    assert sorted(path.name for path in (tmp_path / "c").iterdir()) == ["SYNTH"]
    with FileLock(tmp_path / "c/.lock"), pytest.raises(BuildError, match="another process is drawing"):
        write_corpus(tmp_path / "c", 4, seed=0)
    write_corpus(tmp_path / "c", 4, seed=0)
    (tmp_path / "c/manifest.yaml").write_text("mine")
    with pytest.raises(ConfigurationError, match="is not of a drawn corpus"):
        write_corpus(tmp_path / "c", 4, seed=0)
    (tmp_path / "c/manifest.yaml").write_text(DRAWN + " --samples 9'")
    write_corpus(tmp_path / "c", 4, seed=0)
    assert not (tmp_path / "c/manifest.yaml").exists()
    with pytest.raises(ConfigurationError, match="holds other files than 1 portraits"):
        write_corpus(tmp_path / "c", 1, seed=0)
    (tmp_path / "c/notes.txt").touch()
    with pytest.raises(ConfigurationError, match=r"something else than a drawn corpus \(notes.txt\)"):
        write_corpus(tmp_path / "c", 2, seed=0)
    (tmp_path / "d").mkdir()
    write_model(dataclasses.replace(face_model(), name="mine", unit_mm=1.0), tmp_path / "d/model.safetensors")
    with pytest.raises(ConfigurationError, match="another model"):
        write_corpus(tmp_path / "d", 2, seed=0)


def test_the_face_is_drawn_where_its_fit_says(model: MorphableModel) -> None:
    pose = np.array([0.05, 0.2, 0.1, 225.0, 230.0, 0.0, 1.1e-3], np.float32)
    person, light = random_appearance(np.random.default_rng(3)), random_light(np.random.default_rng(4))
    one, other = (
        draw_portrait(model.mean, pose, person, light, np.random.default_rng(n)).astype(float) for n in (5, 6)
    )
    keypoints = pose_vertices(model.mean, pose, 450)[model.keypoints68]

    def around(image: np.ndarray, keypoint: int) -> np.ndarray:
        column, row = keypoints[keypoint, :2].round().astype(int)
        return image[row - 2 : row + 3, column - 2 : column + 3].mean(axis=(0, 1))

    # The same face over other backgrounds: the same at brows, nose, eyes and mouth, another at the picture's corners.
    for keypoint in range(17, 68):
        assert np.abs(around(one, keypoint) - around(other, keypoint)).max() < 4
    corners = [np.s_[:40, :40], np.s_[:40, -40:]]
    assert max(np.abs(one[c].mean(axis=(0, 1)) - other[c].mean(axis=(0, 1))).max() for c in corners) > 20
    # And what is there is what the keypoint says: a lower lip is redder than the tip of the nose, a pupil darker.
    lip, nose = around(one, 57) / around(one, 57).sum(), around(one, 30) / around(one, 30).sum()
    assert lip[0] > nose[0]
    column, row = keypoints[36:42, :2].mean(axis=0).round().astype(int)
    assert one[row - 3 : row + 4, column - 3 : column + 4].min() < 0.5 * around(one, 30).mean()


def test_a_portrait_depends_on_its_seed_and_number_alone() -> None:
    fit, image = make_portrait(seed=5, number=2)
    make_portrait(seed=6, number=9)
    again, same = make_portrait(seed=5, number=2)
    assert (image == same).all()
    assert (fit.pose == again.pose).all()
    assert not (make_portrait(seed=5, number=3)[1] == image).all()


def test_the_nearest_surface_wins() -> None:
    square = np.array([[1, 1, 0], [8, 1, 0], [8, 8, 0], [1, 8, 0]], np.float32)
    points = np.concatenate([square, square + [2, 2, 5]]).astype(np.float32)
    triangles = np.array([[0, 1, 2], [0, 2, 3], [4, 5, 6], [4, 6, 7]], np.int32)
    colours = np.repeat([[1.0], [2.0]], 4, axis=0).astype(np.float32)
    for order in ([0, 1, 2, 3], [2, 3, 0, 1]):
        values, depth = rasterise(points, triangles[order], colours, 12, 12)
        assert values[2, 2, 0] == 1
        assert values[5, 5, 0] == 2
        assert depth[5, 5] == 5
        assert np.isneginf(depth[0, 0])


def test_normals_of_a_flat_square_are_unit_and_equal() -> None:
    square = np.array([[0, 0, 0], [1, 0, 0], [1, 1, 0], [0, 1, 0]], np.float32)
    normals = vertex_normals(square, np.array([[0, 1, 2], [0, 2, 3]], np.int32))
    np.testing.assert_allclose(normals, [[0, 0, 1]] * 4)
