"""An exported network, run by ONNX Runtime."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from densegen.arrays import Float32, Image
from densegen.errors import ConfigurationError, FormatError, in_short
from densegen.extras import install_line
from densegen.files import read_bytes
from densegen.index.vertex_index import VertexIndex
from densetrain.network.description import Description, read_description
from densetrain.network.onnx_graph import metadata, refused

__all__ = ["ONNX_METADATA", "OnnxRegressor"]

MAX_ONNX_BYTES = 2 << 30

ONNX_METADATA = "densetrain"
"""The key of an ONNX file's metadata that holds the model's description as JSON."""


@dataclass(eq=False)
class OnnxRegressor:
    """An exported network in ONNX Runtime; the file's metadata says the rest."""

    session: Any
    about: Description
    index: VertexIndex
    name: str
    weights: str

    @classmethod
    def open(cls, path: Path) -> OnnxRegressor:
        """Open an ``.onnx`` file of ``densetrain export``.

        Raises :class:`ConfigurationError` if it does not exist or ONNX Runtime is not installed,
        :class:`FormatError` if it is another network or damaged.
        """
        data = read_bytes(path, "model", MAX_ONNX_BYTES)
        try:
            import onnxruntime
        except ModuleNotFoundError as error:
            raise ConfigurationError(f"ONNX files need ONNX Runtime: {install_line('export')}") from error
        except ImportError as error:
            raise ConfigurationError(f"ONNX Runtime is installed, but does not load: {error}") from error
        try:
            useless, about_file = sorted(refused(data)), metadata(data)
        except ValueError as error:
            raise FormatError(f"{path.name} is not a readable ONNX file: {error}") from error
        if useless:
            raise FormatError(f"{path.name} is refused: a regressor has no use for {', '.join(useless)}")
        try:
            contents = json.loads(about_file[ONNX_METADATA])
        except (KeyError, ValueError, RecursionError) as error:
            raise FormatError(f"{path.name} was not exported by densetrain: it lacks its description") from error
        about, index = read_description(contents, path.name)
        options = onnxruntime.SessionOptions()
        options.log_severity_level = 4
        try:
            # From the bytes that were looked at: a graph can name other files only beside a path.
            session = onnxruntime.InferenceSession(data, options, providers=["CPUExecutionProvider"])
        # ONNX Runtime's errors have no common base but this.
        except Exception as error:
            raise FormatError(f"{path.name} is not a readable ONNX file: {in_short(error, 400)}") from error
        size = about.crop_size
        outputs = {"landmarks": [len(index), 3]}
        if about.settings.model.uncertainty:
            outputs["sigma_px"] = [len(index)]
        for put, wanted in ((session.get_inputs(), {"images": [3, size, size]}), (session.get_outputs(), outputs)):
            found = [(one.name, one.type, one.shape[1:]) for one in put]
            if found != [(name, "tensor(float)", shape) for name, shape in wanted.items()] or isinstance(
                put[0].shape[0], int
            ):
                words = " and ".join(f"{name} of shape (batch, {str(shape)[1:-1]})" for name, shape in wanted.items())
                raise FormatError(f"{path.name} does not have {words}, float32")
        name = f"{path.absolute().parent.name}/{path.name}"
        return cls(session, about, index, name, hashlib.sha256(data).hexdigest()[:16])

    def __call__(self, crops: Image) -> Float32:
        return self.with_sigma(crops)[0]

    def with_sigma(self, crops: Image) -> tuple[Float32, Float32 | None]:
        """See :meth:`Regressor.with_sigma`."""
        images = crops.transpose(0, 3, 1, 2).astype(np.float32, order="C")
        try:
            landmarks, *sigma = (array.astype(np.float32) for array in self.session.run(None, {"images": images}))
        # ONNX Runtime's errors have no common base but this.
        except Exception as error:
            raise FormatError(f"{self.name} cannot be run: {in_short(error, 400)}") from error
        if not np.isfinite(landmarks).all():
            raise FormatError(f"{self.name} gives landmarks that are not finite: its weights are damaged")
        if not all((one > 0).all() and np.isfinite(one).all() for one in sigma):
            raise FormatError(f"{self.name} gives standard deviations that are not above 0: its weights are damaged")
        return landmarks, sigma[0] if sigma else None
