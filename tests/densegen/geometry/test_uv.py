from __future__ import annotations

import numpy as np

from densegen.face.morphable_model import MorphableModel
from densegen.geometry.uv import mirror_from_uv, mirror_pixels, uv_from_pixels, uv_pixels


def test_the_uv_frame_is_as_computed_by_hand() -> None:
    uv = np.array([[0, 1], [1, 0], [0.5, 0.5]])
    np.testing.assert_allclose(uv_pixels(uv), [[0, 0], [255, 255], [127.5, 127.5]])


def test_uv_and_pixels_are_each_others_reverse() -> None:
    uv = np.random.default_rng(0).random((50, 2))
    np.testing.assert_allclose(uv_from_pixels(uv_pixels(uv)), uv, atol=1e-12)
    np.testing.assert_allclose(mirror_pixels(mirror_pixels(uv_pixels(uv))), uv_pixels(uv), atol=1e-12)


def test_the_mirror_of_the_mirror_is_the_vertex_itself(model: MorphableModel) -> None:
    everyone = np.arange(model.vertex_count)
    assert (model.mirror[model.mirror] == everyone).all()
    # Even where vertices have no exact partner and choices are not mutual.
    ragged = np.random.default_rng(1).random((300, 2))
    partner = mirror_from_uv(ragged)
    assert (partner[partner] == np.arange(300)).all()


def test_a_symmetric_layout_is_paired_exactly(model: MorphableModel) -> None:
    np.testing.assert_allclose(model.uv[model.mirror][:, 0], 1 - model.uv[:, 0], atol=1e-12)
    np.testing.assert_allclose(model.uv[model.mirror][:, 1], model.uv[:, 1], atol=1e-12)
