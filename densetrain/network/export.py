"""Trained networks as files for elsewhere: ONNX (fp32, fp16, int8) and safetensors, each with its description."""

from __future__ import annotations

import json
import warnings
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from densegen.arrays import Image
from densegen.errors import ConfigurationError, DensegenError
from densegen.extras import install_line
from densegen.files import replace_file, replace_into, write_bytes, write_text
from densegen.outputs import refuse_no_folder
from densetrain.network.checkpoint import TorchRegressor
from densetrain.network.model_card import SHEETS, SHEETS_FOLDER, Parity, describe, model_card
from densetrain.network.onnx_regressor import ONNX_METADATA, OnnxRegressor

__all__ = [
    "LIMITS_PX",
    "Parity",
    "ParityError",
    "check_folder",
    "export",
    "export_onnx",
    "export_safetensors",
]

LIMITS_PX = {"fp32": 1e-2, "fp16": 1.0, "int8": 8.0}
"""How far a variant's landmarks may lie from torch's: the largest distance of a coordinate, pixels."""

OPSET = 18


class ParityError(DensegenError):
    """An exported file does not compute what the network computes."""


def check_folder(folder: Path) -> None:
    """Refuse a folder that holds files of an export's names, but no exported network: they are something else's."""
    refuse_no_folder(folder)
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
    write_text(folder / "config.json", json.dumps(describe(regressor), indent=1) + "\n")
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
    onnx.helper.set_model_props(model, {ONNX_METADATA: json.dumps(describe(regressor))})
    model.doc_string = "Dense 3D face landmarks; see the metadata"
    onnx.save(model, str(path))


def _write_fp16(source: Path, path: Path, crops: Image) -> None:
    from onnxruntime.transformers.float16 import convert_float_to_float16
    from onnxruntime.transformers.onnx_model import OnnxModel

    onnx = _onnx()
    # Input and output stay float32. The converter puts its own nodes last, where a reader has not met them yet.
    model = OnnxModel(convert_float_to_float16(onnx.load(str(source)), keep_io_types=True))
    model.topological_sort()
    onnx.save(model.model, str(path))


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
