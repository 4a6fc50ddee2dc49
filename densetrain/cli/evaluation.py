"""``densetrain evaluate``, ``report`` and ``profile``."""

from __future__ import annotations

import math
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from densetrain.benchmarks import Benchmark
    from densetrain.evaluate import Result
    from densetrain.regressor import Regressor

__all__ = ["evaluate", "profile", "report"]

PATH = click.Path(path_type=Path)
LABEL_SETS = ("original", "reannotated")
WORST = 12

READ = {
    "shards": ("folders", "split"),
    "aflw2000-3d": ("root", "protocol", "labels", "yaw", "box"),
    "aflw": ("root", "protocol", "box"),
}
"""The options that belong to a benchmark."""


@click.command()
@click.argument("model", required=False, type=PATH)
@click.option("--benchmark", type=click.Choice(["aflw2000-3d", "aflw", "shards"]), default="shards", show_default=True)
@click.option("--root", type=PATH, help="folder of the benchmark's images (and .mat files)")
@click.option("--protocol", type=PATH, help="folder of the benchmark's public label, yaw and list files")
@click.option("--labels", type=click.Choice(LABEL_SETS), default="original", show_default=True)
@click.option("--yaw", type=click.Choice(["pose", "new-pose", "fit"]), help="[default: pose with --protocol, else fit]")
@click.option("--box", type=click.Choice(["truth", "cascade", "opencv", "mediapipe"]), default="truth",
              show_default=True, help="what crops are laid around: the true box, or a detector's")  # fmt: skip
@click.option("--predictions", help=".npz of names and landmarks (n, 68, 2|3), or a label set: original, reannotated")
@click.option("--shards", "folders", multiple=True, type=PATH, help="finished build; may be repeated")
@click.option("--split", type=click.Choice(["train", "validation", "test"]), default="validation", show_default=True)
@click.option("--threshold", type=click.FloatRange(0, min_open=True), default=10.0, show_default=True, help="of AUC, %")
@click.option("--seed", type=click.IntRange(0), default=0, show_default=True, help="of the balanced subsets")
@click.option("--device", default="cpu", show_default=True, help="torch's name of it")
@click.option("--out", type=PATH, help="folder for the result, its CED curve and the worst cases "
              "[default: MODEL/evaluation where MODEL is a run's folder]")  # fmt: skip
def evaluate(model: Path | None, predictions: str | None, out: Path | None, device: str, **options: Any) -> None:
    """Score MODEL (a run's folder, a checkpoint, .safetensors or .onnx), or --predictions, by a public protocol."""
    from densegen.errors import ConfigurationError
    from densetrain.evaluate import write_result
    from densetrain.regressor import open_regressor
    from densetrain.report import draw_ced, result_lines

    if (model is None) == (predictions is None):
        raise ConfigurationError("give a model or --predictions, one of them")
    if not math.isfinite(options["threshold"]):
        raise ConfigurationError("--threshold is a number of percent")
    _refuse_unread(options["benchmark"], predictions)
    regressor = None if model is None else open_regressor(model, device)
    if options["benchmark"] == "shards":
        results = _evaluate_shards(regressor, options)
    else:
        results = [_evaluate_public(regressor, predictions, options)]
    for result in results:
        click.echo("\n".join(result_lines(result)))
    if out is None and model is not None and model.is_dir():
        out = model / "evaluation"
    if out is None:
        return
    read = ("split", "labels", "yaw", "box")
    name = "-".join(
        [options["benchmark"], *(options[o] for o in read if o in READ[options["benchmark"]] and options[o])]
    )
    for result, suffix in zip(results, ("", "-constant"), strict=False):
        write_result(result, out / f"{name}{suffix}.json")
    draw_ced(results, out / f"{name}-ced.png")
    if regressor is not None:
        _draw_worst(regressor, results[0], options, out / f"{name}-worst.png")
    click.echo(f"{out / name}.json, -ced.png" + (", -worst.png" if regressor is not None else ""))


def _refuse_unread(benchmark: str, predictions: str | None) -> None:
    """An option that is given and not read would make a number look like another."""
    from densegen.errors import ConfigurationError

    context = click.get_current_context()
    unread = {name for names in READ.values() for name in names} - set(READ[benchmark])
    if predictions is not None:
        unread |= {"box", "device"}
    for option in context.command.params:
        given = context.get_parameter_source(option.name or "") is click.core.ParameterSource.COMMANDLINE
        if given and option.name in unread:
            what = benchmark if predictions is None else f"{benchmark} with --predictions"
            raise ConfigurationError(f"{option.opts[0]} means nothing to the benchmark {what}")


def _evaluate_shards(regressor: Regressor | None, options: dict[str, Any]) -> list[Result]:
    from densegen.cli.progress import ProgressBar
    from densegen.errors import ConfigurationError
    from densetrain.evaluate import evaluate_shards

    if not options["folders"]:
        raise ConfigurationError("which shards? Give a finished build with --shards")
    if regressor is None:
        raise ConfigurationError("--predictions are for the public benchmarks; give a model for shards")
    folders, split = list(options["folders"]), options["split"]
    common = {"threshold": options["threshold"], "seed": options["seed"]}
    with ProgressBar("evaluating", "samples") as bar:
        results = [evaluate_shards(regressor, folders, split, progress=lambda n: bar.advance(n, 0), **common)]
    mean = getattr(getattr(regressor, "net", None), "mean_landmarks", None)
    if mean is not None:
        results.append(evaluate_shards(None, folders, split, constant=mean.cpu().numpy(), **common))
    return results


