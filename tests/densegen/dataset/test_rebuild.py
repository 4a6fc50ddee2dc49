from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest

from densegen.dataset.build import Plan
from densegen.dataset.pipeline import Recipe, mesh_in_image
from densegen.dataset.rebuild import MapRenderer, stored_fit, write_position_maps
from densegen.dataset.shards import ShardReader
from densegen.errors import ConfigurationError
from densegen.face.morphable_model import MorphableModel
from densegen.geometry.crop import Crop
from densegen.geometry.flip import flip_position_map
from densegen.geometry.position_map import encode_fixed_point
from densegen.sources.fits import read_fit


def test_a_rebuilt_map_is_the_builds_to_the_last_bit(
    dataset: Path, plan: Plan, model: MorphableModel, recipe: Recipe
) -> None:
    table = recipe.uv_table
    with ShardReader(dataset / "shard-00001.h5") as shard:
        for row, entry in enumerate(np.repeat(np.array(plan.entries[2:4], object), 2)):
            ((rebuilt, valid),) = MapRenderer(model).render([stored_fit(shard, row)])
            # What the build computed before it was rounded to fixed point.
            mirrored = bool(shard.array("mirrored")[row])
            stored = Crop.from_array(shard.array("crop")[row])
            crop = stored.mirrored(450) if mirrored else stored
            computed = table.position_map(crop.apply(mesh_in_image(model, read_fit(entry.fit), 450)))
            if mirrored:
                computed, _ = flip_position_map(computed, table.valid)
            assert np.abs(rebuilt - computed).max() < 1e-3
            assert np.array_equal(encode_fixed_point(rebuilt, valid), shard.position_map(row))


def test_maps_are_written_for_all_or_for_some(dataset: Path, model: MorphableModel, tmp_path: Path) -> None:
    assert write_position_maps(dataset, model, tmp_path / "all") == 32
    some = ["SYNTH/SYNTH_00001_2+mirror", "SYNTH/SYNTH_00000_0"]
    assert write_position_maps(dataset, model, tmp_path / "some", some) == 2
    for sample_id in some:
        name = f"{sample_id}.npy"
        assert (tmp_path / "all" / name).read_bytes() == (tmp_path / "some" / name).read_bytes()
        position_map = np.load(tmp_path / "some" / name, allow_pickle=False)
        assert position_map.shape == (256, 256, 3)
        assert 0.5 < np.isfinite(position_map).mean() < 1


def test_a_file_that_is_no_map_is_not_replaced(dataset: Path, model: MorphableModel, tmp_path: Path) -> None:
    (tmp_path / "SYNTH").mkdir()
    (tmp_path / "SYNTH/SYNTH_00000_0.npy").write_text("mine")
    with pytest.raises(ConfigurationError, match="did not write"):
        write_position_maps(dataset, model, tmp_path, ["SYNTH/SYNTH_00000_0"])


def test_another_model_is_refused(dataset: Path, model: MorphableModel, tmp_path: Path) -> None:
    other = dataclasses.replace(model, shape_mean=model.shape_mean * 2)
    with pytest.raises(ConfigurationError, match=r"shard-00000\.h5 was made with densegen procedural face"):
        write_position_maps(dataset, other, tmp_path)
