"""What a sample costs, in units of one JPEG decode of its 450x450 source, measured in one run.

The published per-image script needs 55 to 60 of them; two decodes' worth is the floor at the full model size.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import simplejpeg
from scipy.io import savemat
from threadpoolctl import threadpool_limits

from densegen.dataset.pipeline import BATCH, Recipe, make_samples
from densegen.dataset.shard_set import open_dataset
from densegen.dataset.verify import verify_dataset
from densegen.face.model_file import read_model, write_model
from densegen.face.morphable_model import MorphableModel
from densegen.files import find_data_file, sha256_of
from densegen.index.vertex_index import read_index
from densegen.sources.fit_list import FitEntry, list_fits
from densegen.sources.fits import read_fit
from densegen.sources.manifest import read_manifest
from densegen.synthetic.corpus import SUBSET, make_portrait
from tests.benchmarks.conftest import Ratio


def full_size(model: MorphableModel) -> MorphableModel:
    """The model with as many vertices as the Basel Face Model has, by repeating the last one."""
    more = 53215 - model.vertex_count

    def grow(array: np.ndarray, axis: int) -> np.ndarray:
        tail = np.repeat(np.take(array, [-1], axis=axis), more, axis=axis)
        return np.ascontiguousarray(np.concatenate([array, tail], axis=axis))

    return MorphableModel(
        shape_mean=grow(model.shape_mean, 0),
        expression_mean=grow(model.expression_mean, 0),
        shape_basis=_pad(grow(model.shape_basis, 1), 199),
        expression_basis=_pad(grow(model.expression_basis, 1), 29),
        shape_std=np.ones(199, np.float32),
        expression_std=np.ones(29, np.float32),
        triangles=model.triangles,
        keypoints68=model.keypoints68,
        uv=grow(model.uv, 0),
        unit_mm=model.unit_mm,
        name="full size",
    )


def _pad(basis: np.ndarray, components: int) -> np.ndarray:
    return np.concatenate([basis, np.zeros((components - len(basis), *basis.shape[1:]), np.float32)])


def full_size_corpus(corpus: Path, root: Path) -> list[FitEntry]:
    """The corpus with as many coefficients as 300W-LP has."""
    folder = root / SUBSET
    folder.mkdir()
    for path in (corpus / SUBSET).iterdir():
        if path.suffix == ".jpg":
            (folder / path.name).write_bytes(path.read_bytes())
            continue
        fit = read_fit(path.with_suffix(".mat"))
        savemat(
            folder / path.name,
            {
                "Pose_Para": fit.pose[None],
                "Shape_Para": np.pad(fit.shape, (0, 199 - fit.shape.size))[:, None].astype(np.float64),
                "Exp_Para": np.pad(fit.expression, (0, 29 - fit.expression.size))[:, None].astype(np.float64),
            },
            do_compression=True,
        )
    return (list_fits(read_manifest("demo"), root, "mirror") * BATCH)[:BATCH]


@pytest.mark.benchmark
@pytest.mark.parametrize(("position_maps", "limit"), [(False, 3), (True, 8)])
def test_a_sample_costs_few_jpeg_decodes(
    corpus: Path, tmp_path: Path, ratio: Ratio, position_maps: bool, limit: float
) -> None:
    """All 228 components count, and the embedded face has fewer: a map of the Basel model costs somewhat more."""
    model = full_size(read_model(corpus / "model.safetensors"))
    recipe = Recipe(model, read_index(find_data_file("vertex_index_520.yaml")), position_maps=position_maps)
    entries = full_size_corpus(corpus, tmp_path)
    files = [entry.image.read_bytes() for entry in entries]
    with threadpool_limits(1):
        # Once beforehand: compiles the kernels, fills the caches.
        assert sum(len(made) for _, made in make_samples(entries, recipe) if isinstance(made, list)) == 2 * BATCH
        samples, decodes = [], []
        # In turn, so that a slow moment of the machine falls on both.
        for _ in range(12):
            start = time.perf_counter()
            for _ in make_samples(entries, recipe):
                pass
            samples.append((time.perf_counter() - start) / (2 * BATCH))
            start = time.perf_counter()
            for data in files * 2:
                simplejpeg.decode_jpeg(data, "RGB")
            decodes.append((time.perf_counter() - start) / (2 * BATCH))
    cost = float(np.median(samples) / np.median(decodes))
    ratio(f"a sample{' with its map' * position_maps}", cost, "decodes of its source", 3 if position_maps else 1.5)
    assert cost <= limit


@pytest.fixture(scope="module")
def big(corpus: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A corpus of the full model size, 2,064 fits, with its model."""
    root = tmp_path_factory.mktemp("big")
    full_size_corpus(corpus, root)
    write_model(full_size(read_model(corpus / "model.safetensors")), root / "model.safetensors")
    for path in list((root / SUBSET).iterdir()):
        for copy in range(1, 129):
            shutil.copy(path, path.with_name(path.name.replace(f"{SUBSET}_0", f"{SUBSET}_{copy:03d}")))
    return root


