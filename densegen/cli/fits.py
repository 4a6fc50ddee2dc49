"""``densegen fits``: fits of the morphable model for anybody's photographs."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from densegen.console import ProgressBar, counted, processors, say
from densegen.remembered import model_option

if TYPE_CHECKING:
    from densegen.face.morphable_model import MorphableModel
    from densegen.fitting.face_tasks import FaceTask, FitOutcome
    from densegen.fitting.fitter import Fitter
    from densegen.sources.annotations import Annotations
    from densegen.sources.manifest import Manifest

__all__ = ["fits"]

PATH = click.Path(path_type=Path)

_SHARED = (
    model_option("model file"),
    click.option("--out", type=PATH, required=True, help="folder for fits, photographs, manifest.yaml and report.json"),
    click.option("--points", "kinds", multiple=True, type=click.Choice(["ibug68", "aflw21", "names"]),
                 help="what the points are; names: of the index's landmarks  [default: by their number]"),
    click.option("--names", type=PATH, help="text file of one photograph a line, for a .npy file"),
    click.option("--first-pixel", "first_pixels", multiple=True, type=click.IntRange(0, 1),
                 help="what the file calls the first pixel  [default: 1 in .pts, else 0]"),
    click.option("--index", "index_path", type=PATH, help="vertex index (YAML)  [default: densegen's own]"),
    click.option("--prior", "prior_path", type=PATH,
                 help="folder of fits whose coefficients say what faces are like  [default: the model's own spread]"),
    click.option("--sigma", "sigmas", multiple=True, type=float,
                 help="how far a point is off, by the face's size  [default: 0.02]"),
    click.option("--max-residual", type=float, help="set a face aside beyond this, by its size  [default: 0.06]"),
    click.option("--jaw", type=click.Choice(["true", "outline"]), help="what the jaw's points mark: the jaw itself, or "
                 "the outline that is seen  [default: true]"),
    click.option("--jobs", type=click.IntRange(1), default=processors, show_default="all cores",
                 help="processes"),
)  # fmt: skip


def _shared(command: Any) -> Any:
    for option in reversed(_SHARED):
        command = option(command)
    return command


@click.group(short_help="Make fits of anybody's photographs.")
def fits() -> None:
    """Fit the morphable model to anybody's photographs, from sparse landmarks."""


@fits.command("make", short_help="Make fits for photographs.")
@click.argument("photos", type=PATH)
@click.option("--landmarks", multiple=True, type=PATH, required=True,
              help="folder of .pts files, or a .pts, .csv, .json (COCO's, too), .npy or .npz file; may be "
              "repeated")  # fmt: skip
@_shared
def make_fits(photos: Path, landmarks: tuple[Path, ...], **options: Any) -> None:
    """Make fits, in the layout of 300W-LP, for the photographs in the folder PHOTOS.

    The landmarks are 68 or 21 points, or any of them by name. Look at OUT/overlays.png, then build OUT/manifest.yaml.
    With several --landmarks all count together; --sigma, --points and --first-pixel are then given once for each, in
    the same order.

    \b
    reads    PHOTOS, --landmarks, --model, --prior
    writes   OUT/FITS, manifest.yaml, report.json, overlays.png
    example  densegen fits make photos --landmarks photos --out faces
    """
    from densegen.fitting.face_tasks import tasks_of_photographs

    asked = _Asked(**options)
    sources = asked.read(landmarks)
    tasks, missing = tasks_of_photographs(photos, sources)
    _run(asked, sources, tasks, missing, photos.resolve().name)


@fits.command("refine", short_help="Move fits onto landmarks.")
@click.argument("root", type=PATH)
@click.option("--landmarks", multiple=True, type=PATH, required=True,
              help="the points to move the fits onto, see 'make'; may be repeated")  # fmt: skip
@click.option("--manifest", "manifest_name", help="where ROOT's fits lie  [default: ROOT/manifest.yaml, else anywhere]")
@_shared
def refine_fits(root: Path, landmarks: tuple[Path, ...], manifest_name: str | None, **options: Any) -> None:
    """Move the fits in the folder ROOT onto landmarks, and keep them near to where they were.

    A fit without landmarks is copied as it is. OUT has the folders of ROOT, but no shipped flips: a build mirrors.
    Several --landmarks count together, as in 'make': a person's few and a network's many ('densetrain annotate').

    \b
    reads    ROOT, --landmarks, --model, --prior
    writes   OUT (ROOT's folders), manifest.yaml, report.json, overlays.png
    example  densegen fits refine 300W_LP --landmarks corrected.csv --out refined
    """
    from densegen.fitting.face_tasks import tasks_of_fits
    from densegen.sources.manifest_init import fits_below

    asked = _Asked(**options)
    sources = asked.read(landmarks)
    found, entries = fits_below(root, manifest_name)
    tasks, strangers = tasks_of_fits(entries, root, sources)
    for line in found.notes:
        say(line, err=True)
    if strangers:
        say(f"{counted(len(strangers), 'face')} of the landmarks with no fit, the first is {strangers[0]}", err=True)
    _run(asked, sources, tasks, [], found.manifest)


