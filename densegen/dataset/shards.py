"""Shards: HDF5 files of samples that describe themselves. The writer beside the reader.

A shard is made in memory and written in one piece, so that its SHA-256 is known before it reaches the disk, and a
full disk is an ordinary error instead of a half-closed HDF5 file. The schema stands in ``docs/shards.md``.
"""

from __future__ import annotations

import io
import json
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import numpy as np
import numpy.typing as npt
import simplejpeg

from densegen.arrays import Float32, Float64, Image, Int64, Mask
from densegen.conventions import (
    FRAMES,
    POSE_FIELDS,
    SHARD_SCHEMA_VERSION,
    SPLITS,
    UV_SIZE,
    position_map_grid_px,
)
from densegen.dataset.hdf5 import create_group, new_file, open_checked
from densegen.dataset.map_codec import unpack_map
from densegen.errors import ConfigurationError, FormatError, in_short
from densegen.files import stays_below
from densegen.ibug68 import KEYPOINTS

__all__ = [
    "LARGEST_MAP", "MAX_CROP_SIZE", "Sample", "ShardHeader", "ShardReader", "check_crop", "decode_crop", "decode_map",
    "encode_shard", "largest_image",
]  # fmt: skip


@dataclass(frozen=True, slots=True, eq=False)
class Sample:
    """One training sample, as a shard stores it.

    sample_id : unique in the dataset; the mirrored one's ends in ``+mirror``
    group : the source photograph; every sample made from it is in the same split
    split : one of ``conventions.SPLITS``
    flipped : whether this is a mirror image (made here, or shipped in a ``_Flip`` folder)
    mirrored : whether it was mirrored here: image, landmarks and crop are then those of the mirrored photograph,
        pose, shape and expression those of the fit as it was
    jpeg : the crop as a JPEG file, RGB, ``crop_size`` pixels wide and high
    landmarks : (N, 3) float32, pixels, crop frame
    keypoints68 : (68, 3) float32, pixels, crop frame, iBUG order
    pose : (7,) float32, ``conventions.POSE_FIELDS`` of the fit
    shape : (Ks,) float32, raw coefficients of the fit
    expression : (Ke,) float32, raw coefficients of the fit
    crop : (4,) float64, scale, tx, ty, tz: ``crop frame = scale * image frame + (tx, ty, tz)``
    image_size : (height, width) of the photograph
    position_map : (256, 256, 3) uint16 fixed point as :func:`~densegen.dataset.map_codec.pack_map` packs it, or None
    """

    sample_id: str
    group: str
    split: str
    flipped: bool
    mirrored: bool
    jpeg: bytes
    landmarks: Float32
    keypoints68: Float32
    pose: Float32
    shape: Float32
    expression: Float32
    crop: Float64
    image_size: tuple[int, int]
    position_map: bytes | None = None


@dataclass(frozen=True, slots=True, eq=False)
class ShardHeader:
    """What every shard of a dataset says about itself.

    vertex_index : the whole index file, as text
    configuration : the build's settings as JSON
    counts : number of landmarks, of shape components and of expression components of every sample
    valid_uv : (256, 256) bool, UV pixels that position maps cover; None without position maps
    """

    dataset: str
    version: str
    seed: int
    crop_size: int
    vertex_index: str
    vertex_index_fingerprint: str
    model_name: str
    model_fingerprint: str
    configuration: str
    counts: tuple[int, int, int]
    valid_uv: Mask | None = None


@dataclass(frozen=True, slots=True)
class _Column:
    """A dataset with a row a sample: its type and the shape of a row as NumPy reads them, None for what varies."""

    dtype: str
    shape: tuple[int | None, ...]
    about: str


