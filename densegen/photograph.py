"""Photographs: from a file to RGB pixels."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import numpy.typing as npt
import simplejpeg

from densegen.errors import SampleError

__all__ = ["decode_photograph", "read_photograph"]

MAX_PIXELS = 64_000_000
"""A photograph of more pixels is refused before memory is taken for it."""

MAX_BYTES = 128 << 20


def read_photograph(path: Path) -> npt.NDArray[np.uint8]:
    """Read the image at ``path``: (H, W, 3) uint8, RGB. See :func:`decode_photograph`."""
    try:
        if (size := path.stat().st_size) > MAX_BYTES:
            raise SampleError("image-too-large", f"{path.name} has {size} bytes, at most {MAX_BYTES} are read")
        data = path.read_bytes()
    except FileNotFoundError as error:
        raise SampleError("image-missing", f"{path.name} does not exist") from error
    except OSError as error:
        raise SampleError("image-unreadable", f"{path.name}: {error.strerror}") from error
    return decode_photograph(data, path.name)


def decode_photograph(data: bytes, name: str) -> npt.NDArray[np.uint8]:
    """Decode image bytes: (H, W, 3) uint8, RGB, the pixels as they are stored.

    Colour and grey JPEG take the fast way (libjpeg-turbo); CMYK JPEG and PNG go through Pillow.
    16-bit grey becomes 8-bit by its high byte.

    Raises :class:`SampleError` where the file is truncated or no image, has more than ``MAX_PIXELS`` pixels, or
    carries an EXIF orientation: the fit's frame is then ambiguous (MATLAB, which made the fits, ignores the tag;
    most viewers obey it), so it is set aside rather than guessed.
    """
    if not data.startswith(b"\xff\xd8"):
        return _decode_with_pillow(data, name)
    try:
        height, width, colorspace, _ = simplejpeg.decode_jpeg_header(data)
    except ValueError as error:
        raise SampleError("image-unreadable", f"{name} is not a readable JPEG: {error}") from error
    _check_size(height, width, name)
    # The marker is looked for in the first segments only; without it there is no tag to parse.
    if b"Exif\x00\x00" in data[:65536]:
        _check_orientation(data, name)
    if colorspace in ("CMYK", "YCCK"):
        return _decode_with_pillow(data, name)
    if not data.rstrip(b"\x00").endswith(b"\xff\xd9"):
        # libjpeg fills a cut image with grey and says nothing: half a face would pass for a whole one.
        _check_complete(data, name)
    try:
        return np.asarray(simplejpeg.decode_jpeg(data, "RGB"), np.uint8)
    except ValueError as error:
        raise SampleError("image-unreadable", f"{name} is not a readable JPEG: {error}") from error


def _check_size(height: int, width: int, name: str) -> None:
    if height * width > MAX_PIXELS:
        raise SampleError("image-too-large", f"{name} is {width}x{height}, at most {MAX_PIXELS} pixels are read")


def _check_complete(data: bytes, name: str) -> None:
    # Some cameras append data behind the end marker, so its absence at the end alone condemns nothing.
    if b"\xff\xd9" not in data[-65536:]:
        raise SampleError("image-unreadable", f"{name} is cut off: it has no end-of-image marker")


def _check_orientation(data: bytes, name: str) -> None:
    import io

    from PIL import Image, UnidentifiedImageError

    try:
        with Image.open(io.BytesIO(data), formats=("JPEG", "PNG")) as image:
            orientation = image.getexif().get(0x0112, 1)
    except (OSError, ValueError, SyntaxError, UnidentifiedImageError) as error:
        raise SampleError("image-unreadable", f"{name} is not a readable image: {error}") from error
    _refuse_rotated(orientation, name)


def _refuse_rotated(orientation: int, name: str) -> None:
    if orientation != 1:
        raise SampleError(
            "image-rotated",
            f"{name} carries EXIF orientation {orientation}, so its fit's frame is ambiguous: "
            "rotate the pixels or remove the tag",
        )


def _decode_with_pillow(data: bytes, name: str) -> npt.NDArray[np.uint8]:
    import io

    from PIL import Image, UnidentifiedImageError

    try:
        with Image.open(io.BytesIO(data), formats=("JPEG", "PNG")) as image:
            _check_size(image.height, image.width, name)
            _refuse_rotated(image.getexif().get(0x0112, 1), name)
            if image.mode.startswith("I"):  # 16-bit grey
                grey = (np.asarray(image).astype(np.uint32) >> 8).clip(0, 255).astype(np.uint8)
                return np.repeat(grey[..., None], 3, axis=2)
            return np.asarray(image.convert("RGB"), np.uint8)
    except (UnidentifiedImageError, OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        raise SampleError("image-unreadable", f"{name} is not a readable image: {type(error).__name__}") from error
