from __future__ import annotations

import numpy as np
import pytest

from densegen.geometry.crop import box_size
from densetrain.evaluation.metrics import area_under_curve, cumulative_errors, nme, points21, score, yaw_bins


def test_nme_of_a_hand_computed_face() -> None:
    truth = np.array([[[0.0, 0.0], [40.0, 0.0], [0.0, 90.0]]])  # box 40 x 90, sqrt(3600) = 60
    predicted = truth + [
        [[3.0, 4.0]],
    ]
    assert box_size(truth) == pytest.approx([60.0])
    assert nme(predicted, truth, box_size(truth)) == pytest.approx([100 * 5 / 60])
    visible = np.array([[True, False, False]])
    predicted[0, 1:] = 1e6
    assert nme(predicted, truth, box_size(truth), visible) == pytest.approx([100 * 5 / 60])


def test_bins_close_on_the_right_and_large_angles_count_in_the_last() -> None:
    angles = np.array([0, -30, 30.001, 60, -60.001, 95])
    assert yaw_bins(angles).tolist() == [0, 0, 1, 1, 2, 2]


def test_the_headline_is_the_unweighted_mean_of_the_bins() -> None:
    errors = np.array([1.0, 1.0, 1.0, 1.0, 4.0, 4.0, 7.0])
    result = score(errors, np.array([0, 0, 0, 0, 45, 45, 80.0]))
    assert result.bins == pytest.approx((1, 4, 7))
    assert result.counts == (4, 2, 1)
    assert result.mean == pytest.approx(4.0)
    assert result.std == pytest.approx(np.sqrt(6))
    assert result.all_images == pytest.approx(19 / 7)
    assert result.balanced == pytest.approx(4.0)
    assert result.balanced_std == pytest.approx(0.0)
    assert result == score(errors, np.array([0, 0, 0, 0, 45, 45, 80.0]))


def test_an_empty_bin_counts_for_nothing() -> None:
    result = score(np.array([2.0, 4.0]), np.array([5.0, -70.0]))
    assert np.isnan(result.bins[1])
    assert result.mean == pytest.approx(3.0)


def test_the_area_is_that_under_the_drawn_curve() -> None:
    errors = np.random.default_rng(0).gamma(4, 1.2, 500)
    x, y = cumulative_errors(errors, 8.0)
    assert np.trapezoid(y, x) / 8.0 == pytest.approx(area_under_curve(errors, 8.0))
    assert (area_under_curve(np.zeros(3), 10), area_under_curve(np.full(3, 11.0), 10)) == (100.0, 0.0)
    assert score(errors, np.zeros(500), threshold=8.0).failures == pytest.approx(100 * (errors > 8).mean())


def test_the_21_points_are_some_of_the_68_and_means() -> None:
    points = np.zeros((1, 68, 2))
    points[0, :, 0] = np.arange(68)
    expected = [17, 19, 21, 22, 24, 26, 36, 38.5, 39, 42, 44.5, 45, 2, 31, 30, 35, 14, 48, 63.5, 54, 8]
    assert points21(points)[0, :, 0].tolist() == expected
