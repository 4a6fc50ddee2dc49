from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from densegen.errors import ConfigurationError
from densegen.face.morphable_model import MorphableModel
from densegen.face.regions import valid_uv_region
from densegen.index.candidates import Candidates, read_candidates, sample_candidates, write_candidates


def test_three_rounds_give_the_published_counts(model: MorphableModel, candidates: Candidates) -> None:
    assert candidates.counts == [28, 65, 173, 492]
    assert sample_candidates(model, ("jaw", "nose-tip")).counts == [18, 40, 104, 293]


def test_each_round_adds_centroids_of_the_points_before(candidates: Candidates) -> None:
    from scipy.spatial import Delaunay

    before = np.unique(np.array(candidates.rounds[0]), axis=0)
    centroids = {tuple(c) for c in np.rint(before[Delaunay(before).simplices].mean(axis=1))}
    assert set(candidates.rounds[1]) <= centroids
    assert len({point for points in candidates.rounds for point in points}) == candidates.counts[-1]


def test_candidates_come_back_from_their_file(candidates: Candidates, tmp_path: Path) -> None:
    write_candidates(candidates, tmp_path / "c.yaml")
    assert read_candidates(tmp_path / "c.yaml") == candidates


def test_an_unknown_seed_group_is_refused(model: MorphableModel) -> None:
    with pytest.raises(ConfigurationError, match="no seed group 'ears'"):
        sample_candidates(model, ("ears",))


def test_the_valid_region_is_prnets() -> None:
    valid = valid_uv_region()
    assert valid.sum() == 43_867
    # The first number of PRNet's face_ind.txt is 1285 = 5 * 256 + 5.
    assert np.flatnonzero(valid)[0] == 1285
