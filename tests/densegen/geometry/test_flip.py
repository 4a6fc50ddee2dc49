from __future__ import annotations

import numpy as np

from densegen.geometry.flip import flip_image, flip_keypoints, flip_points, flip_position_map

RANDOM = np.random.default_rng(0)


def test_every_flip_twice_is_the_identity() -> None:
    image = RANDOM.integers(0, 255, (256, 256, 3), dtype=np.uint8)
    points = RANDOM.uniform(0, 256, (68, 3)).astype(np.float32)
    valid = RANDOM.random((256, 256)) > 0.2
    position_map = RANDOM.uniform(0, 256, (256, 256, 3)).astype(np.float32) * valid[..., None]
    assert (flip_image(flip_image(image)) == image).all()
    np.testing.assert_allclose(flip_points(flip_points(points)), points, atol=1e-4)
    np.testing.assert_allclose(flip_keypoints(flip_keypoints(points)), points, atol=1e-4)
    once, valid_once = flip_position_map(position_map, valid)
    twice, valid_twice = flip_position_map(once, valid_once)
    np.testing.assert_allclose(twice, position_map, atol=1e-4)
    assert (valid_twice == valid).all()


def test_a_pixel_and_its_position_flip_together() -> None:
    # The surface point under UV pixel (3, 10) lies at x = 100; mirrored it lies under (3, 245) at x = 155.
    position_map = np.zeros((256, 256, 3), np.float32)
    position_map[3, 10] = (100, 50, 7)
    valid = position_map[..., 2] > 0
    flipped, flipped_valid = flip_position_map(position_map, valid)
    assert flipped[3, 245].tolist() == [155, 50, 7]
    assert flipped_valid.sum() == 1


def test_arguments_are_left_alone() -> None:
    points = np.ones((68, 3), np.float32)
    flip_keypoints(points)
    assert (points == 1).all()
