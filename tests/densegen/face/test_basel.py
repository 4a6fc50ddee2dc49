"""The Basel model's files, here filled with random numbers in the real layout and at the real vertex counts."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from scipy.io import loadmat, savemat

from densegen.errors import ConfigurationError, FormatError
from densegen.face.basel import RAW_FILES, assemble_model, convert_model

RAW, TRIMMED = 53_490, 53_215
BFM_FIELDS = (
    "shapeMU", "shapePC", "shapeEV", "expMU", "expPC", "expEV", "tri", "kpt_ind", "tri_mouth",
)  # fmt: skip


@pytest.fixture(scope="module")
def downloads(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """``raw/`` as downloaded, and ``BFM.mat`` with ``BFM_UV.mat`` as face3d makes them of it."""
    folder = tmp_path_factory.mktemp("basel")
    (folder / "raw").mkdir()
    rng = np.random.default_rng(0)
    trim = np.sort(rng.permutation(RAW)[:TRIMMED])
    shape, shape_mean = rng.normal(size=(RAW * 3, 2)).astype(np.float32), rng.normal(size=(RAW * 3, 1))
    expression, expression_mean = rng.normal(size=(TRIMMED * 3, 3)), rng.normal(size=(TRIMMED * 3, 1))
    triangles = rng.integers(1, TRIMMED + 1, (3, 50)).astype(np.uint16)
    mouth = rng.integers(1, TRIMMED + 1, (3, 108)).astype(np.uint16)
    keypoints = rng.integers(1, TRIMMED + 1, (1, 68)).astype(np.uint16)
    uv = rng.random((RAW, 2))
    std = np.ones((2, 1))
    savemat(folder / "raw/01_MorphableModel.mat", {"shapeMU": shape_mean, "shapePC": shape, "shapeEV": std})
    savemat(
        folder / "raw/Model_Expression.mat",
        {"mu_exp": expression_mean, "w_exp": expression, "sigma_exp": np.ones((3, 1))},
    )
    savemat(
        folder / "raw/model_info.mat",
        {"trimIndex": trim[:, None] + 1, "tri": triangles, "keypoints": keypoints},
    )
    savemat(folder / "raw/Model_tri_mouth.mat", {"tri_mouth": mouth})
    savemat(folder / "raw/BFM_UV.mat", {"UV": uv})

    # What face3d's generator does, written out plainly.
    kept = (np.repeat(trim * 3, 3) + np.tile([0, 1, 2], TRIMMED)).astype(int)
    mended_uv = uv[trim].copy()
    mended_uv[10031] = (uv[trim][10032] + uv[trim][10157]) / 2
    mended_uv[10154] = (uv[trim][10533] + uv[trim][10156] + uv[trim][10660]) / 3
    mended_uv[10279] = (uv[trim][10915] + uv[trim][10285]) / 2
    closing = np.array(
        [[6420, 6542, 6664], [6420, 6294, 6167], [6167, 6297, 6420], [6167, 6297, 6296], [6167, 6296, 6295],
         [6167, 6295, 6039], [6168, 6295, 6039]]
    ).T  # fmt: skip
    model = {
        "shapeMU": shape_mean[kept], "shapePC": shape[kept], "shapeEV": std,
        "expMU": expression_mean, "expPC": expression, "expEV": np.ones((3, 1)),
        "tri": triangles.astype(float), "kpt_ind": keypoints.astype(float),
        "tri_mouth": np.hstack([np.delete(mouth, 37, axis=1), closing]).astype(float),
    }  # fmt: skip
    savemat(folder / "BFM.mat", {"model": model})
    savemat(folder / "BFM_UV.mat", {"UV": mended_uv})
    return folder


def test_both_ways_give_the_same_model(downloads: Path) -> None:
    assembled = assemble_model(downloads / "raw")
    converted = convert_model(downloads / "BFM.mat", downloads / "BFM_UV.mat")
    assert assembled.fingerprint == converted.fingerprint
    assert assembled.vertex_count == TRIMMED
    assert len(assembled.triangles) == 50 + 107 + 7
    assert assembled.shape_basis.shape == (2, TRIMMED, 3)


def test_every_missing_file_is_named_with_its_source(downloads: Path, tmp_path: Path) -> None:
    (tmp_path / "model_info.mat").write_bytes((downloads / "raw/model_info.mat").read_bytes())
    with pytest.raises(ConfigurationError) as caught:
        assemble_model(tmp_path)
    for name, source in RAW_FILES.items():
        assert (name in str(caught.value)) == (name != "model_info.mat")
        assert (source in str(caught.value)) == (name != "model_info.mat")


def test_a_model_of_another_vertex_count_names_both(downloads: Path, tmp_path: Path) -> None:
    with pytest.raises(FormatError, match=r"53490 \(the raw Basel .*expected 53215"):
        convert_model(downloads / "BFM.mat", downloads / "raw/BFM_UV.mat")
    for name in RAW_FILES:
        (tmp_path / name).write_bytes((downloads / "raw" / name).read_bytes())
    savemat(
        tmp_path / "Model_Expression.mat",
        {"mu_exp": np.ones((35709 * 3, 1)), "w_exp": np.ones((35709 * 3, 1)), "sigma_exp": 1},
    )
    with pytest.raises(FormatError, match="Deep3D"):
        assemble_model(tmp_path)


@pytest.mark.parametrize(
    ("name", "place", "value", "message"),
    [
        ("tri", (0, 0), 2.0**32 + 7, "an index is no whole number from 1 on"),
        ("kpt_ind", (0, 3), np.nan, "an index is no whole number from 1 on"),
        ("kpt_ind", (0, 3), 0, "an index is no whole number from 1 on"),
        ("kpt_ind", (0, 3), TRIMMED + 2, f"keypoints68 refers to vertex {TRIMMED + 1} of {TRIMMED}"),
        ("shapeEV", (0, 0), -1.0, "a standard deviation is below 0"),
        ("shapeEV", (0, 0), 1j, "shapeEV"),
    ],
)
def test_numbers_that_mean_nothing_are_refused(
    downloads: Path, tmp_path: Path, name: str, place: tuple[int, int], value: complex, message: str
) -> None:
    model = {key: loadmat(downloads / "BFM.mat")["model"][key][0, 0] for key in BFM_FIELDS}
    model[name] = model[name].astype(np.complex128 if isinstance(value, complex) else np.float64)
    model[name][place] = value
    savemat(tmp_path / "BFM.mat", {"model": model})
    with pytest.raises(FormatError, match=message):
        convert_model(tmp_path / "BFM.mat", downloads / "BFM_UV.mat")


def test_truncated_and_foreign_files_are_named(downloads: Path, tmp_path: Path) -> None:
    whole = (downloads / "BFM.mat").read_bytes()
    (tmp_path / "BFM.mat").write_bytes(whole[: len(whole) // 3])
    with pytest.raises(FormatError, match=r"BFM\.mat"):
        convert_model(tmp_path / "BFM.mat", downloads / "BFM_UV.mat")
    savemat(tmp_path / "BFM.mat", {"model": {"shapeMU": np.ones(3)}})
    with pytest.raises(FormatError, match="lacks shapePC.*not face3d's layout"):
        convert_model(tmp_path / "BFM.mat", downloads / "BFM_UV.mat")
    with pytest.raises(ConfigurationError, match="does not exist"):
        convert_model(tmp_path / "none.mat", downloads / "BFM_UV.mat")
