"""The progress bar of both commands."""

from __future__ import annotations

import time

__all__ = ["ProgressBar"]

LINE_EVERY_S = 30.0


class ProgressBar:
    """A progress bar with rate, time left and rejects; where stderr is no terminal, a line every half minute."""

    def __init__(self, verb: str, unit: str) -> None:
        from rich.console import Console
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

        console = Console(stderr=True)
        self.rejects, self.verb, self.unit = 0, verb, unit
        self.said = time.monotonic()
        self.progress = Progress(
            TextColumn("[bold]{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn(unit),
            TextColumn("{task.fields[rate]}"),
            TimeRemainingColumn(),
            TextColumn("{task.fields[note]}"),
            console=console,
            transient=True,
            disable=not console.is_terminal,
        )
        self.task = self.progress.add_task(verb, total=None, rate="", note="")

    def __enter__(self) -> ProgressBar:
        self.progress.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.progress.stop()

    @property
    def total(self) -> float | None:
        return self.progress.tasks[0].total

    def start(self, fits: int, already_done: int) -> None:
        self.progress.update(self.task, total=fits, completed=already_done)

    def advance(self, fits: int, rejects: int) -> None:
        self.rejects += rejects
        note = f"{self.rejects} set aside" if self.rejects else ""
        self.progress.advance(self.task, fits)
        speed = self.progress.tasks[0].finished_speed or self.progress.tasks[0].speed
        self.progress.update(self.task, rate=f"{speed:,.0f}/s" if speed else "", note=note)
        if self.progress.disable and time.monotonic() - self.said > LINE_EVERY_S:
            self.said = time.monotonic()
            task = self.progress.tasks[0]
            of = f" of {task.total:,.0f}" if task.total is not None else ""
            self.progress.console.print(f"{self.verb}: {task.completed:,.0f}{of} {self.unit} {note}".rstrip())
