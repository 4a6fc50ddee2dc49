"""A finished build in the formats of other tools: WebDataset tars or Parquet, with a card and a Croissant description.

Every part is a pure function of the shards, so an interrupted export goes on with the parts that are not there yet.
"""

from __future__ import annotations

import io
import json
import tarfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
from pydantic import BaseModel, ConfigDict, ValidationError

from densegen.arrays import Int64
from densegen.console import as_markdown, front_matter
from densegen.conventions import FRAMES, POSE_FIELDS, SPLITS
from densegen.dataset.card import HUB_FIELDS
from densegen.dataset.croissant import croissant_of
from densegen.dataset.shard_set import ShardSet, open_dataset
from densegen.errors import ConfigurationError
from densegen.extras import install_line
from densegen.files import LOCK_NAMES, only_one, remove_leftovers, replace_file, sha256_of, write_text
from densegen.records import read_json

__all__ = ["CROISSANT_NAME", "Exported", "Format", "export_dataset"]

EDITION = 2
"""Of what the parts hold; 1 had no column ``mirrored``."""

Format = Literal["webdataset", "parquet"]

CROISSANT_NAME = "croissant.json"
PROGRESS_NAME = ".parts.json"
SAMPLES_A_PART = 2048
SUFFIXES = {"webdataset": "tar", "parquet": "parquet"}


@dataclass(frozen=True)
class Exported:
    """What an export made."""

    samples: int
    files: tuple[str, ...]
    bytes: int


@dataclass(frozen=True, eq=False)
class _Part:
    """A file of the export, and the samples of one split that it holds."""

    name: str
    split: str
    rows: Int64


class _Progress(BaseModel):
    """Which parts are done, of which shards."""

    model_config = ConfigDict(extra="forbid")

    source: str
    format: Format
    samples_a_part: int
    edition: int = 1
    parts: dict[str, str] = {}


def export_dataset(
    shards: Path,
    out: Path,
    format: Format,
    *,
    samples_a_part: int = SAMPLES_A_PART,
    progress: Callable[[int], object] = lambda samples: None,
) -> Exported:
    """Write a finished build for other tools: ``data/SPLIT-00000-of-00012.tar`` or ``.parquet``, ``README.md`` with the
    front matter of a dataset hub, and ``croissant.json``.

    A sample keeps its JPEG bytes, its landmarks (N, 3) float32, keypoints, pose, id and flags; position maps are left
    out. Run again after an interruption, it keeps the parts that are whole.

    progress : is told how many samples were written

    Raises :class:`ConfigurationError` if ``out`` holds anything else or a library is missing, :class:`FormatError` if a
    shard is damaged.
    """
    if format == "parquet":
        _pyarrow()
    dataset = open_dataset(shards)
    parts = _plan(dataset, format, samples_a_part)
    out.mkdir(parents=True, exist_ok=True)
    with only_one(out, f"another export is writing into {out}"):
        remove_leftovers(out)
        done = _begin(
            out, _Progress(source=dataset.fingerprint, format=format, samples_a_part=samples_a_part, edition=EDITION)
        )
        remove_leftovers(out / "data")
        write = {"webdataset": _write_tar, "parquet": _write_parquet}[format]
        for part in parts:
            path = out / part.name
            if done.parts.get(part.name) is None or not path.is_file() or sha256_of(path) != done.parts[part.name]:
                path.parent.mkdir(exist_ok=True)
                with replace_file(path) as temporary:
                    write(dataset, part.rows, temporary)
                done.parts[part.name] = sha256_of(path)
                write_text(out / PROGRESS_NAME, done.model_dump_json(indent=1))
            progress(len(part.rows))
        sizes = {part.name: (out / part.name).stat().st_size for part in parts}
        digests = {part.name: done.parts[part.name] for part in parts}
        write_text(out / "README.md", _card(dataset, format, parts))
        about = croissant_of(dataset, format, digests, sizes)
        write_text(out / CROISSANT_NAME, json.dumps(about, indent=1, ensure_ascii=False) + "\n")
    return Exported(len(dataset), tuple(sizes), sum(sizes.values()))


