"""Evaluation: a trained network, or anybody's predictions, scored by a benchmark's own protocol."""

from __future__ import annotations

import itertools
import json
import math
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import numpy.typing as npt
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError, model_validator

from densegen.arrays import Float32, Float64, Image
from densegen.dataset.shard_set import ShardSet
from densegen.errors import ConfigurationError, FormatError
from densegen.executors import read_ahead
from densegen.files import write_text
from densegen.geometry.crop import box_size
from densegen.geometry.pose import yaw_degrees
from densegen.index.vertex_index import VertexIndex
from densegen.records import first_problem, read_json
from densetrain.choices import Comparison, DetectorName
from densetrain.evaluation.benchmarks import Benchmark
from densetrain.evaluation.metrics import BINS, Score, score, yaw_bins
from densetrain.evaluation.protocol import Protocol
from densetrain.network.regressor import Regressor
from densetrain.prediction.detect import Detector, better_detector, open_detector
from densetrain.prediction.faces import REFINE, look_again

__all__ = [
    "Result",
    "check_belongs",
    "evaluate",
    "evaluate_benchmark",
    "evaluate_shards",
    "free_stem",
    "in_words",
    "predict_benchmark",
    "read_result",
    "worst_cases",
    "write_result",
]

Progress = Callable[[int], None]

BATCH = 32
STRENGTHS = ("weakest third", "middle third", "strongest third")
RESULT_FORMAT = "densetrain evaluation"


def _with_nan(score: Any) -> Any:
    """A score as it is written, whose empty bins have ``null``: JSON knows no NaN."""
    if isinstance(score, dict) and isinstance(bins := score.get("bins"), list):
        return {**score, "bins": [math.nan if value is None else value for value in bins]}
    return score