_COLUMNS = {
    "landmarks": _Column("<f4", (None, 3), "(S, N, 3), pixels, crop frame"),
    "keypoints68": _Column("<f4", (KEYPOINTS, 3), "(S, 68, 3), pixels, crop frame, iBUG order"),
    "pose": _Column("<f4", (len(POSE_FIELDS),), f"(S, 7), camera frame: {', '.join(POSE_FIELDS)}"),
    "shape": _Column("<f4", (None,), "(S, Ks), raw coefficients"),
    "expression": _Column("<f4", (None,), "(S, Ke), raw coefficients"),
    "crop": _Column("<f8", (4,), "(S, 4): scale, tx, ty, tz; crop frame = scale * image frame + (tx, ty, tz)"),
    "image_size": _Column("<i4", (2,), "(S, 2): height, width of the photograph"),
    "sample_id": _Column("S", (), "unique in the dataset"),
    "group": _Column("S", (), "the source photograph"),
    "split": _Column("u1", (), "by source photograph"),
    "flipped": _Column("?", (), "whether the sample is a mirror image"),
    "mirrored": _Column("?", (), "mirrored here; pose, shape and expression are then those of the unmirrored fit"),
}
_BLOBS = {
    "image": "JPEG files, RGB, end to end",
    "position_map": "(256, 256, 3) uint16 each, crop frame, end to end: pixels = value * step_px + offset_px. Packed: "
    "Zstandard of 16 planes of bits, lowest first, of d = (stored >> 1) ^ -(stored & 1); value = sums of d over rows, "
    "then columns, modulo 65536",
}
"""What varies in length: ``NAME/bytes``, and ``NAME/offsets`` into it."""

_OTHERS = {"vertex_index": ("S", ()), "image/bytes": ("u1", (None,)), "image/offsets": ("<i8", (None,))}
_MAPS = {
    "position_map/bytes": ("u1", (None,)),
    "position_map/offsets": ("<i8", (None,)),
    "valid_uv": ("?", (UV_SIZE, UV_SIZE)),
}
"""All or none of them."""

_ATTRIBUTES = {
    "dataset": str, "seed": int, "crop_size": int, "vertex_index_fingerprint": str, "model_name": str,
    "model_fingerprint": str, "configuration": str,
}  # fmt: skip

MAX_CROP_SIZE = 4096
LARGEST_MAP = 2 * (2 * UV_SIZE * UV_SIZE * 3)
"""Bytes; Zstandard adds a hundredth at most to what it cannot make smaller."""


def largest_image(crop_size: int) -> int:
    """Bytes: JPEG never takes four a pixel, but for its tables."""
    return 4 * crop_size**2 + 65_536


def encode_shard(samples: Iterable[Sample], header: ShardHeader) -> bytes:
    """The bytes of a shard: a function of its arguments alone, to the last bit.

    There may be no samples (every fit of the shard was set aside). With ``valid_uv`` each has a position map.
    """
    buffer = io.BytesIO()
    with new_file(buffer) as file:
        _put_attributes(
            file,
            format="densegen shard",
            schema_version=SHARD_SCHEMA_VERSION,
            densegen_version=header.version,
            dataset=header.dataset,
            seed=header.seed,
            crop_size=header.crop_size,
            vertex_index_fingerprint=header.vertex_index_fingerprint,
            model_name=header.model_name,
            model_fingerprint=header.model_fingerprint,
            frames=json.dumps(FRAMES),
            configuration=header.configuration,
        )
        # An attribute holds at most 64 KiB in the format that every HDF5 library reads; an index is larger.
        _put(file, "vertex_index", _as_text(header.vertex_index), "the vertex index file (YAML)")
        samples = list(samples)
        _put_blobs(file, "image", [sample.jpeg for sample in samples])
        if header.valid_uv is not None:
            maps = [sample.position_map for sample in samples if sample.position_map is not None]
            assert len(maps) == len(samples)
            _put_blobs(file, "position_map", maps)
            step, offset = position_map_grid_px(header.crop_size)
            _put_attributes(file["position_map/bytes"], step_px=step, offset_px=offset)
            _put(file, "valid_uv", header.valid_uv, "UV pixels that position maps cover; mirrored: reversed columns")
        for name, column in _COLUMNS.items():
            rows, stored_as = _rows(name, column, samples, header.counts)
            _put(file, name, rows, column.about, dtype=stored_as)
    return buffer.getvalue()


