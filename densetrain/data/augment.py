"""Augmentation of a batch, on the batch's device: images and landmarks together.

What happens to a sample is drawn on the CPU from a seeded generator, so it does not depend on the device; only the
noise is drawn where the images are.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Generator, Tensor

from densegen.dataset.shard_set import ShardSet
from densegen.errors import ConfigurationError
from densetrain.config import AugmentSettings

__all__ = ["Draws", "augment", "check_flips", "draw"]

GREY = (0.299, 0.587, 0.114)
BLUR_FACTORS = (2, 3, 4, 6)
NOISE_STEP = 4099


@dataclass(frozen=True, slots=True, eq=False)
class Draws:
    """What happens to each of B samples.

    angle_rad : (B,) float32, rotation about the crop's centre
    zoom : (B,) float32, factor of size
    shift : (B, 2) float32, x and y, shares of the crop's side
    flip, blur, grey : (B,) bool
    gamma : (B,) float32, exponent of pixels in 0 to 1
    brightness : (B,) float32, factor of all channels
    gain : (B, 3) float32, factor of each channel, RGB
    noise : (B,) float32, standard deviation, grey levels
    patch : (B, P, 4) float32, left, top, right, bottom, shares of the crop's side
    patch_colour : (B, P, 3) float32, RGB, grey levels
    blur_factor : by how much all blurred images of the batch are made smaller
    noise_seed : seed of the noise
    """

    angle_rad: Tensor
    zoom: Tensor
    shift: Tensor
    flip: Tensor
    gamma: Tensor
    brightness: Tensor
    gain: Tensor
    noise: Tensor
    blur: Tensor
    grey: Tensor
    patch: Tensor
    patch_colour: Tensor
    blur_factor: int
    noise_seed: int


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

    def spread(*shape: int) -> Tensor:
        return torch.rand(count, *shape, generator=generator) * 2 - 1

    def chance(share: float) -> Tensor:
        return torch.rand(count, generator=generator) < share

    corner = torch.rand(count, settings.patches, 2, generator=generator)
    side = torch.rand(count, settings.patches, 2, generator=generator) * settings.patch_size
    used = torch.randint(0, settings.patches + 1, (count,), generator=generator)
    side = side * (torch.arange(settings.patches) < used[:, None])[..., None]
    return Draws(
        angle_rad=spread() * math.radians(settings.rotate_deg),
        zoom=1 + spread() * settings.scale,
        shift=spread(2) * settings.shift,
        flip=chance(settings.flip),
        gamma=torch.exp(spread() * settings.gamma),
        brightness=1 + spread() * settings.brightness,
        gain=1 + spread(3) * settings.colour,
        noise=torch.rand(count, generator=generator) * settings.noise,
        blur=chance(settings.blur),
        grey=chance(settings.grey),
        patch=torch.cat([corner - side / 2, corner + side / 2], dim=2),
        patch_colour=torch.rand(count, settings.patches, 3, generator=generator) * 255,
        blur_factor=BLUR_FACTORS[int(torch.randint(0, len(BLUR_FACTORS), (1,), generator=generator))],
        noise_seed=int(torch.randint(0, 2**31, (1,), generator=generator)),
    )


def augment(images: Tensor, landmarks: Tensor, draws: Draws, mirror: Tensor | None = None) -> tuple[Tensor, Tensor]:
    """Apply the draws to a batch; the arguments stay as they are.

    images : (B, 3, S, S) uint8 or float, RGB, 0 to 255
    landmarks : (B, N, 3) float32, pixels, crop frame
    mirror : (N,) int64, each landmark's mirror partner; needed if an image is flipped
    returns : (B, 3, S, S) float32, RGB, 0 to 255, and (B, N, 3) float32, pixels, crop frame

    A rotation turns x and y and leaves z and its scale alone; zoom scales z, too.
    Raises ``ValueError`` if an image is flipped and ``mirror`` is None.
    """
    device = images.device
    # Positions need single precision, whatever the network computes in.
    with torch.autocast(device.type, enabled=False):
        # A copy of our own: what follows works in place, since fresh memory costs more than the arithmetic.
        picture = images.to(torch.float32, memory_format=torch.contiguous_format, copy=True)
        if bool(draws.flip.any()):
            if mirror is None:
                raise ValueError("flips need the mirror partners of the landmarks")
            picture, landmarks = _flip(picture, landmarks, draws.flip.to(device), mirror.to(device))
        picture, landmarks = _turn(picture, landmarks, draws)
        picture = _recolour(picture, draws)
        picture = _blur(picture, draws)
        picture = _add_noise(picture, draws)
        return _cover(picture, draws).clamp_(0, 255), landmarks


# The steps below write into the images that they are given: augment's own copy.


def _flip(images: Tensor, landmarks: Tensor, flip: Tensor, mirror: Tensor) -> tuple[Tensor, Tensor]:
    across = landmarks[:, mirror] * landmarks.new_tensor([-1.0, 1.0, 1.0])
    across = across + landmarks.new_tensor([images.shape[-1] - 1.0, 0.0, 0.0])
    chosen = flip[:, None, None]
    return torch.where(chosen[..., None], images.flip(-1), images), torch.where(chosen, across, landmarks)


def _turn(images: Tensor, landmarks: Tensor, draws: Draws) -> tuple[Tensor, Tensor]:
    """Rotate and zoom about the crop's centre, then shift; what comes from outside has the mean of the edge."""
    last = images.shape[-1] - 1
    centre = last / 2
    cosine, sine = draws.angle_rad.cos(), draws.angle_rad.sin()
    rotation = torch.stack([torch.stack([cosine, -sine], 1), torch.stack([sine, cosine], 1)], 1)
    forward = rotation * draws.zoom[:, None, None]
    back = rotation.transpose(1, 2) / draws.zoom[:, None, None]
    # In affine_grid's units the crop reaches from -1 to 1, so a shift of one side is 2.
    offset = -(back @ (2 * draws.shift[..., None]))
    by_x, by_y, start = torch.cat([back, offset], dim=2).to(images)[:, None, None].unbind(dim=-1)
    place = torch.linspace(-1, 1, images.shape[-1], device=images.device)
    # F.affine_grid's numbers, several times as fast.
    grid = place[:, None] * by_x + (place[:, None, None] * by_y + start)
    fill = torch.cat([images[..., 0, :], images[..., -1, :], images[..., :, 0], images[..., :, -1]], dim=2).mean(dim=2)[
        ..., None, None
    ]
    turned = F.grid_sample(images.sub_(fill), grid, align_corners=True).add_(fill)
    forward, zoom, shift = forward.to(landmarks), draws.zoom.to(landmarks), draws.shift.to(landmarks)
    xy = (landmarks[..., :2] - centre) @ forward.transpose(1, 2) + centre + (shift * last)[:, None]
    return turned, torch.cat([xy, landmarks[..., 2:] * zoom[:, None, None]], dim=2)


