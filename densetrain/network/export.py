"""Trained networks as files for elsewhere: ONNX (fp32, fp16, int8) and safetensors, each with its description."""

from __future__ import annotations

import json
import warnings
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from densegen.arrays import Image
from densegen.errors import ConfigurationError, DensegenError
from densegen.extras import install_line
from densegen.files import replace_file, replace_into, write_bytes, write_text
from densegen.ibug68 import ids_of
from densegen.index.formats.mesh import landmark_triangles
from densetrain.network.checkpoint import TorchRegressor
from densetrain.network.regressor import ONNX_METADATA, OnnxRegressor

__all__ = [
    "LIMITS_PX",
    "Parity",
    "ParityError",
    "check_folder",
    "export",
    "export_onnx",
    "export_safetensors",
    "model_card",
]

LIMITS_PX = {"fp32": 1e-3, "fp16": 1.0, "int8": 8.0}
"""How far a variant's landmarks may lie from torch's: the largest distance of a coordinate, pixels."""

OPSET = 18

SHEETS = ("use_onnx.py", "use_onnx.html")
"""Written beside the files: how to use them without densetrain, in Python and in a browser."""

SHEETS_FOLDER = Path(__file__).with_name("sheets")

AXES = ["x right", "y down", "z towards the viewer"]


class ParityError(DensegenError):
    """An exported file does not compute what the network computes."""


@dataclass(frozen=True)
class Parity:
    """How far an exported file's landmarks lie from torch's, pixels: the largest and the mean difference."""

    variant: str
    path: Path
    largest_px: float
    mean_px: float
    bytes: int


def description(regressor: TorchRegressor) -> dict[str, Any]:
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


def check_folder(folder: Path) -> None:
    """Refuse a folder that holds files of an export's names, but no exported network: they are something else's."""
    taken = [name for name in ("README.md", "config.json", "model.onnx", *SHEETS) if (folder / name).exists()]
    if taken and not (folder / "model.safetensors").is_file():
        raise ConfigurationError(f"{folder} holds a {taken[0]} of something else: choose another folder")


def export(
    regressor: TorchRegressor,
    folder: Path,
    variants: tuple[str, ...] = ("fp32",),
    crops: Image | None = None,
    progress: Callable[[int], object] = lambda files: None,
) -> list[Parity]:
    """Write the network into ``folder``: ONNX, safetensors, ``config.json``, a card, and sheets that use the ONNX file
    without densetrain; all of them or none. Variants of an earlier export that are not made again are taken away.

    Raises what :func:`check_folder` and :func:`export_onnx` raise.
    """
    check_folder(folder)
    with replace_into(folder, first="model.safetensors") as staging:
        made = [
            replace(one, path=folder / one.path.name)
            for one in export_onnx(regressor, staging, variants, crops, progress)
        ]
        export_safetensors(regressor, staging)
        write_text(staging / "README.md", model_card(regressor, made))
        for name in SHEETS:
            write_text(staging / name, (SHEETS_FOLDER / name).read_text("utf-8"))
    for path in {folder / f"model-{variant}.onnx" for variant in LIMITS_PX} - {one.path for one in made}:
        path.unlink(missing_ok=True)
    return made


def export_safetensors(regressor: TorchRegressor, folder: Path) -> Path:
    """Write ``model.safetensors`` and ``config.json``; ``densetrain`` reads them like a checkpoint."""
    from safetensors.torch import save

    state = {name: value.contiguous().clone() for name, value in regressor.net.state_dict().items()}
    path = folder / "model.safetensors"
    write_bytes(path, save(state, metadata={"format": "pt"}))
    write_text(folder / "config.json", json.dumps(description(regressor), indent=1) + "\n")
    return path


def export_onnx(
    regressor: TorchRegressor,
    folder: Path,
    variants: tuple[str, ...] = ("fp32",),
    crops: Image | None = None,
    progress: Callable[[int], object] = lambda files: None,
) -> list[Parity]:
    """Write ``model.onnx`` and, if asked, ``model-fp16.onnx`` and ``model-int8.onnx`` made from it; each is compared
    with torch on the same crops.

    crops : (n, S, S, 3) uint8 for the comparison, and to calibrate int8, which needs them; smooth noise if None
    progress : is told of each file that was made and compared

    Raises :class:`ParityError`, and writes none of them, if a variant's landmarks differ by more than ``LIMITS_PX``;
    :class:`ConfigurationError` if int8 is asked for without crops or a library is missing.
    """
    if "int8" in variants and crops is None:
        raise ConfigurationError("int8 is calibrated on crops: give shards with --calibrate")
    shown = crops if crops is not None else _smooth_noise(regressor.about.crop_size)
    made = []
    folder.mkdir(parents=True, exist_ok=True)
    with ExitStack() as files:  # in place when all of them have passed
        plain = files.enter_context(replace_file(folder / "model.onnx"))
        _write_fp32(regressor, plain)
        _describe(plain, regressor)
        for variant in ("fp32", *(v for v in ("fp16", "int8") if v in variants)):
            path, file = folder / "model.onnx", plain
            if variant != "fp32":
                path = folder / f"model-{variant}.onnx"
                file = files.enter_context(replace_file(path))
                (_write_fp16 if variant == "fp16" else _write_int8)(plain, file, shown)
                _describe(file, regressor)
            made.append(_compare(regressor, file, path, variant, shown))
            progress(1)
    return made


