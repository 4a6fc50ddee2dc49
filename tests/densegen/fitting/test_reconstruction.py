"""Surfaces from landmarks, and what is written of them."""

from __future__ import annotations

import io
import json

import numpy as np
import pytest
from PIL import Image

from densegen.errors import SampleError
from densegen.face.morphable_model import MorphableModel
from densegen.fitting.face_mesh import draw_reconstruction, mesh_files, reconstruction_files
from densegen.fitting.model_points import ModelPoints
from densegen.fitting.prior import Prior
from densegen.fitting.reconstruction import Reconstruction, Reconstructor
from densegen.geometry.pose import pose_vertices
from densegen.sources.fits import Fit, read_fit


@pytest.fixture(scope="module")
def maker(model: MorphableModel, points520: ModelPoints, prior: Prior) -> Reconstructor:
    return Reconstructor(model, points520, prior, sigma=0.002)


@pytest.fixture(scope="module")
def truth(model: MorphableModel, fit: Fit) -> np.ndarray:
    """(V, 3) the posed mesh of the fit, image frame."""
    return pose_vertices(model.vertices(fit.shape, fit.expression), fit.pose, 450)


@pytest.fixture(scope="module")
def found(maker: Reconstructor, points520: ModelPoints, fit: Fit, truth: np.ndarray) -> Reconstruction:
    coefficients = np.concatenate([fit.shape, fit.expression]).astype(np.float64)
    landmarks = pose_vertices(points520.at(coefficients).astype(np.float32), fit.pose, 450)
    return maker(landmarks - [0, 0, 77], 450)  # a network's depth has no origin


def test_the_surface_is_that_of_the_face(found: Reconstruction, truth: np.ndarray) -> None:
    off = found.vertices_image - truth
    off[:, 2] -= off[:, 2].mean()
    assert np.linalg.norm(off, axis=1).mean() < 0.005 * found.size_px
    assert found.error_percent < 0.1
    assert not found.left_out.any()


def test_files_hold_the_mesh_with_its_texture_in_their_units(
    found: Reconstruction, maker: Reconstructor, model: MorphableModel
) -> None:
    import trimesh

    image = np.random.default_rng(0).integers(0, 255, (450, 450, 3), np.uint8)
    extent_mm = np.ptp(found.vertices.astype(float) * model.unit_mm, axis=0)
    files = {kind: mesh_files(found, model, image, kind, "a") for kind in ("ply", "glb", "obj")}
    assert {name for made in files.values() for name in made} == {"a.ply", "a.glb", "a.obj", "a.mtl", "a-texture.png"}
    ply = trimesh.load(io.BytesIO(files["ply"]["a.ply"]), file_type="ply", process=False)
    np.testing.assert_allclose(np.ptp(ply.vertices, axis=0), extent_mm, rtol=1e-4)
    vertex = int(model.keypoints68[30])
    column, row = np.rint(found.vertices_image[vertex, :2]).astype(int)
    np.testing.assert_array_equal(ply.visual.vertex_colors[vertex, :3], image[row, column])
    glb = trimesh.load(io.BytesIO(files["glb"]["a.glb"]), file_type="glb")
    np.testing.assert_allclose(glb.extents * 1000, extent_mm, rtol=1e-4)
    lines = files["obj"]["a.obj"].decode().splitlines()
    assert sum(line.startswith("v ") for line in lines) == sum(line.startswith("vt ") for line in lines)
    assert sum(line.startswith("v ") for line in lines) == model.vertex_count
    # The texture is the part of the photograph that the face covers.
    with Image.open(io.BytesIO(files["obj"]["a-texture.png"])) as picture:
        texture = np.asarray(picture)
    assert texture.size < image.size / 2
    u, v = map(float, [line for line in lines if line.startswith("vt ")][vertex].split()[1:])
    pixel = texture[round((1 - v) * texture.shape[0] - 0.5), round(u * texture.shape[1] - 0.5)]
    np.testing.assert_array_equal(pixel, image[row, column])
    assert set(mesh_files(found, model, image, "obj", "my photo")) == {
        "my_photo.obj", "my_photo.mtl", "my_photo-texture.png"
    }  # fmt: skip
    assert b"map_Kd a-texture.png" in files["obj"]["a.mtl"]


def test_all_files_of_a_photograph_are_named_after_it(
    found: Reconstruction, maker: Reconstructor, points520: ModelPoints, tmp_path: object
) -> None:
    from pathlib import Path

    image = np.zeros((450, 450, 3), np.uint8)
    files = reconstruction_files([found, found], maker, image, "p", ("png", "json", "mat"), "p.jpg")
    assert files["p.json"].startswith(b'{"image":"p.jpg","faces":[')
    assert set(files) == {"p.png", "p.json", "p-0.mat", "p-1.mat"}
    first, second = json.loads(files["p.json"])["faces"]
    assert first == second
    assert set(first["residual_px"]) == set(points520.names)
    assert first["pose"]["yaw_rad"] == pytest.approx(0.7, abs=1e-3)
    path = Path(str(tmp_path)) / "p-0.mat"
    path.write_bytes(files["p-0.mat"])
    again = read_fit(path)
    np.testing.assert_array_equal(again.pose, found.fit.pose)
    np.testing.assert_array_equal(again.shape, found.fit.shape)


def test_the_picture_shows_the_surface_beside_the_photograph(found: Reconstruction, model: MorphableModel) -> None:
    image = np.zeros((450, 450, 3), np.uint8)
    drawn = draw_reconstruction(image, [found], model)
    assert drawn.shape == (450, 900, 3)
    assert not drawn[:, :450].any()
    column, row = np.rint(found.vertices_image[model.keypoints68[30], :2]).astype(int)
    assert drawn[row, 450 + column].min() > 50


def test_one_identity_stays_while_expression_and_pose_are_found(
    maker: Reconstructor, found: Reconstruction, points520: ModelPoints, fit: Fit
) -> None:
    person = maker.with_identity([found.fit.shape, found.fit.shape])
    other = np.concatenate([found.fit.shape, np.abs(fit.expression[::-1])]).astype(np.float64)
    seen = pose_vertices(points520.at(other).astype(np.float32), fit.pose, 450)
    again = person(seen, 450)
    np.testing.assert_allclose(again.fit.shape, found.fit.shape, rtol=1e-6)
    np.testing.assert_allclose(again.fit.expression, other[len(found.fit.shape) :], atol=0.02)


def test_landmarks_of_no_face_are_an_error(maker: Reconstructor) -> None:
    with pytest.raises(SampleError):
        maker(np.full((520, 3), np.nan, np.float32), 450)
    with pytest.raises(SampleError):
        maker(np.zeros((520, 3), np.float32), 450)
