from __future__ import annotations

import pytest
import torch
from torch._subclasses.fake_tensor import FakeTensorMode

from densetrain.config import AugmentSettings, ModelSettings
from densetrain.data.augment import Draws, augment, draw, draw_noise
from densetrain.network.model import LandmarkNet

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
    images, moved = augment(dots(landmarks), landmarks, draw(count, settings, generator()), mirror=torch.tensor([0]))
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
    once = augment(images, landmarks, draws, mirror=partner)
    assert not torch.equal(once[0], images.float())
    torch.testing.assert_close(once[1][:, 0, 0], 255 - landmarks[:, 1, 0])
    twice = augment(once[0], once[1], draws, mirror=partner)
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

    def made(seed: int) -> tuple[torch.Tensor, torch.Tensor]:
        noise = draw_noise(6, SIZE, seed, images.device)
        return augment(images, landmarks, draw(6, settings, generator(seed)), mirror=torch.arange(4), noise=noise)

    one, two = made(8), made(8)
    assert torch.equal(one[0], two[0])
    assert torch.equal(one[1], two[1])
    assert torch.equal(images, before[0])
    assert torch.equal(landmarks, before[1])
    assert not torch.equal(made(9)[1], one[1])
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


@pytest.mark.parametrize(("size", "shrunk"), [(128, 2), (64, 4), (32, 8)])
def test_a_smaller_image_is_the_mean_of_the_pixels_below(size: int, shrunk: int) -> None:
    """As the network itself makes it of a whole crop, so that training and use see the same."""
    images = torch.randint(0, 256, (2, 3, SIZE, SIZE), generator=generator(5), dtype=torch.uint8)
    landmarks = torch.rand(2, 4, 3) * 255
    made = augment(images, landmarks, draw(2, STILL, generator()), size=size)
    torch.testing.assert_close(made[0], torch.nn.functional.avg_pool2d(images.float(), shrunk), atol=2e-2, rtol=0)
    torch.testing.assert_close(made[1], landmarks, atol=1e-3, rtol=0)


def test_a_dot_is_found_in_a_smaller_image_too() -> None:
    landmarks = torch.rand(12, 1, 3, generator=generator(1)) * 80 + 88
    settings = STILL.model_copy(update={"rotate_deg": 45.0, "scale": 0.2, "shift": 0.08})
    images, moved = augment(dots(landmarks), landmarks, draw(12, settings, generator()), size=112)
    light = images[:, 0] / images[:, 0].sum(dim=(1, 2), keepdim=True)
    place = (torch.arange(112, dtype=torch.float32) + 0.5) * SIZE / 112 - 0.5
    found = torch.stack([(light.sum(dim=1) * place).sum(dim=1), (light.sum(dim=2) * place).sum(dim=1)], dim=1)
    assert (found - moved[:, 0, :2]).norm(dim=1).max() < 0.5


def test_blur_has_the_width_that_is_drawn() -> None:
    """The variance of a blurred point grows by that of the Gaussian; an image without blur keeps its bits."""
    images = torch.zeros(2, 3, SIZE, SIZE)
    images[..., 128, 128] = 255.0
    draws = draw(2, STILL, generator())._replace(blur=torch.tensor([0.0, 0.008]))
    point, spread = augment(images, torch.zeros(2, 1, 3), draws)[0][:, 0]
    still = draw(2, STILL, generator())
    assert torch.equal(point, augment(images, torch.zeros(2, 1, 3), still)[0][0, 0])
    place = torch.arange(SIZE, dtype=torch.float32) - 128
    across = spread.sum(dim=0) / spread.sum()
    assert float((across * place**2).sum()) == pytest.approx((0.008 * SIZE) ** 2, rel=0.1)


def test_beyond_its_edge_a_blurred_image_goes_on_as_it_ends() -> None:
    columns = torch.linspace(0, 255, SIZE)[None, None, None].expand(1, 3, SIZE, SIZE).contiguous()
    draws = draw(1, STILL, generator())._replace(blur=torch.tensor([0.01]))
    blurred = augment(columns, torch.zeros(1, 1, 3), draws)[0]
    torch.testing.assert_close(blurred, blurred[:, :, 100:101].expand_as(blurred), atol=1e-3, rtol=0)
    assert (blurred[0, 0, 0].diff() >= -1e-3).all()
    assert 0 < float(blurred[0, 0, 0, 0]) < 3
    assert 252 < float(blurred[0, 0, 0, -1]) < 255


