from __future__ import annotations

import errno
import io
import os
import re
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import simplejpeg
from PIL import Image, ImageOps

from densegen.errors import SampleError
from densegen.sources.photograph import decode_photograph, read_photograph

GRADIENT = np.stack(np.meshgrid(np.arange(64) * 3, np.arange(48) * 4), axis=-1).astype(np.uint8)
RGB = np.dstack([GRADIENT, np.full((48, 64), 90, np.uint8)])


def encoded(image: Image.Image, kind: str = "JPEG", **options: object) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def test_colour_comes_back_as_rgb() -> None:
    decoded = decode_photograph(encoded(Image.fromarray(RGB), quality=98), "a.jpg")
    assert decoded.shape == (48, 64, 3)
    assert decoded.dtype == np.uint8
    assert np.abs(decoded.astype(int) - RGB).mean() < 3


def test_grey_has_three_equal_channels() -> None:
    decoded = decode_photograph(encoded(Image.fromarray(RGB[..., 0])), "a.jpg")
    assert decoded.shape == (48, 64, 3)
    assert (decoded[..., 0] == decoded[..., 2]).all()


def test_cmyk_becomes_rgb() -> None:
    decoded = decode_photograph(encoded(Image.fromarray(RGB).convert("CMYK"), quality=98), "a.jpg")
    assert np.abs(decoded.astype(int) - RGB).mean() < 6


def test_sixteen_bit_grey_keeps_its_high_byte() -> None:
    deep = RGB[..., 0].astype(np.uint16) * 256 + 17
    decoded = decode_photograph(encoded(Image.fromarray(deep), "PNG"), "a.png")
    assert (decoded == RGB[..., :1]).all()


def test_an_exif_orientation_sets_the_image_aside() -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    for kind in ("JPEG", "PNG"):
        with pytest.raises(SampleError, match="EXIF orientation 6") as caught:
            decode_photograph(encoded(Image.fromarray(RGB), kind, exif=exif), "a.jpg")
        assert caught.value.reason == "image-rotated"
    # What looks like a scan before the tag is none: it lies within a comment.
    late = encoded(Image.fromarray(RGB), exif=exif)
    for before in (b"\xff\xfe\x00\x06\xff\xda\x00\x00", b"\xff" * 1_000_000, 9000 * b"\xff\xfe\x00\x02"):
        with pytest.raises(SampleError, match="EXIF orientation 6"):
            decode_photograph(late[:2] + before + late[2:], "a.jpg")
    exif[0x0112] = 1
    assert decode_photograph(encoded(Image.fromarray(RGB), exif=exif), "a.jpg").shape == (48, 64, 3)


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("kind", ["JPEG", "PNG"])
def test_an_upright_image_is_turned_as_viewers_turn_it(orientation: int, kind: str) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    data = encoded(Image.fromarray(RGB), kind, exif=exif)
    expected = np.asarray(ImageOps.exif_transpose(Image.open(io.BytesIO(data))))
    decoded = decode_photograph(data, "a", upright=True)
    assert decoded.shape == expected.shape
    assert np.abs(decoded.astype(int) - expected).max() <= 4


@pytest.mark.parametrize("keep", [0, 1, 2, 10, 200, -200, -2])
def test_a_cut_file_is_unreadable_not_half_grey(keep: int) -> None:
    noise = np.random.default_rng(0).integers(0, 255, (48, 64, 3), dtype=np.uint8)
    with pytest.raises(SampleError) as caught:
        decode_photograph(encoded(Image.fromarray(noise))[:keep], "a.jpg")
    assert caught.value.reason == "image-unreadable"


def test_bytes_behind_the_end_marker_do_no_harm() -> None:
    data = encoded(Image.fromarray(RGB)) + b"camera notes"
    assert decode_photograph(data, "a.jpg").shape == (48, 64, 3)


def test_a_header_that_promises_too_many_pixels_is_refused() -> None:
    data = bytearray(encoded(Image.fromarray(RGB)))
    start = data.index(b"\xff\xc0")
    data[start + 5 : start + 9] = b"\xfe\x00\xfe\x00"  # 65024 x 65024
    with pytest.raises(SampleError) as caught:
        decode_photograph(bytes(data), "a.jpg")
    assert caught.value.reason == "image-too-large"


def test_what_is_no_file_is_not_read(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.jpg")  # reading it would never end
    (tmp_path / "endless.jpg").symlink_to("/dev/zero")
    for name in ("pipe.jpg", "endless.jpg"):
        with pytest.raises(SampleError, match="not a regular file") as caught:
            read_photograph(tmp_path / name)
        assert caught.value.reason == "image-unreadable"


def test_a_missing_image_says_so(tmp_path: Path) -> None:
    with pytest.raises(SampleError, match="does not exist") as caught:
        read_photograph(tmp_path / "none.jpg")
    assert caught.value.reason == "image-missing"


@pytest.mark.parametrize(
    ("begin", "kind"),
    [(b"RIFF\x00\x00\x00\x00WEBPVP8 ", "a WebP"), (b"BM6\x00", "a BMP"), (b"GIF89a", "a GIF"), (b"II*\x00", "a TIFF"),
     (b"\x00\x00\x00\x1cftypheic", "an AVIF or HEIC")],
)  # fmt: skip
def test_a_picture_of_another_kind_is_named_with_its_remedy(begin: bytes, kind: str) -> None:
    with pytest.raises(SampleError, match=rf"^a\.jpg is {kind} picture.*: convert it to JPEG or PNG$"):
        decode_photograph(begin + bytes(40), "a.jpg")


def test_a_jpeg_of_scans_without_end_is_refused_before_it_is_decoded() -> None:
    big = simplejpeg.encode_jpeg(np.zeros((4000, 4000, 3), np.uint8), 50, "RGB", "420")
    many = big[:-2] + b"\xff\xda" * 200 + big[-2:]
    with pytest.raises(SampleError, match="has 201 scans"):
        decode_photograph(many, "a.jpg")


def test_a_disk_that_falters_is_no_reason_to_set_a_sample_aside(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A file that is not there, or no file, is; an error of the disk may be over the next time."""
    path = tmp_path / "a.jpg"
    path.write_bytes(b"x")
    for number in (errno.EIO, errno.ESTALE, errno.EMFILE, errno.EACCES):
        monkeypatch.setattr(Path, "read_bytes", raising(OSError(number, os.strerror(number))))
        with pytest.raises(OSError, match=re.escape(os.strerror(number))):
            read_photograph(path)
    with pytest.raises(SampleError, match="not a regular file"):
        read_photograph(tmp_path)


def raising(error: Exception) -> Callable[[object], bytes]:
    def fail(_: object) -> bytes:
        raise error

    return fail
