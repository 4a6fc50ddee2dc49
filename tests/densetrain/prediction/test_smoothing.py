"""Landmarks over time."""

from __future__ import annotations

import numpy as np

from densetrain.prediction.smoothing import Smoother


def test_smoothing_calms_noise_and_follows_movement() -> None:
    generator = np.random.default_rng(0)
    smoother, still = Smoother(30.0), np.full((5, 3), 100.0, np.float32)
    noisy = [still + generator.normal(0, 1, still.shape).astype(np.float32) for _ in range(200)]
    calm = np.stack([smoother(points) for points in noisy])[50:]
    assert calm.std() < 0.5 * np.stack(noisy)[50:].std()
    smoother = Smoother(30.0)
    fast = [smoother(still + 40.0 * n) for n in range(20)]
    assert abs(float(fast[-1][0, 0]) - (100 + 40 * 19)) < 40
