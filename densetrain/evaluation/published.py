"""Published numbers, to stand beside ours: NME in percent by yaw bin and their mean."""

from __future__ import annotations

__all__ = ["AFLW2000_ROWS", "AFLW_ROWS", "BACKBONE_ROWS"]

AFLW2000_ROWS: tuple[tuple[str, float | None, float | None, float | None, float], ...] = (
    ("3DDFA", 3.43, 4.24, 7.17, 4.94),
    ("3DSTN", 3.15, 4.33, 5.98, 4.49),
    ("3D-FAN", 3.16, 3.53, 4.60, 3.76),
    ("3DDFA TPAMI", 2.84, 3.57, 4.96, 3.79),
    ("PRNet", 2.75, 3.51, 4.61, 3.62),
    ("2DASL", 2.75, 3.46, 4.45, 3.55),
    ("3DDFA V2", 2.63, 3.42, 4.48, 3.51),
    ("MobileNetV2, 520 landmarks", 2.86, 3.68, 4.76, 3.77),
    ("ResNet-18, 520 landmarks", 2.88, 3.72, 4.82, 3.83),
    ("SADRNet", None, None, None, 3.46),
    ("SynergyNet", 2.65, 3.30, 4.27, 3.41),
)
"""AFLW2000-3D, 68 points, 2D, original labels, as the publications print them."""

AFLW_ROWS: tuple[tuple[str, float | None, float | None, float | None, float], ...] = (
    ("ESR", 5.66, 7.12, 11.94, 8.24),
    ("3DDFA", 4.75, 4.83, 6.39, 5.32),
    ("3D-FAN", 4.40, 4.52, 5.17, 4.69),
    ("3DDFA TPAMI", 4.11, 4.38, 5.16, 4.55),
    ("PRNet", 4.19, 4.69, 5.45, 4.77),
    ("3DDFA V2", 3.98, 4.31, 4.99, 4.43),
    ("MobileNetV2, 520 landmarks", 4.04, 4.45, 5.20, 4.57),
    ("SynergyNet", None, None, None, 4.06),
)
"""AFLW, 21 points."""

BACKBONE_ROWS: tuple[tuple[str, float, float], ...] = (
    ("mobilenet_v2", 0.393, 4.222),
    ("resnet18", 2.370, 11.977),
    ("resnet50", 5.341, 26.704),
)
"""Backbones at 256 px with 520 landmarks: GMACs and millions of parameters, as published."""