def _evaluate_public(regressor: Regressor | None, predictions: str | None, options: dict[str, Any]) -> Result:
    from densegen.cli.progress import ProgressBar
    from densetrain.benchmarks import aflw2000, read_predictions
    from densetrain.detect import open_detector
    from densetrain.evaluate import evaluate_benchmark, predict_benchmark

    benchmark = _benchmark(options)
    common = {"threshold": options["threshold"], "seed": options["seed"]}
    if predictions in LABEL_SETS and options["benchmark"] == "aflw2000-3d":
        other = aflw2000(options["root"], options["protocol"], predictions, options["yaw"])  # type: ignore[arg-type]
        return evaluate_benchmark(benchmark, other.raw, f"labels {predictions}", "a file", as_labels=True, **common)
    if predictions is not None:
        found = read_predictions(Path(predictions), benchmark.names)
        return evaluate_benchmark(benchmark, found, Path(predictions).stem, "a file, pixels from 0", **common)
    assert regressor is not None
    detector = None if options["box"] == "truth" else open_detector(options["box"])
    with ProgressBar("predicting", "images") as bar:
        bar.start(len(benchmark), 0)
        points, missed = predict_benchmark(regressor, benchmark, detector, lambda n: bar.advance(n, 0))
    words = "crops around the true boxes"
    if detector is not None:
        words = f"crops around the boxes of the detector {options['box']}, around the true box for {missed:,} not found"
    return evaluate_benchmark(benchmark, points, regressor.name, words, **common)


def _benchmark(options: dict[str, Any]) -> Benchmark:
    from densegen.errors import ConfigurationError
    from densetrain.benchmarks import aflw, aflw2000

    if options["benchmark"] == "aflw2000-3d":
        return aflw2000(options["root"], options["protocol"], options["labels"], options["yaw"])
    if options["protocol"] is None:
        raise ConfigurationError("AFLW needs the folder of its public label files: --protocol")
    return aflw(options["root"], options["protocol"])


def _draw_worst(regressor: Regressor, result: Result, options: dict[str, Any], path: Path) -> None:
    from densetrain.evaluate import worst_cases
    from densetrain.preview import draw_held_out, draw_worst_images

    names = [name for name, _ in worst_cases(result, WORST)]
    if options["benchmark"] == "shards":
        draw_held_out(regressor, list(options["folders"]), names, path)
    else:
        draw_worst_images(regressor, _benchmark(options), names, path)


@click.command()
@click.argument("runs", metavar="RUN...", nargs=-1, required=True, type=PATH)
@click.option("--out", type=PATH, required=True, help="folder for report.md, report.html and pictures")
@click.option("--profile", "backbones", multiple=True, help="add this backbone's cost; may be repeated")
def report(runs: tuple[Path, ...], out: Path, backbones: tuple[str, ...]) -> None:
    """Write one page from what 'densetrain evaluate' found.

    RUN is a run's folder, the --out of an evaluation, or a result's JSON file.
    """
    from densegen.errors import ConfigurationError
    from densetrain.evaluate import read_result
    from densetrain.report import write_report

    # A run keeps its results in a folder; '--out' makes such a folder of its own.
    folders = {run: run / "evaluation" if (run / "evaluation").is_dir() else run for run in runs if run.is_dir()}
    paths = [p for run in runs for p in (sorted(folders[run].glob("*.json")) if run in folders else [run])]
    if not paths:
        raise ConfigurationError(f"{', '.join(map(str, runs))}: no evaluation here; run 'densetrain evaluate' first")
    profiles = []
    if backbones:
        from densetrain.config import ModelSettings
        from densetrain.profile import profile as measure

        profiles = [measure(ModelSettings(backbone=name), 520) for name in backbones]
    sheets = {f"{run.name}-{p.name}": p for run, folder in folders.items() for p in sorted(folder.glob("*-worst.png"))}
    write_report([read_result(path) for path in paths], profiles, out, sheets)
    click.echo(f"{out / 'report.md'}, {out / 'report.html'}")


@click.command()
@click.argument("backbones", nargs=-1)
@click.option("--input-size", type=click.IntRange(32, 1024), default=256, show_default=True)
@click.option("--width", type=click.FloatRange(0, 16, min_open=True), default=1.0, show_default=True)
@click.option("--landmarks", type=click.IntRange(1), default=520, show_default=True)
def profile(backbones: tuple[str, ...], input_size: int, width: float, landmarks: int) -> None:
    """Print parameters, MACs and latency of BACKBONES [default: mobilenet_v2 resnet18 resnet50]."""
    from densetrain.config import ModelSettings
    from densetrain.profile import profile as measure
    from densetrain.report import profile_table

    names = backbones or ("mobilenet_v2", "resnet18", "resnet50")
    settings = [ModelSettings(backbone=name, width=width, input_size=input_size) for name in names]
    click.echo(profile_table([measure(one, landmarks) for one in settings]).as_markdown())
