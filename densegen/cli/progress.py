"""The progress bar of both commands."""

from __future__ import annotations

__all__ = ["ProgressBar"]


class ProgressBar:
    """A progress bar with rate, time left and rejects; silent where stderr is no terminal."""

    def __init__(self, verb: str, unit: str) -> None:
        from rich.console import Console
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

        console = Console(stderr=True)
        self.rejects = 0
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