def command(root: Path, out: Path, *more: str) -> list[str]:
    arguments = ["build", "demo", "--root", str(root), "--out", str(out), "--shard-size", "256", *more]
    return [sys.executable, "-m", "densegen", *arguments]


def own_memory(process: subprocess.Popen[bytes]) -> int:
    """The most that a child of a process has for itself while it runs, bytes; what is shared counts in parts (PSS)."""
    most = 0
    while process.poll() is None:
        children = " ".join(_lines(Path(f"/proc/{process.pid}/task/{process.pid}/children")))
        for child in children.split():
            lines = _lines(Path(f"/proc/{child}/smaps_rollup"))
            most = max([most, *(1024 * int(line.split()[1]) for line in lines if line.startswith("Pss:"))])
        time.sleep(0.1)
    return most


def _lines(path: Path) -> list[str]:
    try:
        return path.read_text().splitlines()
    except OSError:  # it has just ended
        return []


@pytest.mark.benchmark
@pytest.mark.skipif(not Path("/proc/self/smaps_rollup").is_file(), reason="needs /proc")
@pytest.mark.parametrize(("more", "goal"), [((), 300), (("--position-maps",), 600)], ids=["without maps", "with maps"])
def test_a_worker_has_little_memory_of_its_own(
    big: Path, tmp_path: Path, ratio: Ratio, more: tuple[str, ...], goal: int
) -> None:
    build = command(big, tmp_path / "out", "--jobs", "2", "--limit", "544", *more)
    with subprocess.Popen(build, stdout=subprocess.DEVNULL) as process:
        most = own_memory(process)
    assert process.returncode == 0
    ratio(f"memory of a worker{' with maps' * bool(more)}", most / 1e6, "MB", goal)
    assert most < 1.25e6 * goal


SPIN = """
import numpy, simplejpeg, sys
image = numpy.random.default_rng(0).integers(0, 255, (450, 450, 3), numpy.uint8)
data = simplejpeg.encode_jpeg(image)
for _ in range(int(sys.argv[1])): simplejpeg.decode_jpeg(data)
"""


