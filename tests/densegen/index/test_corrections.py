"""A person's corrections of candidates."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from densegen.errors import ConfigurationError, FormatError
from densegen.face.morphable_model import MorphableModel
from densegen.files import find_data_file
from densegen.geometry.uv import uv_pixels
from densegen.index.candidates import Candidates
from densegen.index.corrections import Addition, Corrections, Move, Removal, correct, drafts_of_index, read_corrections
from densegen.index.landmark import Landmark
from densegen.index.vertex_index import VertexIndex

SAMPLED = 520
"""Landmarks that the candidates lead to on the procedural face, without any correction."""


def corrections(count: int, **changes: Any) -> Corrections:
    return Corrections(index_name="test", index_version="0.0.1", count=count, **changes)


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


def test_an_index_of_vertices_that_the_model_lacks_is_refused(model: MorphableModel, own: VertexIndex) -> None:
    content = own.model_dump(mode="json")
    content["landmarks"][80]["vertex"] = 99_999
    with pytest.raises(ConfigurationError, match="is vertex 99999, but densegen procedural face has 11480"):
        correct(
            VertexIndex.model_validate(content),
            Corrections(index_name="own", index_version="9.0.0", count=len(own)),
            model,
        )


def test_an_index_that_would_change_where_nobody_corrects_is_refused(model: MorphableModel, own: VertexIndex) -> None:
    content = own.model_dump(mode="json")
    nothing = corrections(len(own)).model_copy(update={"index_name": own.name, "index_version": own.version})
    content["subsets"]["mine"] = [70, [80, 81]]
    made = correct(VertexIndex.model_validate(content), nothing, model)
    assert made.subsets["mine"] == (70, (80, 81))  # carried over
    gone = own.landmarks[70].name[:-2]
    fewer = nothing.model_copy(
        update={"index_version": "99.0.0", "count": len(own) - 2, "remove": (Removal(name=gone, reason="x"),)}
    )
    with pytest.raises(ConfigurationError, match="which the subset mine holds"):
        correct(VertexIndex.model_validate(content), fewer, model)
    turned = own.model_dump(mode="json")
    rows = turned["landmarks"]  # the jaw's two ends, each in the other's row
    rows[0], rows[16] = rows[16] | {"id": 0, "mirror": 16}, rows[0] | {"id": 16, "mirror": 0}
    with pytest.raises(ConfigurationError, match="are not the iBUG 68, in their order"):
        correct(VertexIndex.model_validate(turned), nothing, model)


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


def test_keypoints_that_are_not_quite_mirrored_do_not_matter(own: VertexIndex, model: MorphableModel) -> None:
    """As the Basel model's mouth corners, which lie a vertex off their mirror images: the 68 stay where they are."""
    pixels, taken = uv_pixels(model.uv), {one.vertex for one in own.landmarks}

    def with_one_off(landmark: Landmark) -> tuple[VertexIndex, int]:
        """The index with a landmark on the nearest vertex that no other one has."""
        order = np.linalg.norm(pixels - np.array(landmark.uv), axis=1).argsort()
        near = next(vertex for vertex in order.tolist() if vertex not in taken)
        placed = landmark.model_copy(update={"vertex": near, "uv": tuple(pixels[near].tolist())})
        landmarks = tuple(placed if one is landmark else one for one in own.landmarks)
        return own.model_copy(update={"landmarks": landmarks}), near

    corner, _ = with_one_off(own.landmarks[own.subsets["ibug68"][48]])
    assert drafts_of_index(corner, model) == drafts_of_index(own, model)
    off = next(one for one in own.landmarks if not one.is_keypoint and one.side == "right")
    moved, near = with_one_off(off)
    with pytest.raises(ConfigurationError, match=f"{off.name} is vertex {near}, and its mirror partner"):
        drafts_of_index(moved, model)
