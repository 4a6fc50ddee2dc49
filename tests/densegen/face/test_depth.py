from __future__ import annotations

import numpy as np
import pytest

from densegen.face.depth import DepthSearch, make_depth_search
from densegen.face.morphable_model import MorphableModel
from densegen.geometry.pose import pose_vertices


@pytest.fixture(scope="module")
def search(model: MorphableModel) -> DepthSearch:
    return make_depth_search(model)


def test_patches_hold_every_vertex_once_and_the_last_one_until_they_are_full(
    search: DepthSearch, model: MorphableModel
) -> None:
    vertices, count = np.sort(search.patches.ravel()), model.vertex_count
    assert np.array_equal(vertices[:count], np.arange(count))
    assert (vertices[count:] == count - 1).all()


@pytest.mark.parametrize("spread", [0.0, 1.0, 8.0])
def test_the_smallest_depth_is_that_of_the_whole_mesh_to_the_last_bit(
    search: DepthSearch, model: MorphableModel, spread: float
) -> None:
    rng = np.random.default_rng(0)
    coefficients, poses, smallest = [], [], []
    for _ in range(40):
        shape = (spread * rng.normal(size=len(model.shape_basis))).astype(np.float32)
        expression = (spread * rng.normal(size=len(model.expression_basis))).astype(np.float32)
        angles, shift = rng.uniform(-np.pi, np.pi, 3), rng.uniform(-500, 500, 3)
        pose = np.array([*angles, *shift, rng.uniform(1e-4, 2e-2)], np.float32)
        whole = pose_vertices(model.vertices(shape, expression), pose, 450)[:, 2]
        coefficients.append(model.coefficients(shape, expression)), poses.append(pose), smallest.append(whole.min())
    found = search.smallest_z(np.stack(coefficients), np.stack(poses))
    assert np.array_equal(found, smallest)
    one_by_one = [search.smallest_z(c[None], p[None])[0] for c, p in zip(coefficients, poses, strict=True)]
    assert np.array_equal(one_by_one, smallest)


@pytest.mark.parametrize("vertices", [1, 100, 300, 3840])
@pytest.mark.parametrize("components", [(3, 0), (0, 0), (5, 2)])
def test_a_model_may_be_small(vertices: int, components: tuple[int, int]) -> None:
    rng = np.random.default_rng(vertices)
    small = MorphableModel(
        shape_mean=rng.normal(size=(vertices, 3)).astype(np.float32),
        expression_mean=np.zeros((vertices, 3), np.float32),
        shape_basis=rng.normal(size=(components[0], vertices, 3)).astype(np.float32),
        expression_basis=rng.normal(size=(components[1], vertices, 3)).astype(np.float32),
        shape_std=np.ones(components[0], np.float32),
        expression_std=np.ones(components[1], np.float32),
        triangles=np.zeros((1, 3), np.int32),
        keypoints68=np.zeros(68, np.int32),
        uv=np.full((vertices, 2), 0.5),
        unit_mm=1.0,
        name="small",
    )
    coefficients = rng.normal(size=(20, sum(components))).astype(np.float32)
    poses = np.concatenate([rng.uniform(-3, 3, (20, 6)), rng.uniform(1, 2, (20, 1))], axis=1).astype(np.float32)
    shape, expression = coefficients[:, : components[0]], coefficients[:, components[0] :]
    whole = [
        pose_vertices(small.vertices(s, e), pose, 450)[:, 2].min()
        for s, e, pose in zip(shape, expression, poses, strict=True)
    ]
    assert np.array_equal(make_depth_search(small).smallest_z(coefficients, poses), whole)


def test_few_patches_are_looked_at(model: MorphableModel) -> None:
    search = make_depth_search(model)
    shape = np.zeros(len(model.shape_basis), np.float32)
    expression = np.zeros(len(model.expression_basis), np.float32)
    for yaw in np.linspace(-1.5, 1.5, 31):
        pose = np.array([0, yaw, 0, 0, 0, 0, 1e-3], np.float32)
        search.smallest_z(model.coefficients(shape, expression)[None], pose[None])
    assert 0 < search._seen.count < search.patches[..., 0].size / 3


def test_a_face_beyond_all_sense_leaves_its_neighbours_alone(search: DepthSearch, model: MorphableModel) -> None:
    rng = np.random.default_rng(1)
    coefficients = rng.normal(size=(12, len(model.basis) - 1)).astype(np.float32)
    poses = np.tile(np.array([0, 0, 0, 200, 200, 0, 1e-3], np.float32), (12, 1))
    poses[:, :3] = rng.uniform(-1, 1, (12, 3))
    alone = search.smallest_z(coefficients, poses)
    coefficients[4], poses[7, 6] = 3e38, 3e38
    others = np.setdiff1d(np.arange(12), [4, 7])
    assert np.array_equal(search.smallest_z(coefficients, poses)[others], alone[others])
    assert search._seen.count < search.patches[..., 0].size  # it does not have all patches looked at, and kept
