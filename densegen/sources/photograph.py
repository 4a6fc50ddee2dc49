"""Photographs: from a file to RGB pixels."""

from __future__ import annotations

import hashlib
import io
import re
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path

import numpy as np
import simplejpeg

from densegen.arrays import Image
from densegen.errors import SampleError
from densegen.files import file_size, is_about_the_file

__all__ = ["IMAGE_SUFFIXES", "decode_photograph", "jpeg_codec", "read_photograph"]

IMAGE_SUFFIXES = (".jpg", ".jpeg", ".png")
"""Of what is read, in lower case."""

MAX_PIXELS = 64_000_000
"""A photograph of more pixels is refused before memory is taken for it."""

MAX_BYTES = 128 << 20


def read_photograph(path: str | Path, *, upright: bool = False) -> Image:
    """Read the image at ``path``: (H, W, 3) uint8, RGB. See :func:`decode_photograph`."""
    path = Path(path)
    try:
        if (size := file_size(path)) > MAX_BYTES:
            raise SampleError("image-too-large", f"{path.name} has {size} bytes, at most {MAX_BYTES} are read")
        data = path.read_bytes()
    except FileNotFoundError as error:
        raise SampleError("image-missing", f"{path.name} does not exist") from error
    except OSError as error:
        if not is_about_the_file(error):
            raise
        raise SampleError("image-unreadable", f"{path.name}: {error.strerror}") from error
    return decode_photograph(data, path.name, upright=upright)


def decode_photograph(data: bytes, name: str, *, upright: bool = False) -> Image:
    """Decode image bytes: (H, W, 3) uint8, RGB, the pixels as they are stored.

    upright : turn the pixels as an EXIF orientation says, as viewers do; without it such an image is refused, since the
        frame of its fit would be ambiguous: MATLAB, which made the fits, ignores the tag

    Colour and grey JPEG take the fast way (libjpeg-turbo); CMYK JPEG and PNG go through Pillow.
    16-bit grey becomes 8-bit by its high byte.

    Raises :class:`SampleError` if the file is truncated or no image, or has more than ``MAX_PIXELS`` pixels.
    """
    if not data.startswith(b"\xff\xd8"):
        if (kind := _other_kind(data)) is not None:
            raise SampleError("image-unreadable", f"{name} is {kind}: convert it to JPEG or PNG")
        return _decode_with_pillow(data, name, upright)
    try:
        height, width, colorspace, _ = simplejpeg.decode_jpeg_header(data)
    except ValueError as error:
        raise SampleError("image-unreadable", f"{name} is not a readable JPEG: {error}") from error
    _check_size(height, width, name)
    _check_scans(data, height * width, name)
    # Tags stand before the first scan; without the marker there is none to parse.
    orientation = _orientation(data, name, upright) if data.find(b"Exif\x00\x00", 0, _first_scan(data)) >= 0 else 1
    if colorspace in ("CMYK", "YCCK"):
        return _decode_with_pillow(data, name, upright)
    if not data.rstrip(b"\x00").endswith(b"\xff\xd9"):
        # libjpeg fills a cut image with grey and says nothing: half a face would pass for a whole one.
        _check_complete(data, name)
    try:
        return _turn(np.asarray(simplejpeg.decode_jpeg(data, "RGB"), np.uint8), orientation)
    except ValueError as error:
        raise SampleError("image-unreadable", f"{name} is not a readable JPEG: {error}") from error


