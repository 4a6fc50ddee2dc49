"""What a step of training does."""

from __future__ import annotations

import itertools
from pathlib import Path

import pytest
import torch

from densegen.dataset.shard_set import ShardSet, open_dataset
from densegen.errors import ConfigurationError
from densetrain.config import FitSettings
from densetrain.evaluation.evaluate import evaluate_shards
from densetrain.network.checkpoint import LAST, load_regressor
from densetrain.training.fit import fit, make_module
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
    monkeypatch.setattr(torch, "compile", lambda net: compile_plainly(net, backend="eager"))
    changes = ("trainer.compile=true", "trainer.ema_decay=0.9", "trainer.channels_last=true", "trainer.precision=bf16")
    made = fit([dataset], tiny(*changes), tmp_path / "run")
    plain = fit([dataset], tiny("trainer.compile=false", *changes[1:]), tmp_path / "plain")
    assert made["val_nme"] == pytest.approx(plain["val_nme"], rel=1e-2)
    assert weights(tmp_path / "run").keys() == weights(tmp_path / "plain").keys()
    scored = evaluate_shards(load_regressor(tmp_path / "run" / LAST), open_dataset(dataset), "validation")
    assert scored.score.all_images == pytest.approx(made["val_nme"], rel=1e-2)
