"""The same bytes on every processor: a build in processes that believe to run on other ones."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from densegen.files import sha256_of
from densegen.sources.photograph import jpeg_codec

KNOWN_CODEC = "115bda90941d"
"""What libjpeg-turbo 2 and 3 make of the fixed picture; with another library other digests are right."""

SMALL = "758507acca4f03124e8c7280f22dedeedb163234ccd4c6f7dc95c38f1b7fd295"
"""SHA-256 of the manifest of 16 portraits of seed 0 in shards of 16, as an x86-64 processor makes it."""

OTHERS = (
    {},
    {"OPENBLAS_CORETYPE": "Haswell"},
    {"OPENBLAS_CORETYPE": "Zen", "OPENBLAS_NUM_THREADS": "1"},
    {"OPENBLAS_CORETYPE": "Sandybridge", "NUMBA_CPU_NAME": "generic", "NPY_DISABLE_CPU_FEATURES": "X86_V3 AVX2 FMA3"},
)


def build_small(folder: Path, jobs: str, environment: dict[str, str]) -> str:
    """The digest of a small build, in processes with these variables."""
    variables = os.environ | environment
    if "NUMBA_CPU_NAME" in environment:  # a kernel compiled for this processor would be taken from its cache
        variables |= {"NUMBA_CACHE_DIR": str(folder / "kernels")}
    for words in (
        ("synth", str(folder / "corpus"), "--samples", "16", "--manifest"),
        ("build", str(folder / "corpus/manifest.yaml"), "--out", str(folder / "out"), "--shard-size", "16"),
    ):
        made = subprocess.run(
            [sys.executable, "-W", "ignore", "-m", "densegen", *words, "--jobs", jobs],
            env=variables, capture_output=True, text=True, check=False,
        )  # fmt: skip
        assert made.returncode == 0, made.stderr
    return sha256_of(folder / "out/manifest.json")


@pytest.mark.slow
@pytest.mark.parametrize(
    ("jobs", "environment"),
    [
        ("1", OTHERS[0]),
        pytest.param("1", OTHERS[1], marks=pytest.mark.long),
        pytest.param("1", OTHERS[2], marks=pytest.mark.long),
        pytest.param("2", OTHERS[3], marks=pytest.mark.long),
    ],
)
def test_a_build_has_the_same_digest_on_another_processor(
    tmp_path: Path, jobs: str, environment: dict[str, str]
) -> None:
    if jpeg_codec() != KNOWN_CODEC:
        pytest.skip(f"this JPEG library ({jpeg_codec()}) gives other bytes")
    assert build_small(tmp_path, jobs, environment) == SMALL


FIT = """
import hashlib, sys
from dataclasses import replace
import numpy as np
from densegen.fitting.model_points import aflw21_points, ibug68_points, landmark_points
from densegen.fitting.outline import jaw_lines
from densegen.fitting.prior import EarlierFit, prior_of_model
from densegen.fitting.solver import FaceSolver
from densegen.geometry.pose import camera_points
from densegen.index.vertex_index import read_index
from densegen.synthetic.corpus import make_portrait
from densegen.synthetic.face import face_model

model, digest = face_model(), hashlib.sha256()
prior, generator = prior_of_model(model), np.random.default_rng(0)
p68, p21, p520 = ibug68_points(model), aflw21_points(model), landmark_points(model, read_index())
solvers = (FaceSolver(p68, prior, robust=True), FaceSolver(p68, prior, jaw=jaw_lines(model)), FaceSolver(p68, prior))
for number in range(6):
    fit, _ = make_portrait(0, number)
    seen = camera_points(fit.keypoints_3d.T - 1, 450) + generator.integers(-3, 4, (68, 3))
    earlier = EarlierFit(fit.pose, np.concatenate([fit.shape, fit.expression]).astype(float))
    found = [solver.solve(seen[:, :2], 4.0) for solver in solvers]
    found.append(solvers[2].solve(seen, 4.0, earlier=earlier))
    found.append(FaceSolver(p520, prior).solve(fit.pose[6] * p520.at(earlier.coefficients), 1.0))
    for one in found:
        digest.update(one.pose.tobytes() + one.coefficients.astype(np.float32).tobytes())
