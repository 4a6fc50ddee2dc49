"""``densetrain evaluate``, ``report`` and ``profile``."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, cast, get_args

import click

from densegen.console import refuse_unread, say
from densegen.conventions import SPLITS
from densegen.outputs import refuse_no_folder
from densegen.remembered import remembered_model, remembered_root
from densetrain.choices import Labels, YawSource

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

    from densetrain.evaluation.benchmarks import Benchmark
    from densetrain.evaluation.evaluate import Result
    from densetrain.network.regressor import Regressor

__all__ = ["evaluate", "profile", "report"]

PATH = click.Path(path_type=Path)
WORST = 12

READ = {
    "shards": ("folders", "split"),
    "aflw2000-3d": ("root", "protocol", "labels", "yaw", "box", "what", "model_path", "prior_path"),
    "aflw": ("root", "protocol", "box"),
}
"""The options that belong to a benchmark."""


class _Benchmark(click.Choice[str]):
    """A benchmark by its name here, or as its manifest is spelt."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> str:
        return super().convert(str(value).replace("_", "-"), param, ctx)


@click.command(short_help="Score a network by a public protocol.")
@click.argument("model", metavar="[RUN]", required=False, type=PATH)
@click.option("--benchmark", type=_Benchmark(["aflw2000-3d", "aflw", "shards"]), default="shards", show_default=True)
@click.option("--root", type=PATH, help="folder of the benchmark's images (and .mat files)")
@click.option("--protocol", type=PATH, help="folder of the benchmark's public label, yaw and list files")
@click.option("--labels", type=click.Choice(get_args(Labels)), default="original", show_default=True)
@click.option("--yaw", type=click.Choice(get_args(YawSource)), help="[default: pose with --protocol, else fit]")
@click.option("--box", type=click.Choice(["truth", "cascade", "yunet"]), default="truth",
              show_default=True, help="what crops are laid around: the true box, or a detector's")  # fmt: skip
@click.option("--what", type=click.Choice(["landmarks", "surface"]), default="landmarks", show_default=True,
              help="the 68, or AFLW2000-3D's whole surfaces")  # fmt: skip
@click.option("--model", "model_path", type=PATH, help="morphable model, for --what surface")
@click.option(
    "--prior", "prior_path", type=PATH, help="folder of fits that say what faces are like, for --what surface"
)
@click.option("--predictions", help=".npz of names and landmarks (n, 68, 2|3), or a label set: original, reannotated")
@click.option("--shards", "folders", multiple=True, type=PATH, help="finished build; may be repeated")
@click.option("--split", type=click.Choice(SPLITS), default="validation", show_default=True)
@click.option(
    "--threshold", type=click.FloatRange(0, 1000, min_open=True), default=10.0, show_default=True, help="of AUC, %"
)
@click.option("--seed", type=click.IntRange(0), default=0, show_default=True, help="of the balanced subsets")
@click.option("--flip-test", is_flag=True, help="average with the landmarks of the mirrored crop")
@click.option("--device", default="cpu", show_default=True, help="torch's name of it")
@click.option("--out", type=PATH, help="folder for the result, its CED curve and the worst cases "
              "[default: RUN/evaluation if RUN is a folder]")  # fmt: skip