def _smooth_noise(size: int) -> Image:
    from scipy.ndimage import zoom

    coarse = np.random.default_rng(0).uniform(0, 255, (8, 16, 16, 3))
    smooth = zoom(coarse, (1, size / 16, size / 16, 1), order=1)
    return np.asarray(smooth.clip(0, 255), np.uint8)


def _onnx() -> Any:
    try:
        import onnx
        import onnxruntime  # noqa: F401
        import onnxscript  # noqa: F401
    except ImportError as error:
        raise ConfigurationError(f"ONNX export needs more: {install_line('export')}") from error
    return onnx


def _write_fp32(regressor: TorchRegressor, path: Path) -> None:
    import torch

    class _Exported(torch.nn.Module):
        """The network, its standard deviations in pixels, as they are on the validation samples."""

        def __init__(self, regressor: TorchRegressor) -> None:
            super().__init__()
            self.net, self.scale = regressor.net.cpu(), regressor.about.sigma_scale or 1.0
            self.uncertain = regressor.about.settings.model.uncertainty

        def forward(self, images: torch.Tensor) -> Any:
            answer = self.net(images)
            return (answer[..., :3], self.scale * answer[..., 3].exp()) if self.uncertain else answer

    _onnx()
    size = regressor.about.crop_size
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the exporter's, about its own insides
        torch.onnx.export(
            _Exported(regressor).eval(),
            (torch.zeros(2, 3, size, size),),
            str(path),
            input_names=["images"],
            output_names=["landmarks", *(["sigma_px"] * regressor.about.settings.model.uncertainty)],
            dynamic_shapes={"images": {0: torch.export.Dim("batch")}},
            opset_version=OPSET,
            dynamo=True,
            external_data=False,
            verbose=False,
        )


def _describe(path: Path, regressor: TorchRegressor) -> None:
    onnx = _onnx()
    model = onnx.load(str(path))
    used = {node.domain for node in model.graph.node} | {""}
    for declared in [one for one in model.opset_import if one.domain not in used]:
        model.opset_import.remove(declared)
    onnx.helper.set_model_props(model, {ONNX_METADATA: json.dumps(description(regressor))})
    model.doc_string = "Dense 3D face landmarks; see the metadata"
    onnx.save(model, str(path))


def _write_fp16(source: Path, path: Path, crops: Image) -> None:
    from onnxruntime.transformers.float16 import convert_float_to_float16

    onnx = _onnx()
    # Input and output stay float32.
    onnx.save(convert_float_to_float16(onnx.load(str(source)), keep_io_types=True), str(path))


def _write_int8(source: Path, path: Path, crops: Image) -> None:
    import logging

    from onnxruntime.quantization import CalibrationDataReader, QuantFormat, QuantType, quantize_static
    from onnxruntime.quantization.shape_inference import quant_pre_process

    class Crops(CalibrationDataReader):  # type: ignore[misc]
        def __init__(self) -> None:
            self.batches = iter([crops[n : n + 1] for n in range(len(crops))])

        def get_next(self) -> dict[str, Any] | None:
            crop = next(self.batches, None)
            return None if crop is None else {"images": crop.transpose(0, 3, 1, 2).astype(np.float32)}

    onnx, root = _onnx(), logging.getLogger()
    level = root.level
    root.setLevel(logging.ERROR)  # the quantiser's advice goes there
    prepared = path.with_name(f"{path.name}.prepared")
    try:
        quant_pre_process(str(source), str(prepared), skip_symbolic_shape=True)
        nodes = [node.name for node in onnx.load(str(prepared)).graph.node if node.op_type in ("Conv", "Gemm")]
        quantize_static(
            str(prepared), str(path), Crops(), quant_format=QuantFormat.QDQ, per_channel=True,
            activation_type=QuantType.QUInt8, weight_type=QuantType.QInt8,
            # The first layer sees every pixel, the last gives pixels: both stay exact.
            nodes_to_quantize=nodes[1:-1],
        )  # fmt: skip
    finally:
        root.setLevel(level)
        prepared.unlink(missing_ok=True)


def _compare(regressor: TorchRegressor, file: Path, path: Path, variant: str, crops: Image) -> Parity:
    exported = OnnxRegressor.open(file)
    differences = []
    for first in range(0, len(crops), 8):
        batch = crops[first : first + 8]
        for one, other in zip(exported.with_sigma(batch), regressor.with_sigma(batch), strict=True):
            if one is not None and other is not None:
                differences.append(np.abs(one - other).ravel())
    difference = np.concatenate(differences)
    largest = float(difference.max())
    if not largest <= LIMITS_PX[variant]:
        raise ParityError(
            f"{path.name} is not written, nor the others: its landmarks differ from torch's by {largest:.3g} px, "
            f"at most {LIMITS_PX[variant]:g} are allowed for {variant}"
        )
    return Parity(variant, path, largest, float(difference.mean()), file.stat().st_size)


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
    about, settings = description(regressor), regressor.about.settings
    rows = [f"| `{p.path.name}` | {p.bytes / 1e6:.1f} | {p.largest_px:.2g} | {p.mean_px:.2g} |" for p in made]
    table = ["| file | MB | largest difference to torch, px | mean, px |", "|---|---|---|---|", *rows] if rows else []
    return "\n".join(
        [
            "---",
            "license: other",
            "license_name: as-the-training-data",
            "library_name: onnx",
            "pipeline_tag: keypoint-detection",
            "tags: [face-landmarks, dense-landmarks, 3d-face, densetrain]",
            "---",
            "",
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
