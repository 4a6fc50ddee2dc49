from __future__ import annotations

import dataclasses
import weakref
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
import simplejpeg

from densegen.dataset.build import Plan
from densegen.dataset.map_codec import unpack_map
from densegen.dataset.pipeline import Recipe, make_samples, mesh_in_image, samples_of_fit
from densegen.dataset.shards import Sample
from densegen.errors import SampleError
from densegen.face.morphable_model import MorphableModel
from densegen.geometry.crop import Crop, box_around, crop_generator, place_crop
from densegen.geometry.flip import flip_points
from densegen.geometry.position_map import decode_fixed_point
from densegen.ibug68 import KEYPOINT_MIRROR
from densegen.index.vertex_index import VertexIndex
from densegen.sources.fit_list import FitEntry
from densegen.sources.fits import Fit, fit_bytes
from densegen.sources.photograph import read_photograph
from tests.densegen.index.test_landmark import pixel_index

ENTRY = FitEntry("A/a", Path("a.mat"), Path("a.jpg"), "A/a", "train", False, "A/a.jpg")
PICTURE = np.random.default_rng(0).integers(0, 255, (450, 450, 3), dtype=np.uint8)


def samples_of(
    fit: Fit, recipe: Recipe, entry: FitEntry = ENTRY, picture: npt.NDArray[np.uint8] = PICTURE
) -> list[Sample]:
    return samples_of_fit(entry, fit, picture, recipe.faces([fit])[0], recipe)


@pytest.fixture(scope="module")
def pair(model: MorphableModel, fit: Fit, recipe: Recipe) -> tuple[Sample, Sample]:
    original, mirrored = samples_of(fit, recipe)
    return original, mirrored


def test_the_story_of_a_sample_step_by_step(
    pair: tuple[Sample, Sample], model: MorphableModel, index: VertexIndex, fit: Fit, recipe: Recipe
) -> None:
    original, _ = pair
    mesh = mesh_in_image(model, fit, 450)
    crop = place_crop(box_around(mesh[model.keypoints68]), recipe.crop, crop_generator(0, "A/a", False))
    mesh_crop = crop.on_ground(float(mesh[:, 2].min())).apply(mesh)
    assert mesh_crop[:, 2].min() == pytest.approx(0, abs=1e-3)
    np.testing.assert_allclose(original.landmarks, index.resolve(model).gather(mesh_crop), atol=1e-3)
    np.testing.assert_allclose(original.keypoints68, mesh_crop[model.keypoints68], atol=1e-3)
    assert simplejpeg.decode_jpeg(original.jpeg, "RGB").shape == (256, 256, 3)


def test_stored_crops_lead_back_to_the_photograph(pair: tuple[Sample, Sample], model: MorphableModel, fit: Fit) -> None:
    mesh = mesh_in_image(model, fit, 450)
    keypoints = mesh[model.keypoints68]
    for sample in pair:
        back = Crop.from_array(sample.crop).invert(sample.keypoints68)
        expected = flip_points(keypoints, 450)[KEYPOINT_MIRROR] if sample.mirrored else keypoints
        np.testing.assert_allclose(back, expected, atol=2e-3)


def test_a_mirrored_sample_is_the_reposed_mirrored_mesh(
    pair: tuple[Sample, Sample], model: MorphableModel, index: VertexIndex, fit: Fit, recipe: Recipe
) -> None:
    """Mirror the mesh itself (each vertex takes its partner's mirrored place) and gather in the usual order.

    The mouth corners of the 68 are one vertex off their mirror images in the Basel layout: each other's partners all
    the same, within a pixel.
    """
    _, mirrored = pair
    corners = [48, 54, 60, 64]
    mesh = mesh_in_image(model, fit, 450)
    mirrored_mesh = flip_points(mesh, 450)[model.mirror]
    mesh_crop = Crop.from_array(mirrored.crop).apply(mirrored_mesh)
    difference = np.abs(mirrored.landmarks - index.resolve(model).gather(mesh_crop))
    assert np.delete(difference, corners, axis=0).max() < 5e-3
    assert difference[corners].max() < 1
    assert mirrored.position_map is not None
    decoded = decode_fixed_point(unpack_map(mirrored.position_map, (256, 256, 3)), recipe.uv_table.valid)
    rendered = recipe.uv_table.position_map(mesh_crop)
    assert np.abs(decoded - rendered).max() < 0.005


