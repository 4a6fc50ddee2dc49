"""What a trained network says about itself, in checkpoints and exported files: plain values, checked when read."""

from __future__ import annotations

from typing import Annotated, Any

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from densegen.arrays import Float64
from densegen.errors import FormatError
from densegen.index.vertex_index import VertexIndex, parse_index
from densegen.records import first_problem
from densetrain.config import FitSettings

__all__ = ["CHECKPOINT_KEY", "CHECKPOINT_VERSION", "PROCESSES_KEY", "Description", "read_description"]

CHECKPOINT_VERSION = 1

CHECKPOINT_KEY = "densetrain"
"""Where a checkpoint holds its description."""

PROCESSES_KEY = "densetrain_processes"
"""Where it holds how many processes trained: a step sees a batch of each, so no other number goes on."""


class Description(BaseModel):
    """Enough to use a network, and to tell whether it belongs to some shards.

    vertex_index : the text of the index file
    crop_size : S, side of a crop, pixels
    margin : a crop's side in units of the face box's mean side
    reference_face : (N, 3) mean frontal face of the training set, model frame's directions, no unit; for head poses
    mean_landmarks : (N, 3) of the training set, pixels, crop frame: a network that has learnt nothing predicts them
    datasets : names of the datasets that it was trained on
    shards_fingerprint : SHA-256 over the shards that it was trained on
    sigma_scale : factor on the network's standard deviations, so that they are right on the validation samples; None
        for a network that says none
    flip_line : the expected NME of a face, percent, of all landmarks in 2D, where the two answers of a flip test lie d
        percent apart, is ``flip_line[0] + flip_line[1] * d``, by the validation samples; None if the index is not
        closed under the mirror
    validation_nme : percent, of all landmarks in 2D, at the checkpoint's epoch; see ``LandmarkModule``
    """

    model_config = ConfigDict(frozen=True, extra="ignore", allow_inf_nan=False)

    version: int = CHECKPOINT_VERSION
    densetrain_version: str = ""
    settings: FitSettings
    vertex_index: str
    vertex_index_fingerprint: str
    crop_size: Annotated[int, Field(ge=32, le=1024)]
    margin: Annotated[float, Field(gt=0, le=10)]
    reference_face: tuple[tuple[float, float, float], ...] | None = None
    mean_landmarks: tuple[tuple[float, float, float], ...] | None = None
    datasets: tuple[str, ...] = ()
    shards_fingerprint: str = ""
    sigma_scale: Annotated[float, Field(gt=0, le=1e6)] | None = None
    flip_line: tuple[float, float] | None = None
    validation_nme: float | None = None

    @property
    def reference(self) -> Float64 | None:
        """``reference_face`` as (N, 3) float64."""
        return None if self.reference_face is None else np.array(self.reference_face)


def read_description(contents: Any, name: str) -> tuple[Description, VertexIndex]:
    """A description from plain values, and its vertex index; ``name`` is the file's, for errors.

    Raises :class:`FormatError` if it is of an unknown version, incomplete or contradicts itself.
    """
    if not isinstance(contents, dict):
        raise FormatError(f"{name} is not a network of densetrain")
    if (found := contents.get("version")) != CHECKPOINT_VERSION:
        raise FormatError(f"{name} has checkpoint version {found}, expected {CHECKPOINT_VERSION}: update densetrain")
    try:
        about = Description.model_validate(contents)
    except ValidationError as error:
        raise FormatError(f"{name}: {first_problem(error)}") from error
    index = parse_index(about.vertex_index, f"{name}: vertex index")
    for what in ("reference_face", "mean_landmarks"):
        points = getattr(about, what)
        if points is not None and len(points) != len(index):
            raise FormatError(f"{name}: {what} has {len(points)} points, expected {len(index)}")
    return about, index
