"""Augmentation of a batch, on the batch's device: images and landmarks together.

What happens to a sample is drawn on the CPU from a seeded generator, so it does not depend on the device; only the
noise is drawn where the images are. Nothing here asks a tensor for its values: what is not to happen to a sample
happens with strength 0, so that the whole is one graph for ``torch.compile`` and never waits for a GPU.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Generator, Tensor

from densegen.dataset.shard_set import ShardSet
from densegen.errors import ConfigurationError
from densetrain.config import AugmentSettings
from densetrain.shrink import shrink_factor

__all__ = ["Draws", "augment", "check_flips", "draw", "draw_noise"]

GREY = (0.299, 0.587, 0.114)
"""Luma of RGB (ITU-R BT.601)."""

MOST_BLUR = 0.012
"""Largest standard deviation of the blur, as a share of the image's side."""

NOISE_STEP = 4099


class Draws(NamedTuple):
    """What happens to each of B samples; all float32.

    angle_rad : (B,), rotation about the crop's centre
    zoom : (B,), factor of size
    shift : (B, 2), x and y, shares of the crop's side
    flip : (B,), 1 for a mirror image, else 0
    gamma : (B,), exponent of pixels in 0 to 1
    gain : (B, 3), factor of each channel, RGB
    noise : (B,), standard deviation, grey levels, of a pixel of the crop
    blur : (B,), standard deviation, share of the image's side
    grey : (B,), 1 for a grey image, else 0
    patch : (B, P, 4), left, top, right, bottom, shares of the image's side
    patch_colour : (B, P, 3), RGB, grey levels
    """

    angle_rad: Tensor
    zoom: Tensor
    shift: Tensor
    flip: Tensor
    gamma: Tensor
    gain: Tensor
    noise: Tensor
    blur: Tensor
    grey: Tensor
    patch: Tensor
    patch_colour: Tensor

    def packed(self) -> Tensor:
        """(B, 12 + 7 P) float32: all of it as one tensor, which one copy takes to a device."""
        return torch.cat([part.flatten(1) if part.ndim > 1 else part[:, None] for part in self], dim=1)

    @classmethod
    def unpacked(cls, table: Tensor) -> Draws:
        """The draws in a table that :meth:`packed` made."""
        patches = (table.shape[1] - 12) // 7
        widths = [1, 1, 2, 1, 1, 3, 1, 1, 1, 4 * patches, 3 * patches]
        angle, zoom, shift, flip, gamma, gain, noise, blur, grey, patch, colour = torch.split(table, widths, dim=1)
        return cls(
            angle[:, 0], zoom[:, 0], shift, flip[:, 0], gamma[:, 0], gain, noise[:, 0], blur[:, 0], grey[:, 0],
            patch.reshape(len(table), patches, 4), colour.reshape(len(table), patches, 3),
        )  # fmt: skip


def check_flips(settings: AugmentSettings, shards: ShardSet) -> None:
    """Raise :class:`ConfigurationError` if the settings draw mirror images that these samples do not allow."""
    if settings.flip == 0:
        return
    if not shards.index.mirror_closed:
        raise ConfigurationError(f"augment.flip: {shards.index.name} is not closed under the mirror")
    if shards.flipped.any():
        raise ConfigurationError("augment.flip: the shards hold flips already; build with --flip none, or set it to 0")


def draw(count: int, settings: AugmentSettings, generator: Generator) -> Draws:
    """Draw what happens to ``count`` samples; on the CPU, the same for the same generator."""

    def share(*shape: int) -> Tensor:
        return torch.rand(count, *shape, generator=generator)

    def spread(*shape: int) -> Tensor:
        return share(*shape) * 2 - 1

    corner, side = share(settings.patches, 2), share(settings.patches, 2) * settings.patch_size
    used = torch.randint(0, settings.patches + 1, (count,), generator=generator)
    side = side * (torch.arange(settings.patches) < used[:, None])[..., None]
    return Draws(
        angle_rad=spread() * math.radians(settings.rotate_deg),
        zoom=1 + spread() * settings.scale,
        shift=spread(2) * settings.shift,
        flip=(share() < settings.flip).float(),
        gamma=torch.exp(spread() * settings.gamma),
        gain=(1 + spread(3) * settings.colour) * (1 + spread(1) * settings.brightness),
        noise=share() * settings.noise,
        blur=share() * MOST_BLUR * (share() < settings.blur),
        grey=(share() < settings.grey).float(),
        patch=torch.cat([corner - side / 2, corner + side / 2], dim=2),
        patch_colour=share(settings.patches, 3) * 255,
    )


def draw_noise(count: int, size: int, seed: int, device: torch.device) -> Tensor:
    """(B, 3, size, size) float32 standard normal noise, drawn on the device: windows into one long row, since drawing
    is what costs.
    """
    generator = Generator(device).manual_seed(seed)
    each = 3 * size * size
    row = torch.randn(each + (count - 1) * NOISE_STEP, generator=generator, device=device)
    return row.as_strided((count, 3, size, size), (NOISE_STEP, size * size, size, 1))


