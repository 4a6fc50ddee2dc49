from __future__ import annotations

import numpy as np
import pytest

from densegen.errors import ConfigurationError
from densegen.face.morphable_model import MorphableModel
from densegen.index.candidates import SEEDS, Candidates, sample_candidates
from densegen.index.corrections import Corrections, correct
from densegen.index.quality import measure
from densegen.index.suggestions import suggest_corrections


@pytest.fixture(scope="module")
def candidates(model: MorphableModel) -> Candidates:
    return sample_candidates(model, tuple(SEEDS))


@pytest.fixture(scope="module")
def suggested(model: MorphableModel, candidates: Candidates) -> Corrections:
    return suggest_corrections(candidates, model, name="even", count=400, spacing_mm=10.0)


def test_suggestions_lead_to_an_even_index_of_as_many_landmarks(
    model: MorphableModel, candidates: Candidates, suggested: Corrections
) -> None:
    made = correct(candidates, suggested, model)
    assert (len(made), made.mirror_closed) == (400, True)
    quality = measure(made, model)
    assert quality.added_spacing_mm >= 5.0  # half of what the candidates keep
    raw = correct(candidates, Corrections(index_name="raw", index_version="1.0.0", count=520), model)
    assert quality.coverage_mm < measure(raw, model).coverage_mm


def test_more_candidates_than_wanted_are_refused(model: MorphableModel, candidates: Candidates) -> None:
    with pytest.raises(ConfigurationError, match=r"\d+ landmarks are left at a spacing of 3 mm, not 100"):
        suggest_corrections(candidates, model, name="even", count=100, spacing_mm=3.0)
    close = suggest_corrections(candidates, model, name="even", count=700, spacing_mm=0.0)
    assert len(correct(candidates, close, model)) == 700


def test_every_suggestion_says_its_distance(
    model: MorphableModel, candidates: Candidates, suggested: Corrections
) -> None:
    first = max(suggested.add, key=lambda addition: float(addition.reason.split()[0]))
    kept = suggested.model_copy(update={"add": (), "count": 0})
    with pytest.raises(ConfigurationError) as caught:
        correct(candidates, kept, model)
    count = int(str(caught.value).split("lead to ")[1].split()[0])
    thinned = correct(candidates, kept.model_copy(update={"count": count}), model)
    # On the mean face, the first gap is as large as it says.
    mean_mm = model.mean * model.unit_mm
    places = mean_mm[thinned.vertices]
    pixels = np.stack([model.uv[:, 0] * 255, (1 - model.uv[:, 1]) * 255], axis=1)
    vertex = int(np.argmin(np.linalg.norm(pixels - first.uv, axis=1)))
    distance = np.linalg.norm(places - mean_mm[vertex], axis=1).min()
    assert distance == pytest.approx(float(first.reason.split()[0]), abs=0.06)
    assert all("mm from" in removal.reason for removal in suggested.remove)


def test_where_the_face_moves_gaps_weigh_more(
    model: MorphableModel, candidates: Candidates, suggested: Corrections
) -> None:
    even = suggest_corrections(candidates, model, name="even", count=400, spacing_mm=10.0, weights={})

    def on_lips(corrections: Corrections) -> int:
        return sum(addition.name.startswith("lip") for addition in corrections.add)

    assert on_lips(suggested) > on_lips(even)


def test_more_landmarks_than_the_face_has_room_for_are_refused(model: MorphableModel, candidates: Candidates) -> None:
    with pytest.raises(ConfigurationError, match=r"has room for \d+ landmarks at least 10 mm apart, not for 800"):
        suggest_corrections(candidates, model, name="full", count=800, spacing_mm=20.0)
