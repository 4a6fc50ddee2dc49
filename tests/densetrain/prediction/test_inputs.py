"""What is given to be looked at."""

from __future__ import annotations

import errno
from pathlib import Path

import pytest

from densegen.errors import FormatError
from densetrain.prediction.inputs import read_image


def test_an_image_that_the_disk_does_not_give_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(path: Path, upright: bool) -> None:
        raise PermissionError(errno.EACCES, "Permission denied", str(path))

    monkeypatch.setattr("densetrain.prediction.inputs.read_photograph", refuse)
    with pytest.raises(FormatError, match=r"^a\.jpg cannot be read: Permission denied$"):
        read_image(tmp_path / "a.jpg")