print(digest.hexdigest())
"""

FITS = "3a9baab2c6b098890464abeca51f9e5e9b2c252d3d9db5f63fb0e5aeab85010a"
"""SHA-256 over the fits that these landmarks make."""


@pytest.mark.slow
@pytest.mark.parametrize(
    "environment",
    [OTHERS[0], *(pytest.param(other, marks=pytest.mark.long) for other in OTHERS[1:])],
)
def test_fits_are_the_same_on_another_processor(tmp_path: Path, environment: dict[str, str]) -> None:
    variables = os.environ | environment
    if "NUMBA_CPU_NAME" in environment:
        variables |= {"NUMBA_CACHE_DIR": str(tmp_path)}
    made = subprocess.run([sys.executable, "-c", FIT], env=variables, capture_output=True, text=True, check=False)
    assert made.stdout.strip() == FITS, made.stderr[-500:]


LOOK = """
import re
from densegen.face import depth, morphable_model
from densegen.fitting import alignment, gauss_newton
from densegen.geometry import crop, elementary, pose, position_map, renderer, surface
from densegen.geometry.crop import Crop, warp
from densegen.files import find_data_file
from densegen.dataset.pipeline import Recipe
from densegen.synthetic.corpus import make_portrait
from densegen.synthetic.face import face_model
from densegen.index.vertex_index import read_index

recipe = Recipe(face_model(), read_index(find_data_file("vertex_index_520.yaml")))
fit, image = make_portrait(0, 0)
recipe.faces([fit])
position_map.render_fixed_point(recipe.uv_table, 0 * recipe.model.mean, Crop(1, 0, 0))
recipe.landmarks.gather(recipe.model.mean), warp(image, Crop(0.9, 0, 0)), warp(image, Crop(0.3, 0, 0))
exec(FIT)
looked = 0
kernels = alignment, crop, depth, elementary, gauss_newton, morphable_model, pose, position_map, renderer, surface
for module in kernels:
    for name, value in vars(module).items():
        for text in getattr(value, "inspect_asm", dict)().values():
            assert not re.search(r"\\bvfn?m(add|sub)", text), f"{module.__name__}.{name}"
            looked += 1
assert looked >= 14, looked
"""


@pytest.mark.long
def test_no_kernel_fuses_a_multiplication_and_an_addition(tmp_path: Path) -> None:
    """A fused multiply-add rounds once instead of twice, and not every processor has one."""
    variables = os.environ | {"NUMBA_CACHE_DIR": str(tmp_path)}  # what comes from a cache shows no code
    made = subprocess.run(
        [sys.executable, "-c", f"FIT = {FIT!r}\n{LOOK}"], env=variables, capture_output=True, text=True, check=False,
        cwd=Path(__file__).parents[1],
    )  # fmt: skip
    assert made.returncode == 0, made.stderr[-500:]


def test_the_docs_print_the_digest_of_the_demo() -> None:
    root = Path(__file__).parents[1]
    (whole,) = re.findall(r"`([0-9a-f]{64})`", (root / "docs/building.md").read_text())
    assert f"`{whole[:12]}`" in (root / "README.md").read_text()


@pytest.mark.long
def test_the_demo_has_the_digest_that_the_docs_print(tmp_path: Path) -> None:
    (whole,) = re.findall(r"`([0-9a-f]{64})`", (Path(__file__).parents[1] / "docs/building.md").read_text())
    for words in (
        ("synth", str(tmp_path / "corpus"), "--samples", "1000", "--manifest"),
        ("build", str(tmp_path / "corpus/manifest.yaml"), "--out", str(tmp_path / "shards")),
    ):
        subprocess.run([sys.executable, "-m", "densegen", *words], check=True, capture_output=True)
    assert sha256_of(tmp_path / "shards/manifest.json") == whole
