"""Landmarks on a mesh and in the position map."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from densegen.dataset.pipeline import Recipe, mesh_in_image
from densegen.errors import ConfigurationError
from densegen.face.morphable_model import MorphableModel
from densegen.face.regions import on_face
from densegen.geometry.uv import uv_pixels
from densegen.index.vertex_index import VertexIndex
from densegen.sources.fits import Fit


def pixel_index(index: VertexIndex) -> VertexIndex:
    """An index of whole UV pixels, without vertices or mirror partners, as published ones are."""
    content = index.model_dump(mode="json")
    content["topology"] = None
    for landmark in content["landmarks"]:
        landmark["vertex"] = landmark["mirror"] = None
        landmark["uv"] = [int(landmark["uv"][0]), round(landmark["uv"][1])]
    # The eyelids and the lips are so near to each other that pixels coincide: a column further.
    seen: set[tuple[int, int]] = set()
    for landmark in content["landmarks"]:
        while tuple(landmark["uv"]) in seen:
            landmark["uv"][0] += 1
        seen.add(tuple(landmark["uv"]))
    return VertexIndex.model_validate(content)


def test_on_its_own_topology_a_landmark_is_its_vertex(index: VertexIndex, model: MorphableModel) -> None:
    pixels = uv_pixels(model.uv)
    vertices = np.flatnonzero(on_face(pixels))[::3][:520]
    content = index.model_copy(update={"topology": model.topology}).model_dump(mode="json")
    for landmark, vertex in zip(content["landmarks"], vertices, strict=True):
        landmark |= {"vertex": int(vertex), "uv": pixels[vertex].round(4).tolist()}
    resolved = VertexIndex.model_validate(content).resolve(model)
    assert (resolved.gather(model.mean) == model.mean[vertices]).all()
    content["landmarks"][3]["vertex"] = int(vertices[-1]) + 1  # which lies elsewhere
    with pytest.raises(ConfigurationError, match=r"names the vertex \d+, which lies .* from its uv"):
        VertexIndex.model_validate(content).resolve(model)


def test_landmarks_at_pixels_equal_the_position_map(
    index: VertexIndex, model: MorphableModel, fit: Fit, recipe: Recipe
) -> None:
    pixels = pixel_index(index)
    mesh = mesh_in_image(model, fit, 450)
    position_map = recipe.uv_table.position_map(mesh)
    np.testing.assert_allclose(pixels.resolve(model).gather(mesh), pixels.gather(position_map), atol=1e-4)
    # Between pixels the map interpolates over its own grid, the mesh over its triangles.
    difference = np.abs(index.resolve(model).gather(mesh) - index.gather(position_map))
    assert difference.mean() < 0.05
    assert difference.max() < 1.5


def test_a_landmark_beyond_the_mesh_is_named(index: VertexIndex, model: MorphableModel) -> None:
    pixels, place = uv_pixels(model.uv), index.uv[500]
    around = np.flatnonzero(np.linalg.norm(pixels - place, axis=1) < 4)
    holed = dataclasses.replace(model, triangles=model.triangles[~np.isin(model.triangles, around).any(axis=1)])
    with pytest.raises(ConfigurationError, match=f"1 of 520 .* first is {index.landmarks[500].name} at"):
        index.resolve(holed)
