"""What a prediction is written as: records with a JSON Schema, for readers in any language, and a table."""

from __future__ import annotations

import csv
import io
from typing import Annotated

import numpy as np
from pydantic import BaseModel, ConfigDict, Field

from densegen.arrays import Image, Int64
from densegen.console import plain
from densetrain.network.regressor import Regressor
from densetrain.prediction.face import Face

__all__ = ["FaceRecord", "FrameRecord", "ImageRecord", "IndexRecord", "PoseRecord", "as_csv", "image_record"]

FRAME = "pixels of the image, centres at integers from 0, x right, y down, z towards the viewer"

Point = tuple[float, float, float]


class _Record(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)


class PoseRecord(_Record):
    """Head pose, degrees, as ``Pose_Para`` of 300W-LP counts it; see ``docs/conventions.md``."""

    pitch: float
    """Above 0: the face looks up."""
    yaw: float
    """Above 0: the face is turned towards the image's left, which is its own right."""
    roll: float
    """Above 0: the top of the head leans towards the image's right."""


class FaceRecord(_Record):
    """One face."""

    box: tuple[float, float, float, float]
    """Left, top, right, bottom of the box that the last crop was laid around, pixels of the image."""
    score: float | None
    """The detector's confidence, 0 to 1; null if it states none, or the box was given or followed."""
    pose_deg: PoseRecord | None
    """Null if the network knows no reference face."""
    flip_distance_percent: float | None
    """How far the answers to the crop and to its mirror image lie apart, in the unit of NME, of several crops their
    mean; null without flip test."""
    expected_nme_percent: float | None
    """What NME to expect of the landmarks, by the flip distance, as it is on the validation samples; null without flip
    test."""
    sigma_px: list[float] | None
    """(N) standard deviation of each landmark, pixels of the image; null if the network states none."""
    landmarks: list[Point]
    """(N, 3) in ``frame``; their order is that of the vertex index."""
    keypoints68: list[Point] | None
    """(68, 3) the iBUG 68 in ``frame``; null if the index has none."""


class IndexRecord(_Record):
    """The vertex index that says which landmark is which."""

    name: str
    version: str
    fingerprint: str


class ImageSize(_Record):
    """Pixels."""

    width: int
    height: int


class ImageRecord(_Record):
    """The faces of one image: what ``NAME.json`` holds."""

    image: str
    """Name of the image's file."""
    network: str
    """Name of the network."""
    vertex_index: IndexRecord
    image_size: ImageSize
    """Of the upright image."""
    frame: str = FRAME
    """The frame of all coordinates, in words."""
    triangles: list[tuple[int, int, int]]
    """(T, 3) rows of landmarks: the mesh between them."""
    faces: list[FaceRecord]
    """As they were found: of a detector the largest box first, given boxes in their own order."""


class FrameRecord(ImageRecord):
    """The faces of one frame of video: a line of ``NAME.jsonl`` (JSON Lines)."""

    number: Annotated[int, Field(ge=0)]
    """The frame's, from 0."""
    time_s: float
    """When it is shown, seconds from the first one."""


def image_record(name: str, faces: list[Face], image: Image, triangles: Int64, regressor: Regressor) -> ImageRecord:
    """The record of an image's faces.

    name : of the image's file
    image : (H, W, 3) uint8
    triangles : (T, 3) int64, rows of landmarks
    """
    index = regressor.index
    return ImageRecord(
        image=plain(name),
        network=regressor.name,
        vertex_index=IndexRecord(name=index.name, version=index.version, fingerprint=index.fingerprint),
        image_size=ImageSize(width=image.shape[1], height=image.shape[0]),
        triangles=triangles.tolist(),
        faces=[_face_record(face) for face in faces],
    )


def _face_record(face: Face) -> FaceRecord:
    pose = None
    if face.pose_deg is not None:
        pitch, yaw, roll = np.round(face.pose_deg, 2).tolist()
        pose = PoseRecord(pitch=pitch, yaw=yaw, roll=roll)
    keypoints = face.keypoints68
    return FaceRecord(
        box=np.round(face.box, 2).tolist(),
        score=None if face.score is None else round(face.score, 4),
        pose_deg=pose,
        flip_distance_percent=None if face.flip_distance is None else round(face.flip_distance, 3),
        expected_nme_percent=None if face.expected_nme is None else round(face.expected_nme, 2),
        sigma_px=None if face.sigma_px is None else np.round(face.sigma_px, 3).tolist(),
        landmarks=np.round(face.landmarks.astype(np.float64), 3).tolist(),
        keypoints68=None if keypoints is None else np.round(keypoints.astype(np.float64), 3).tolist(),
    )


def as_csv(faces: list[Face]) -> str:
    """One row a landmark: face, id, x, y, z."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["face", "landmark", "x", "y", "z"])
    for number, face in enumerate(faces):
        writer.writerows([number, row, *(f"{v:.3f}" for v in point)] for row, point in enumerate(face.landmarks))
    return text.getvalue()