def _put(file: Any, name: str, data: Any, about: str, **options: Any) -> None:
    dataset = file.create_dataset(name, data=data, track_times=False, **options)
    _put_attributes(dataset, about=about)


def _put_blobs(file: Any, name: str, blobs: Sequence[bytes]) -> None:
    create_group(file, name)
    offsets = np.cumsum([0, *map(len, blobs)], dtype=np.int64)
    _put(file, f"{name}/bytes", np.frombuffer(b"".join(blobs), np.uint8), _BLOBS[name])
    _put(file, f"{name}/offsets", offsets, "number n is bytes[offsets[n]:offsets[n + 1]]")


def _put_attributes(holder: Any, **values: str | int | float) -> None:
    for name, value in values.items():
        if isinstance(value, str):
            holder.attrs[name] = _as_text(value)
        else:
            holder.attrs[name] = value


def _as_text(values: str | list[str]) -> npt.NDArray[np.bytes_]:
    """UTF-8 of a fixed length, as HDF5 stores it: text of any length lies in a heap that has no bounds to check."""
    import h5py

    encoded = np.array([value.encode() for value in values] if isinstance(values, list) else values.encode(), "S")
    texts: npt.NDArray[np.bytes_] = encoded.astype(h5py.string_dtype("utf-8", max(encoded.dtype.itemsize, 1)))
    return texts


def _rows(
    name: str, column: _Column, samples: Sequence[Sample], counts: tuple[int, int, int]
) -> tuple[npt.NDArray[Any], Any]:
    """A column of all samples, and the type that HDF5 keeps it as."""
    import h5py

    values: list[Any] = [getattr(sample, name) for sample in samples]
    stored_as: Any = np.dtype(column.dtype)
    if name == "split":
        values = [SPLITS.index(value) for value in values]
        stored_as = h5py.enum_dtype({split: number for number, split in enumerate(SPLITS)}, "u1")
    elif column.dtype == "S":
        return _as_text(values), None
    varies = dict(zip(("landmarks", "shape", "expression"), counts, strict=True))
    shape = [varies[name] if size is None else size for size in column.shape]
    return np.array(values, column.dtype).reshape(len(values), *shape), stored_as


def check_crop(jpeg: bytes | memoryview, size: int, name: Callable[[], str]) -> None:
    """Raise :class:`FormatError` if a crop is no JPEG, or one of another size, by its head; nothing is decoded.

    name : gives what an error calls it; a text made for each crop would take a twentieth of the time of reading
    """
    try:
        height, width = simplejpeg.decode_jpeg_header(jpeg)[:2]
    except ValueError as error:
        raise _unreadable(name, error) from error
    if (height, width) != (size, size):
        raise FormatError(f"{name()} is {width}x{height}, expected {size}x{size}: rebuild it with 'densegen build'")


def decode_crop(jpeg: bytes | memoryview, size: int, name: Callable[[], str], out: Image | None = None) -> Image:
    """A crop's pixels, (S, S, 3) uint8, RGB; raises :class:`FormatError` before another size takes memory.

    name : see :func:`check_crop`
    out : where they are written to, (S, S, 3) uint8, in one piece; by default into an array of their own
    """
    check_crop(jpeg, size, name)
    try:
        return np.asarray(simplejpeg.decode_jpeg(jpeg, "RGB", buffer=out))
    except ValueError as error:
        raise _unreadable(name, error) from error


def _unreadable(name: Callable[[], str], error: ValueError) -> FormatError:
    return FormatError(f"{name()} is not a readable JPEG, rebuild it with 'densegen build': {error}")


def decode_map(packed: bytes, name: str) -> npt.NDArray[np.uint16]:
    """(256, 256, 3) uint16 fixed-point position map; raises :class:`FormatError` before another size takes memory."""
    try:
        return unpack_map(packed, (UV_SIZE, UV_SIZE, 3))
    except ValueError as error:
        raise FormatError(f"{name} is damaged, rebuild it with 'densegen build': {error}") from error


