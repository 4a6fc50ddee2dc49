from __future__ import annotations

from pathlib import Path

import pytest

from densegen.errors import ConfigurationError, FormatError
from densetrain.config import READY_SETTINGS, FitSettings, read_settings


@pytest.mark.parametrize("name", READY_SETTINGS)
def test_ready_settings_are_valid(name: str) -> None:
    assert read_settings(name) != FitSettings()


def test_the_paper_is_as_published() -> None:
    paper = read_settings("paper")
    assert (paper.trainer.epochs, paper.data.batch_size, paper.model.input_size) == (40, 128, 256)
    assert (paper.loss.wing_w, paper.loss.wing_eps, paper.loss.wing_weight, paper.loss.mse_weight) == (15, 3, 1.5, 0.5)


def test_changes_are_yaml_and_win(tmp_path: Path) -> None:
    (tmp_path / "s.yaml").write_text("trainer: {epochs: 3}\nseed: 4\n")
    made = read_settings(tmp_path / "s.yaml", ["trainer.epochs=5", "loss.axis_weights=[1, 1, 2]", "trainer.clip=null"])
    assert (made.trainer.epochs, made.seed, made.loss.axis_weights) == (5, 4, (1, 1, 2))


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ("trainer.epochs=0", "trainer.epochs: Input should be greater"),
        ("trainer.epoch=3", "trainer.epoch: there is no such field; did you mean trainer.epochs\\?"),
        ("seed.x=3", "seed"),
        ("nonsense", "not key=value"),
        ("trainer.epochs=true", "trainer.epochs: this is no switch"),
        ("loss.axis_weights=[1, yes, 1]", "loss.axis_weights: this is no switch"),
        ("schedule.input_sizes={true: 96}", "schedule.input_sizes: this is no switch"),
        ("optimiser.lr=.nan", "optimiser.lr: nan is not a number"),
        ("optimiser.momentum=1", "optimiser.momentum: Input should be less than 1"),
        ("loss={wing_weight: 0, mse_weight: 0}", "both 0: there is nothing to learn from"),
        ("schedule.warmup_epochs=50", "the learning rate would never be reached"),
        ("schedule.name=step", "needs milestones"),
        ("schedule={name: step, milestones: [1], warmup_epochs: 3}", "the learning rate would never be reached"),
        ("schedule.input_sizes={0: 96, 40: 128}", "this size would never be trained at"),
        ("trainer.epochs=[", "not readable YAML"),
    ],
)
def test_a_wrong_setting_is_named(change: str, words: str) -> None:
    with pytest.raises((ConfigurationError, FormatError), match=words):
        read_settings(None, [change])


def test_a_network_that_was_trained_by_them_keeps_its_settings() -> None:
    """What only a run that begins refuses is read from a checkpoint."""
    made = FitSettings.model_validate({"schedule": {"input_sizes": {50: 96}}})
    assert made.schedule.input_sizes == {50: 96}


def test_a_file_that_is_no_settings_is_refused(tmp_path: Path) -> None:
    (tmp_path / "list.yaml").write_text("[1, 2]")
    with pytest.raises(ConfigurationError, match="holds no keys"):
        read_settings(tmp_path / "list.yaml")
    with pytest.raises(ConfigurationError, match="does not exist; by name there are paper, best, fast-gpu, demo"):
        read_settings(tmp_path / "none.yaml")


def test_every_setting_says_what_it_means() -> None:
    schema = FitSettings.model_json_schema()
    for group in schema["$defs"].values():
        for name, field in group["properties"].items():
            assert field.get("description"), name


@pytest.mark.parametrize(
    ("source", "changes", "words"),
    [
        ("paprr", (), "did you mean paper\\?"),
        (None, ("loss.name=wingg",), "did you mean wing\\?"),
        (None, ("schedule.name=cosin",), "did you mean cosine\\?"),
    ],
)
def test_a_mistyped_value_is_answered_with_the_one_that_it_resembles(
    source: str | None, changes: tuple[str, ...], words: str
) -> None:
    with pytest.raises(ConfigurationError, match=words):
        read_settings(source, changes)
