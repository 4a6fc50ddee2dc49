"""What a sample costs, in units of one JPEG decode of its 450x450 source, measured in one run.

The published per-image script needs 55 to 60 of them; two decodes' worth is the floor at the full model size.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import simplejpeg
from scipy.io import savemat
from threadpoolctl import threadpool_limits

from densegen.dataset.pipeline import BATCH, Recipe, make_samples
from densegen.face.morphable_model import MorphableModel, read_model, write_model
from densegen.files import find_data_file
from densegen.index.vertex_index import read_index
from densegen.sources.fit_list import FitEntry, list_fits
from densegen.sources.fits import read_fit
from densegen.sources.manifest import read_manifest
from densegen.synthetic.corpus import SUBSET


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
    corpus: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], position_maps: bool, limit: float
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
    ratio = float(np.median(samples) / np.median(decodes))
    with capsys.disabled():
        print(f"\na sample{' with its map' * position_maps} costs {ratio:.2f} JPEG decodes of its 450x450 source")
    assert ratio <= limit


@pytest.mark.benchmark
def test_a_worker_stays_below_800_mb_at_the_full_model_size(
    corpus: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Two processes build two shards of the default size, with position maps; the larger one counts."""
    full_size_corpus(corpus, tmp_path)
    write_model(full_size(read_model(corpus / "model.safetensors")), tmp_path / "model.safetensors")
    for path in list((tmp_path / SUBSET).iterdir()):
        for copy in range(1, 17):
            shutil.copy(path, path.with_name(path.name.replace(f"{SUBSET}_0", f"{SUBSET}_{copy}")))
    arguments = ["build", "demo", "--root", str(tmp_path), "--out", str(tmp_path / "out"), "--shard-size", "512"]
    code = (
        "import resource\n"
        "from densegen.cli import main\n"
        "if __name__ == '__main__':\n"
        f"    main({[*arguments, '--jobs', '2', '--position-maps']!r}, standalone_mode=False)\n"
        "    print(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss // 1024)\n"
    )
    made = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert "544 samples in 2 shards" in made.stdout
    peak = int(made.stdout.split()[-1])
    with capsys.disabled():
        print(f"\nthe peak memory of a worker is {peak} MiB")
    assert peak < 800e6 / 2**20
