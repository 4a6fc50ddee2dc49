"""What need not be typed each time: the model file and the datasets' folders, from the environment or a small file."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from densegen.errors import ConfigurationError

if TYPE_CHECKING:
    from pydantic import BaseModel

__all__ = ["model_option", "read_remembered", "remember", "remembered_model", "remembered_path", "remembered_root"]

MODEL_VARIABLE = "DENSEGEN_MODEL"
ROOT_VARIABLE = "DENSEGEN_ROOT"
FOLDER_VARIABLE = "DENSEGEN_CONFIG_DIR"
"""The folder of the small file, if not the user's folder of settings."""

FORMAT = "densegen remembered"


def model_option(what: str) -> Callable[[Any], Any]:
    """The option ``--model`` of a command that needs one; without it the remembered model is taken."""
    return click.option(
        "--model",
        "model_path",
        type=click.Path(path_type=Path),
        default=remembered_model,
        callback=_refuse_none,
        show_default=f"${MODEL_VARIABLE}, or as 'densegen remember' keeps",
        help=what,
    )


def _refuse_none(context: click.Context, parameter: click.Parameter, value: Path | None) -> Path:
    if value is None:
        raise click.MissingParameter(ctx=context, param=parameter)
    return value


def remembered_path() -> Path:
    """The file: ``remembered.yaml`` in the user's folder of settings (``~/.config/densegen`` on Linux)."""
    return Path(os.environ.get(FOLDER_VARIABLE) or click.get_app_dir("densegen")) / "remembered.yaml"


def read_remembered() -> tuple[Path | None, dict[str, Path]]:
    """The model, and the root of each dataset by its manifest's name, as the file has them; nothing without a file.

    Raises :class:`FormatError` if the file is damaged.
    """
    path = remembered_path()
    if not path.exists():
        return None, {}
    from densegen.records import read_validated

    kept: Any = read_validated(_kind(), path, "file of 'densegen remember'")
    return kept.model and Path(kept.model), {name: Path(root) for name, root in kept.roots.items()}


def remember(model: Path | None, roots: dict[str, Path]) -> None:
    """Write the file; the paths are made absolute."""
    import yaml

    from densegen.files import is_utf8, write_text

    for path in filter(None, (model, *roots.values())):
        if not is_utf8(path.resolve()):
            raise ConfigurationError(f"{str(path)!a} is not UTF-8: rename it")
    contents = {
        "format": FORMAT,
        "model": str(model.resolve()) if model else None,
        "roots": {name: str(root.resolve()) for name, root in sorted(roots.items())},
    }
    write_text(remembered_path(), yaml.safe_dump(contents, sort_keys=False, allow_unicode=True))


def remembered_model() -> Path | None:
    """The model file of ``DENSEGEN_MODEL``, else that of the file; None if neither names one."""
    if given := os.environ.get(MODEL_VARIABLE):
        return Path(given)
    model, _ = read_remembered()
    if model is not None and not model.exists():
        raise ConfigurationError(f"the model {model} of {remembered_path()} is gone: 'densegen remember --model FILE'")
    return model


def remembered_root(dataset: str) -> Path | None:
    """The folder of ``DENSEGEN_ROOT``, else the one that is kept for ``dataset``, a manifest's name."""
    if given := os.environ.get(ROOT_VARIABLE):
        return Path(given)
    return read_remembered()[1].get(dataset)


def _kind() -> type[BaseModel]:
    from typing import Literal

    from pydantic import BaseModel

    class Remembered(BaseModel, extra="forbid", frozen=True):
        format: Literal["densegen remembered"]
        model: str | None = None
        roots: dict[str, str] = {}

    return Remembered
