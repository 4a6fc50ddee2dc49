"""What an exported network says about itself: plain values for programs, a card and sheets for people."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from densegen.console import front_matter
from densegen.ibug68 import ids_of
from densegen.index.formats.mesh import landmark_triangles
from densetrain.network.checkpoint import TorchRegressor

__all__ = ["SHEETS", "SHEETS_FOLDER", "Parity", "describe", "model_card"]

SHEETS = ("use_onnx.py", "use_onnx.html")
"""Written beside the files: how to use them without densetrain, in Python and in a browser."""

SHEETS_FOLDER = Path(__file__).with_name("sheets")

AXES = ["x right", "y down", "z towards the viewer"]


@dataclass(frozen=True)
class Parity:
    """How far an exported file's landmarks lie from torch's, pixels: the largest and the mean difference."""

    variant: str
    path: Path
    largest_px: float
    mean_px: float
    bytes: int


def describe(regressor: TorchRegressor) -> dict[str, Any]:
    """What every exported file says about itself: plain values, and how to feed it in words."""
    about, index = regressor.about, regressor.index
    size, uncertain = about.crop_size, about.settings.model.uncertainty
    pixels = {"unit": "pixels of the crop, centres at integers from 0"}
    tensors: dict[str, Any] = {
        "images": {"dtype": "float32", "shape": ["batch", 3, size, size], "colour_order": "RGB", "range": [0, 255]},
        "landmarks": {"dtype": "float32", "shape": ["batch", len(index), 3], "axes": AXES, **pixels},
    }
    if uncertain:
        tensors["sigma_px"] = {"dtype": "float32", "shape": ["batch", len(index)], **pixels}
    return {
        **about.model_dump(mode="json"),
        "tensors": tensors,
        "landmarks": [
            {"id": one.id, "name": one.name, "region": one.region, "mirror": one.mirror} for one in index.landmarks
        ],
        "subsets": {name: [list(ids_of(point)) for point in points] for name, points in index.subsets.items()},
        "triangles": landmark_triangles(index).tolist(),
        "input": f"images: float32 (batch, 3, {size}, {size}), RGB, 0 to 255; the network normalises",
        "output": f"landmarks: float32 (batch, {len(regressor.index)}, 3), x right, y down, z towards the viewer, "
        "pixels of the crop, centres at integers from 0"
        + ("; sigma_px: float32 (batch, landmarks), their standard deviation in pixels" * uncertain),
        "crop": f"a square of side {about.margin} times the mean side of the 68 keypoints' box, about its centre; "
        f"its corners map to the centres of pixels 0 and {size - 1}; bilinear, black outside",
        "colour_order": "RGB",
        "range": [0, 255],
    }


def _validation(regressor: TorchRegressor) -> str:
    nme = regressor.about.validation_nme
    if nme is None:
        return "Validation NME: not said."
    return (
        f"Validation NME: {nme:.3f} %, all {len(regressor.index)} landmarks in 2D, normalised by sqrt(w h) of the true "
        f"68 points' box, split {regressor.about.settings.data.validate_on} of the shards that it was trained on."
    )


def model_card(regressor: TorchRegressor, made: list[Parity]) -> str:
    """The text of ``README.md`` beside exported files."""
    about, settings = describe(regressor), regressor.about.settings
    rows = [f"| `{p.path.name}` | {p.bytes / 1e6:.1f} | {p.largest_px:.2g} | {p.mean_px:.2g} |" for p in made]
    table = ["| file | MB | largest difference to torch, px | mean, px |", "|---|---|---|---|", *rows] if rows else []
    head = front_matter(
        license="other",
        license_name="as-the-training-data",
        library_name="onnx",
        pipeline_tag="keypoint-detection",
        tags=["face-landmarks", "dense-landmarks", "3d-face", "densetrain"],
    )
    return "\n".join(
        [
            head,
            f"# Dense face landmarks: {settings.model.backbone}",
            "",
            f"{len(regressor.index)} landmarks of the vertex index {regressor.index.name} {regressor.index.version} "
            "from one face crop. Made with densetrain.",
            "",
            f"- Trained on: {' and '.join(regressor.about.datasets) or 'not said'}.",
            f"- {_validation(regressor)}",
            f"- Input: {about['input']}.",
            f"- Output: {about['output']}.",
            f"- Crop: {about['crop']}.",
            "- What it may be used for depends on the data it was trained with: models trained on 300W-LP are for "
            "research only.",
            "",
            *table,
            "",
            "## How to use it",
            "With densetrain: `densetrain predict --onnx model.onnx photo.jpg`.",
            "",
            "Without it, in Python (`use_onnx.py`; onnxruntime, numpy, Pillow):",
            "",
            "```python",
            (SHEETS_FOLDER / "use_onnx.py").read_text("utf-8").rstrip("\n"),
            "```",
            "",
            "In a browser: `use_onnx.html`, with the npm package onnxruntime-web beside it. Names, regions, mirror "
            "partners and triangles of the landmarks stand in `config.json`, and in the ONNX file's metadata, key "
            "`densetrain`.",
            "",
        ]
    )
