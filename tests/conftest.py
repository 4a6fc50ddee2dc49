"""Shared fixtures: a small corpus of procedural faces, a dataset built from it, and the real files if present."""

from __future__ import annotations

import os
import signal
import tempfile
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, settings

from densegen.dataset.build import Plan, build, plan_build
from densegen.dataset.pipeline import Recipe
from densegen.face.model_file import read_model
from densegen.face.morphable_model import MorphableModel
from densegen.files import find_data_file
from densegen.index.vertex_index import VertexIndex, read_index
from densegen.sources.fits import Fit
from densegen.sources.manifest import BuildSettings, Manifest, read_manifest
from densegen.synthetic.corpus import write_corpus

if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:  # tests of Ctrl-C that were themselves started with '&'
    signal.signal(signal.SIGINT, signal.default_int_handler)
if "PYTEST_XDIST_WORKER" in os.environ:  # threads of several workers would wait for one another
    os.environ.setdefault("OMP_NUM_THREADS", "1")

settings.register_profile("here", deadline=None, max_examples=60, derandomize=True,
                          suppress_health_check=[HealthCheck.function_scoped_fixture])  # fmt: skip
settings.load_profile("here")

# What somebody remembers on this machine is no part of a test.
os.environ["DENSEGEN_CONFIG_DIR"] = tempfile.mkdtemp(prefix="densegen-tests-")
for _name in ("DENSEGEN_MODEL", "DENSEGEN_ROOT"):
    os.environ.pop(_name, None)

INDEX_FILE = "vertex_index_520.yaml"
PORTRAITS = 16


@pytest.fixture(scope="session")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A corpus of procedural faces in the 300W-LP layout; not to be written to."""
    root = tmp_path_factory.mktemp("corpus")
    write_corpus(root, PORTRAITS, seed=1)
    return root


@pytest.fixture(scope="session")
def model(corpus: Path) -> MorphableModel:
    return read_model(corpus / "model.safetensors")


@pytest.fixture(scope="session")
def index() -> VertexIndex:
    return read_index(find_data_file(INDEX_FILE))


@pytest.fixture(scope="session")
def manifest() -> Manifest:
    return read_manifest("demo")


@pytest.fixture(scope="session")
def recipe(model: MorphableModel, index: VertexIndex) -> Recipe:
    return Recipe(model, index, position_maps=True)


@pytest.fixture(scope="session")
def plan(corpus: Path, manifest: Manifest) -> Plan:
    """A plan of eight shards of four samples, with position maps."""
    settings = BuildSettings(shard_size=4, position_maps=True)
    return plan_build(manifest, corpus, corpus / "model.safetensors", find_data_file(INDEX_FILE), settings)


@pytest.fixture(scope="session")
def dataset(plan: Plan, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished build of ``plan``; not to be written to."""
    out = tmp_path_factory.mktemp("dataset")
    build(plan, out)
    return out


@pytest.fixture(scope="session")
def fit(model: MorphableModel) -> Fit:
    """A face turned by 40 degrees, a little asymmetric, in a 450x450 picture."""
    generator = np.random.default_rng(3)
    return Fit(
        pose=np.array([0.1, 0.7, -0.15, 210.0, 230.0, -30.0, 1.1e-3], np.float32),
        shape=generator.normal(0, 0.7, len(model.shape_basis)).astype(np.float32),
        expression=np.abs(generator.normal(0, 0.3, len(model.expression_basis))).astype(np.float32),
    )


@pytest.fixture(scope="session")
def realdata() -> Path:
    """The folder of real files, given by DENSE_REALDATA; tests that need it are skipped without it."""
    folder = os.environ.get("DENSE_REALDATA")
    if not folder:
        pytest.skip("DENSE_REALDATA is not set: real 300W-LP and Basel files are not here")
    return Path(folder)