class ShardReader:
    """A shard, open for reading; a context manager. Arrays are read when they are asked for.

    Raises :class:`FormatError` if the file is no shard, is damaged, or has a schema version that this densegen
    does not know.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = path = Path(path)
        try:
            self.file = open_checked(path)
        except OSError as error:
            raise FormatError(f"{path.name} cannot be read: {error.strerror or error}") from error
        try:
            self._check()
        except (KeyError, TypeError, ValueError, AttributeError, RuntimeError) as error:
            self.file.close()
            raise FormatError(f"{path.name} is not a readable shard: {in_short(error)}") from error
        except BaseException:
            self.file.close()
            raise

    def _check(self) -> None:
        name = self.path.name
        attributes = self.attributes
        if attributes.get("format") != "densegen shard":
            raise FormatError(f"{name} is not a densegen shard")
        if (found := attributes.get("schema_version")) != SHARD_SCHEMA_VERSION:
            raise FormatError(
                f"{name} has schema {found}, expected {SHARD_SCHEMA_VERSION}: rebuild it with 'densegen build'"
            )
        expected = {name: (column.dtype, (None, *column.shape)) for name, column in _COLUMNS.items()} | _OTHERS
        expected |= _MAPS if any(dataset in self.file for dataset in _MAPS) else {}
        lacking = [dataset for dataset in expected if dataset not in self.file]
        if lacking := [*lacking, *(attribute for attribute in _ATTRIBUTES if attribute not in attributes)]:
            raise FormatError(f"{name} lacks {', '.join(lacking)}: rebuild it with 'densegen build'")
        for attribute, kind in _ATTRIBUTES.items():
            if type(attributes[attribute]) is not kind:
                raise FormatError(f"{name}: {attribute} is no {kind.__name__}: rebuild it with 'densegen build'")
        if not 1 <= attributes["crop_size"] <= MAX_CROP_SIZE:
            raise FormatError(f"{name}: a crop of {attributes['crop_size']} px: rebuild it with 'densegen build'")
        if self.file["sample_id"].ndim != 1:
            raise FormatError(f"{name}: sample_id is no list: rebuild it with 'densegen build'")
        for dataset, (dtype, shape) in expected.items():
            rows = (len(self),) if dataset in _COLUMNS else shape[:1]
            self._check_dataset(dataset, dtype, (*rows, *shape[1:]))

    def _check_dataset(self, name: str, dtype: str, shape: tuple[int | None, ...]) -> None:
        found = self.file[name]
        fits = found.ndim == len(shape) and all(s in (None, f) for s, f in zip(shape, found.shape, strict=True))
        is_right = found.dtype.kind == "S" if dtype == "S" else found.dtype == np.dtype(dtype)
        if not (fits and is_right):
            raise FormatError(
                f"{self.path.name}: {name} is {found.dtype} {found.shape}: rebuild it with 'densegen build'"
            )

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.file.close()

    def __len__(self) -> int:
        return self._length

    @cached_property
    def _length(self) -> int:
        return int(self.file["sample_id"].shape[0])

    @cached_property
    def attributes(self) -> dict[str, Any]:
        """The file's attributes: versions, seed, fingerprints, frames, configuration; text, whole and other numbers.

        Raises :class:`FormatError` if a text is not UTF-8.
        """
        return {name: self._plain(name, value) for name, value in self.file.attrs.items()}

    def _plain(self, name: str, value: Any) -> str | int | float:
        try:
            return value.decode() if isinstance(value, bytes) else value.item()
        except UnicodeDecodeError as error:
            raise FormatError(f"{self.path.name}: {name} is not UTF-8: rebuild it with 'densegen build'") from error

    @property
    def vertex_index(self) -> str:
        """The text of the vertex index that the landmarks were gathered through."""
        return self._texts("vertex_index")[0]

    @cached_property
    def sample_ids(self) -> list[str]:
        """Raises :class:`FormatError` if one is no text or leads out of a folder."""
        ids = self._texts("sample_id")
        if outside := [sample_id for sample_id in ids if not stays_below(sample_id)]:
            raise FormatError(f"{self.path.name}: the sample id {outside[0]!r} leads out of the dataset's folder")
        return ids

    @cached_property
    def groups(self) -> list[str]:
        return self._texts("group")

    def _texts(self, name: str) -> list[str]:
        try:
            return [text.decode() for text in np.atleast_1d(self.file[name][()]).tolist()]
        except UnicodeDecodeError as error:
            raise FormatError(f"{self.path.name}: {name} is not UTF-8: rebuild it with 'densegen build'") from error

    @cached_property
    def splits(self) -> list[str]:
        numbers = self.file["split"][()]
        if (numbers >= len(SPLITS)).any():
            raise FormatError(f"{self.path.name}: split names one of {len(SPLITS)}, not number {numbers.max()}")
        return [SPLITS[number] for number in numbers]

    @property
    def counts(self) -> tuple[int, int, int]:
        """Landmarks, shape and expression components of every sample."""
        return tuple(int(self.file[name].shape[1]) for name in ("landmarks", "shape", "expression"))  # type: ignore[return-value]

    @cached_property
    def image_offsets(self) -> Int64:
        """(S + 1,) int64; raises :class:`FormatError` if they lead out of the images, or to one larger than can be."""
        return self._offsets("image", largest_image(self.attributes["crop_size"]))

    @cached_property
    def position_map_offsets(self) -> Int64:
        """(S + 1,) int64; raises :class:`FormatError` if they lead out of the maps, or to one larger than can be."""
        return self._offsets("position_map", LARGEST_MAP)

    def _offsets(self, name: str, largest: int) -> Int64:
        offsets = np.asarray(self.file[f"{name}/offsets"][()])
        if (
            len(offsets) != len(self) + 1
            or offsets[0] != 0
            or (offsets[1:] < offsets[:-1]).any()  # before any difference, which could overflow
            or (offsets[-1] != self.file[f"{name}/bytes"].shape[0])
            or (np.diff(offsets) > largest).any()
        ):
            raise FormatError(f"{self.path.name}: {name}/offsets is damaged: rebuild it with 'densegen build'")
        return offsets

    @property
    def has_position_maps(self) -> bool:
        return "valid_uv" in self.file

    def array(self, name: str) -> npt.NDArray[Any]:
        """A whole dataset by its schema name: ``landmarks``, ``keypoints68``, ``pose``, ``crop``, ``flipped``, …"""
        return np.asarray(self.file[name][()])

    def byte_offset(self, name: str) -> int:
        """Where a dataset's bytes begin in the file; rows follow one another, little-endian, without padding.

        A reader of many rows in random order saves HDF5's cost per access. Raises :class:`FormatError` if the
        dataset is not stored in one piece.
        """
        offset = self.file[name].id.get_offset()
        if offset is None and self.file[name].size:
            raise FormatError(f"{self.path.name}: {name} is not stored in one piece: rebuild it with 'densegen build'")
        return int(offset or 0)

    def jpeg(self, row: int) -> bytes:
        """The JPEG file of sample ``row``."""
        return self._blob("image", self.image_offsets, row)

    def image(self, row: int) -> Image:
        """(S, S, 3) uint8, RGB; raises :class:`FormatError` if it does not decode or has another size."""
        size = self.attributes["crop_size"]
        return decode_crop(self.jpeg(row), size, lambda: f"{self.path.name}: the image of {self.sample_ids[row]}")

    def position_map(self, row: int) -> npt.NDArray[np.uint16]:
        """(256, 256, 3) uint16 fixed-point position map of ``row``; raises :class:`FormatError` if it is damaged,
        :class:`ConfigurationError` if the shard holds none.
        """
        if not self.has_position_maps:
            raise ConfigurationError(f"{self.path.name} holds no position maps: build with --position-maps")
        packed = self._blob("position_map", self.position_map_offsets, row)
        return decode_map(packed, f"{self.path.name}: the position map of {self.sample_ids[row]}")

    def _blob(self, name: str, offsets: Int64, row: int) -> bytes:
        if not 0 <= row < len(self):
            raise IndexError(f"sample {row} of {len(self):,}")
        start, stop = offsets[row : row + 2]
        return bytes(self.file[f"{name}/bytes"][start:stop].tobytes())
