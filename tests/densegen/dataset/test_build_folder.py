"""The folder that a build writes into."""

from __future__ import annotations

from pathlib import Path

import pytest

from densegen.dataset.build import Plan, build
from densegen.errors import BuildError, FormatError


def test_a_folder_with_other_files_is_refused(plan: Plan, tmp_path: Path) -> None:
    (tmp_path / "thesis.tex").write_text("precious")
    with pytest.raises(BuildError, match=r"not empty and holds no build \(found thesis\.tex\)"):
        build(plan, tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.tex"]
    (tmp_path / ".lock").touch()  # proves nothing
    with pytest.raises(BuildError, match="holds no build"):
        build(plan, tmp_path)
    (tmp_path / ".progress").mkdir()  # somebody else's, for all that we know
    with pytest.raises(BuildError, match="holds no build"):
        build(plan, tmp_path)
    (tmp_path / "thesis.tex").rename(tmp_path / "manifest.json")
    with pytest.raises(FormatError, match="not a dataset's manifest"):
        build(plan, tmp_path)


def test_two_builds_in_one_folder_are_refused(plan: Plan, tmp_path: Path) -> None:
    from filelock import FileLock

    with FileLock(tmp_path / ".lock"), pytest.raises(BuildError, match="another build is running"):
        build(plan, tmp_path)
