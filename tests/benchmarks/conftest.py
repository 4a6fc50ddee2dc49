"""One table of every ratio that a run has measured, printed; ``make bench`` appends it to ``ratios.csv``."""

from __future__ import annotations

import csv
import os
import platform
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from densegen import __version__

KEPT = Path(__file__).with_name("ratios.csv")
COLUMNS = ("date", "densegen", "machine", "ratio", "value", "unit", "goal")

Ratio = Callable[..., None]

_measured: list[tuple[str, float, str, float | None]] = []


@pytest.fixture
def ratio(capsys: pytest.CaptureFixture[str]) -> Ratio:
    """Keep a ratio for the table: what it is of, its value, its unit, and the goal that it should not be above (or,
    of those that end in "times as fast", below).
    """

    def keep(name: str, value: float, unit: str, goal: float | None = None) -> None:
        _measured.append((name, value, unit, goal))
        with capsys.disabled():
            print(f"\n{name}: {value:.2f} {unit}")

    return keep


def machine() -> str:
    """The processor, its cores, and the GPU if there is one."""
    names = [line.split(":")[1].strip() for line in _lines(Path("/proc/cpuinfo")) if line.startswith("model name")]
    parts = [names[0] if names else platform.processor() or platform.machine(), f"{os.cpu_count()} cores"]
    try:
        import torch

        parts += [torch.cuda.get_device_name()] if torch.cuda.is_available() else []
    except ImportError:
        pass
    return ", ".join(parts)


def _lines(path: Path) -> list[str]:
    return path.read_text().splitlines() if path.is_file() else []


def pytest_terminal_summary(terminalreporter: Any, exitstatus: int) -> None:
    if not _measured:
        return
    wide = max(len(name) for name, *_ in _measured)
    terminalreporter.section(f"ratios on {machine()}")
    for name, value, unit, goal in _measured:
        aim = "" if goal is None else f"   (goal {goal:g})"
        terminalreporter.write_line(f"{name:{wide}}  {value:8.2f} {unit}{aim}")
    if exitstatus or not os.environ.get("DENSE_KEEP_RATIOS"):
        return
    is_new = not KEPT.exists()
    with KEPT.open("a", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        if is_new:
            writer.writerow(COLUMNS)
        day, where = time.strftime("%Y-%m-%d"), machine()
        writer.writerows(
            [day, __version__, where, name, f"{value:.3g}", unit, goal] for name, value, unit, goal in _measured
        )
    terminalreporter.write_line(
        f"appended to {KEPT.relative_to(Path.cwd()) if KEPT.is_relative_to(Path.cwd()) else KEPT}"
    )
