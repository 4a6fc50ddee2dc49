"""Landmarks that rest if a face rests."""

from __future__ import annotations

import numpy as np

from densegen.arrays import Float32, Float64

__all__ = ["Smoother"]


class Smoother:
    """Landmarks over time: the One Euro filter (Casiez, Roussel, Vogel, CHI 2012), every coordinate by itself.

    Slow movement is smoothed strongly, fast movement follows at once.

    min_cutoff_hz : cutoff at rest
    beta : by how much the cutoff rises with speed, in Hz per (pixels per second)
    """

    def __init__(self, rate_hz: float, min_cutoff_hz: float = 1.5, beta: float = 0.02) -> None:
        self.rate_hz, self.min_cutoff_hz, self.beta = rate_hz, min_cutoff_hz, beta
        self.value: Float64 | None = None
        self.speed: Float64 | None = None

    def __call__(self, landmarks: Float32) -> Float32:
        """The next frame's landmarks, smoothed; same shape."""
        new = landmarks.astype(np.float64)
        if self.value is None or self.speed is None or self.value.shape != new.shape:
            self.value, self.speed = new, np.zeros_like(new)
            return landmarks
        share = self._share(np.full_like(new, 1.0))
        self.speed = self.speed + share * ((new - self.value) * self.rate_hz - self.speed)
        self.value = self.value + self._share(self.min_cutoff_hz + self.beta * np.abs(self.speed)) * (new - self.value)
        return self.value.astype(np.float32)

    def _share(self, cutoff_hz: Float64) -> Float64:
        step: Float64 = 2 * np.pi * cutoff_hz / self.rate_hz
        return step / (step + 1)
