"""What a number was made with: the faces, labels and points that were compared, and how. No number goes without it."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

from densetrain.choices import Comparison, Labels, YawSource

__all__ = ["Protocol"]

_COMPARISONS: dict[Comparison, str] = {
    "geometric": "geometric: predictions and labels each by their own first pixel",
    "public script": "as the public script: predictions counted from 1, labels as they stand",
    "label files": "label files compared as they stand",
}

Count = Annotated[int, Field(gt=0)]


class Protocol(BaseModel):
    """Two numbers may stand in one table if their protocols are equal.

    benchmark : ``AFLW2000-3D``, ``AFLW``, or the shards' datasets
    faces : how many were scored
    all_faces : how many the benchmark has, if it is known
    which_faces : digest of their names, if they are some of all
    points : which were compared: ``68 points``, ``520 landmarks of NAME VERSION``
    only_visible : points that the labels call hidden do not count
    labels, yaw : of which of the benchmark's files; None if it has but one
    split : of the shards; None for a benchmark
    dimensions : axes over which distances are taken
    alignment : how surfaces were laid over each other; None for points that were compared as they lie
    comparison : see :meth:`~densetrain.evaluation.benchmarks.Benchmark.errors`; None for shards
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    benchmark: str
    faces: Count
    all_faces: Count | None = None
    which_faces: str | None = None
    points: str
    only_visible: bool = False
    labels: Labels | None = None
    yaw: YawSource | None = None
    split: str | None = None
    comparison: Comparison | None = None
    dimensions: Literal["2D", "3D"] = "2D"
    alignment: str | None = None

    def __str__(self) -> str:
        """The protocol in words, as it is printed beside every number."""
        some = f" of {self.all_faces:,}" if self.is_part else ""
        which = f" ({self.which_faces})" if self.which_faces else ""
        what = "images" if self.split is None else "samples"
        return ", ".join(
            part
            for part in (
                self.benchmark,
                self.split and f"split {self.split}",
                f"{self.faces:,}{some} {what}{which}",
                self.points,
                self.dimensions,
                self.alignment,
                self.only_visible and "visible ones",
                self.labels and f"labels {self.labels}",
                self.yaw and f"yaw {self.yaw}",
                "normalised by sqrt(w h) of the true 68 points' box",
                self.comparison and _COMPARISONS[self.comparison],
            )
            if part
        )

    @property
    def is_part(self) -> bool:
        """Whether only some of the benchmark's faces were scored."""
        return self.all_faces is not None and self.all_faces != self.faces

    @property
    def title(self) -> str:
        """The benchmark, and what tells two of its protocols apart."""
        named = (
            self.benchmark,
            self.which_faces and f"{self.faces:,} faces ({self.which_faces})",
            self.split and f"split {self.split}",
            self.labels and f"labels {self.labels}",
            self.yaw and f"yaw {self.yaw}",
            self.alignment and f"{self.points}, {self.alignment}",
            self.comparison in ("public script", "label files") and _COMPARISONS[self.comparison].split(":")[0],
        )
        return ", ".join(part for part in named if part)
