"""What a step of training does."""

from __future__ import annotations

import itertools
from contextlib import nullcontext
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from densegen.dataset.shard_set import ShardSet, open_dataset
from densegen.errors import ConfigurationError
from densegen.geometry.crop import box_size
from densetrain.config import FitSettings
from densetrain.data.batches import BatchDataset, ShardBatches
from densetrain.data.held import hold
from densetrain.evaluation.evaluate import evaluate_shards
from densetrain.network.checkpoint import LAST, load_regressor
from densetrain.network.regressor import FlipTested
from densetrain.training.callbacks import WarmAverage
from densetrain.training.fit import fit, make_module
from densetrain.training.module import _line
from tests.densetrain.conftest import tiny
from tests.densetrain.training.test_fit import weights


def test_flips_are_refused_where_the_shards_hold_flips(shards: ShardSet) -> None:
    with pytest.raises(ConfigurationError, match="hold flips already"):
        make_module(shards, tiny("augment.flip=0.5"))


@pytest.mark.parametrize("name", ["cosine", "step", "polynomial", "constant"])
def test_schedules_warm_up_and_end_where_they_say(shards: ShardSet, name: str) -> None:
    settings = FitSettings.model_validate(
        {"schedule": {"name": name, "warmup_epochs": 1, "milestones": [5, 8], "gamma": 0.1, "final": 0.02},
         "model": {"width": 0.25, "input_size": 32}}
    )  # fmt: skip
    module = make_module(shards, settings, start=False)
    rates = [module.rate(step, 100, 10) for step in range(101)]
    assert rates[0] < rates[5] < rates[9] < 1
    assert rates[10] == pytest.approx(1)
    end = {"cosine": 0.02, "polynomial": 0.02, "step": 0.01, "constant": 1.0}[name]
    assert rates[100] == pytest.approx(end)
    assert all(one >= two for one, two in itertools.pairwise(rates[10:]))


