from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest
from filelock import FileLock

from densegen.dataset.pipeline import mesh_in_image
from densegen.errors import BuildError, ConfigurationError
from densegen.executors import open_pool
from densegen.face.model_file import read_model, write_model
from densegen.face.morphable_model import MorphableModel
from densegen.files import sha256_of
from densegen.sources.fits import read_fit
from densegen.synthetic.corpus import corpus_manifest, random_pose, write_corpus, write_corpus_manifest
from densegen.synthetic.face import face_model


def test_a_fit_read_back_gives_its_own_keypoints(corpus: Path, model: MorphableModel) -> None:
    for path in sorted((corpus / "SYNTH").glob("*.mat"))[:4]:
        fit = read_fit(path)
        assert fit.points_2d is not None
        assert fit.keypoints_3d is not None
        keypoints = mesh_in_image(model, fit, 450)[model.keypoints68]
        np.testing.assert_allclose(keypoints[:, :2] + 1, fit.points_2d.T, atol=1e-2)
        np.testing.assert_allclose(keypoints + [1, 1, 0], fit.keypoints_3d.T, atol=1e-2)
        assert (keypoints[:, :2] > 0).all()
        assert (keypoints[:, :2] < 449).all()


def test_the_corpus_covers_large_yaw() -> None:
    vertices = face_model().mean
    yaw = np.rad2deg([random_pose(np.random.default_rng(n), vertices)[1] for n in range(200)])
    assert yaw.min() < -80
    assert yaw.max() > 80


def test_the_same_seed_writes_the_same_bytes_at_any_number_of_processes(corpus: Path, tmp_path: Path) -> None:
    with open_pool(2) as pool:
        write_corpus(tmp_path, 10, seed=1, pool=pool)
    for path in sorted(tmp_path.rglob("*.*")):
        assert sha256_of(path) == sha256_of(corpus / path.relative_to(tmp_path))
    assert read_model(tmp_path / "model.safetensors").fingerprint == face_model().fingerprint


def _interrupt(count: int) -> None:
    raise KeyboardInterrupt


def test_a_corpus_is_drawn_where_it_is_the_only_thing(corpus: Path, tmp_path: Path) -> None:
    write_corpus(tmp_path / "c", 2, seed=0)
    # What a killed process leaves is taken away, and the same corpus drawn again.
    (tmp_path / "c/model.safetensors.0123abcd.partial").touch()
    write_corpus(tmp_path / "c", 2, seed=0)
    assert sorted(path.name for path in (tmp_path / "c").iterdir()) == ["SYNTH", "model.safetensors"]
    assert len(list((tmp_path / "c/SYNTH").iterdir())) == 4
    # A redraw that is cut off does not pass for a whole corpus.
    with pytest.raises(KeyboardInterrupt):
        write_corpus(tmp_path / "c", 4, seed=5, advance=_interrupt)
    assert sorted(path.name for path in (tmp_path / "c").iterdir()) == ["SYNTH"]
    with FileLock(tmp_path / "c/.lock"), pytest.raises(BuildError, match="another process is drawing"):
        write_corpus(tmp_path / "c", 4, seed=0)
    write_corpus(tmp_path / "c", 4, seed=0)
    (tmp_path / "c/manifest.yaml").write_text("mine")
    with pytest.raises(ConfigurationError, match="is not of a drawn corpus"):
        write_corpus(tmp_path / "c", 4, seed=0)
    write_corpus_manifest(tmp_path / "c", 4, seed=0)
    (tmp_path / "c/manifest.yaml").write_text(corpus_manifest(4, seed=0).replace("validation: 0.2", "validation: 0.3"))
    with pytest.raises(ConfigurationError, match="was edited, or written by another version: move it away"):
        write_corpus(tmp_path / "c", 4, seed=0)
    write_corpus_manifest(tmp_path / "c", 3, seed=2)
    write_corpus(tmp_path / "c", 4, seed=0)
    assert not (tmp_path / "c/manifest.yaml").exists()
    with pytest.raises(ConfigurationError, match="holds other files than 1 portraits"):
        write_corpus(tmp_path / "c", 1, seed=0)
    (tmp_path / "c/notes.txt").touch()
    with pytest.raises(ConfigurationError, match=r"something else than a drawn corpus \(notes.txt\)"):
        write_corpus(tmp_path / "c", 2, seed=0)
    (tmp_path / "d").mkdir()
    write_model(dataclasses.replace(face_model(), name="mine", unit_mm=1.0), tmp_path / "d/model.safetensors")
    with pytest.raises(ConfigurationError, match="another model"):
        write_corpus(tmp_path / "d", 2, seed=0)
