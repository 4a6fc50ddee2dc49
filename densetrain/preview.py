"""Pictures of training samples and of predictions, as arrays and files."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from densegen.overlay import contact_sheet, depth_colours, draw_points, write_png
from densetrain.config import FitSettings

if TYPE_CHECKING:
    from densetrain.benchmarks import Benchmark
    from densetrain.regressor import Regressor
    from densetrain.shard_set import ShardSet

__all__ = ["draw_augmented", "draw_held_out", "draw_worst_images"]

TRUTH_COLOUR = (255, 255, 255)


def draw_augmented(shards: ShardSet, settings: FitSettings, count: int, path: Path, columns: int = 6) -> None:
    """Write a contact sheet of augmented training samples with their landmarks, coloured by depth."""
    import torch

    from densetrain.augment import augment, draw

    if settings.augment.flip > 0:
        shards.check_flips()
    rows = shards.rows("train")
    rows = rows[np.linspace(0, len(rows) - 1, count).astype(int)]
    reader = shards.open()
    images = torch.from_numpy(np.stack([reader.image(int(row)) for row in rows])).permute(0, 3, 1, 2)
    landmarks = torch.from_numpy(np.stack([reader.landmarks(int(row)) for row in rows]))
    reader.close()
    draws = draw(count, settings.augment, torch.Generator().manual_seed(settings.seed))
    images, landmarks = augment(images, landmarks, draws, torch.from_numpy(shards.index.mirror))
    pixels = images.round().to(torch.uint8).permute(0, 2, 3, 1).numpy()
    tiles = [
        draw_points(image, points, depth_colours(points), scale=1, radius=1.0)
        for image, points in zip(pixels, landmarks.numpy(), strict=True)
    ]
    write_png(contact_sheet(tiles, columns), path)


def draw_held_out(regressor: Regressor, folders: list[Path], names: list[str], path: Path, columns: int = 6) -> None:
    """Write a contact sheet of samples by id: predictions coloured by depth, the truth of the 68 in white."""
    from densetrain.shard_set import open_shards

    shards = open_shards(folders)
    place = {str(name): row for row, name in enumerate(shards.sample_ids)}
    rows = [place[name] for name in names]
    reader = shards.open()
    tiles: list[npt.NDArray[np.uint8]] = []
    for row in rows:
        image = reader.image(row)
        points = regressor(image[None])[0]
        tile = draw_points(image, points, depth_colours(points), scale=1, radius=1.0)
        tiles.append(draw_points(tile, shards.keypoints68[row], TRUTH_COLOUR, scale=1, radius=0.8))
    reader.close()
    write_png(contact_sheet(tiles, columns), path)


def draw_worst_images(
    regressor: Regressor, benchmark: Benchmark, names: list[str], path: Path, columns: int = 6
) -> None:
    """Write a contact sheet of a benchmark's faces by name: predictions by depth, the truth in white, as crops."""
    from densegen.crop import warp
    from densegen.photograph import read_photograph
    from densetrain.regressor import crop_of_box

    place = {name: row for row, name in enumerate(benchmark.names)}
    tiles: list[npt.NDArray[np.uint8]] = []
    for row in (place[name] for name in names):
        assert benchmark.images is not None
        crop = crop_of_box(benchmark.boxes[row], regressor.about.margin, regressor.about.crop_size)
        image = warp(read_photograph(benchmark.images[row]), crop)
        points = regressor(image[None])[0]
        tile = draw_points(image, points, depth_colours(points), scale=1, radius=1.0)
        if benchmark.to_truth is None:
            truth = np.pad(benchmark.truth[row], ((0, 0), (0, 1))).astype(np.float32)
            tile = draw_points(tile, crop.apply(truth), TRUTH_COLOUR, scale=1, radius=0.8)
        tiles.append(tile)
    write_png(contact_sheet(tiles, columns), path)