def evaluate(model: Path | None, out: Path | None, device: str, **options: Any) -> None:
    """Score RUN (as 'predict' takes it), or --predictions, by a public protocol.

    \b
    reads    RUN, or --predictions; --shards, or --root and --protocol
    writes   OUT/NAME.json, NAME-ced.png, NAME-worst.png
    example  densetrain evaluate run --benchmark aflw2000-3d --root AFLW2000
    """
    from densegen.files import replace_into
    from densetrain.evaluation.evaluate import free_stem, write_result
    from densetrain.evaluation.report import draw_ced, result_lines
    from densetrain.network.regressor import open_regressor

    asked = _Asked(**options)
    if asked.benchmark == "aflw2000-3d" and asked.root is None and asked.protocol is None:
        asked = replace(asked, root=remembered_root("aflw2000_3d"))
    if asked.what == "surface" and asked.model_path is None:
        asked = replace(asked, model_path=remembered_model())
    if (model is None) == (asked.predictions is None):
        raise click.UsageError("give a RUN or --predictions, one of them")
    if not math.isfinite(asked.threshold):
        raise click.UsageError("--threshold is a number of percent")
    _refuse_options_of_others(asked)
    if out is not None:
        refuse_no_folder(out)
    regressor = None if model is None else open_regressor(model, device, flip_test=asked.flip_test)
    if asked.what == "surface":
        results, draw_worst = _evaluate_surface(regressor, asked)
    elif asked.benchmark == "shards":
        results, draw_worst = _evaluate_shards(regressor, asked)
    else:
        results, draw_worst = _evaluate_public(regressor, asked)
    for protocol in dict.fromkeys(result.protocol for result in results):
        say("\n".join([*result_lines([r for r in results if r.protocol == protocol]), ""]))
    own = None if model is None or not model.is_dir() else model / "evaluation"
    out = out or own
    if out is None:
        return
    named = dict(zip(asked.suffixes(len(results)), results, strict=True))
    stem = free_stem(named, out / asked.name, retrained=own is not None and out.resolve() == own.resolve())
    with replace_into(out) as staging:
        for suffix, result in named.items():
            write_result(result, staging / f"{stem.name}{suffix}.json")
        for suffix, first in named.items():
            alike = [result for result in results if result.protocol == first.protocol]
            if first is alike[0]:  # a picture for each protocol
                draw_ced(alike, staging / f"{stem.name}{suffix}-ced.png")
        if draw_worst is not None:
            draw_worst(staging / f"{stem.name}-worst.png")
    say(", ".join([f"{stem}.json", f"{stem}-ced.png", *([f"{stem}-worst.png"] if draw_worst is not None else [])]))


@dataclass(frozen=True)
class _Asked:
    """The options of an evaluation."""

    benchmark: str
    root: Path | None
    protocol: Path | None
    labels: Labels
    yaw: YawSource | None
    box: Literal["truth", "cascade", "yunet"]
    what: Literal["landmarks", "surface"]
    model_path: Path | None
    prior_path: Path | None
    predictions: str | None
    folders: tuple[Path, ...]
    split: str
    threshold: float
    seed: int
    flip_test: bool

    @property
    def name(self) -> str:
        """Of the files that are written: the benchmark and its options, and whose predictions."""
        read = [
            option
            for option in ("split", *(["what"] * (self.what == "surface")), "labels", "yaw", "box")
            if option in READ[self.benchmark]
        ]
        if self.predictions is not None:
            read = [option for option in read if option != "box"]
        words = [self.benchmark, *(str(getattr(self, option)) for option in read if getattr(self, option))]
        words += ["flip-test"] * self.flip_test
        return "-".join([*words, *([Path(self.predictions).stem] if self.predictions is not None else [])])

    def suffixes(self, results: int) -> list[str]:
        """Of so many results' files, the first result's has none."""
        if self.what == "surface":
            return ["", *(f"-{number}" for number in range(2, results + 1))]
        return ["", "-constant" if self.benchmark == "shards" else "-public-script"][:results]


def _refuse_options_of_others(asked: _Asked) -> None:
    """Refuse options that this benchmark ignores: the result would look as if they had been applied."""
    unread = {name for names in READ.values() for name in names} - set(READ[asked.benchmark])
    if asked.what != "surface":
        unread |= {"model_path", "prior_path"}
    what = f"the benchmark {asked.benchmark}"
    if asked.predictions is not None:
        unread, what = unread | {"box", "device", "flip_test"}, f"{what} with --predictions"
    refuse_unread(unread, what)


_Evaluated = tuple[list["Result"], Callable[[Path], None] | None]
"""Results, and what draws the worst of their faces, if there are images to draw on."""


