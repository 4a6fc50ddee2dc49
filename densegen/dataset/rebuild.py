"""Position maps again: any sample's, from its shard and the morphable model."""

from __future__ import annotations

import io
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from densegen.arrays import Float32, Mask
from densegen.dataset.build_record import find_sample, read_dataset_manifest
from densegen.dataset.pipeline import BATCH
from densegen.dataset.shards import ShardReader
from densegen.errors import ConfigurationError, FormatError
from densegen.face.components import combine
from densegen.face.morphable_model import MorphableModel
from densegen.files import write_bytes
from densegen.geometry.crop import Crop
from densegen.geometry.flip import flip_position_map
from densegen.geometry.pose import pose_vertices
from densegen.geometry.position_map import UvTable, make_uv_table
from densegen.geometry.surface import used_vertices
from densegen.outputs import check_output
from densegen.sources.fits import Fit

__all__ = ["MapRenderer", "StoredFit", "check_model", "stored_fit", "write_position_maps"]


def check_model(path: Path, name: object, fingerprint: object, model: MorphableModel) -> None:
    """Raise :class:`ConfigurationError` if ``model`` is not the one that the shard ``path`` names."""
    if fingerprint != model.fingerprint:
        raise ConfigurationError(
            f"{path.name} was made with {name} {str(fingerprint)[:12]}…, {model.name} is {model.fingerprint[:12]}…"
        )


@dataclass(frozen=True, slots=True, eq=False)
class StoredFit:
    """The part of a stored sample from which its position map can be rendered again.

    crop : as stored: from the image frame to the crop frame; if ``mirrored``, from that of the mirrored photograph
    image_size : (height, width) of the photograph
    """

    fit: Fit
    crop: Crop
    image_size: tuple[int, int]
    mirrored: bool


@dataclass(frozen=True, eq=False)
class MapRenderer:
    """Renders position maps as a build does, to the last bit, from fits that shards hold."""

    model: MorphableModel

    def __getstate__(self) -> dict[str, Any]:
        return {"model": self.model}

    @cached_property
    def _needed(self) -> tuple[Float32, UvTable]:
        """The model's basis at the vertices that the maps show, and the table for these alone."""
        table = make_uv_table(self.model.uv, self.model.triangles)
        needed = used_vertices(table.points)
        return self.model.basis_at(needed), table.among(needed)

    def render(self, fits: Sequence[StoredFit]) -> Iterator[tuple[Float32, Mask]]:
        """A map and its valid pixels for each fit: (256, 256, 3) float32, pixels, crop frame, 0 if not valid; and
        (256, 256) bool, not to be written to. Several at once take a fraction of the time.

        Raises :class:`FormatError` if a map is not finite.
        """
        if not fits:
            return
        basis, table = self._needed
        # A sample and its mirror image come from one face.
        coefficients = [self.model.coefficients(one.fit.shape, one.fit.expression) for one in fits]
        face_of = {one.tobytes(): one for one in coefficients}
        faces = dict(zip(face_of, combine(np.stack(list(face_of.values())), basis), strict=True))
        for one, own in zip(fits, coefficients, strict=True):
            height, width = one.image_size
            points_image = pose_vertices(faces[own.tobytes()], one.fit.pose, height)
            # The stored crop is that of the mirrored photograph; mirroring is its own reverse.
            crop = one.crop.mirrored(width) if one.mirrored else one.crop
            with np.errstate(all="ignore"):
                position_map = table.position_map(crop.apply(points_image))
            if not np.isfinite(position_map).all():
                raise FormatError("a stored fit gives a position map that is not finite: run 'densegen verify'")
            if one.mirrored:
                yield flip_position_map(position_map, table.valid, crop.size)
            else:
                yield position_map, table.valid


def stored_fit(shard: ShardReader, row: int) -> StoredFit:
    """What ``shard`` says of its sample ``row``."""
    file = shard.file
    pose, shape, expression, crop = (file[name][row] for name in ("pose", "shape", "expression", "crop"))
    if not all(np.isfinite(numbers).all() for numbers in (pose, shape, expression, crop)):
        raise FormatError(f"{shard.path.name}: the fit of {shard.sample_ids[row]} is not finite: run 'densegen verify'")
    height, width = map(int, file["image_size"][row])
    stored_crop = Crop.from_array(crop, int(shard.attributes["crop_size"]))
    return StoredFit(Fit(pose, shape, expression), stored_crop, (height, width), bool(file["mirrored"][row]))


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
    renderer = MapRenderer(model)
    if sample_ids:
        wanted: dict[Path, list[int]] = {}
        for path, row in (find_sample(folder, sample_id) for sample_id in sample_ids):
            wanted.setdefault(path, []).append(row)
    else:
        wanted = {folder / record.file: [] for record in read_dataset_manifest(folder).shards}
    count = 0
    for path, rows in wanted.items():
        with ShardReader(path) as shard:
            check_model(path, shard.attributes["model_name"], shard.attributes["model_fingerprint"], model)
            chosen = rows or range(len(shard))
            for start in range(0, len(chosen), BATCH):
                batch = chosen[start : start + BATCH]
                made = renderer.render([stored_fit(shard, row) for row in batch])
                for row, (position_map, valid) in zip(batch, made, strict=True):
                    position_map[~valid] = np.nan
                    target, file = out / f"{shard.sample_ids[row]}.npy", io.BytesIO()
                    check_output(target)
                    np.save(file, position_map, allow_pickle=False)
                    write_bytes(target, file.getvalue())
                    count += 1
                    advance(1)
    return count