@pytest.mark.long
def test_a_compiled_network_is_kept_like_a_plain_one(
    dataset: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With averaged weights, channels last and bf16, as the settings for one large GPU have it."""
    compile_plainly = torch.compile
    monkeypatch.setattr(
        torch,
        "compile",
        lambda what, **options: compile_plainly(what, backend="eager", fullgraph=options.get("fullgraph", False)),
    )
    changes = (
        "trainer.compile=true",
        "trainer.clip=50",
        "trainer.ema_decay=0.9",
        "trainer.channels_last=true",
        "trainer.precision=bf16",
    )
    made = fit([dataset], tiny(*changes), tmp_path / "run")
    plain = fit([dataset], tiny("trainer.compile=false", *changes[1:]), tmp_path / "plain")
    assert made["val_nme"] == pytest.approx(plain["val_nme"], rel=1e-2)
    assert weights(tmp_path / "run").keys() == weights(tmp_path / "plain").keys()
    scored = evaluate_shards(load_regressor(tmp_path / "run" / LAST), open_dataset(dataset), "validation")
    assert scored.score.all_images == pytest.approx(made["val_nme"], rel=1e-2)


@pytest.mark.parametrize(("accumulate", "processes", "graphs"), [(1, 1, True), (2, 1, False), (1, 4, False)])
def test_cuda_graphs_serve_one_process_that_adds_up_no_gradients(
    shards: ShardSet, accumulate: int, processes: int, graphs: bool
) -> None:
    module = make_module(shards, tiny(f"trainer.accumulate={accumulate}", "trainer.channels_last=true"), start=False)
    trainer: Any = SimpleNamespace(world_size=processes)
    module.trainer = trainer
    assert module._compiler_options() == {"force_layout_optimization": True, "triton.cudagraphs": graphs}


class Copies(TorchDispatchMode):
    """Counts what crosses from the CPU to torch's device without memory. To read from that device raises."""

    def __init__(self) -> None:
        super().__init__()
        self.made: list[torch.Size] = []

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        made = function(*args, **(kwargs or {}))
        source = args[1] if function is torch.ops.aten.copy_.default else args[0] if args else None
        both = isinstance(made, torch.Tensor) and isinstance(source, torch.Tensor)
        if both and (source.device.type, made.device.type) == ("cpu", "meta"):
            self.made.append(source.shape)
        return made


def test_a_step_copies_once_to_the_device_and_reads_nothing_from_it(
    shards: ShardSet, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With the samples held by the device: each such copy or reading would wait for what the device still has to do."""
    settings = tiny("data.cache=device", "trainer.ema_decay=0.9", "data.batch_size=6")
    device = torch.device("meta")
    monkeypatch.setattr(
        "densetrain.training.module.draw_noise",
        lambda count, size, *_: torch.empty(count, 3, size, size, device="meta"),
    )
    monkeypatch.setattr("densetrain.data.augment.torch.autocast", lambda *_, **__: nullcontext())  # has no such device
    module = make_module(shards, settings).to(device).train()
    monkeypatch.setattr(module, "log", lambda *_, **__: None)
    optimiser = torch.optim.AdamW(module.parameters(), lr=1e-3)
    average = WarmAverage(0.9)
    trainer: Any = SimpleNamespace(training=True, global_step=0)
    average.on_fit_start(trainer, module)
    average.on_train_start(trainer, module)
    batches, rows = ShardBatches(shards, settings), shards.rows("train")
    batches.trainer = trainer
    held = hold(shards, rows)
    batches.held[True] = held.to(device)
    dataset = BatchDataset(shards, settings, held, on_device=True)
    for step in range(3):
        with Copies() as copies:
            batch = batches.transfer_batch_to_device(dataset[(0, step, rows[:6], 1.0)], device, 0)
            optimiser.zero_grad()
            module.training_step(batch, step).backward()
            module.configure_gradient_clipping(optimiser, 50.0)
            optimiser.step()
            trainer.global_step += 1
            average.on_train_batch_end(trainer)
        assert copies.made == [torch.Size([6, 1 + 12 + 7 * settings.augment.patches])]
    with pytest.raises(RuntimeError, match="meta"):
        float(module.net.spread_px)


@pytest.mark.parametrize("scale", [1.0, 100.0])
def test_averaged_weights_follow_the_formula_and_whole_numbers_are_taken(scale: float) -> None:
    """Decays of min(0.5, (1 + n) / (10 + n)) after n steps: 0 (the start is forgotten), 2/11, 3/12."""
    module: Any = torch.nn.BatchNorm1d(1, affine=False)
    average = WarmAverage(0.5)
    trainer: Any = SimpleNamespace(global_step=0)
    average.on_fit_start(trainer, module)
    average.on_train_start(trainer, module)
    expected = 0.0
    for step, decay in enumerate((0.0, 2 / 11, 3 / 12)):
        module.running_mean.fill_(scale * (step + 1))
        module.num_batches_tracked.fill_(7 * step)
        trainer.global_step = step + 1
        average.on_train_batch_end(trainer)
        average.on_train_batch_end(trainer)  # the same step again, as when gradients are accumulated
        expected = decay * expected + (1 - decay) * scale * (step + 1)
    assert float(average.average["running_mean"]) == pytest.approx(expected)
    assert int(average.average["num_batches_tracked"]) == 14
    average.on_validation_epoch_start(trainer, module)
    assert float(module.running_mean) == pytest.approx(expected)
    average.on_validation_epoch_end(trainer, module)
    assert float(module.running_mean) == pytest.approx(3 * scale)
    average.on_train_end(trainer, module)
    assert float(module.running_mean) == pytest.approx(expected)


def test_sizes_follow_their_schedule() -> None:
    settings = FitSettings.model_validate({"model": {"input_size": 128}, "schedule": {"input_sizes": {2: 96, 5: 160}}})
    sizes = [settings.schedule.input_size(epoch, settings.model) for epoch in range(7)]
    assert sizes == [128, 128, 96, 96, 96, 160, 160]


def test_the_line_of_least_squares_follows_from_means() -> None:
    x = np.array([0.5, 1.0, 1.5, 4.0])
    y = np.array([2.0, 3.5, 3.0, 8.0])
    slope, height = np.polyfit(x, y, 1)
    assert _line(x.mean(), y.mean(), (x * x).mean(), (x * y).mean()) == pytest.approx((height, slope))
    assert _line(x.mean(), -y.mean(), (x * x).mean(), -(x * y).mean()) == pytest.approx((-y.mean(), 0))
    assert _line(1.0, 2.0, 1.0, 2.0) == (2.0, 0.0)


def test_validation_knows_the_flip_test(shards: ShardSet, run: Path) -> None:
    """What the module sums over batches is what the network gives of all validation samples at once."""
    network = FlipTested(load_regressor(run / LAST))
    rows = shards.rows(tiny().data.validate_on)
    reader = shards.open()
    one, other, _ = network.pair(reader.images(rows))
    truth = np.stack([reader.landmarks(int(row)) for row in rows])
    size = box_size(np.stack([reader.keypoints68(int(row)) for row in rows]))
    apart, off = (
        100 * np.linalg.norm(difference[..., :2], axis=-1).mean(axis=1) / size
        for difference in (one - other, (one + other) / 2 - truth)
    )
    slope, height = np.polyfit(apart, off, 1)
    assert network.about.flip_line == pytest.approx((height, slope) if slope > 0 else (off.mean(), 0), rel=2e-3)