def test_it_is_traced_for_a_gpu_that_allows_deterministic_algorithms_alone() -> None:
    """By torch 2.11, too, which cannot trace F.pad there; newer ones can."""
    draws = draw(2, AugmentSettings(), generator())
    was = torch.are_deterministic_algorithms_enabled()
    torch.use_deterministic_algorithms(True)
    try:
        with FakeTensorMode():
            images = torch.empty(2, 3, 64, 64, dtype=torch.uint8, device="cuda")
            there = Draws(*(torch.empty(part.shape, device="cuda") for part in draws))
            traced = torch.compile(augment, fullgraph=True, dynamic=False, backend="eager")
            made, _ = traced(images, torch.empty(2, 5, 3, device="cuda"), there, size=64)
            assert made.device.type == "cuda"
    finally:
        torch.use_deterministic_algorithms(was)


def test_grey_gamma_gain_noise_and_patches_are_as_drawn() -> None:
    images = torch.tensor([100.0, 150.0, 200.0])[None, :, None, None].expand(5, 3, 64, 64)
    none = draw(5, STILL.model_copy(update={"patches": 1}), generator())
    nothing = torch.tensor([0.0, 0.0, 0.0, 0.0])
    draws = none._replace(
        grey=torch.tensor([1.0, 0, 0, 0, 0]),
        gamma=torch.tensor([1.0, 2.0, 1, 1, 1]),
        gain=torch.tensor([[1.0, 1, 1], [1, 1, 1], [0.5, 1, 1.2], [1, 1, 1], [1, 1, 1]]),
        noise=torch.tensor([0.0, 0, 0, 4.0, 0]),
        patch=torch.stack([nothing, nothing, nothing, nothing, torch.tensor([0.25, 0.25, 0.5, 0.75])])[:, None],
        patch_colour=torch.tensor([7.0, 8.0, 9.0]).expand(5, 1, 3),
    )
    noise = draw_noise(5, 64, 0, images.device)
    made = augment(images, torch.zeros(5, 1, 3), draws, noise=noise)[0]
    torch.testing.assert_close(made[0, :, 5, 5], torch.full((3,), 0.299 * 100 + 0.587 * 150 + 0.114 * 200))
    torch.testing.assert_close(made[1, :, 5, 5], 255 * (torch.tensor([100.0, 150.0, 200.0]) / 255) ** 2)
    torch.testing.assert_close(made[2, :, 5, 5], torch.tensor([50.0, 150.0, 240.0]))
    torch.testing.assert_close(made[3] - images[3], 4 * noise[3], atol=1e-3, rtol=0)
    half = augment(images, torch.zeros(5, 1, 3), draws, size=32, noise=noise[..., :32, :32])[0]
    torch.testing.assert_close(half[3] - images[3, :, :32, :32], 2 * noise[3, :, :32, :32], atol=1e-3, rtol=0)
    assert made[4, 0].eq(7.0).sum() == 16 * 32
    assert made[4, 0, 16:48, 16:32].eq(7.0).all()


def test_draws_are_packed_without_a_change() -> None:
    draws = draw(5, AugmentSettings(flip=0.5, patches=3), generator())
    assert draws.packed().shape == (5, 12 + 7 * 3)
    for one, two in zip(draws, Draws.unpacked(draws.packed()), strict=True):
        assert torch.equal(one, two)
    none = draw(5, STILL, generator())
    assert Draws.unpacked(none.packed()).patch.shape == (5, 0, 4)


def test_it_is_one_graph_for_the_compiler_and_gives_the_same_bits() -> None:
    """``fullgraph`` refuses what asks a tensor for its values."""
    images = torch.randint(0, 256, (6, 3, 64, 64), generator=generator(6), dtype=torch.uint8)
    landmarks = torch.rand(6, 4, 3, generator=generator(7)) * 63
    noise, mirror = draw_noise(6, 32, 3, images.device), torch.arange(4)
    traced = torch.compile(augment, fullgraph=True, dynamic=False, backend="aot_eager")
    for seed in range(3):
        draws = draw(6, AugmentSettings(flip=0.5), generator(seed))
        plain = augment(images, landmarks, draws, size=32, mirror=mirror, noise=noise)
        made = traced(images, landmarks, draws, size=32, mirror=mirror, noise=noise)
        assert torch.equal(made[0], plain[0])
        assert torch.equal(made[1], plain[1])


@pytest.mark.parametrize(
    ("side", "size"), [(256, 128), (256, 112), (256, 64), (256, 48), (512, 112), (288, 96), (256, 192), (64, 64)]
)
def test_a_network_is_used_on_the_pixels_that_it_was_trained_on(side: int, size: int) -> None:
    images = torch.randint(0, 256, (2, 3, side, side), generator=generator(5), dtype=torch.uint8)
    trained_on, _ = augment(images, torch.zeros(2, 1, 3), draw(2, STILL, generator()), size=size)
    net = LandmarkNet(ModelSettings(width=0.35, input_size=size), 1, side)
    torch.testing.assert_close(net.resized(images), trained_on, atol=0.05, rtol=0)
