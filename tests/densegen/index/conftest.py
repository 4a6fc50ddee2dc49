"""Candidates and an index of the procedural face."""

from __future__ import annotations

import pytest

from densegen.face.morphable_model import MorphableModel
from densegen.index.candidates import Candidates, sample_candidates
from densegen.index.corrections import Corrections, correct
from densegen.index.vertex_index import VertexIndex

ALL_SEEDS = ("jaw", "brows", "nose-tip")


@pytest.fixture(scope="module")
def candidates(model: MorphableModel) -> Candidates:
    return sample_candidates(model, ALL_SEEDS)


@pytest.fixture(scope="module")
def own(model: MorphableModel) -> VertexIndex:
    """An index of vertices of the procedural face."""
    candidates = sample_candidates(model, ("jaw", "brows", "nose-tip"))
    return correct(candidates, Corrections(index_name="own", index_version="1.0.0", count=520), model)
