"""Portraits of the procedural face."""

from __future__ import annotations

import numpy as np

from densegen.face.morphable_model import MorphableModel
from densegen.geometry.pose import pose_vertices
from densegen.synthetic.appearance import _noise, random_appearance
from densegen.synthetic.corpus import make_portrait
from densegen.synthetic.portrait import draw_portrait, random_light


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


def test_surfaces_vary_by_bilinear_interpolation_as_scipy_does_it() -> None:
    from scipy.ndimage import zoom

    for size, frequency in ((512, 6), (512, 120), (450, 250)):
        grid = np.random.default_rng(frequency).normal(size=(frequency + 3, frequency + 3)).astype(np.float32)
        expected = np.float32(0.5) * zoom(grid, size / frequency, order=1)[:size, :size]
        noise = _noise(np.random.default_rng(frequency), size, (frequency,), (0.5,))
        np.testing.assert_array_equal(noise, expected)


def test_a_face_is_lit_from_outside_however_it_is_turned(model: MorphableModel) -> None:
    """At a quarter turn no picture of a face says which way it is wound; lit from inside, it would be nearly black."""
    person, light = random_appearance(np.random.default_rng(1)), random_light(np.random.default_rng(2))
    for pitch in (-0.4, 0.4):
        shown = []
        for yaw in np.radians([80.0, 84, 87, 89, 90, 91]):
            pose = np.array([pitch, yaw, 0, 100, 110, 0, 1.0e-3], np.float32)
            shown.append(draw_portrait(model.mean, pose, person, light, np.random.default_rng(3), 225, 225).mean())
        assert np.ptp(shown) < 6, (pitch, shown)
