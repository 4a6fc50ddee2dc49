from __future__ import annotations

import pytest
import torch

from densetrain.config import AugmentSettings
from densetrain.data.augment import augment, draw

STILL = AugmentSettings(
    rotate_deg=0, scale=0, shift=0, gamma=0, colour=0, brightness=0, noise=0, blur=0, grey=0, patches=0
)
SIZE = 256


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def dots(landmarks: torch.Tensor) -> torch.Tensor:
    """(B, 3, S, S) images with a soft dot at every landmark, on black."""
    place = torch.arange(SIZE, dtype=torch.float32)
    x, y = landmarks[..., 0, None], landmarks[..., 1, None]
    across, down = torch.exp(-((place - x) ** 2) / 8), torch.exp(-((place - y) ** 2) / 8)
    return (255 * down[..., :, None] * across[..., None, :]).sum(dim=1, keepdim=True).expand(-1, 3, -1, -1).contiguous()


def test_a_drawn_dot_is_found_where_its_landmark_says() -> None:
    """Within half a pixel: the centre of brightness, for rotations, zooms, shifts and mirror images."""
    count = 24
    landmarks = torch.rand(count, 1, 3, generator=generator(1)) * 80 + 88
    settings = STILL.model_copy(update={"rotate_deg": 45.0, "scale": 0.2, "shift": 0.08, "flip": 0.5})
    images, moved = augment(dots(landmarks), landmarks, draw(count, settings, generator()), torch.tensor([0]))
    light = images[:, 0] / images[:, 0].sum(dim=(1, 2), keepdim=True)
    place = torch.arange(SIZE, dtype=torch.float32)
    found = torch.stack([(light.sum(dim=1) * place).sum(dim=1), (light.sum(dim=2) * place).sum(dim=1)], dim=1)
    assert (moved[:, 0, :2] - landmarks[:, 0, :2]).norm(dim=1).max() > 20
    assert (found - moved[:, 0, :2]).norm(dim=1).max() < 0.5


def test_rotation_leaves_the_depth_alone_and_zoom_scales_it() -> None:
    landmarks = torch.rand(8, 20, 3, generator=generator(2)) * 255
    images = torch.zeros(8, 3, SIZE, SIZE)
    turned = augment(images, landmarks, draw(8, STILL.model_copy(update={"rotate_deg": 90.0}), generator()))[1]
    torch.testing.assert_close(turned[..., 2], landmarks[..., 2])
    distance = torch.cdist(landmarks[..., :2], landmarks[..., :2])
    torch.testing.assert_close(torch.cdist(turned[..., :2], turned[..., :2]), distance, atol=2e-3, rtol=1e-4)
    draws = draw(8, STILL.model_copy(update={"scale": 0.3}), generator())
    zoomed = augment(images, landmarks, draws)[1]
    torch.testing.assert_close(zoomed[..., 2], landmarks[..., 2] * draws.zoom[:, None])


def test_mirror_twice_is_the_identity() -> None:
    images = torch.randint(0, 256, (3, 3, SIZE, SIZE), generator=generator(3), dtype=torch.uint8)
    landmarks = torch.rand(3, 4, 3, generator=generator(4)) * 255
    partner = torch.tensor([1, 0, 2, 3])
    draws = draw(3, STILL.model_copy(update={"flip": 1.0}), generator())
    once = augment(images, landmarks, draws, partner)
    assert not torch.equal(once[0], images.float())
    torch.testing.assert_close(once[1][:, 0, 0], 255 - landmarks[:, 1, 0])
    twice = augment(once[0], once[1], draws, partner)
    torch.testing.assert_close(twice[0], images.float(), atol=0.05, rtol=0)  # grey levels, sampled twice
    torch.testing.assert_close(twice[1], landmarks, atol=1e-3, rtol=0)


def test_no_strength_changes_nothing() -> None:
    images = torch.randint(0, 256, (2, 3, SIZE, SIZE), generator=generator(5), dtype=torch.uint8)
    landmarks = torch.rand(2, 4, 3) * 255
    made = augment(images, landmarks, draw(2, STILL, generator()))
    torch.testing.assert_close(made[0], images.float(), atol=2e-2, rtol=0)
    torch.testing.assert_close(made[1], landmarks, atol=1e-3, rtol=0)


def test_the_same_generator_gives_the_same_batch_and_arguments_stay() -> None:
    images = torch.randint(0, 256, (6, 3, SIZE, SIZE), generator=generator(6), dtype=torch.uint8)
    landmarks = torch.rand(6, 4, 3, generator=generator(7)) * 255
    before = images.clone(), landmarks.clone()
    settings = AugmentSettings(flip=0.5)
    one, two = (augment(images, landmarks, draw(6, settings, generator(8)), torch.arange(4)) for _ in range(2))
    assert torch.equal(one[0], two[0])
    assert torch.equal(one[1], two[1])
    assert torch.equal(images, before[0])
    assert torch.equal(landmarks, before[1])
    assert not torch.equal(augment(images, landmarks, draw(6, settings, generator(9)), torch.arange(4))[1], one[1])
    assert float(one[0].min()) >= 0
    assert float(one[0].max()) <= 255


def test_half_precision_around_it_changes_no_position() -> None:
    """A training step runs under autocast, whose matrix products would round positions to 8 bits."""
    images = torch.randint(0, 256, (4, 3, SIZE, SIZE), generator=generator(6), dtype=torch.uint8)
    landmarks = torch.rand(4, 30, 3, generator=generator(7)) * 255
    draws = draw(4, AugmentSettings(), generator(8))
    plain = augment(images, landmarks, draws)
    with torch.autocast("cpu", torch.bfloat16):
        inside = augment(images, landmarks, draws)
    assert torch.equal(inside[0], plain[0])
    assert torch.equal(inside[1], plain[1])


def test_what_comes_from_outside_has_the_colour_of_the_edge() -> None:
    images = torch.full((1, 3, SIZE, SIZE), 200.0)
    images[..., 64:192, 64:192] = 10.0
    turned = augment(images, torch.zeros(1, 1, 3), draw(1, STILL.model_copy(update={"rotate_deg": 45.0}), generator(3)))
    torch.testing.assert_close(turned[0][0, :, 0, 0], torch.full((3,), 200.0))


def test_flips_need_mirror_partners() -> None:
    with pytest.raises(ValueError, match="mirror partners"):
        augment(torch.zeros(1, 3, 8, 8), torch.zeros(1, 1, 3), draw(1, AugmentSettings(flip=1.0), generator()))