@pytest.mark.benchmark
@pytest.mark.skipif((os.cpu_count() or 1) < 2, reason="needs two cores")
def test_two_jobs_scale_as_two_processes_of_anything_do(big: Path, tmp_path: Path, ratio: Ratio) -> None:
    """The build beyond its start, which one job pays once and two jobs pay at the same time."""

    def seconds(run: Callable[[], object]) -> float:
        start = time.perf_counter()
        run()
        return time.perf_counter() - start

    def built(jobs: int, fits: int) -> float:
        out = tmp_path / f"{jobs}-{fits}-{time.monotonic_ns()}"
        return seconds(lambda: subprocess.run(
            [*command(big, out, "--jobs", str(jobs)), "--limit", str(fits)], check=True, stdout=subprocess.DEVNULL
        ))  # fmt: skip

    def spun(processes: int) -> float:
        running = [subprocess.Popen([sys.executable, "-c", SPIN, str(4000 // processes)]) for _ in range(processes)]
        return seconds(lambda: [process.wait() for process in running])

    built(2, 512)
    builds, spins = [], []
    for _ in range(3):
        rest = [built(jobs, 2064) - built(jobs, 512) for jobs in (1, 2)]
        builds.append(rest[0] / rest[1])
        spins.append(spun(1) / spun(2))
    ratio("two jobs", float(np.median(builds)), "times as fast", 1.85)
    ratio("two processes that decode", float(np.median(spins)), "times as fast")
    assert np.median(builds) > 0.7 * np.median(spins)


@pytest.mark.benchmark
def test_verifying_costs_a_fraction_of_decoding_beyond_hashing(big: Path, tmp_path: Path, ratio: Ratio) -> None:
    subprocess.run(command(big, tmp_path / "out", "--limit", "544"), check=True, stdout=subprocess.DEVNULL)
    shards = sorted((tmp_path / "out").glob("*.h5"))
    samples = open_dataset(tmp_path / "out")
    jpegs = [samples.open().jpeg(row) for row in range(len(samples))]
    with threadpool_limits(1):
        verify_dataset(tmp_path / "out")
        verified, hashed, decoded = [], [], []
        for _ in range(5):
            for times, run in (
                (verified, lambda: verify_dataset(tmp_path / "out")),
                (hashed, lambda: [sha256_of(path) for path in shards]),
                (decoded, lambda: [simplejpeg.decode_jpeg(jpeg, "RGB") for jpeg in jpegs]),
            ):
                start = time.process_time()
                run()
                times.append(time.process_time() - start)
    rest = (np.median(verified) - np.median(hashed)) / np.median(decoded)
    ratio("verifying a sample beyond hashing", float(rest), "decodes of its crop", 0.4)
    assert rest < 0.8


@pytest.mark.benchmark
@pytest.mark.parametrize("rendered", [False, True], ids=["stored", "rendered"])
def test_reading_position_maps(big: Path, tmp_path: Path, ratio: Ratio, rendered: bool) -> None:
    more = () if rendered else ("--position-maps",)
    subprocess.run(command(big, tmp_path / "out", "--limit", "64", *more), check=True, stdout=subprocess.DEVNULL)
    plain = open_dataset(tmp_path / "out")
    mapped = open_dataset(tmp_path / "out", position_maps=read_model(big / "model.safetensors") if rendered else True)
    jpegs = [plain.open().jpeg(row) for row in range(len(plain))]
    with threadpool_limits(1):
        costs = []
        list(mapped)
        for _ in range(5):
            times = []
            for run in (lambda: list(mapped), lambda: list(plain), lambda: [simplejpeg.decode_jpeg(j) for j in jpegs]):
                start = time.process_time()
                run()
                times.append(time.process_time() - start)
            costs.append((times[0] - times[1]) / times[2])
    name = "a position map, rendered while reading" if rendered else "a stored position map, read"
    ratio(name, float(np.median(costs)), "decodes of a crop")
    assert np.median(costs) < 15


@pytest.mark.benchmark
def test_drawing_a_portrait(ratio: Ratio) -> None:
    """Four of each person, as a corpus has them; most of the time that 'make demo' waits for its first shard."""
    data = simplejpeg.encode_jpeg(make_portrait(0, 0)[1], 92, "RGB", "420")
    with threadpool_limits(1):
        portraits, decodes = [], []
        for person in range(1, 7):
            start = time.perf_counter()
            for number in range(4):
                make_portrait(0, 4 * person + number)
            portraits.append((time.perf_counter() - start) / 4)
            start = time.perf_counter()
            for _ in range(50):
                simplejpeg.decode_jpeg(data, "RGB")
            decodes.append((time.perf_counter() - start) / 50)
    cost = float(np.median(portraits) / np.median(decodes))
    ratio("a procedural portrait", cost, "decodes of it")
    assert cost <= 250