class Result(BaseModel):
    """One evaluation, as it is kept in a file.

    protocol : faces, labels and points that were compared
    made : what the predictions were made from, in words
    weights : digest of the network's weights; None of predictions that a file holds, and of earlier versions' results
    errors : NME of each face in percent, in the order of ``names``
    yaw_deg : of the same faces
    groups : further tables by title: a mean NME by the name of a group of faces or of landmarks
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    method: str
    protocol: Protocol
    made: str
    weights: Annotated[str, Field(pattern=r"^[0-9a-f]{16}$")] | None = None
    score: Annotated[Score, BeforeValidator(_with_nan)]
    names: Annotated[list[str], Field(min_length=1)]
    errors: list[Annotated[float, Field(ge=0, allow_inf_nan=False)]]
    yaw_deg: list[float]
    groups: dict[str, dict[str, float]] = {}

    @model_validator(mode="after")
    def _is_consistent(self) -> Result:
        if not len(self.names) == len(self.errors) == len(self.yaw_deg):
            raise ValueError(f"{len(self.names)} names, {len(self.errors)} errors, {len(self.yaw_deg)} angles")
        if not (len(self.score.bins) == len(self.score.counts) == len(BINS) and 0 < self.score.threshold < math.inf):
            raise ValueError("the score is damaged")
        return self

    @property
    def identity(self) -> tuple[str, str, str, float, int]:
        """What two results have in common that are the same evaluation, if of the same weights."""
        return (self.method, str(self.protocol), self.made, self.score.threshold, self.score.seed)


def evaluate(
    network: Regressor, on: Benchmark | ShardSet, *, split: str = "validation",
    detector: DetectorName | Detector | None = None, threshold: float = 10.0, seed: int = 0,
    progress: Progress = lambda n: None,
) -> Result:  # fmt: skip
    """Score a network by a benchmark's protocol (the geometric reading), or on a split of finished builds.

    on : a benchmark, or builds as ``open_dataset`` gives them
    split : the builds' split; not used for a benchmark
    detector : finds the boxes that a benchmark's crops are laid around; by default they are the true boxes
    threshold : NME at which the area under the curve ends and a failure begins, percent
    seed : of the balanced subsets
    progress : gets the number of faces done since the last call

    Raises :class:`ConfigurationError` if the images or the detector are missing, or if crops or landmarks of the builds
    are not those of the network; :class:`FormatError` if an image cannot be read or a face has no finite error.
    """
    if isinstance(on, ShardSet):
        return evaluate_shards(network, on, split, threshold=threshold, seed=seed, progress=progress)
    detector = better_detector() if detector == "auto" else detector
    opened = open_detector(detector) if isinstance(detector, str) else detector
    points, missed = predict_benchmark(network, on, opened, progress)
    named = detector if detector is None or isinstance(detector, str) else "given"
    method, made = in_words(network.name, named, missed)
    return evaluate_benchmark(on, points, method, made, weights=network.weights, threshold=threshold, seed=seed)


def in_words(network: str, detector: str | None, missed: int) -> tuple[str, str]:
    """A method's name in tables, and what its predictions were made from: crops around true boxes, or a detector's."""
    if detector is None:
        return network, "crops around the true boxes"
    return (
        f"{network}, boxes of {detector}",
        f"crops around the boxes of the detector {detector}, around the true box for {missed:,} not found, laid again "
        f"{REFINE} times at most",
    )


def predict_benchmark(
    regressor: Regressor, benchmark: Benchmark, detector: Detector | None = None, progress: Progress = lambda n: None
) -> tuple[Float32, int]:
    """(n, 68, 3) keypoints in pixels of the benchmark's images, and how many faces the detector did not find.

    Crops are laid around the true boxes, or around the detector's if one is given, and then again around what was
    found, as a prediction does; a face that it does not find is cropped by its true box, and counted.
    """
    found: list[Float32] = []
    missed, refine = 0, 0 if detector is None else REFINE
    for images, boxes in _chunks(benchmark):
        if detector is not None:
            nearest = [_nearest(detector(image)[:, :4], box) for image, box in zip(images, boxes, strict=True)]
            boxes = np.stack([box for box, _ in nearest])
            missed += sum(not seen for _, seen in nearest)
        landmarks = look_again(regressor, images, boxes, refine)[1].landmarks
        found.append(regressor.index.subset("ibug68", landmarks))
        progress(len(images))
    return np.concatenate(found), missed


def _chunks(benchmark: Benchmark) -> Iterator[tuple[list[Image], Float64]]:
    """The photographs in parts, with their true boxes; the next part is read while one is worked on."""
    images = benchmark.read_images()

    def read(first: int) -> tuple[list[Image], Float64]:
        boxes = benchmark.boxes[first : first + BATCH]
        return list(itertools.islice(images, len(boxes))), boxes

    return read_ahead(read, range(0, len(benchmark.boxes), BATCH))


def _nearest(found: Float64, truth: Float64) -> tuple[Float64, bool]:
    """The box whose centre is nearest to the true one's, within half its side; else the true box and False."""
    if len(found):
        centre = (truth[:2] + truth[2:]) / 2
        distance = np.linalg.norm((found[:, :2] + found[:, 2:]) / 2 - centre, axis=1)
        best = int(np.argmin(distance))
        if distance[best] < (truth[2:] - truth[:2]).mean() / 2:
            return found[best], True
    return truth, False


def evaluate_benchmark(
    benchmark: Benchmark, predicted: npt.NDArray[np.floating], method: str, made: str, *, weights: str | None = None,
    comparison: Comparison = "geometric", threshold: float = 10.0, seed: int = 0,
) -> Result:  # fmt: skip
    """Score (n, 68, 2 or 3) predictions, pixels of the images; ``made`` says in words what they were made from.

    weights : digest of the network's weights, if one made them
    comparison : see :meth:`~densetrain.evaluation.benchmarks.Benchmark.errors`
    """
    errors = benchmark.errors(predicted, comparison)
    if not np.isfinite(errors).all():
        bad = benchmark.names[int(np.argmin(np.isfinite(errors)))]
        raise FormatError(f"{benchmark.title}: {bad} has no finite error: no visible point, or an empty box")
    return Result(
        method=method,
        protocol=benchmark.protocol.model_copy(update={"comparison": comparison}),
        made=made,
        weights=weights,
        score=score(errors, benchmark.yaw_deg, threshold=threshold, seed=seed),
        names=list(benchmark.names),
        errors=[float(e) for e in errors],
        yaw_deg=[float(y) for y in benchmark.yaw_deg],
    )


