"""What a backbone costs: parameters, multiply-accumulates, latency."""

from __future__ import annotations

import time
from dataclasses import dataclass

import numpy as np
import torch
from torch.utils.flop_counter import FlopCounterMode

from densetrain.config import ModelSettings
from densetrain.network.model import LandmarkNet

__all__ = ["Profile", "profile"]

WARM_UP, RUNS = 3, 15


@dataclass(frozen=True)
class Profile:
    """macs : multiply-accumulates of one crop; latency_ms : median of one crop on the CPU, with 1 thread and all."""

    backbone: str
    width: float
    landmarks: int
    input_size: int
    parameters: int
    macs: int
    latency_ms: tuple[float, float] | None


def profile(settings: ModelSettings, landmarks: int, *, latency: bool = True) -> Profile:
    """Measure a backbone with N landmarks at batch 1.

    MACs are those of convolutions and matrix products, half of the floating-point operations that torch counts.
    """
    net = LandmarkNet(settings, landmarks, settings.input_size).eval()
    crop = torch.zeros(1, 3, settings.input_size, settings.input_size)
    with torch.inference_mode(), FlopCounterMode(display=False) as counter:
        net(crop)
    threads = torch.get_num_threads()
    return Profile(
        backbone=settings.backbone,
        width=settings.width,
        landmarks=landmarks,
        input_size=settings.input_size,
        parameters=sum(p.numel() for p in net.parameters()),
        macs=counter.get_total_flops() // 2,
        latency_ms=(_latency(net, crop, 1), _latency(net, crop, threads)) if latency else None,
    )


def _latency(net: LandmarkNet, crop: torch.Tensor, threads: int) -> float:
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        times = []
        with torch.inference_mode():
            for _ in range(WARM_UP + RUNS):
                start = time.perf_counter()
                net(crop)
                times.append(time.perf_counter() - start)
        return float(np.median(times[WARM_UP:]) * 1000)
    finally:
        torch.set_num_threads(before)