def _plan(dataset: ShardSet, format: Format, size: int) -> list[_Part]:
    known: dict[str, str] = {}
    for name in dataset.sample_ids if format == "webdataset" else ():
        if (other := known.setdefault(_key(name), name)) != name:
            raise ConfigurationError(
                f"{other} and {name} are one name in a tar, which replaces '/' and '.': export them as parquet"
            )
    parts = []
    for number, split in enumerate(SPLITS):
        rows = np.flatnonzero(dataset.split == number).astype(np.int64)
        chunks = [rows[first : first + size] for first in range(0, len(rows), size)]
        for n, chunk in enumerate(chunks):
            parts.append(_Part(f"data/{split}-{n:05d}-of-{len(chunks):05d}.{SUFFIXES[format]}", split, chunk))
    return parts


def _begin(out: Path, wanted: _Progress) -> _Progress:
    """What is done already; refuses a folder that holds something else."""
    found = [path.name for path in out.iterdir() if path.name not in LOCK_NAMES]
    contents = read_json(out / PROGRESS_NAME)
    try:
        earlier = None if contents is None else _Progress.model_validate(contents)
    except ValidationError:
        earlier = None
    if earlier is None:
        if found:
            raise ConfigurationError(f"{out} holds {found[0]}, which no export wrote: choose another folder")
        # Before anything else: a killed export is then known as one.
        write_text(out / PROGRESS_NAME, wanted.model_dump_json(indent=1))
        return wanted
    if earlier.edition != wanted.edition:
        raise ConfigurationError(
            f"{out} holds an export of another densegen, with other columns: choose another folder"
        )
    if earlier.model_copy(update={"parts": {}}) != wanted:
        raise ConfigurationError(f"{out} holds an export of other shards, or in another form: choose another folder")
    return earlier


def _key(sample_id: str) -> str:
    """A sample's name in a tar, in which a dot ends the name and a slash a folder."""
    return sample_id.replace("/", "-").replace(".", "_")


def _about(dataset: ShardSet, row: int) -> dict[str, Any]:
    return {
        "sample_id": dataset.sample_ids[row],
        "split": SPLITS[dataset.split[row]],
        "flipped": bool(dataset.flipped[row]),
        "mirrored": bool(dataset.mirrored[row]),
        "pose": dataset.pose[row].tolist(),
    }


def _write_tar(dataset: ShardSet, rows: Int64, path: Path) -> None:
    """A tar of KEY.jpg, KEY.landmarks.npy, KEY.keypoints68.npy and KEY.json a sample; the same bytes each time."""
    reader = dataset.open()
    with path.open("wb") as file, tarfile.open(fileobj=file, mode="w", format=tarfile.PAX_FORMAT) as tar:
        for row in rows.tolist():
            key = _key(dataset.sample_ids[row])
            for suffix, data in (
                ("jpg", reader.jpeg(row)),
                ("landmarks.npy", _npy(reader.landmarks(row))),
                ("keypoints68.npy", _npy(reader.keypoints68(row))),
                ("json", json.dumps(_about(dataset, row)).encode()),
            ):
                member = tarfile.TarInfo(f"{key}.{suffix}")
                member.size = len(data)
                tar.addfile(member, io.BytesIO(data))
    reader.close()


def _npy(array: Any) -> bytes:
    buffer = io.BytesIO()
    np.save(buffer, array, allow_pickle=False)
    return buffer.getvalue()


def _pyarrow() -> Any:
    try:
        import pyarrow
        import pyarrow.parquet
    except ImportError as error:
        raise ConfigurationError(f"Parquet needs pyarrow: {install_line('hub')}") from error
    return pyarrow