def evaluate_shards(
    regressor: Regressor | None, shards: ShardSet, split: str, *, constant: npt.NDArray[np.floating] | None = None,
    threshold: float = 10.0, seed: int = 0, progress: Progress = lambda n: None,
) -> Result:  # fmt: skip
    """Score all landmarks on a split: NME in 2D, and in 3D, by region, yaw and expression.

    regressor : a network whose vertex index is the shards'; or None, and ``constant``, (N, 3) landmarks that are
        "predicted" for every sample

    Raises :class:`ConfigurationError` if the indices differ or the split is empty.
    """
    if regressor is not None:
        check_belongs(regressor, shards)
    rows, reader = shards.rows(split), shards.open()
    size = box_size(np.stack([reader.keypoints68(int(row)) for row in rows]))
    # (n, N) distances of every landmark, in 2D and in 3D, pixels of the crop.
    flat, solid = np.empty((len(rows), len(shards.index))), np.empty((len(rows), len(shards.index)))
    for first in range(0, len(rows), BATCH):
        batch = rows[first : first + BATCH]
        truth = np.stack([reader.landmarks(int(row)) for row in batch])
        if regressor is not None:
            predicted = regressor(reader.images(batch))
        else:
            assert constant is not None
            predicted = np.broadcast_to(constant.astype(np.float32), truth.shape)
        difference = predicted.astype(np.float64) - truth
        flat[first : first + len(batch)] = np.linalg.norm(difference[..., :2], axis=-1)
        solid[first : first + len(batch)] = np.linalg.norm(difference, axis=-1)
        progress(len(batch))
    expressions = np.stack([reader.expression(int(row)) for row in rows])
    reader.close()
    flat, solid = 100 * flat / size[:, None], 100 * solid / size[:, None]
    errors, yaw_deg = flat.mean(axis=1), yaw_degrees(shards.pose[rows], shards.mirrored[rows])
    return Result(
        method="mean landmarks of the training set" if regressor is None else regressor.name,
        protocol=Protocol(
            benchmark=f"shards of {' and '.join(shards.datasets)} ({shards.fingerprint[:8]})",
            faces=len(rows),
            points=f"{len(shards.index)} landmarks of {shards.index.name} {shards.index.version}",
            split=split,
        ),
        made="the shards' own crops" if regressor is not None else "no image",
        weights=None if regressor is None else regressor.weights,
        score=score(errors, yaw_deg, threshold=threshold, seed=seed),
        names=[shards.sample_ids[row] for row in rows],
        errors=[float(e) for e in errors],
        yaw_deg=[float(y) for y in yaw_deg],
        groups={
            "dimensions": {"2D": float(flat.mean()), "3D": float(solid.mean())},
            "yaw bin, 3D": _by_bin(solid.mean(axis=1), yaw_deg),
            "region": _by_region(flat, [landmark.region for landmark in shards.index.landmarks]),
            "expression strength": _by_strength(errors, expressions),
        },
    )


def check_belongs(regressor: Regressor, shards: ShardSet) -> None:
    """Raise :class:`ConfigurationError` if a network sees other crops than the shards hold, or other landmarks."""
    about = regressor.about
    for what, mine, theirs in (
        ("vertex index", _index_in_words(regressor.index), _index_in_words(shards.index)),
        ("crop size", about.crop_size, shards.crop_size),
        ("margin", about.margin, shards.margin),
    ):
        if mine != theirs:
            raise ConfigurationError(
                f"{regressor.name} was trained with another {what} than the shards have: {mine}, not {theirs}"
            )


