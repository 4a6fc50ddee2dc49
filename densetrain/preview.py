"""Pictures of training samples and of predictions, as arrays and files."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from densegen.arrays import Float32, Image
from densegen.conventions import CROP_SIZE
from densegen.drawing import contact_sheet, depth_colours, draw_points, write_png
from densetrain.config import FitSettings

if TYPE_CHECKING:
    from densegen.dataset.shard_set import ShardSet
    from densetrain.evaluation.benchmarks import Benchmark
    from densetrain.network.regressor import Regressor

__all__ = ["draw_augmented", "draw_held_out", "draw_worst_images"]

TRUTH_COLOUR = (255, 255, 255)
CAPTION_PX = 14
SHOWN_MARGIN = 1.5
"""Side of what is shown of a benchmark's photograph, in units of the face box's."""


def draw_augmented(shards: ShardSet, settings: FitSettings, count: int, path: Path, columns: int = 6) -> None:
    """Write a contact sheet of augmented training samples with their landmarks, coloured by depth."""
    import torch

    from densetrain.data.augment import augment, check_flips, draw

    check_flips(settings.augment, shards)
    rows = shards.rows("train")
    rows = rows[np.linspace(0, len(rows) - 1, count).astype(int)]
    reader = shards.open()
    images = torch.from_numpy(reader.images(rows)).permute(0, 3, 1, 2)
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


def draw_held_out(
    regressor: Regressor, shards: ShardSet, worst: Mapping[str, str], path: Path, columns: int = 6
) -> None:
    """Write a contact sheet of samples by id: predictions coloured by depth, the truth of the 68 in white.

    worst : what stands on the tile of each sample, by its id
    """
    place = {str(name): row for row, name in enumerate(shards.sample_ids)}
    reader = shards.open()
    tiles: list[Image] = []
    for name, words in worst.items():
        image = reader.image(place[name])
        tiles.append(_compare(image, regressor(image[None])[0], shards.keypoints68[place[name]], words))
    reader.close()
    write_png(contact_sheet(tiles, columns), path)


def draw_worst_images(
    benchmark: Benchmark, predicted: npt.NDArray[np.floating], worst: Mapping[str, str], path: Path, columns: int = 6
) -> None:
    """Write a contact sheet of a benchmark's faces by name: predictions by depth, the truth in white, as crops.

    worst : what stands on the tile of each face, by its name
    predicted : (n, 68, 2 or 3) of all of the benchmark's faces, pixels of their images
    """
    from densegen.geometry.crop import crop_of_box, warp
    from densegen.sources.photograph import read_photograph

    assert benchmark.images is not None
    place = {name: row for row, name in enumerate(benchmark.names)}
    tiles: list[Image] = []
    for name, words in worst.items():
        row = place[name]
        crop = crop_of_box(benchmark.boxes[row], SHOWN_MARGIN, CROP_SIZE)
        truth = benchmark.truth_in_image(row)
        shown, true = (crop.apply(_in_space(points)) for points in (predicted[row], truth[np.isfinite(truth[:, 0])]))
        tiles.append(_compare(warp(read_photograph(benchmark.images[row]), crop), shown, true, words))
    write_png(contact_sheet(tiles, columns), path)


def _in_space(points: npt.NDArray[np.floating]) -> Float32:
    """(P, 3) of (P, 2 or 3) points: z is 0 if it is not known."""
    return np.pad(points, ((0, 0), (0, 3 - points.shape[1]))).astype(np.float32)


def _compare(image: Image, predicted: Float32, truth: Float32, words: str) -> Image:
    tile = draw_points(image, predicted, depth_colours(predicted), scale=1, radius=1.0)
    return _caption(draw_points(tile, truth, TRUTH_COLOUR, scale=1, radius=0.8), words)


def _caption(image: Image, words: str) -> Image:
    """The image above a line of text."""
    from PIL import Image, ImageDraw

    height, width = image.shape[:2]
    canvas = Image.new("RGB", (width, height + CAPTION_PX))
    canvas.paste(Image.fromarray(image))
    ImageDraw.Draw(canvas).text((3, height + 1), words, fill=TRUTH_COLOUR)
    return np.asarray(canvas, np.uint8)