@dataclass(frozen=True)
class _Asked:
    """The options that 'make' and 'refine' share."""

    model_path: Path
    out: Path
    kinds: tuple[str, ...]
    names: Path | None
    first_pixels: tuple[int, ...]
    index_path: Path | None
    prior_path: Path | None
    sigmas: tuple[float, ...]
    max_residual: float | None
    jaw: str | None
    jobs: int

    @property
    def prior_in_words(self) -> str:
        return "the model's own" if self.prior_path is None else f"fits in {self.prior_path.name}"

    def read(self, landmarks: tuple[Path, ...]) -> list[Annotations]:
        from densegen.sources.annotations import read_annotations

        for option, given in (("sigma", self.sigmas), ("points", self.kinds), ("first-pixel", self.first_pixels)):
            if len(given) not in (0, len(landmarks)):
                raise click.UsageError(
                    f"--{option} is given {counted(len(given), 'time')} for {len(landmarks)} --landmarks: give it for "
                    "each, in their order, or not at all"
                )
        if self.names is not None and not any(path.suffix.lower() == ".npy" for path in landmarks):
            raise click.UsageError("--names is for --landmarks in a .npy file, which names no photographs itself")
        nothing: tuple[None, ...] = (None,) * len(landmarks)
        parts = zip(landmarks, self.kinds or nothing, self.first_pixels or nothing, strict=True)
        return [read_annotations(path, kind=kind, first_pixel=first, names=self.names) for path, kind, first in parts]

    def fitter(self, sources: list[Annotations], model: MorphableModel) -> Fitter:
        from densegen.fitting.fitter import FitterSettings, make_fitter
        from densegen.fitting.prior import read_prior
        from densegen.index.vertex_index import read_index

        given: dict[str, Any] = {"sigma": self.sigmas or None, "max_residual": self.max_residual, "jaw": self.jaw}
        settings = FitterSettings(**{name: value for name, value in given.items() if value is not None})
        return make_fitter(sources, model, read_index(self.index_path), read_prior(self.prior_path, model), settings)


def _run(
    asked: _Asked, sources: list[Annotations], tasks: list[FaceTask], missing: list[FitOutcome], dataset: str | Manifest
) -> None:
    """Fit the faces, and report.

    dataset : the manifest of fits that existed, or the name of a new one
    """
    from densegen.executors import open_pool
    from densegen.face.model_file import read_model
    from densegen.fitting.fit_folder import check_output_folder, run_tasks, writing

    check_output_folder(asked.out, tasks)
    model = read_model(asked.model_path)
    fitter = asked.fitter(sources, model)
    with writing(asked.out, tasks):
        with ProgressBar("fitting", "faces") as bar, open_pool(asked.jobs) as pool:
            bar.start(len(tasks))
            outcomes = run_tasks(fitter, tasks, asked.out, pool, bar.advance)
        _finish(asked, sources, fitter, [*outcomes, *missing], dataset, f"{model.name} {model.fingerprint}")


def _finish(
    asked: _Asked, sources: list[Annotations], fitter: Fitter, outcomes: list[FitOutcome], dataset: str | Manifest,
    model: str,
) -> None:  # fmt: skip
    from densegen.errors import ConfigurationError
    from densegen.files import write_text
    from densegen.fitting.fit_folder import MANIFEST_NAME, OVERLAYS_NAME, REPORT_NAME
    from densegen.fitting.fitter import SWAPPED_REASON
    from densegen.fitting.report import draw_overlays, summarise, write_report
    from densegen.sources.manifest_init import manifest_text

    out, report, text = asked.out, summarise(fitter, outcomes), None
    drawn = draw_overlays(out / OVERLAYS_NAME, outcomes, out)
    try:
        if report.fits and not report.mostly_swapped:
            text = manifest_text(_manifest(dataset, outcomes, out))
    finally:  # folders that no manifest can name do not take the report away
        write_report(
            out / REPORT_NAME, report, outcomes, fitter, sources, model=model, prior=asked.prior_in_words, manifest=text
        )
    if text is not None:
        write_text(out / MANIFEST_NAME, text)
    for reason, count in report.set_aside.items():
        first = next(one for one in outcomes if one.reason == reason)
        say(f"set aside, {reason}: {count:,}, the first: {first.task.name}: {first.message}", err=True)
    if report.mostly_swapped:
        raise ConfigurationError(
            f"{report.set_aside[SWAPPED_REASON]:,} faces fit with left and right swapped, so the sides are named the "
            f"other way round, and no manifest is written: swap them in the file and run again; see {out / REPORT_NAME}"
        )
    if not report.fits:
        raise ConfigurationError(f"no face could be fitted: see {out / REPORT_NAME}")
    aside = sum(report.set_aside.values())
    say(f"{out}: {counted(report.fits, 'fit')}, {aside:,} set aside, {report.unchanged:,} without landmarks")
    say(f"distance of the points, share of the face: {_spread(report.error)}")
    if report.before is not None:
        say(f"before: {_spread(report.before)}")
    if report.bias_before_px is not None:
        x, y = report.bias_before_px
        say(f"the points lie ({x:+.2f}, {y:+.2f}) px from the fits that existed, in the median of the faces")
    if report.counted_from_one and any(source.first_pixel == 0 for source in sources):
        say(
            "that is how points lie that count pixels from 1 and are taken to count from 0: try --first-pixel 1",
            err=True,
        )
    if drawn:
        say(
            f"look at {out / OVERLAYS_NAME}, the worst fits and typical ones: points green, left out red, the fit white"
        )


def _manifest(dataset: str | Manifest, outcomes: list[FitOutcome], out: Path) -> Manifest:
    """The manifest of what was written: a new one, or that of the fits that existed, with what is left of them."""
    from densegen.sources.manifest_init import manifest_of_folder, manifest_of_part

    if not isinstance(dataset, str):
        return manifest_of_part(dataset, [one.task.name for one in outcomes if one.reason is None])
    found = manifest_of_folder(out, dataset)
    for line in found.notes:
        say(line, err=True)
    return found.manifest


def _spread(percents: tuple[float, float, float]) -> str:
    median, high, largest = percents
    return f"median {median:.2f} %, 90 % below {high:.2f} %, at most {largest:.2f} %"