def _write_parquet(dataset: ShardSet, rows: Int64, path: Path) -> None:
    pa = _pyarrow()
    count = len(dataset.index)
    points = pa.list_(pa.list_(pa.float32(), 3), count)
    schema = pa.schema(
        [
            ("sample_id", pa.string()),
            ("image", pa.struct([("bytes", pa.binary()), ("path", pa.string())])),
            ("landmarks", points),
            ("keypoints68", pa.list_(pa.list_(pa.float32(), 3), 68)),
            ("pose", pa.list_(pa.float32(), len(POSE_FIELDS))),
            ("flipped", pa.bool_()),
            ("mirrored", pa.bool_()),
        ],
        metadata={"huggingface": json.dumps({"info": {"features": _features(count)}})},
    )
    reader = dataset.open()
    with pa.parquet.ParquetWriter(str(path), schema, compression="zstd", use_dictionary=False) as writer:
        for batch in _batches(rows, 256):
            landmarks = np.stack([reader.landmarks(row) for row in batch])
            columns = [
                pa.array([dataset.sample_ids[row] for row in batch]),
                pa.StructArray.from_arrays(
                    [
                        pa.array([reader.jpeg(row) for row in batch], pa.binary()),
                        pa.array([f"{_key(dataset.sample_ids[row])}.jpg" for row in batch]),
                    ],
                    ["bytes", "path"],
                ),
                _nested(pa, landmarks),
                _nested(pa, np.stack([reader.keypoints68(row) for row in batch])),
                pa.FixedSizeListArray.from_arrays(pa.array(dataset.pose[batch].ravel()), len(POSE_FIELDS)),
                pa.array(dataset.flipped[batch]),
                pa.array(dataset.mirrored[batch]),
            ]
            writer.write_table(pa.Table.from_arrays(columns, schema=schema))
    reader.close()


def _nested(pa: Any, points: Any) -> Any:
    """(B, N, 3) as a column of lists of N lists of three."""
    inner = pa.FixedSizeListArray.from_arrays(pa.array(np.ascontiguousarray(points).ravel()), 3)
    return pa.FixedSizeListArray.from_arrays(inner, points.shape[1])


def _batches(rows: Int64, size: int) -> Iterator[list[int]]:
    for first in range(0, len(rows), size):
        yield rows[first : first + size].tolist()


def _features(count: int) -> dict[str, Any]:
    """The columns as the library ``datasets`` describes them."""
    number = {"dtype": "float32", "_type": "Value"}

    def listed(feature: dict[str, Any], length: int) -> dict[str, Any]:
        return {"feature": feature, "length": length, "_type": "List"}

    return {
        "sample_id": {"dtype": "string", "_type": "Value"},
        "image": {"_type": "Image"},
        "landmarks": listed(listed(number, 3), count),
        "keypoints68": listed(listed(number, 3), 68),
        "pose": listed(number, len(POSE_FIELDS)),
        "flipped": {"dtype": "bool", "_type": "Value"},
        "mirrored": {"dtype": "bool", "_type": "Value"},
    }


def _card(dataset: ShardSet, format: Format, parts: list[_Part]) -> str:
    splits = list(dict.fromkeys(part.split for part in parts))
    files = [{"split": split, "path": f"data/{split}-*.{SUFFIXES[format]}"} for split in splits]
    rows = [f"| {split} | {int((dataset.split == SPLITS.index(split)).sum()):,} |" for split in splits]
    names = " and ".join(dataset.datasets)
    size = next(
        label
        for limit, label in (
            (1e3, "n<1K"),
            (1e4, "1K<n<10K"),
            (1e5, "10K<n<100K"),
            (1e6, "100K<n<1M"),
            (1e7, "1M<n<10M"),
            (1e12, "10M<n<100M"),
        )
        if len(dataset) < limit
    )
    fields = (
        "`jpg`, `landmarks.npy`, `keypoints68.npy`, `json`"
        if format == "webdataset"
        else "`sample_id`, `image`, `landmarks`, `keypoints68`, `pose`, `flipped`, `mirrored`"
    )
    head = front_matter(
        pretty_name=f"Dense face landmarks of {names}",
        **HUB_FIELDS,
        size_categories=[size],
        configs=[{"config_name": "default", "data_files": files}],
    )
    return f"""{head}
# Dense face landmarks of {names}

{len(dataset):,} samples of a {dataset.crop_size}x{dataset.crop_size} image and {len(dataset.index)}x3 landmarks of the
vertex index {as_markdown(dataset.index.name)} {dataset.index.version} (fingerprint `{dataset.index.fingerprint}`),
written by 'densegen export' from the shards with the fingerprint `{dataset.fingerprint}`.

| split | samples |
|---|---|
{chr(10).join(rows)}

Fields: {fields}. `flipped` says that an image is a mirror image, `mirrored` that densegen made it: `pose`, which holds
{", ".join(POSE_FIELDS)}, is then that of the fit before.

- landmarks, keypoints68: {FRAMES["crop"]}
- pose: {FRAMES["camera"]}

`croissant.json` describes the files to tools. What may be done with them follows from the photographs and from the
morphable model: see the card of the shards.
"""
