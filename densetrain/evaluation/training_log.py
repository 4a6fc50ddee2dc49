"""How a run was trained: its settings, and the curves of its log."""

from __future__ import annotations

import csv
import math
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from densegen.drawing import as_label, save_figure
from densegen.errors import ConfigurationError, FormatError
from densegen.records import read_yaml
from densetrain.config import SETTINGS_FILE, FitSettings

__all__ = ["TrainingLog", "differing_settings", "draw_curves", "read_log"]


@dataclass(frozen=True)
class TrainingLog:
    """What a run's folder says of its training.

    settings : each by its dotted name, as text
    losses : (step, training loss)
    nme : (step, validation NME in percent)
    constant : the validation NME of the mean landmarks, if it was logged
    """

    name: str
    settings: dict[str, str]
    losses: tuple[tuple[int, float], ...]
    nme: tuple[tuple[int, float], ...]
    constant: float | None


def read_log(run: Path) -> TrainingLog | None:
    """The log of a run's folder; None if it holds no training. A damaged line ends what is read of its file.

    Each start of a run has a file. One that goes on has kept a checkpoint and logs later steps; one that logs steps
    before the first validation, or the first of all steps if there was none, is of a training that began anew.
    """
    if not (run / SETTINGS_FILE).is_file():
        return None
    losses: dict[int, float] = {}
    nme: dict[int, float] = {}
    constant = None
    logged = {
        int(number): path
        for path in run.glob("csv/version_*/metrics.csv")
        if (number := path.parent.name.removeprefix("version_")).isdecimal()
    }
    for _, path in sorted(logged.items()):
        own_losses: dict[int, float] = {}
        own_nme: dict[int, float] = {}
        with path.open(encoding="utf-8", newline="") as file, suppress(csv.Error, KeyError, TypeError, ValueError):
            for row in csv.DictReader(file):
                for column, kept in (("train_loss", own_losses), ("val_nme", own_nme)):
                    if row.get(column):
                        kept[int(row["step"])] = float(row[column])
                if row.get("val_nme_constant"):
                    constant = float(row["val_nme_constant"])
        own = min((*own_losses, *own_nme), default=None)
        first = min(nme or losses, default=None)
        if own is not None and first is not None and own <= first:
            losses, nme = {}, {}
        losses |= own_losses
        nme |= own_nme
    try:
        contents: Any = read_yaml(run / SETTINGS_FILE, "settings file")
        settings = _flat(contents) if isinstance(contents, dict) else {}
    except (ConfigurationError, FormatError):
        settings = {}
    return TrainingLog(str(run), settings, tuple(sorted(losses.items())), tuple(sorted(nme.items())), constant)


def _flat(values: dict[str, Any], before: str = "") -> dict[str, str]:
    flat: dict[str, str] = {}
    for key, value in values.items():
        name = f"{before}{key}"
        flat |= _flat(value, f"{name}.") if isinstance(value, dict) and value else {name: str(value)}
    return flat


def differing_settings(logs: Sequence[TrainingLog]) -> list[tuple[str, ...]]:
    """Rows of a setting's name and its value in each run: those that differ between runs; of a single run, those that
    differ from the defaults, with the default last.
    """
    columns = [log.settings for log in logs]
    if len(logs) == 1:
        columns = [*columns, _flat(FitSettings().model_dump(mode="json"))]
    names = dict.fromkeys(name for column in columns for name in column)
    rows = [(name, *(column.get(name, "") for column in columns)) for name in names]
    return [row for row in rows if len(set(row[1:])) > 1]


def draw_curves(logs: Sequence[TrainingLog], path: Path) -> None:
    """Write training loss and validation NME over the steps of several runs as one picture; the best NME is marked."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(11, 3.8), layout="constrained")
    left, right = figure.subplots(1, 2)
    for number, log in enumerate(logs):
        colour, name = f"C{number}", as_label(log.name)
        if log.losses:
            left.plot(*zip(*log.losses, strict=True), color=colour, linewidth=1, label=name)
        if log.nme:
            right.plot(*zip(*log.nme, strict=True), color=colour, marker=".", label=name)
            step, best = min(log.nme, key=lambda point: (math.isnan(point[1]), point[1]))
            right.plot([step], [best], "*", color=colour, markersize=13, label=f"best: {best:.3f} %")
    # A likelihood's loss falls below 0.
    positive = all(loss > 0 for log in logs for _, loss in log.losses if math.isfinite(loss))
    left.set(xlabel="step", ylabel="training loss", yscale="log" if positive else "linear")
    right.set(xlabel="step", ylabel="validation NME, %")
    for axes in (left, right):
        axes.grid(alpha=0.3)
        if axes.get_legend_handles_labels()[0]:
            axes.legend(fontsize=8)
    save_figure(figure, path)
