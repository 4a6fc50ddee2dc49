from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from skimage.transform import AffineTransform
from skimage.transform import warp as skimage_warp

from densegen.errors import SampleError
from densegen.geometry.crop import Crop, CropRecipe, crop_generator, crop_of_box, place_crop, warp
from densegen.geometry.flip import flip_image

NOISE = np.random.default_rng(0).integers(0, 256, (300, 400, 3), dtype=np.uint8)


def face_box(width: float, height: float) -> np.ndarray:
    return np.array([100, 50, 100 + width, 50 + height])


def test_without_jitter_the_square_is_as_computed_by_hand() -> None:
    # Box 120 x 80 at (100, 50): mean side 100, square of side 150 about (160, 90), corners (85, 15) and (235, 165).
    recipe = CropRecipe(scale_jitter=0, shift_jitter=0)
    crop = place_crop(face_box(120, 80), recipe, np.random.default_rng(0))
    corners = crop.apply(np.array([[85, 15, 0], [235, 165, 10]], np.float32))
    np.testing.assert_allclose(corners, [[0, 0, 0], [255, 255, 17]], atol=1e-4)


def test_jitter_stays_within_the_recipe() -> None:
    for number in range(200):
        crop = place_crop(face_box(100, 100), CropRecipe(), crop_generator(0, f"sample {number}", False))
        side = 255 / crop.scale
        centre = crop.invert(np.array([[127.5, 127.5, 0]], np.float32))[0]
        assert 134.99 <= side <= 165.01
        assert np.abs(centre[:2] - [150, 100]).max() <= 10.01


def test_the_randomness_depends_on_seed_id_and_flip_alone() -> None:
    def first(*key: object) -> float:
        return float(crop_generator(*key).random())  # type: ignore[arg-type]

    assert first(1, "a", False) == first(1, "a", False)
    assert len({first(1, "a", False), first(2, "a", False), first(1, "b", False), first(1, "a", True)}) == 4
    # A release must not change what a seed means.
    assert first(0, "AFW/AFW_134212_1_0", False) == pytest.approx(0.07419873325389603, abs=1e-15)


def test_points_come_back_from_the_crop() -> None:
    crop = Crop(0.7, -20.5, 31.25, 8.0)
    points = np.random.default_rng(1).uniform(-500, 500, (40, 3)).astype(np.float32)
    np.testing.assert_allclose(crop.invert(crop.apply(points)), points, atol=1e-3)


def test_the_ground_lies_at_zero() -> None:
    crop = Crop(2.0, 0, 0).on_ground(-40.0)
    assert crop.apply(np.array([[0, 0, -40]], np.float32))[0, 2] == 0


def test_a_mirrored_crop_mirrored_is_itself() -> None:
    crop = Crop(0.83, -12.5, 7.0, 3.0)
    back = crop.mirrored(450).mirrored(450)
    assert (back.scale, back.ty, back.tz) == (crop.scale, crop.ty, crop.tz)
    assert back.tx == pytest.approx(crop.tx, abs=1e-10)


@pytest.mark.parametrize(
    "crop", [Crop(0.71, -30.2, -11.7), Crop(1.37, 40.4, 55.5), Crop(0.67, 20, -80), Crop(3.3, -900, -700)]
)
def test_the_warp_is_scikit_images_within_one_grey_level(crop: Crop) -> None:
    inverse = AffineTransform(scale=1 / crop.scale, translation=(-crop.tx / crop.scale, -crop.ty / crop.scale))
    expected = skimage_warp(NOISE, inverse, output_shape=(256, 256), order=1, preserve_range=True)
    difference = np.abs(warp(NOISE, crop).astype(float) - np.floor(expected + 0.5))
    assert difference.max() <= 1
    assert (difference > 0).mean() < 1e-3


@pytest.mark.parametrize(
    "crop", [Crop(0.61, -30.2, -11.7), Crop(0.3, 20, -80), Crop(0.11, 60.5, 90), Crop(0.02, 120, 125)]
)
def test_a_crop_that_shrinks_the_image_is_the_mean_over_each_pixels_area(crop: Crop) -> None:
    """Against overlaps of intervals, as matrices; black outside of the image counts as black."""

    def shares(centres: np.ndarray, length: int) -> np.ndarray:
        low, high = centres[:, None] - 0.5 / crop.scale, centres[:, None] + 0.5 / crop.scale
        pixels = np.arange(length)
        return np.maximum(np.minimum(high, pixels + 0.5) - np.maximum(low, pixels - 0.5), 0) * crop.scale

    grid = np.arange(256)
    down = shares((grid - crop.ty) / crop.scale, NOISE.shape[0])
    across = shares((grid - crop.tx) / crop.scale, NOISE.shape[1])
    expected = np.einsum("ry,yxc,kx->rkc", down, NOISE.astype(float), across, optimize=True)
    assert np.abs(warp(NOISE, crop) - expected).max() < 0.5 + 1e-3


