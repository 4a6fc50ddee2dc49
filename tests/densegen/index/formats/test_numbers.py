"""The index as bare numbers."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from densegen.errors import ConfigurationError
from densegen.face.morphable_model import MorphableModel
from densegen.face.regions import valid_uv_region
from densegen.index.formats.exchange import export_index, import_index
from densegen.index.vertex_index import VertexIndex


def test_prnet_numbers_are_uv_pixels_in_row_major_order(model: MorphableModel, tmp_path: Path) -> None:
    rows, columns = np.nonzero(valid_uv_region())
    pick = [0, 20_000, 43_866]
    (tmp_path / "p.txt").write_text("".join(f"{n:.18e}\n" for n in pick))
    made = import_index(tmp_path / "p.txt", model, "p", numbering="prnet")
    assert made.uv.tolist() == [[columns[n], rows[n]] for n in pick]
    assert made.uv[0].tolist() == [5, 5]
    assert made.topology is None


def test_text_of_vertices_needs_vertices(
    index: VertexIndex, own: VertexIndex, model: MorphableModel, tmp_path: Path
) -> None:
    export_index(own, tmp_path / "v.txt", model)
    assert [int(line) for line in (tmp_path / "v.txt").read_text().split()] == own.vertices
    assert import_index(tmp_path / "v.txt", model, "again", numbering="model").vertices == own.vertices
    with pytest.raises(ConfigurationError, match="procedural face has 11480: 'model' counts its own"):
        import_index(tmp_path / "v.txt", model, "again", numbering="bfm-53215")
    with pytest.raises(ConfigurationError, match="names no vertices"):
        export_index(index, tmp_path / "i.ply", model, whole_mesh=True)
    with pytest.raises(ConfigurationError, match="no export to .doc"):
        export_index(own, tmp_path / "i.doc", model)
    assert not (tmp_path / "i.ply").exists()