def augment(
    images: Tensor,
    landmarks: Tensor,
    draws: Draws,
    *,
    size: int | None = None,
    mirror: Tensor | None = None,
    noise: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    """Apply the draws to a batch; the arguments stay as they are.

    images : (B, 3, S, S) uint8 or float, RGB, 0 to 255
    landmarks : (B, N, 3) float32, pixels, crop frame
    draws : on the device of the images
    size : side of what is made, pixels; None for S. It is sampled from the crop in one step
    mirror : (N,) int64, each landmark's mirror partner; None if no image is flipped
    noise : (B, 3, size, size) float32, standard normal; None for none
    returns : (B, 3, size, size) float32, RGB, 0 to 255, and (B, N, 3) float32, pixels of the crop frame as they were

    A rotation turns x and y and leaves z and its scale alone; zoom scales z, too.
    """
    side = images.shape[-1]
    size = side if size is None else size
    # Positions need single precision, whatever the network computes in.
    with torch.autocast(images.device.type, enabled=False):
        forward = _forward(draws)
        landmarks = _move(landmarks, forward, draws, side, mirror)
        picture = _sample(images, forward, draws, size)
        picture = _recolour(picture, draws)
        picture = _blur(picture, draws)
        if noise is not None:
            # Of a smaller image's pixel, which is the mean of several of the crop's.
            picture = picture + noise * (draws.noise * min(size / side, 1.0))[:, None, None, None]
        return _cover(picture, draws).clamp(0, 255), landmarks


def _forward(draws: Draws) -> Tensor:
    """(B, 2, 2): where a mirror image, a rotation and a zoom take a place beside the crop's centre."""
    cosine, sine = draws.angle_rad.cos() * draws.zoom, draws.angle_rad.sin() * draws.zoom
    sign = 1 - 2 * draws.flip
    return torch.stack([torch.stack([cosine * sign, -sine], 1), torch.stack([sine * sign, cosine], 1)], 1)


def _move(landmarks: Tensor, forward: Tensor, draws: Draws, side: int, mirror: Tensor | None) -> Tensor:
    if mirror is not None:
        landmarks = torch.where(draws.flip[:, None, None] > 0, landmarks[:, mirror], landmarks)
    centre = (side - 1) / 2
    xy = (landmarks[..., :2] - centre) @ forward.transpose(1, 2) + centre + (draws.shift * side)[:, None]
    return torch.cat([xy, landmarks[..., 2:] * draws.zoom[:, None, None]], dim=2)


def _sample(images: Tensor, forward: Tensor, draws: Draws, size: int) -> Tensor:
    """The moved crop at the wanted size; what comes from outside has the mean of the edge."""
    picture = images.to(torch.float32, memory_format=torch.contiguous_format)
    shrink = shrink_factor(images.shape[-1], size)
    if shrink > 1:
        picture = F.avg_pool2d(picture, shrink)
    edge = torch.cat([picture[..., 0, :], picture[..., -1, :], picture[..., :, 0], picture[..., :, -1]], dim=2)
    fill = edge.mean(dim=2)[..., None, None]
    # The inverse of a turn with factors is its transpose over the squares of the factors.
    back = forward.transpose(1, 2) / (draws.zoom**2)[:, None, None]
    # In grid_sample's units the crop reaches from -1 to 1, so a shift of one side is 2.
    start = -(back @ (2 * draws.shift[..., None]))[..., 0]
    place = (torch.arange(size, device=images.device, dtype=torch.float32) * 2 + 1) / size - 1
    by_x, by_y = back[:, None, None, :, 0], back[:, None, None, :, 1]
    # F.affine_grid's numbers, several times as fast.
    grid = place[:, None] * by_x + (place[:, None, None] * by_y + start[:, None, None])
    return F.grid_sample(picture - fill, grid, align_corners=False) + fill


def _recolour(images: Tensor, draws: Draws) -> Tensor:
    curved = (images.clamp(0, 255) / 255) ** draws.gamma[:, None, None, None] * (255 * draws.gain)[..., None, None]
    red, green, blue = curved.unbind(dim=1)
    luma = (GREY[0] * red + GREY[1] * green + GREY[2] * blue)[:, None]
    return torch.where(draws.grey[:, None, None, None] > 0, luma, curved)


def _blur(images: Tensor, draws: Draws) -> Tensor:
    """A Gaussian of each image's own width, across and then down; none where it is 0."""
    count, channels, size, _ = images.shape
    reach = math.ceil(2.5 * MOST_BLUR * size)
    steps = torch.arange(-reach, reach + 1, device=images.device)
    weights = torch.exp(-((steps / (draws.blur * size).clamp(min=1e-3)[:, None]) ** 2) / 2)
    weights = (weights / weights.sum(dim=1, keepdim=True)).repeat_interleave(channels, dim=0)
    # What F.pad gives; torch 2.11 cannot trace that on a GPU if only deterministic algorithms are allowed.
    place = torch.arange(-reach, size + reach, device=images.device).clamp(0, size - 1)
    rows = images[..., place, :][..., place].reshape(1, count * channels, size + 2 * reach, -1)
    for kernel in (weights[:, None, None, :], weights[:, None, :, None]):
        rows = F.conv2d(rows, kernel, groups=count * channels)
    return rows.reshape(images.shape)


def _cover(images: Tensor, draws: Draws) -> Tensor:
    place = (torch.arange(images.shape[-1], device=images.device) + 0.5) / images.shape[-1]
    for number in range(draws.patch.shape[1]):
        left, top, right, bottom = (side[:, None] for side in draws.patch[:, number].unbind(dim=1))
        across, down = (place > left) & (place < right), (place > top) & (place < bottom)
        covered = (down[:, :, None] & across[:, None, :])[:, None]
        images = torch.where(covered, draws.patch_colour[:, number, :, None, None], images)
    return images
