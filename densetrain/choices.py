"""What options of the commands and arguments of the functions can be, declared once; loads nothing."""

from __future__ import annotations

from typing import Literal

__all__ = ["Comparison", "DetectorName", "Labels", "Reading", "Reconstructed", "Variant", "Written", "YawSource"]

DetectorName = Literal["auto", "cascade", "yunet"]
"""What finds faces: scikit-image's cascade, YuNet by OpenCV, or the better one that is there."""

Labels = Literal["original", "reannotated"]
"""The label sets of AFLW2000-3D."""

YawSource = Literal["pose", "new-pose", "fit"]
"""Where AFLW2000-3D's yaw angles come from: the public files, or the fits."""

Reading = Literal["geometric", "public script"]
Comparison = Reading | Literal["label files"]
"""How predictions and labels are compared; see ``Benchmark.errors``."""

Variant = Literal["fp32", "fp16", "int8"]
"""Of an exported ONNX file."""

Written = Literal["png", "json", "csv", "ply", "obj", "fit"]
"""What a prediction is written as; ``fit``: the morphable model's face, as 300W-LP stores it."""

Reconstructed = Literal["png", "json", "glb", "obj", "ply", "mat"]
"""What a reconstruction is written as."""