def _evaluate_shards(regressor: Regressor | None, asked: _Asked) -> _Evaluated:
    import numpy as np

    from densegen.console import ProgressBar
    from densegen.dataset.shard_set import open_dataset
    from densetrain.evaluation.evaluate import evaluate_shards, worst_cases
    from densetrain.preview import draw_held_out

    if not asked.folders:
        raise click.UsageError("which shards? Give a finished build with --shards")
    if regressor is None:
        raise click.UsageError("--predictions are for the public benchmarks; give a RUN for shards")
    shards = open_dataset(*asked.folders)
    score = partial(evaluate_shards, shards=shards, split=asked.split, threshold=asked.threshold, seed=asked.seed)
    with ProgressBar("evaluating", "samples") as bar:
        bar.start(len(shards.rows(asked.split)))
        results = [score(regressor, progress=bar.advance)]
    if regressor.about.mean_landmarks is not None:
        constant = score(None, constant=np.array(regressor.about.mean_landmarks))
        results.append(constant.model_copy(update={"weights": regressor.weights}))
    rows = shards.rows(asked.split)
    worst = {int(rows[place]): words for place, words in worst_cases(results[0], WORST).items()}
    return results, lambda path: draw_held_out(regressor, shards, worst, path)


def _evaluate_public(regressor: Regressor | None, asked: _Asked) -> _Evaluated:
    from densegen.console import ProgressBar
    from densetrain.evaluation.benchmarks import aflw2000, read_predictions
    from densetrain.evaluation.evaluate import evaluate_benchmark, in_words, predict_benchmark, worst_cases
    from densetrain.prediction.detect import open_detector
    from densetrain.preview import draw_worst_images

    benchmark = _benchmark(asked)
    points: npt.NDArray[np.floating[Any]]
    score = partial(
        evaluate_benchmark, benchmark, weights=None if regressor is None else regressor.weights,
        threshold=asked.threshold, seed=asked.seed,
    )  # fmt: skip

    def read(points: npt.NDArray[np.floating[Any]], method: str, made: str) -> list[Result]:
        return [score(points, method, made, comparison=reading) for reading in benchmark.readings]

    if asked.benchmark == "aflw2000-3d" and asked.predictions in get_args(Labels):
        other = aflw2000(asked.root, asked.protocol, cast("Labels", asked.predictions), asked.yaw)
        points = other.truth
        results = [score(other.raw, f"labels {asked.predictions}", "a file", comparison="label files")]
    elif asked.predictions is not None:
        points = read_predictions(Path(asked.predictions), benchmark.names)
        results = read(points, Path(asked.predictions).stem, "a file, pixels from 0")
    else:
        assert regressor is not None
        detector = None if asked.box == "truth" else open_detector(asked.box)
        with ProgressBar("predicting", "images") as bar:
            bar.start(len(benchmark))
            points, missed = predict_benchmark(regressor, benchmark, detector, bar.advance)
        results = read(points, *in_words(regressor.name, asked.box if detector else None, missed))
    if benchmark.images is None:
        return results, None
    worst = worst_cases(results[0], WORST)
    return results, lambda path: draw_worst_images(benchmark, points, worst, path)


def _evaluate_surface(regressor: Regressor | None, asked: _Asked) -> _Evaluated:
    from densegen.console import ProgressBar
    from densegen.face.model_file import read_model
    from densegen.fitting.prior import read_prior
    from densetrain.evaluation.surface import evaluate_surface

    if regressor is None or asked.model_path is None:
        raise click.UsageError("--what surface needs a RUN and a --model")
    if asked.box != "truth":
        raise click.UsageError("--what surface crops by the true boxes")
    benchmark = _benchmark(asked)
    model = read_model(asked.model_path)
    prior = read_prior(asked.prior_path, model)
    with ProgressBar("reconstructing", "faces") as bar:
        bar.start(len(benchmark))
        results = evaluate_surface(
            regressor, benchmark, model, prior, threshold=asked.threshold, seed=asked.seed, progress=bar.advance,
            prior_in_words="of the model" if asked.prior_path is None else f"of the fits in {asked.prior_path.name}",
        )  # fmt: skip
    return results, None


