from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from densegen.errors import ConfigurationError, FormatError
from densegen.face.morphable_model import MorphableModel
from densegen.face.regions import region_of, valid_uv_region
from densegen.files import find_data_file
from densegen.geometry.uv import uv_pixels
from densegen.index.candidates import Candidates, read_candidates, sample_candidates, write_candidates
from densegen.index.corrections import Addition, Corrections, Move, Removal, correct, read_corrections
from densegen.index.vertex_index import VertexIndex

ALL_SEEDS = ("jaw", "brows", "nose-tip")

SAMPLED = 520
"""Landmarks that the candidates lead to on the procedural face, without any correction."""


@pytest.fixture(scope="module")
def candidates(model: MorphableModel) -> Candidates:
    return sample_candidates(model, ALL_SEEDS)


def corrections(count: int, **changes: Any) -> Corrections:
    return Corrections(index_name="test", index_version="0.0.1", count=count, **changes)


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


def test_corrections_remove_move_and_add_with_their_mirror_images(
    model: MorphableModel, candidates: Candidates
) -> None:
    plain = correct(candidates, corrections(SAMPLED), model)
    assert plain.mirror_closed
    on_the_right = [name for name in (m.name for m in plain.landmarks) if name.endswith("-r")]
    gone, moved = on_the_right[0].removesuffix("-r"), on_the_right[1].removesuffix("-r")
    changed = correct(
        candidates,
        corrections(
            SAMPLED - 2 + 2 + 1,
            remove=(Removal(name=gone, reason="too near"),),
            move=(Move(name=moved, uv=(60.0, 100.0), reason="a better place"),),
            add=(
                Addition(name="forehead-x", uv=(200.0, 20.0), reason="a hole"),
                Addition(name="middle-x", uv=(127.2, 12.0), reason="the midline"),
            ),
        ),
        model,
    )
    assert changed.mirror_closed
    by_name = {landmark.name: landmark for landmark in changed.landmarks}
    assert f"{gone}-r" not in by_name
    assert f"{gone}-l" not in by_name
    np.testing.assert_allclose(by_name[f"{moved}-r"].uv, (60, 100), atol=1.5)
    np.testing.assert_allclose(by_name[f"{moved}-l"].uv, (195, 100), atol=1.5)
    assert by_name[f"{moved}-l"].origin == "manual: a better place"
    np.testing.assert_allclose(by_name["forehead-x-l"].uv, (200, 20), atol=1.5)
    assert by_name["middle-x-m"].uv[0] == 127.5
    assert by_name["middle-x-m"].mirror == by_name["middle-x-m"].id


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"remove": [{"name": "d9-000", "reason": "x"}]}, "remove names 'd9-000'"),
        ({"move": [{"name": "nobody", "uv": [100, 100], "reason": "x"}]}, "move names 'nobody'"),
        ({"add": [{"name": "out", "uv": [2, 250], "reason": "x"}]}, r"out at \(2, 250\) lies outside"),
        ({"add": [{"name": "d1-001", "uv": [100, 100], "reason": "x"}]}, "d1-001, which exists already"),
        ({"count": 500}, f"lead to {SAMPLED} landmarks, they promise 500"),
    ],
)
def test_a_correction_that_cannot_be_applied_is_named(
    model: MorphableModel, candidates: Candidates, changes: dict[str, Any], words: str
) -> None:
    content: dict[str, Any] = {"index_name": "test", "index_version": "0.0.1", "count": SAMPLED}
    with pytest.raises(ConfigurationError, match=words):
        correct(candidates, Corrections.model_validate(content | changes), model)


def test_files_with_unknown_keys_or_no_reason_are_refused(tmp_path: Path) -> None:
    head = "index_name: a\nindex_version: 0.0.1\ncount: 520\n"
    for text, words in [
        (head + "colour: red\n", "colour: there is no such field"),
        (head + "remove: [{name: d1-000}]\n", "remove.0.reason: Field required"),
        (head + "remove: [{name: a, reason: b}, {name: a, reason: c}]\n", "remove names a twice"),
        (head + "format_version: 2\n", "format_version"),
        ("[", "not readable YAML"),
    ]:
        (tmp_path / "c.yaml").write_text(text)
        with pytest.raises(FormatError, match=words):
            read_corrections(tmp_path / "c.yaml")


def test_an_unknown_seed_group_is_refused(model: MorphableModel) -> None:
    with pytest.raises(ConfigurationError, match="no seed group 'ears'"):
        sample_candidates(model, ("ears",))


def test_the_committed_corrections_make_our_landmarks_on_any_model_of_the_layout(
    model: MorphableModel, candidates: Candidates, index: VertexIndex
) -> None:
    made = correct(candidates, read_corrections(find_data_file("corrections_bfm.yaml")), model)
    assert [m.name for m in made.landmarks] == [m.name for m in index.landmarks]
    same_region = [a.region == b.region for a, b in zip(made.landmarks, index.landmarks, strict=True)]
    assert np.mean(same_region) > 0.9  # a pixel decides at their borders
    assert (made.mirror == index.mirror).all()
    assert (made.version, made.changelog) == (index.version, index.changelog)
    # On the nearest vertices of a mesh with one every two pixels.
    assert np.linalg.norm(made.uv - index.uv, axis=1).max() < 2


def test_the_valid_region_is_prnets() -> None:
    valid = valid_uv_region()
    assert valid.sum() == 43_867
    # The first number of PRNet's face_ind.txt is 1285 = 5 * 256 + 5.
    assert np.flatnonzero(valid)[0] == 1285


@pytest.mark.parametrize(
    ("pixel", "region"),
    [
        ((127.5, 15), "forehead"),
        ((20, 40), "temple"),
        ((91, 64), "eye"),
        ((160, 72), "lid"),
        ((88, 53), "lid"),
        ((118, 55), "nose"),
        ((85, 41), "brow"),
        ((127.5, 97), "nose"),
        ((127.5, 131), "lip-outer"),
        ((127.5, 141), "lip-inner"),
        ((127.5, 172), "chin"),
        ((24, 140), "jaw"),
        ((70, 110), "cheek"),
        ((185, 110), "cheek"),
    ],
)
def test_a_place_has_the_region_a_person_would_name(
    model: MorphableModel, pixel: tuple[float, float], region: str
) -> None:
    assert region_of(np.array(pixel), uv_pixels(model.uv[model.keypoints68])) == region