def test_an_index_without_mirror_partners_flips_right_as_well(
    model: MorphableModel, index: VertexIndex, fit: Fit
) -> None:
    open_index = pixel_index(index)
    assert not open_index.mirror_closed
    recipe = Recipe(model, open_index)
    _, mirrored = samples_of(fit, recipe)
    mirrored_mesh = flip_points(mesh_in_image(model, fit, 450), 450)[model.mirror]
    mesh_crop = Crop.from_array(mirrored.crop).apply(mirrored_mesh)
    np.testing.assert_allclose(mirrored.landmarks, open_index.resolve(model).gather(mesh_crop), atol=5e-3)


def test_landmarks_equal_the_position_map_at_their_pixels(model: MorphableModel, index: VertexIndex, fit: Fit) -> None:
    recipe = Recipe(model, pixel_index(index), position_maps=True)
    for sample in samples_of(fit, recipe):
        assert sample.position_map is not None
        valid = recipe.uv_table.valid
        decoded = decode_fixed_point(
            unpack_map(sample.position_map, (256, 256, 3)), valid[:, ::-1] if sample.mirrored else valid
        )
        np.testing.assert_allclose(recipe.index.gather(decoded), sample.landmarks, atol=0.005)


def test_the_image_and_its_landmarks_move_together(model: MorphableModel, fit: Fit, recipe: Recipe) -> None:
    """A white dot painted on the nose tip of the photograph is found at keypoint 30 of both samples."""
    tip = mesh_in_image(model, fit, 450)[model.keypoints68[30]]
    rows, columns = np.mgrid[0:450, 0:450]
    near = np.hypot(columns - tip[0], rows - tip[1]) < 3
    picture = np.where(near[..., None], 255, 0).astype(np.uint8).repeat(3, axis=2)
    for sample in samples_of(fit, recipe, picture=picture):
        crop = simplejpeg.decode_jpeg(sample.jpeg, "RGB")[..., 1].astype(float)
        grid = np.mgrid[0:256, 0:256]
        centre = (grid * crop).sum(axis=(1, 2)) / crop.sum()
        np.testing.assert_allclose(centre[::-1], sample.keypoints68[30, :2], atol=0.5)


def test_landmarks_do_not_depend_on_position_maps(plan: Plan, recipe: Recipe) -> None:
    """Without maps only a few vertices are computed, and the depth's origin comes from a search; same bits."""
    bare = dataclasses.replace(recipe, position_maps=False)
    assert len(bare.needed) < len(recipe.needed) / 3
    with_maps = [sample for _, made in make_samples(plan.entries, recipe) for sample in samples(made)]
    without = [sample for _, made in make_samples(plan.entries, bare) for sample in samples(made)]
    for one, other in zip(with_maps, without, strict=True):
        assert (one.landmarks == other.landmarks).all()
        assert (one.crop == other.crop).all()


def samples(made: list[Sample] | SampleError) -> list[Sample]:
    assert isinstance(made, list)
    return made


@pytest.mark.parametrize(
    ("batch", "held"), [(5, 1 << 30), (32, 0), (32, 2_000_000)], ids=["of 5", "one by one", "four at a time"]
)
def test_no_bit_depends_on_the_batch(
    recipe: Recipe, plan: Plan, monkeypatch: pytest.MonkeyPatch, batch: int, held: int
) -> None:
    alone = [made for entry in plan.entries for _, made in make_samples([entry], recipe)]
    monkeypatch.setattr("densegen.dataset.pipeline.BATCH", batch)
    monkeypatch.setattr("densegen.dataset.pipeline.HELD_BYTES", held)
    together = list(make_samples(plan.entries, recipe))
    assert [entry for entry, _ in together] == list(plan.entries)
    for first, (_, second) in zip(alone, together, strict=True):
        for one, other in zip(samples(first), samples(second), strict=True):
            assert (one.jpeg, one.position_map) == (other.jpeg, other.position_map)
            assert (one.landmarks == other.landmarks).all()


