"""Pictures of training samples and of predictions, as arrays and files."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from densegen.arrays import Float32, Image
from densegen.conventions import CROP_SIZE
from densegen.drawing import contact_sheet, depth_colours, draw_lines, draw_points, with_depth_bar, write_png
from densetrain.config import FitSettings

if TYPE_CHECKING:
    from densegen.dataset.shard_set import ShardSet
    from densetrain.evaluation.benchmarks import Benchmark
    from densetrain.network.regressor import Regressor

__all__ = ["draw_augmented", "draw_held_out", "draw_worst_images"]

TRUTH_COLOUR = (255, 255, 255)
LINE_COLOUR = (255, 230, 0)
CAPTION_PX = 24
SCALE = 2
"""Pictures are drawn at twice the size of a crop."""
TILE_PX = 512
"""About the side of an augmented sample's picture."""
SHOWN_MARGIN = 1.5
"""Side of what is shown of a benchmark's photograph, in units of the face box's."""


def draw_augmented(shards: ShardSet, settings: FitSettings, count: int, path: Path, columns: int = 4) -> None:
    """Write a contact sheet of augmented training samples with their landmarks, coloured by depth."""
    import torch

    from densetrain.data.augment import augment, check_flips, draw, draw_noise

    check_flips(settings.augment, shards)
    rows = shards.rows("train")
    rows = rows[np.linspace(0, len(rows) - 1, count).astype(int)]
    reader = shards.open()
    images = torch.from_numpy(reader.images(rows)).permute(0, 3, 1, 2)
    landmarks = torch.from_numpy(np.stack([reader.landmarks(int(row)) for row in rows]))
    reader.close()
    draws = draw(count, settings.augment, torch.Generator().manual_seed(settings.seed))
    size = settings.schedule.input_size(0, settings.model)
    noise = draw_noise(count, size, settings.seed, images.device)
    mirror = torch.tensor(shards.index.mirror)
    images, landmarks = augment(images, landmarks, draws, size=size, mirror=mirror, noise=noise)
    landmarks = (landmarks + 0.5) * (size / shards.crop_size) - 0.5
    pixels = images.round().to(torch.uint8).permute(0, 2, 3, 1).numpy()
    tiles = [
        draw_points(image, points, depth_colours(points), scale=max(TILE_PX // size, 1), radius=2.2, rim=1.0)
        for image, points in zip(pixels, landmarks.numpy(), strict=True)
    ]
    write_png(with_depth_bar(contact_sheet(tiles, columns)), path)


def draw_held_out(
    regressor: Regressor, shards: ShardSet, worst: Mapping[int, str], path: Path, columns: int = 4
) -> None:
    """Write a contact sheet of samples by row: predictions coloured by depth, the true 68 in white, and a line from
    each of the predicted 68 to its truth.

    worst : what stands on the tile of each sample, by its row
    """
    reader = shards.open()
    tiles: list[Image] = []
    for row, words in worst.items():
        image = reader.image(row)
        predicted, truth = regressor(image[None])[0], reader.keypoints68(row)
        of_truth = regressor.index.subset("ibug68", predicted) if "ibug68" in regressor.index.subsets else truth
        tiles.append(_compare(image, predicted, of_truth, truth, words))
    reader.close()
    write_png(with_depth_bar(contact_sheet(tiles, columns)), path)


def draw_worst_images(
    benchmark: Benchmark, predicted: npt.NDArray[np.floating], worst: Mapping[int, str], path: Path, columns: int = 4
) -> None:
    """Write a contact sheet of a benchmark's faces by row: predictions by depth, the truth in white, lines between
    them; as crops.

    worst : what stands on the tile of each face, by its row
    predicted : (n, 68, 2 or 3) of all of the benchmark's faces, pixels of their images
    """
    from densegen.geometry.crop import crop_of_box, warp
    from densegen.sources.photograph import read_photograph

    assert benchmark.images is not None
    tiles: list[Image] = []
    for row, words in worst.items():
        crop = crop_of_box(benchmark.boxes[row], SHOWN_MARGIN, CROP_SIZE)
        truth = benchmark.truth_in_image(row)
        visible = np.isfinite(truth[:, 0])
        shown, true = (crop.apply(_in_space(points)) for points in (predicted[row], truth[visible]))
        image = warp(read_photograph(benchmark.images[row]), crop)
        tiles.append(_compare(image, shown, shown[visible] if len(shown) == len(truth) else true, true, words))
    write_png(with_depth_bar(contact_sheet(tiles, columns)), path)


def _in_space(points: npt.NDArray[np.floating]) -> Float32:
    """(P, 3) of (P, 2 or 3) points: z is 0 if it is not known."""
    return np.pad(points, ((0, 0), (0, 3 - points.shape[1]))).astype(np.float32)


def _compare(image: Image, predicted: Float32, of_truth: Float32, truth: Float32, words: str) -> Image:
    """A tile at twice the size; ``of_truth``, (P, 3), are the predictions of the points in ``truth``."""
    tile = draw_lines(image, of_truth, truth, LINE_COLOUR, scale=SCALE)
    places, true = ((points + 0.5) * SCALE - 0.5 for points in (predicted, truth))
    tile = draw_points(tile, places, depth_colours(predicted), scale=1, radius=2.0, rim=0.9)
    return _caption(draw_points(tile, true, TRUTH_COLOUR, scale=1, radius=2.0, rim=0.9), words)


def _caption(image: Image, words: str) -> Image:
    """The image above a line of text."""
    from PIL import Image, ImageDraw

    height, width = image.shape[:2]
    canvas = Image.new("RGB", (width, height + CAPTION_PX))
    canvas.paste(Image.fromarray(image))
    ImageDraw.Draw(canvas).text((5, height + 2), words, fill=TRUTH_COLOUR, font_size=17)
    return np.asarray(canvas, np.uint8)