def _index_in_words(index: VertexIndex) -> str:
    return f"{index.name} {index.version} ({index.fingerprint[:8]})"


def _by_region(distances: Float64, regions: list[str]) -> dict[str, float]:
    names = np.array(regions)
    return {region: float(distances[:, names == region].mean()) for region in dict.fromkeys(regions)}


def _by_bin(errors: Float64, yaw_deg: Float64) -> dict[str, float]:
    number = yaw_bins(yaw_deg)
    return {name: float(errors[number == b].mean()) for b, name in enumerate(BINS) if (number == b).any()}


def _by_strength(errors: Float64, expression: Float32) -> dict[str, float]:
    """Thirds of the faces by the length of their expression, each component in units of its own spread."""
    spread = np.maximum(expression.std(axis=0), 1e-12)
    order = np.argsort(np.linalg.norm(expression / spread, axis=1), kind="stable")
    parts = np.array_split(order, 3)
    return {name: float(errors[part].mean()) for name, part in zip(STRENGTHS, parts, strict=True) if part.size}


def worst_cases(result: Result, count: int) -> dict[int, str]:
    """The worst faces, worst first, by their place in the result: the name, error and yaw of each in words."""
    rows = np.argsort(result.errors)[::-1][:count].tolist()
    last = {row: result.names[row].rsplit("/", 1)[-1] for row in rows}
    return {row: f"{last[row]}  {result.errors[row]:.1f} %  yaw {result.yaw_deg[row]:.0f}" for row in rows}


def write_result(result: Result, path: Path) -> None:
    """Write a result as JSON, whole or not at all."""
    contents = {"format": RESULT_FORMAT, **result.model_dump()}
    contents["score"]["bins"] = [None if math.isnan(value) else value for value in result.score.bins]
    write_text(path, json.dumps(contents, indent=1, allow_nan=False) + "\n")


def free_stem(results: Mapping[str, Result], stem: Path, *, retrained: bool = False) -> Path:
    """``stem``, or ``stem-2``, ``stem-3``, ...: the first of whose files none holds another evaluation.

    results : by what comes between the stem and ``.json``
    retrained : what other weights of the same name gave is an earlier state of this network, and replaced
    """
    for number in itertools.count(1):
        free = stem if number == 1 else stem.with_name(f"{stem.name}-{number}")
        places = {free.with_name(f"{free.name}{suffix}.json"): result for suffix, result in results.items()}
        if all(not path.exists() or _replaces(result, path, retrained) for path, result in places.items()):
            return free
    raise AssertionError("counting ends nowhere")


def _replaces(result: Result, path: Path, retrained: bool) -> bool:
    """Whether a file holds the same evaluation, made before; one that cannot be read is something else, and stays."""
    try:
        other = read_result(path)
    except FormatError:
        return False
    # Predictions that a file holds have no weights: they are the same if their errors are.
    alike = other.weights == result.weights and (result.weights is not None or other.errors == result.errors)
    return other.identity == result.identity and (retrained or alike)


def read_result(path: Path) -> Result:
    """Read what :func:`write_result` wrote; raises :class:`FormatError` if it is something else."""
    if not path.exists():
        raise FormatError(f"{path} does not exist: give a run's folder, or a result of 'densetrain evaluate'")
    contents: Any = read_json(path)
    if not isinstance(contents, dict) or contents.pop("format", None) != RESULT_FORMAT:
        raise FormatError(f"{path} is no result of 'densetrain evaluate'")
    try:
        result = Result.model_validate(contents)
        for text in (result.method, str(result.protocol), result.made):
            text.encode()
    except ValidationError as error:
        raise FormatError(f"{path} is a damaged result: {first_problem(error)}") from error
    except UnicodeEncodeError as error:
        raise FormatError(f"{path} is a damaged result: {error.object!a} is no text") from error
    return result