@pytest.mark.parametrize(("batch", "held", "expected"), [(32, 0, 0), (4, 1 << 30, 1)])
def test_few_photographs_are_held_at_a_time(
    recipe: Recipe, plan: Plan, monkeypatch: pytest.MonkeyPatch, batch: int, held: int, expected: int
) -> None:
    """Neither those of the batch before, nor those that were refused, which is every other one here."""
    alive: list[weakref.ref[npt.NDArray[np.uint8]]] = []
    most = 0

    def read(path: Path) -> npt.NDArray[np.uint8]:
        nonlocal most
        photograph = read_photograph(path)
        most = max(most, sum(one() is not None for one in alive))
        alive.append(weakref.ref(photograph))
        if len(alive) % 2:
            raise SampleError("image-too-large", "a test")
        return photograph

    monkeypatch.setattr("densegen.dataset.pipeline.read_photograph", read)
    monkeypatch.setattr("densegen.dataset.pipeline.BATCH", batch)
    monkeypatch.setattr("densegen.dataset.pipeline.HELD_BYTES", held)
    for _, made in make_samples(plan.entries, recipe):
        del made
    assert len(alive) == len(plan.entries)
    assert most == expected


def test_a_fit_that_fails_at_any_step_leaves_its_neighbours_as_they_are(
    recipe: Recipe, plan: Plan, tmp_path: Path, fit: Fit
) -> None:
    good, away, cut = plan.entries[0], tmp_path / "away.mat", tmp_path / "cut.jpg"
    pose = fit.pose.copy()
    pose[3] = 5000
    away.write_bytes(fit_bytes(dataclasses.replace(fit, pose=pose), "a test"))
    cut.write_bytes(good.image.read_bytes()[:3000])
    entries = [
        good,
        dataclasses.replace(good, fit=tmp_path / "none.mat"),
        dataclasses.replace(good, image=cut),
        dataclasses.replace(good, fit=away),
        plan.entries[1],
    ]
    made = [result for _, result in make_samples(entries, recipe)]
    reasons = [one.reason for one in made if isinstance(one, SampleError)]
    assert reasons == ["fit-missing", "image-unreadable", "face-outside"]
    for entry, found in ((entries[0], made[0]), (entries[4], made[4])):
        ((_, alone),) = make_samples([entry], recipe)
        assert [one.jpeg for one in samples(found)] == [one.jpeg for one in samples(alone)]


@pytest.mark.parametrize(("tx", "ty"), [(900.0, 230.0), (-300.0, 230.0), (210.0, 900.0)])
def test_a_face_outside_the_picture_is_set_aside(
    model: MorphableModel, fit: Fit, recipe: Recipe, tx: float, ty: float
) -> None:
    pose = fit.pose.copy()
    pose[3:5] = tx, ty
    away = dataclasses.replace(fit, pose=pose)
    with pytest.raises(SampleError, match="keypoints lie in the 450x450 picture") as caught:
        samples_of(away, recipe)
    assert caught.value.reason == "face-outside"


def test_shipped_and_no_flips_make_one_sample(model: MorphableModel, fit: Fit, recipe: Recipe) -> None:
    one = dataclasses.replace(recipe, flip="none")
    (sample,) = samples_of(fit, one)
    assert (sample.flipped, sample.mirrored) == (False, False)
    shipped = dataclasses.replace(ENTRY, flipped=True)
    (sample,) = samples_of(fit, dataclasses.replace(recipe, flip="shipped"), shipped)
    assert (sample.flipped, sample.mirrored) == (True, False)
