"""What is given to be looked at: photographs, folders of them, films."""

from __future__ import annotations

from pathlib import Path

from densegen.arrays import Image
from densegen.errors import ConfigurationError, FormatError, SampleError
from densegen.files import is_leftover
from densegen.sources.photograph import IMAGE_SUFFIXES, read_photograph

__all__ = ["VIDEO_SUFFIXES", "list_images", "passed_over", "read_image"]

VIDEO_SUFFIXES = (
    ".mp4", ".mov", ".avi", ".mkv", ".webm", ".m4v", ".3gp", ".ts", ".mts", ".wmv", ".mpg", ".mpeg", ".mjpeg", ".gif",
)  # fmt: skip
OTHER_SUFFIXES = (".webp", ".bmp", ".tif", ".tiff", ".heic", ".heif", ".avif", ".jp2", ".jxl")


def list_images(inputs: tuple[Path, ...], *, video: bool = True) -> list[Path]:
    """The image and video files among files and folders; raises :class:`ConfigurationError` if there are none."""
    found: list[Path] = []
    for path in inputs:
        if path.is_dir():
            kinds = (*IMAGE_SUFFIXES, *VIDEO_SUFFIXES) if video else IMAGE_SUFFIXES
            found += [p for p in _visible(path) if p.suffix.lower() in kinds and not is_leftover(p)]
        elif path.exists():
            found.append(path)
        else:
            raise ConfigurationError(f"{path} does not exist")
    if not found:
        raise ConfigurationError(f"{', '.join(map(str, inputs))}: no image here ({', '.join(IMAGE_SUFFIXES)})")
    return found


def passed_over(inputs: tuple[Path, ...]) -> dict[str, int]:
    """How many pictures of kinds that are not read lie in the folders among the inputs, by suffix."""
    suffixes = [p.suffix.lower() for path in inputs if path.is_dir() for p in _visible(path)]
    return {suffix: suffixes.count(suffix) for suffix in OTHER_SUFFIXES if suffix in suffixes}


def _visible(folder: Path) -> list[Path]:
    # macOS puts a ._NAME beside each NAME on disks of other systems.
    return sorted(path for path in folder.iterdir() if not path.name.startswith("."))


def read_image(path: Path) -> Image:
    """(H, W, 3) uint8 RGB, upright; raises :class:`FormatError` if it cannot be read."""
    try:
        return read_photograph(path, upright=True)
    except SampleError as error:
        raise FormatError(str(error)) from error
    except OSError as error:  # of the disk, or a file that may not be read
        raise FormatError(f"{path.name} cannot be read: {error.strerror or error}") from error