@cache
def jpeg_codec() -> str:
    """What the installed JPEG library does, as 12 hexadecimal digits: equal for versions that give the same bytes.

    Over a fixed picture, encoded as a crop is, decoded, and encoded again.
    """
    rows, columns = np.mgrid[0:72, 0:72]
    picture = np.stack([rows * columns // 17, rows * 3 + columns, (rows ^ columns) * 3], axis=-1).astype(np.uint8)
    first = simplejpeg.encode_jpeg(picture, 95, "RGB", "420")
    decoded = np.ascontiguousarray(simplejpeg.decode_jpeg(first, "RGB"))
    again = simplejpeg.encode_jpeg(decoded, 80, "RGB", "420")
    return hashlib.sha256(first + decoded.tobytes() + again).hexdigest()[:12]


def _check_size(height: int, width: int, name: str) -> None:
    if height * width > MAX_PIXELS:
        raise SampleError("image-too-large", f"{name} is {width}x{height}, at most {MAX_PIXELS} pixels are read")


_SCAN_STARTS = b"\xff\xda"
MAX_SCANNED = 1_000_000_000
"""Pixels times scans of a progressive JPEG: each scan goes over the whole picture. Encoders make about ten."""

_OTHER_KINDS = {
    b"BM": "a BMP picture", b"GIF8": "a GIF picture", b"II*\0": "a TIFF picture", b"MM\0*": "a TIFF picture",
    b"\0\0\0\x0cjP": "a JPEG 2000 picture", b"\0\0\0\x0cJXL": "a JPEG XL picture",
}  # fmt: skip


def _other_kind(data: bytes) -> str | None:
    """What a picture is that is not read, by its first bytes; None if they are a PNG's or nobody's."""
    if data[:4] == b"RIFF" and data[8:12] == b"WEBP":
        return "a WebP picture"
    if data[4:8] == b"ftyp":
        return "an AVIF or HEIC picture, or a video"
    return next((kind for begin, kind in _OTHER_KINDS.items() if data.startswith(begin)), None)


_SMALLEST_SCAN = 10
"""Bytes of the shortest scan's head: a file too short for too many of these is not searched."""

_MARKER = re.compile(rb"\xff+([^\xff])", re.DOTALL)
MAX_SEGMENTS = 4096
"""Of a JPEG before its first scan; a colour profile takes a few hundred at most."""


def _first_scan(data: bytes) -> int:
    """Where the first scan of a JPEG begins, by the lengths of the segments before it; a thumbnail within one has scans
    of its own. Of a file whose segments do not lead there, its end.
    """
    at = 2
    for _ in range(MAX_SEGMENTS):
        marker = _MARKER.match(data, at)  # any number of 0xff may stand before it
        if marker is None:
            break
        if marker[1] == b"\xda":
            return marker.start()
        at = marker.end() + int.from_bytes(data[marker.end() : marker.end() + 2], "big")
    return len(data)


def _check_scans(data: bytes, pixels: int, name: str) -> None:
    if len(data) // _SMALLEST_SCAN * pixels <= MAX_SCANNED:
        return
    scans = data.count(_SCAN_STARTS)
    if scans * pixels > MAX_SCANNED and scans > 16:
        raise SampleError("image-unreadable", f"{name} has {scans:,} scans of {pixels:,} pixels: save it again")


def _check_complete(data: bytes, name: str) -> None:
    # Some cameras append data behind the end marker, so its absence at the end alone condemns nothing.
    if b"\xff\xd9" not in data[-65536:]:
        raise SampleError("image-unreadable", f"{name} is cut off: it has no end-of-image marker")


def _orientation(data: bytes, name: str, upright: bool) -> int:
    """The EXIF orientation, 1 to 8, 1 if there is none; refused if it is another and not to be obeyed."""
    import io

    from PIL import Image

    try:
        with _quiet(), Image.open(io.BytesIO(data), formats=("JPEG", "PNG")) as image:
            return _checked_orientation(image.getexif().get(0x0112, 1), name, upright)
    except SampleError:
        raise
    # Pillow raises almost anything for a damaged file.
    except Exception as error:
        raise SampleError("image-unreadable", f"{name} is not a readable image: {error}") from error


@contextmanager
def _quiet() -> Iterator[None]:
    """Without Pillow's warnings about a file: what is wrong with it is said in one line."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


def _checked_orientation(orientation: object, name: str, upright: bool) -> int:
    if orientation == 1 or (upright and not (isinstance(orientation, int) and orientation in range(2, 9))):
        return 1
    if not upright:
        raise SampleError(
            "image-rotated",
            f"{name} carries EXIF orientation {orientation}, so its fit's frame is ambiguous: "
            "rotate the pixels or remove the tag",
        )
    assert isinstance(orientation, int)
    return orientation


def _turn(image: Image, orientation: int) -> Image:
    """Pixels upright, from those that are stored with an EXIF orientation (EXIF 2.3, tag 0x0112)."""
    if orientation >= 5:
        image = image.transpose(1, 0, 2)
    if orientation in (2, 3, 6, 7):
        image = image[:, ::-1]
    if orientation in (3, 4, 7, 8):
        image = image[::-1]
    return np.ascontiguousarray(image)


def _decode_with_pillow(data: bytes, name: str, upright: bool) -> Image:
    from PIL import Image, UnidentifiedImageError

    try:
        with _quiet(), Image.open(io.BytesIO(data), formats=("JPEG", "PNG")) as image:
            _check_size(image.height, image.width, name)
            orientation = _checked_orientation(image.getexif().get(0x0112, 1), name, upright)
            if image.mode.startswith("I"):  # 16-bit grey
                grey = np.right_shift(np.asarray(image), 8).clip(0, 255).astype(np.uint8)
                return _turn(np.repeat(grey[..., None], 3, axis=2), orientation)
            return _turn(np.asarray(image.convert("RGB"), np.uint8), orientation)
    except SampleError:
        raise
    # Pillow raises almost anything for a damaged file.
    except Exception as error:
        unknown = isinstance(error, UnidentifiedImageError) or not str(error)
        reason = "its contents are damaged, or of no known kind" if unknown else str(error)
        raise SampleError("image-unreadable", f"{name} is not a readable JPEG or PNG: {reason}") from error
