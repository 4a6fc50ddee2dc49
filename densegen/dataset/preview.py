"""Look at a sample: its image, its points, its position map, and the texture unwrapped through it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np

from densegen.arrays import Float32, Image, Mask
from densegen.dataset.build_record import find_sample, read_dataset_manifest
from densegen.dataset.rebuild import MapRenderer, check_model, stored_fit
from densegen.dataset.shards import ShardReader
from densegen.drawing import KEYPOINT_COLOUR, as_label, depth_colours, draw_points, save_figure
from densegen.face.morphable_model import MorphableModel
from densegen.geometry.pose import yaw_degrees
from densegen.geometry.position_map import decode_fixed_point

__all__ = ["draw_sample", "list_samples", "unwrap_texture"]


def unwrap_texture(image: Image, position_map: Float32, valid: Mask) -> Image:
    """What the image shows at every UV pixel: (256, 256, 3) uint8; black outside the image and if not valid.

    image : (H, W, 3) uint8
    position_map : (256, 256, 3) float32, pixels, frame of ``image``
    valid : (256, 256) bool, the valid pixels of ``position_map``

    A hidden part of the face gets the colour of whatever hides it.
    """
    height, width = image.shape[:2]
    columns, rows = np.rint(np.moveaxis(position_map[..., :2], -1, 0)).astype(np.int64)
    seen = valid & (columns >= 0) & (columns < width) & (rows >= 0) & (rows < height)
    texture = np.zeros((*valid.shape, 3), np.uint8)
    texture[seen] = image[rows[seen], columns[seen]]
    return texture


def list_samples(folder: Path) -> Iterator[tuple[str, str, float]]:
    """Every sample of a dataset, in its order: id, split, and yaw in degrees, that of the picture."""
    for record in read_dataset_manifest(folder).shards:
        with ShardReader(folder / record.file) as shard:
            yaw = yaw_degrees(shard.array("pose"), shard.array("mirrored"))
            yield from zip(shard.sample_ids, shard.splits, map(float, yaw), strict=True)


def draw_sample(folder: Path, sample_id: str, path: Path, model: MorphableModel | None = None) -> None:
    """Draw a sample of the dataset in ``folder`` side by side, as PNG.

    The position map comes from the shard; if the shard has none, from the model, and without a model it is left out.
    Raises :class:`ConfigurationError` if there is no such sample, or the model is another one.
    """
    shard_path, row = find_sample(folder, sample_id)
    with ShardReader(shard_path) as shard:
        if model is not None:
            check_model(shard_path, shard.attributes["model_name"], shard.attributes["model_fingerprint"], model)
        image = shard.image(row)
        landmarks, keypoints = shard.array("landmarks")[row], shard.array("keypoints68")[row]
        mapped = _position_map(shard, row, model)
        yaw = yaw_degrees(shard.array("pose"), shard.array("mirrored"))[row]
        about = f"{sample_id}  ·  yaw {yaw:.0f}°  ·  {shard.splits[row]}"
    white = np.array(KEYPOINT_COLOUR, np.uint8)
    panels: list[tuple[str, Image]] = [
        ("image", image),
        ("68 keypoints", draw_points(image, keypoints, white, scale=2, radius=3.0, rim=1.2)),
        (
            f"{len(landmarks)} landmarks, by depth",
            draw_points(image, landmarks, depth_colours(landmarks), scale=2, radius=2.2, rim=1.0),
        ),
    ]
    if mapped is not None:
        panels.append(("position map (x, y, z as r, g, b)", _as_colours(*mapped)))
        panels.append(("texture through the position map", unwrap_texture(image, *mapped)))
    _side_by_side(panels, about, path)


def _side_by_side(panels: list[tuple[str, Image]], about: str, path: Path) -> None:
    """Write pictures with their titles as one; ``about`` stands above them."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(3.2 * len(panels), 3.7), layout="constrained")
    for axes, (title, panel) in zip(np.atleast_1d(figure.subplots(1, len(panels))), panels, strict=True):
        axes.imshow(panel)
        axes.set_title(title, fontsize=9)
        axes.set_axis_off()
    figure.suptitle(as_label(about), fontsize=10)
    save_figure(figure, path)


def _position_map(shard: ShardReader, row: int, model: MorphableModel | None) -> tuple[Float32, Mask] | None:
    if shard.has_position_maps:
        valid = shard.array("valid_uv")
        valid = valid[:, ::-1] if shard.array("mirrored")[row] else valid
        return decode_fixed_point(shard.position_map(row), valid, shard.attributes["crop_size"]), valid
    if model is None:
        return None
    check_model(shard.path, shard.attributes["model_name"], shard.attributes["model_fingerprint"], model)
    return next(MapRenderer(model).render([stored_fit(shard, row)]))


def _as_colours(position_map: Float32, valid: Mask) -> Image:
    colours: Image = np.zeros(position_map.shape, np.uint8)
    if valid.any():
        shown = position_map[valid] - position_map[valid].min(axis=0)
        colours[valid] = (shown * (255 / np.maximum(shown.max(axis=0), 1e-6))).clip(0, 255)
    return colours
