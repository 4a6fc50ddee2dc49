"""Position maps again: any sample's, from its shard and the morphable model."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

from densegen.arrays import Float32, Mask
from densegen.dataset.build_record import find_sample, read_dataset_manifest
from densegen.dataset.shards import ShardReader
from densegen.errors import ConfigurationError, FormatError
from densegen.face.morphable_model import MorphableModel
from densegen.files import replace_file
from densegen.geometry.crop import Crop
from densegen.geometry.flip import flip_position_map
from densegen.geometry.pose import pose_vertices
from densegen.geometry.position_map import UvTable, make_uv_table

__all__ = ["check_model", "rebuild_position_map", "write_position_maps"]


def check_model(shard: ShardReader, model: MorphableModel) -> None:
    """Raise :class:`ConfigurationError` if ``model`` is not the one that the shard was made with."""
    if shard.attributes["model_fingerprint"] != model.fingerprint:
        raise ConfigurationError(
            f"{shard.path.name} was made with {shard.attributes['model_name']} "
            f"{str(shard.attributes['model_fingerprint'])[:12]}…, {model.name} is {model.fingerprint[:12]}…"
        )


def rebuild_position_map(shard: ShardReader, row: int, model: MorphableModel, table: UvTable) -> tuple[Float32, Mask]:
    """Render the position map of sample ``row`` as the build did, to 1e-3 px.

    table : ``make_uv_table(model.uv, model.triangles)``
    returns : (256, 256, 3) float32, pixels, crop frame, 0 if not valid; and (256, 256) bool, the valid pixels
    """
    file = shard.file
    size = int(shard.attributes["crop_size"])
    if not np.isfinite(file["crop"][row]).all():
        raise FormatError(
            f"{shard.path.name}: the crop of {shard.sample_ids[row]} is not finite: run 'densegen verify'"
        )
    height, width = map(int, file["image_size"][row])
    crop = Crop.from_array(file["crop"][row], size)
    mirrored = bool(file["mirrored"][row])
    vertices = model.vertices(file["shape"][row], file["expression"][row])
    mesh_image = pose_vertices(vertices, file["pose"][row], height)
    # The stored crop is that of the mirrored photograph; mirroring is its own reverse.
    mesh_crop = (crop.mirrored(width) if mirrored else crop).apply(mesh_image)
    position_map = table.position_map(mesh_crop)
    return flip_position_map(position_map, table.valid, size) if mirrored else (position_map, table.valid)


def write_position_maps(
    folder: Path,
    model: MorphableModel,
    out: Path,
    sample_ids: Sequence[str] = (),
    advance: Callable[[int], None] = lambda maps: None,
) -> int:
    """Render the position maps of a dataset, or of some of its samples, into ``out`` and return how many.

    A sample's file is ``out/<sample id>.npy``: (256, 256, 3) float32, pixels, crop frame, NaN if not valid.
    Raises :class:`ConfigurationError` if a sample does not exist or the model is another one.
    """
    table = make_uv_table(model.uv, model.triangles)
    if sample_ids:
        wanted: dict[Path, list[int]] = {}
        for path, row in (find_sample(folder, sample_id) for sample_id in sample_ids):
            wanted.setdefault(path, []).append(row)
    else:
        wanted = {folder / record.file: [] for record in read_dataset_manifest(folder).shards}
    count = 0
    for path, rows in wanted.items():
        with ShardReader(path) as shard:
            check_model(shard, model)
            for row in rows or range(len(shard)):
                position_map, valid = rebuild_position_map(shard, row, model, table)
                position_map[~valid] = np.nan
                with (
                    replace_file(out / f"{shard.sample_ids[row]}.npy") as temporary,
                    temporary.open("wb") as file,
                ):
                    np.save(file, position_map, allow_pickle=False)
                count += 1
                advance(1)
    return count
