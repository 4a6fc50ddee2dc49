"""Surfaces from video: one identity, a pose and an expression for each frame."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

from densegen.arrays import Float64
from densegen.conventions import POSE_FIELDS
from densegen.errors import FormatError, SampleError
from densegen.files import write_many
from densegen.fitting.reconstruction import Reconstructor
from densegen.fitting.solver import Solution
from densegen.index.formats.mesh import landmark_triangles, mesh_bytes
from densetrain.network.regressor import Regressor
from densetrain.prediction.detect import Detector
from densetrain.prediction.video import Filmed, Follower, process_video

__all__ = ["reconstruct_video"]

IDENTITY_FRAMES = 60
"""Frames, spread over the film, that say who it is."""


def reconstruct_video(
    source: Path,
    network: Regressor,
    detector: Detector,
    reconstructor: Reconstructor,
    stem: Path,
    *,
    start: Float64 | None = None,
    limit: int | None = None,
    progress: Callable[[int, int | None], None] = lambda n, total: None,
) -> Filmed:
    """Write ``STEM.mp4`` and ``STEM.jsonl`` with the landmarks, as 'predict' does, then ``STEM-fits.json`` with a pose
    and an expression for each frame, and ``STEM-identity.ply``, the face without expression, in millimetres.

    The identity is the mean of what frames spread over the film say alone; then each frame is solved again with it.

    start : (4,) box of the face in the first frame, else the detector's
    Raises what :func:`~densetrain.prediction.video.process_video` raises, and :class:`FormatError` if no frame has a
    face.
    """
    film = process_video(
        source,
        Follower(network, detector, start=start),
        stem,
        landmark_triangles(network.index),
        limit=limit,
        progress=progress,
    )
    landmarks = stem.with_name(f"{stem.name}.jsonl")
    seen = sum(1 for _ in _faces(landmarks))
    if not seen:
        raise FormatError(f"{source} shows no face")
    chosen = set(np.unique(np.linspace(0, seen - 1, IDENTITY_FRAMES).astype(int)).tolist())
    count, model, shapes = len(reconstructor.model.shape_basis), reconstructor.model, []
    for row, line in enumerate(_faces(landmarks)):
        if row in chosen and (alone := _solve(line, reconstructor)) is not None:
            shapes.append(alone.coefficients[:count].astype(np.float32))
    if not shapes:
        raise FormatError(f"{source}: no frame's landmarks make a face")
    person, rows = reconstructor.with_identity(shapes), []
    for line in _faces(landmarks):
        if (found := _solve(line, person)) is not None:
            pose = dict(zip(POSE_FIELDS, map(float, found.pose), strict=True))
            expression = [float(f"{value:.6g}") for value in found.coefficients[count:]]
            rows.append({"number": line["number"], "time_s": line["time_s"], "pose": pose, "expression": expression})
    shape = person.prior.mean[:count].astype(np.float32)
    contents: dict[str, Any] = {
        "model": {"name": model.name, "fingerprint": model.fingerprint},
        "identity": [float(f"{value:.6g}") for value in shape],
        "identity_frames": len(shapes),
        "frames": rows,
    }
    neutral = model.vertices(shape, np.zeros(len(model.expression_basis), np.float32)) * np.float32(model.unit_mm)
    write_many(
        {
            stem.with_name(f"{stem.name}-fits.json"): (json.dumps(contents) + "\n").encode(),
            stem.with_name(f"{stem.name}-identity.ply"): mesh_bytes(neutral, model.outward_triangles, "ply"),
        }
    )
    return film


def _faces(path: Path) -> Iterator[dict[str, Any]]:
    """The lines of a film's landmarks that have a face, one after the other: all at once they take gigabytes."""
    with path.open(encoding="utf-8") as lines:
        for text in lines:
            line: dict[str, Any] = json.loads(text)
            if line["faces"]:
                yield line


def _solve(line: dict[str, Any], reconstructor: Reconstructor) -> Solution | None:
    (face, *_) = line["faces"]
    sigma = face.get("sigma_px")
    try:
        return reconstructor.solve(
            np.array(face["landmarks"]), line["image_size"]["height"], None if sigma is None else np.array(sigma)
        )
    except SampleError:
        return None