def test_a_picture_in_more_pixels_gives_the_same_crop_noise_averaged_out() -> None:
    rng = np.random.default_rng(5)
    small = np.kron(rng.uniform(40, 215, (30, 40, 3)), np.ones((10, 10, 1)))
    large = np.kron(small, np.ones((8, 8, 1)))
    noisy = np.clip(large + rng.normal(0, 12, large.shape), 0, 255).astype(np.uint8)
    crop = Crop(0.9, -30.0, -9.0)
    # Pixel 0 of the small picture is pixels 0 to 7 of the large one, whose centre is 3.5.
    finer = Crop(crop.scale / 8, crop.tx - crop.scale * 3.5 / 8, crop.ty - crop.scale * 3.5 / 8)
    difference = warp(noisy, finer).astype(float) - warp(small.astype(np.uint8), crop)
    assert np.sqrt((difference**2).mean()) < 4


@pytest.mark.parametrize("scale", [0.61, 0.71])
def test_the_mirrored_warp_is_the_mirror_image(scale: float) -> None:
    crop = Crop(scale, -30.2, -11.7)
    assert (warp(NOISE, crop, mirror=True) == flip_image(warp(NOISE, crop))).all()
    # And the crop of the mirrored photograph shows the same, up to rounding.
    photograph = flip_image(NOISE)
    difference = warp(photograph, crop.mirrored(400)).astype(int) - warp(NOISE, crop, mirror=True)
    assert np.abs(difference).max() <= 1


def test_a_crop_that_misses_the_image_is_black() -> None:
    assert warp(NOISE, Crop(1, 5000, 0)).max() == 0
    assert warp(NOISE, Crop(1, 0, -5000)).max() == 0
    assert warp(NOISE, Crop(0.1, 0, -5000)).max() == 0
    assert warp(NOISE, Crop(0.1, 5000, 0)).max() == 0
    assert warp(NOISE, Crop(1, -5000, 0), mirror=True).max() == 0


def test_a_drawn_dot_is_found_where_its_point_says() -> None:
    image = np.zeros((300, 400, 3), np.uint8)
    image[119:122, 200:203] = 255  # a dot about (201, 120)
    crop = Crop(1.5, -200.0, -90.0)
    for mirror in (False, True):
        rows, columns = np.nonzero(warp(image, crop, mirror=mirror)[..., 0] > 127)
        x, y, _ = crop.apply(np.array([201, 120, 0], np.float32))
        assert abs(columns.mean() - (255 - x if mirror else x)) < 0.5
        assert abs(rows.mean() - y) < 0.5


def test_a_face_without_extent_is_set_aside() -> None:
    with pytest.raises(SampleError, match="mean side"):
        place_crop(face_box(0.5, 0.5), CropRecipe(), np.random.default_rng(0))
    with pytest.raises(SampleError, match="mean side"):
        place_crop(face_box(np.nan, 1), CropRecipe(), np.random.default_rng(0))


@given(st.floats(0.05, 4), st.floats(-300, 300), st.floats(-300, 300))
def test_a_crop_of_one_colour_is_that_colour_or_black(scale: float, tx: float, ty: float) -> None:
    crop = warp(np.full((40, 50, 3), 200, np.uint8), Crop(scale, tx, ty, size=32))
    assert crop.max() <= 200
    columns, rows = ((np.arange(32) - t) / scale for t in (tx, ty))
    half = max(0.5 / scale, 1)
    inside = np.ix_((rows > half) & (rows < 39 - half), (columns > half) & (columns < 49 - half))
    assert (np.abs(crop[inside].astype(int) - 200) <= 1).all()


@pytest.mark.parametrize("box", [(20, 20, 60, 60), (-30, 10, 30, 70), (50, 60, 130, 120), (300, 300, 320, 320)])
def test_the_share_outside_of_a_photograph_is_what_is_black_of_a_white_one(box: tuple[float, ...]) -> None:
    crop = crop_of_box(np.array(box, float), 1.5, 256)
    black = (warp(np.full((90, 120, 3), 255, np.uint8), crop)[..., 0] < 128).mean()
    assert crop.share_outside(90, 120) == pytest.approx(black, abs=0.01)