def _benchmark(asked: _Asked) -> Benchmark:
    from densetrain.evaluation.benchmarks import aflw, aflw2000

    if asked.benchmark == "aflw2000-3d":
        return aflw2000(asked.root, asked.protocol, asked.labels, asked.yaw)
    if asked.protocol is None:
        raise click.UsageError("AFLW needs the folder of its public label files: --protocol")
    return aflw(asked.root, asked.protocol)


@click.command(short_help="Write one page of evaluations.")
@click.argument("runs", metavar="RUN...", nargs=-1, required=True, type=PATH)
@click.option("--out", type=PATH, default=Path("report"), show_default=True, help="folder of the page and its pictures")
@click.option("--profile", "backbones", multiple=True, help="add this backbone's cost; may be repeated")
def report(runs: tuple[Path, ...], out: Path, backbones: tuple[str, ...]) -> None:
    """Write one page from what 'densetrain evaluate' found.

    RUN is a run's folder, the --out of an evaluation, or a result's JSON file.

    \b
    reads    runs' evaluations and logs
    writes   OUT/report.html and its pictures
    example  densetrain report run other-run --out report
    """
    from densegen.errors import ConfigurationError
    from densetrain.evaluation.evaluate import read_result
    from densetrain.evaluation.report import tell_apart, with_weights, write_report
    from densetrain.evaluation.training_log import read_log

    refuse_no_folder(out)
    runs = tuple({run.resolve(): run for run in runs}.values())
    # A run keeps its results in a folder; '--out' makes such a folder of its own.
    folders = [run / "evaluation" if (run / "evaluation").is_dir() else run for run in runs]
    found = {p.resolve(): (run, p) for run, at in zip(runs, folders, strict=True)
             for p in (sorted(at.glob("*.json")) if at.is_dir() else [at])}  # fmt: skip
    if not found:
        raise ConfigurationError(f"{', '.join(map(str, runs))}: no evaluation here; run 'densetrain evaluate' first")
    read = [(str(run), read_result(path)) for run, path in found.values()]
    results = tell_apart(read)
    pictures = [path.with_name(f"{path.stem}-worst.png") for _, path in found.values()]
    drawn = [(picture, place, result) for picture, (place, result) in zip(pictures, read, strict=True)
             if picture.is_file()]  # fmt: skip
    names = Counter((place, result.method, result.protocol) for _, place, result in drawn)
    sheets = {}
    for picture, place, result in drawn:
        name = with_weights(result, names[place, result.method, result.protocol] > 1)
        sheets[picture] = result.model_copy(update={"method": f"{name} in {place}"})
    logs = [log for run in runs if (log := read_log(run)) is not None]
    profiles = []
    if backbones:
        from densegen.index.vertex_index import read_index
        from densetrain.config import ModelSettings
        from densetrain.network.profile import profile as measure

        count = len(read_index())
        profiles = [measure(ModelSettings(backbone=name), count) for name in backbones]
    write_report(results, profiles, out, sheets, logs)
    say(f"{out / 'report.md'}, {out / 'report.html'}")


@click.command(short_help="Print what backbones cost.")
@click.argument("backbones", nargs=-1)
@click.option("--input-size", type=click.IntRange(32, 1024), default=256, show_default=True)
@click.option("--width", type=click.FloatRange(0, 16, min_open=True), default=1.0, show_default=True)
@click.option("--landmarks", type=click.IntRange(1), help="[default: those of densegen's own index]")
def profile(backbones: tuple[str, ...], input_size: int, width: float, landmarks: int | None) -> None:
    """Print parameters, MACs and latency of BACKBONES [default: mobilenet_v2 resnet18 resnet50].

    \b
    reads    nothing
    writes   to standard output
    example  densetrain profile mobilenet_v2 resnet18
    """
    from densegen.index.vertex_index import read_index
    from densetrain.config import ModelSettings
    from densetrain.evaluation.report import profile_table
    from densetrain.network.profile import profile as measure

    names = backbones or ("mobilenet_v2", "resnet18", "resnet50")
    settings = [ModelSettings(backbone=name, width=width, input_size=input_size) for name in names]
    count = landmarks or len(read_index())
    say(profile_table([measure(one, count) for one in settings]).as_markdown())
