"""What is the same in every room: sizes, names, frames, and the version of the shard schema."""

from typing import Final, Literal

__all__ = [
    "CROP_SIZE",
    "FRAMES",
    "MIRROR_SUFFIX",
    "OWN_INDEX",
    "POSE_FIELDS",
    "SHARD_SCHEMA_VERSION",
    "SPLITS",
    "UV_LAYOUT",
    "UV_SIZE",
    "YAW_EDGES_DEG",
    "FlipPolicy",
    "landmark_range_px",
    "position_map_grid_px",
]

SHARD_SCHEMA_VERSION: Final = 3

CROP_SIZE: Final = 256
"""Side of a training crop in pixels."""

UV_SIZE: Final = 256
"""Side of a UV position map in pixels."""

UV_LAYOUT: Final = "bfm-3dmmasstn"
"""The UV unwrapping that the project speaks: 3DMMasSTN's of the Basel Face Model, used by PRNet and face3d."""

OWN_INDEX: Final = "vertex_index_520.yaml"
"""File name of densegen's own vertex index, in ``data_manifests``."""

POSE_FIELDS: Final = ("pitch_rad", "yaw_rad", "roll_rad", "tx_px", "ty_px", "tz_px", "scale")
"""The seven numbers of ``Pose_Para``, in order; tx, ty, tz are in the camera frame."""

FlipPolicy = Literal["mirror", "shipped", "none"]
"""Mirror images: made here, read from the dataset's own folders, or none."""

SPLITS: Final = ("train", "validation", "test")
"""Names of the splits; a shard stores a sample's split as the position in this tuple."""


YAW_EDGES_DEG: Final = (0, 30, 60, 90)
"""Bins of |yaw| in tables and pictures: [0, 30], (30, 60], (60, 90], as published tables have them."""

MIRROR_SUFFIX: Final = "+mirror"
"""What the id of a sample mirrored here ends in."""


def landmark_range_px(size: int) -> tuple[float, float]:
    """Landmarks lie in their crop of ``size`` px or near it; outside this range something is wrong."""
    return -2.0 * size, 3.0 * size


def position_map_grid_px(size: int) -> tuple[float, float]:
    """Step and offset of fixed-point position maps: 16 bits hold a crop of ``size`` px with half a crop of room on both
    sides. Of 256 px: steps of 1/128 px from -128 px.
    """
    return size / 32768, -size / 2


FRAMES: Final = {
    "model": "morphable model units (micrometres in the Basel Face Model), y up, z towards the viewer",
    "camera": "pixels as MATLAB counts them: x right from 1, y up from the bottom from 1, z towards the viewer",
    "image": "pixels, centres at integers from 0, x right, y down, z towards the viewer (left-handed)",
    "crop": "pixels of the crop, centres at integers from 0, x right, y down, z towards the viewer, "
    "smallest z of the whole mesh = 0",
    "uv": "pixels of the UV map, centres at integers from 0: column = u * (W - 1), row = (H - 1) * (1 - v)",
}
"""Every frame a number can be in, in words; shards carry this text."""
