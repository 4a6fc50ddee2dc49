"""Pictures of an index."""

from __future__ import annotations

from pathlib import Path

from densegen.face.morphable_model import MorphableModel
from densegen.geometry.uv import uv_pixels
from densegen.index.figures import draw_coverage, draw_difference, draw_sheets, draw_uv, draw_views, face_view
from densegen.index.quality import measure
from densegen.index.vertex_index import VertexIndex


def test_pictures_are_drawn(own: VertexIndex, index: VertexIndex, model: MorphableModel, tmp_path: Path) -> None:
    draw_uv(own, tmp_path / "uv.png")
    draw_views(own, model, tmp_path / "views.png")
    draw_sheets(own, tmp_path / "sheets.pdf")
    draw_difference(own, index, tmp_path / "diff.png")
    draw_coverage([measure(own, model), measure(index, model)], tmp_path / "coverage.png")
    odd = own.model_copy(update={"name": "_mine $^$"})  # a formula that is none, and hidden in a legend
    draw_uv(odd, tmp_path / "uv.png")
    draw_sheets(odd, tmp_path / "sheets.pdf")
    draw_difference(odd, index, tmp_path / "diff.png")
    draw_coverage([measure(odd, model)], tmp_path / "coverage.png")
    for name in ("uv.png", "views.png", "diff.png", "coverage.png"):
        assert (tmp_path / name).read_bytes().startswith(b"\x89PNG")
    assert (tmp_path / "sheets.pdf").read_bytes().startswith(b"%PDF")


def test_a_view_shows_the_side_that_faces_us(model: MorphableModel) -> None:
    outer = model.mean[model.keypoints68[[0, 16]]]  # by the right and by the left ear
    for yaw, expected in ((75.0, [True, False]), (-75.0, [False, True])):
        picture, points, seen = face_view(model, outer, yaw)
        assert seen.tolist() == expected, yaw
        assert picture.shape == (640, 640)
        assert ((points > 0) & (points < 640)).all()
    keypoints = uv_pixels(model.uv[model.keypoints68])
    assert keypoints[0, 0] < keypoints[16, 0]
