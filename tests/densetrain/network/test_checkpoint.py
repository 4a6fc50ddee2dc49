"""What a checkpoint is refused for."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from densegen.errors import FormatError
from densetrain.network.checkpoint import load_regressor


@pytest.mark.parametrize(
    ("key", "value", "words"),
    [
        ("crop_size", "big", "crop_size"),
        ("crop_size", 0, "crop_size"),
        ("margin", float("nan"), "margin"),
        ("margin", -1.0, "margin"),
        ("reference_face", [[1.0, 2.0]], "reference_face"),
        ("reference_face", [[1.0, 2.0, 3.0]], "reference_face has 1 points, expected 520"),
        ("vertex_index", "hello", "vertex index"),
        ("settings", {"model": 3}, "settings.model"),
    ],
)
def test_a_checkpoint_that_contradicts_itself_is_refused(
    run: Path, tmp_path: Path, key: str, value: Any, words: str
) -> None:
    contents = torch.load(run / "best.ckpt", weights_only=True)
    contents["densetrain"][key] = value
    torch.save(contents, tmp_path / "x.ckpt")
    with pytest.raises(FormatError, match=words):
        load_regressor(tmp_path / "x.ckpt")


def test_damaged_weights_are_refused(run: Path, tmp_path: Path) -> None:
    contents = torch.load(run / "best.ckpt", weights_only=True)
    for damage, words in [([], "no named tensors"), ({3: 4}, "no named tensors"), ({}, "those of its own settings")]:
        torch.save(contents | {"state_dict": damage}, tmp_path / "x.ckpt")
        with pytest.raises(FormatError, match=words):
            load_regressor(tmp_path / "x.ckpt")
    contents["state_dict"]["net.mean_landmarks"] *= float("nan")
    torch.save(contents, tmp_path / "x.ckpt")
    with pytest.raises(FormatError, match="gives landmarks that are not finite"):
        load_regressor(tmp_path / "x.ckpt")(np.zeros((1, 256, 256, 3), np.uint8))


def test_weights_of_which_all_numbers_are_one_are_refused(run: Path, tmp_path: Path) -> None:
    """A file of some kilobytes could name a network of gigabytes, and have a tensor of each shape."""
    contents = torch.load(run / "best.ckpt", weights_only=True)
    state = contents["state_dict"]
    contents["state_dict"] = {name: torch.zeros((), dtype=v.dtype).expand(v.shape) for name, v in state.items()}
    torch.save(contents, tmp_path / "x.ckpt")
    assert (tmp_path / "x.ckpt").stat().st_size < (run / "best.ckpt").stat().st_size
    with pytest.raises(FormatError, match="those of its own settings"):
        load_regressor(tmp_path / "x.ckpt")


def test_one_flipped_bit_in_the_weights_is_found(run: Path, tmp_path: Path) -> None:
    data = bytearray((run / "best.ckpt").read_bytes())
    data[len(data) // 2] ^= 1
    (tmp_path / "flipped.ckpt").write_bytes(data)
    with pytest.raises(FormatError, match="does not match its checksum"):
        load_regressor(tmp_path / "flipped.ckpt")
