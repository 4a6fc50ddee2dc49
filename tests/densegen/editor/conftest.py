"""An editing session of the procedural face."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest

from densegen.editor.session import EditSession
from densegen.face.morphable_model import MorphableModel
from densegen.index.candidates import sample_candidates
from densegen.index.corrections import Corrections, correct
from densegen.index.vertex_index import VertexIndex


@pytest.fixture(scope="module")
def model(model: MorphableModel) -> MorphableModel:
    """The procedural face with triangles that run the other way round, as the Basel model's do."""
    return dataclasses.replace(model, triangles=np.ascontiguousarray(model.triangles[:, ::-1]))


@pytest.fixture(scope="module")
def base(model: MorphableModel) -> VertexIndex:
    """An index of vertices of the procedural face."""
    candidates = sample_candidates(model, ("jaw", "brows", "nose-tip"))
    return correct(candidates, Corrections(index_name="plain", index_version="1.0.0", count=520), model)


@pytest.fixture
def session(base: VertexIndex, model: MorphableModel, tmp_path: Path) -> EditSession:
    return EditSession.open(base, model, tmp_path / "corrections.yaml")


def vertex_at(session: EditSession, column: float, row: float) -> int:
    return int(np.argmin(((session.plane.pixels - [column, row]) ** 2).sum(axis=1)))