def _recolour(images: Tensor, draws: Draws) -> Tensor:
    gain = (draws.gain * draws.brightness[:, None]).to(images)[..., None, None]
    exponent = draws.gamma.to(images)[:, None, None, None]
    curved = images.clamp_(0, 255).div_(255).pow_(exponent).mul_(255 * gain)
    if bool(draws.grey.any()):
        chosen = draws.grey.nonzero()[:, 0].to(images.device)
        curved[chosen] = (curved[chosen] * curved.new_tensor(GREY)[:, None, None]).sum(dim=1, keepdim=True)
    return curved


def _blur(images: Tensor, draws: Draws) -> Tensor:
    if not bool(draws.blur.any()):
        return images
    chosen = draws.blur.nonzero()[:, 0].to(images.device)
    size = images.shape[-1]
    small = F.interpolate(images[chosen], size=size // draws.blur_factor, mode="area")
    images[chosen] = F.interpolate(small, size=size, mode="bilinear", align_corners=False)
    return images


def _add_noise(images: Tensor, draws: Draws) -> Tensor:
    if not bool((draws.noise > 0).any()):
        return images
    generator = Generator(images.device).manual_seed(draws.noise_seed)
    # One long row of noise, of which every sample sees its own window: drawing is what costs.
    count, each = len(images), images[0].numel()
    row = torch.randn(each + (count - 1) * NOISE_STEP, generator=generator, device=images.device)
    noise = row.unfold(0, each, NOISE_STEP).view(images.shape)
    return images.addcmul_(noise, draws.noise.to(images)[:, None, None, None])


def _cover(images: Tensor, draws: Draws) -> Tensor:
    place = (torch.arange(images.shape[-1], device=images.device) + 0.5) / images.shape[-1]
    patch, colour = draws.patch.to(images), draws.patch_colour.to(images)
    for number in range(patch.shape[1]):
        left, top, right, bottom = (side[:, None] for side in patch[:, number].unbind(dim=1))
        across, down = (place > left) & (place < right), (place > top) & (place < bottom)
        covered = (down[:, :, None] & across[:, None, :])[:, None]
        torch.where(covered, colour[:, number, :, None, None], images, out=images)
    return images
