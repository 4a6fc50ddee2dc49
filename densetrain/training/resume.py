"""An earlier run in the folder of a run: whether it is gone on with, from where, and in what it must not differ."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from densegen.dataset.shard_set import ShardSet
from densegen.errors import ConfigurationError, FormatError
from densegen.files import remove_leftovers, write_text
from densegen.records import read_yaml
from densetrain.config import SETTINGS_FILE, FitSettings
from densetrain.network.checkpoint import LAST, read_checkpoint
from densetrain.network.description import CHECKPOINT_KEY

__all__ = ["earlier_run", "prepare_folder", "steps_made", "stopped_early"]


def prepare_folder(out: Path, settings: FitSettings, *, is_new: bool) -> None:
    """Take away what a run that was killed while it wrote has left, and keep a new run's settings."""
    import yaml

    remove_leftovers(out)
    if is_new:
        write_text(out / SETTINGS_FILE, yaml.safe_dump(settings.model_dump(mode="json"), sort_keys=False))


def steps_made(checkpoint: dict[str, Any]) -> tuple[int, int]:
    """Finished epochs, and the steps that were made of the next one."""
    epoch = int(checkpoint["epoch"])
    try:
        progress = checkpoint["loops"]["fit_loop"]["epoch_loop.batch_progress"]
        is_whole, steps = bool(progress["is_last_batch"]), int(progress["current"]["processed"])
    except (KeyError, TypeError, ValueError) as error:
        raise FormatError("the last checkpoint does not say how far it is: choose another folder") from error
    return (epoch + 1, 0) if is_whole else (epoch, steps)  # at an epoch's end it is written when all is done


def stopped_early(checkpoint: dict[str, Any]) -> bool:
    states = [state for name, state in checkpoint["callbacks"].items() if name.startswith("EarlyStopping")]
    return any(state["wait_count"] >= state["patience"] for state in states)


def _difference(theirs: Any, mine: dict[str, Any], before: str = "") -> str:
    """The first setting that differs, with both values: ``trainer.epochs: 4 there, 5 asked for``."""
    theirs = theirs if isinstance(theirs, dict) else {}
    name = next((name for name in mine if theirs.get(name) != mine[name]), "")
    if isinstance(mine.get(name), dict) and isinstance(theirs.get(name), dict) and mine[name]:
        return _difference(theirs[name], mine[name], f"{before}{name}.")
    return f"{before}{name}: {theirs.get(name)} there, {mine.get(name)} asked for"


def earlier_run(out: Path, settings: FitSettings, shards: ShardSet) -> dict[str, Any] | None:
    """The checkpoint to go on from, or None in a new folder."""
    path, last = out / SETTINGS_FILE, out / LAST
    mine = settings.model_dump(mode="json")
    if not last.is_file():  # the run may start over with other settings
        return None
    if not path.is_file():
        raise ConfigurationError(f"{out} holds checkpoints, but no {SETTINGS_FILE}: choose another folder")
    theirs = read_yaml(path, "settings file")
    if theirs != mine:
        raise ConfigurationError(
            f"{out} holds a run of other settings ({_difference(theirs, mine)}): choose another folder, or run it with "
            "them"
        )
    contents = read_checkpoint(last)
    kinds = {"epoch": int, "loops": dict, "state_dict": dict, "callbacks": dict, "optimizer_states": list}
    if (
        not all(isinstance(contents.get(name), kind) for name, kind in kinds.items())
        or not contents["optimizer_states"]
    ):
        raise FormatError(f"{last} is not a checkpoint to go on from: choose another folder")
    about = contents[CHECKPOINT_KEY]
    for what, was, ours in (
        ("another vertex index than the shards have", about["vertex_index_fingerprint"], shards.index.fingerprint),
        ("other shards", about.get("shards_fingerprint"), shards.fingerprint),
    ):
        if was != ours:
            raise ConfigurationError(f"{last} was trained with {what}: {str(was)[:12]}, not {ours[:12]}")
    return contents
