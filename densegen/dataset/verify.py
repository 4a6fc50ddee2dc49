"""Check a finished dataset against its manifest: every byte, every count, every landmark."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path

import numpy as np

from densegen.conventions import MIRROR_SUFFIX, landmark_range_px
from densegen.dataset.build_record import DatasetManifest, ShardRecord, read_dataset_manifest
from densegen.dataset.card import CONTACT_SHEET, REJECTS, YAW_HISTOGRAM, format_rejects
from densegen.dataset.sample_index import SAMPLES, ShardSamples, encode_samples, join_samples, samples_of
from densegen.dataset.shards import ShardReader, check_crop, decode_crop
from densegen.errors import FormatError, VerificationError, in_short
from densegen.executors import read_ahead
from densegen.files import sha256_of
from densegen.ibug68 import KEYPOINT_MIRROR
from densegen.index.vertex_index import VertexIndex, parse_index

__all__ = ["verify_dataset"]

MIRROR_TOLERANCE_PX = 0.02
"""How far a mirrored sample's landmarks may be from the mirror image of its partner's, in pixels of the photograph;
float32 rounding of coordinates in crops of other scales."""


EVERY = 15
"""In each shard every 15th image and position map is decoded: the checksum says that all are what was built, so this is
about the machine that built them. An odd number, so that mirror images, each behind its original, have their turn.
"""


@dataclass(frozen=True)
class _Look:
    """What one shard shows: its problems, of every sample the id, the photograph and the split, and what it adds to the
    file that sets are opened by: nothing if it holds no samples, or has problems.
    """

    problems: list[str]
    samples: list[tuple[str, str, str]] = field(default_factory=list)
    indexed: ShardSamples | None = None


def verify_dataset(
    folder: str | Path,
    advance: Callable[[int], None] = lambda samples: None,
    *,
    jobs: int = 1,
    every_image: bool = False,
) -> DatasetManifest:
    """Check a folder that ``densegen build`` finished, and return its manifest.

    Checksums and sizes, schema, counts and fingerprints against the manifest, unique ids, groups that stay in one
    split, finite landmarks in range, mirrored pairs that are each other's mirror image, the size that each image
    says it has; and that every 15th sample's image and position map decode.

    advance : is called after each shard with its number of samples
    jobs : threads; each holds one shard
    every_image : decode all

    Raises :class:`VerificationError` with the first five problems and the number of the others. A problem of a shard
    names the shard, and the sample if there is one. Raises :class:`FormatError` if the manifest is missing or damaged.
    """
    folder = Path(folder)
    manifest = read_dataset_manifest(folder)
    problems: list[str] = []
    ids: set[str] = set()
    split_of: dict[str, str] = {}
    indexed: list[ShardSamples] = []
    listed = {record.file for record in manifest.shards}
    for stray in sorted(path.name for path in folder.glob("*.h5") if path.name not in listed):
        problems.append(f"{stray} is not in the manifest")
    look = partial(_look, folder, manifest, every_image=every_image)
    for record, seen in zip(manifest.shards, read_ahead(look, manifest.shards, jobs), strict=True):
        problems += seen.problems
        for sample_id, group, split in seen.samples:
            if sample_id in ids:
                problems.append(f"{record.file}: {sample_id} occurs twice")
            ids.add(sample_id)
            if split_of.setdefault(group, split) != split:
                problems.append(f"{record.file}: the photograph {group} is in {split} and in {split_of[group]}")
        if seen.indexed is not None:  # each has read the text of the vertex index; one is kept
            is_same = bool(indexed) and seen.indexed.about == indexed[0].about
            indexed.append(replace(seen.indexed, about=indexed[0].about) if is_same else seen.indexed)
        advance(record.samples)
    problems += _check_beside(folder, manifest)
    if not problems and not _says_the_same(folder, indexed, manifest):
        problems.append(
            f"{SAMPLES} is missing, or does not say what the shards say: the same 'densegen build' makes it"
        )
    if len(ids) != manifest.samples and not problems:
        problems.append(f"the shards hold {len(ids)} samples, the manifest says {manifest.samples}")
    if problems:
        more = f" (and {len(problems) - 5} more)" if len(problems) > 5 else ""
        raise VerificationError("; ".join(problems[:5]) + more)
    return manifest


def _says_the_same(folder: Path, indexed: list[ShardSamples], manifest: DatasetManifest) -> bool:
    """Whether the file that sets are opened by is the one that the shards make."""
    path, wanted = folder / SAMPLES, encode_samples(join_samples(folder, indexed, manifest.filled))
    return path.is_file() and sha256_of(path) == hashlib.sha256(wanted).hexdigest()


def _check_beside(folder: Path, manifest: DatasetManifest) -> list[str]:
    """The manifest's own sums, and the files beside the shards."""
    problems = []
    if manifest.rejected_fits != len(manifest.rejects):
        problems.append(f"the manifest lists {len(manifest.rejects)} rejected fits and says {manifest.rejected_fits}")
    if (fits := sum(record.fits for record in manifest.shards)) != manifest.configuration.fits:
        problems.append(f"the manifest's shards have {fits} fits, its configuration says {manifest.configuration.fits}")
    if manifest.schema_version != manifest.configuration.shard_schema_version:
        problems.append("the manifest names two schema versions")
    for name in ("README.md", CONTACT_SHEET, YAW_HISTOGRAM, REJECTS):
        if not (folder / name).is_file():
            problems.append(f"{name} is missing")
    if (folder / REJECTS).is_file() and sha256_of(folder / REJECTS) != _sha256(format_rejects(manifest.rejects)):
        problems.append(f"{REJECTS} does not say what the manifest says")
    return problems


def _sha256(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


def _check_file(path: Path, record: ShardRecord) -> list[str]:
    if not path.is_file():
        return [f"{path.name} is missing"]
    if (size := path.stat().st_size) != record.bytes:
        return [f"{path.name} has {size} bytes, the manifest says {record.bytes}"]
    if (digest := sha256_of(path)) != record.sha256:
        return [
            f"{path.name} has SHA-256 {digest[:12]}…, the manifest says {record.sha256[:12]}…: it is corrupt; the same "
            "'densegen build' makes it again"
        ]
    return []


def _look(folder: Path, manifest: DatasetManifest, record: ShardRecord, *, every_image: bool) -> _Look:
    path = folder / record.file
    if problems := _check_file(path, record):  # what is corrupt is not opened: HDF5 can hang on it
        return _Look(problems)
    try:
        return _look_inside(path, record, manifest, every_image)
    except FormatError as error:
        return _Look([str(error)])
    except (OSError, KeyError, ValueError, RuntimeError, TypeError, IndexError, AttributeError, MemoryError) as error:
        return _Look([f"{path.name} cannot be read: {in_short(error)}"])


def _look_inside(path: Path, record: ShardRecord, manifest: DatasetManifest, every_image: bool) -> _Look:
    problems: list[str] = []
    with ShardReader(path) as shard:
        name, configuration = path.name, manifest.configuration
        index = parse_index(shard.vertex_index, "the shards' vertex index")
        if len(shard) != record.samples:
            problems.append(f"{name} holds {len(shard)} samples, the manifest says {record.samples}")
        for key, attribute in (("vertex_index", "vertex_index_fingerprint"), ("model", "model_fingerprint")):
            if shard.attributes[attribute] != getattr(configuration, key):
                problems.append(f"{name} was made with another {key.replace('_', ' ')} than the manifest says")
        if shard.attributes["configuration"] != configuration.as_text():
            problems.append(f"{name} was made by another configuration than the manifest says")
        if (
            shard.attributes["seed"] != configuration.settings.seed
            or shard.attributes["dataset"] != configuration.dataset
        ):
            problems.append(f"{name} is of another dataset or seed than the manifest says")
        if len(index) != manifest.landmarks:
            problems.append(f"{name} has {len(index)} landmarks, the manifest says {manifest.landmarks}")
        if index.fingerprint != shard.attributes["vertex_index_fingerprint"]:
            problems.append(f"{name}'s vertex index does not match its fingerprint")
        samples = list(zip(shard.sample_ids, shard.groups, shard.splits, strict=True))
        if samples:
            problems += _check_arrays(shard, index) or _check_pairs(shard, index)
            problems += _check_images(shard, every_image)
        return _Look(problems, samples, samples_of(shard, record) if samples and not problems else None)


def _check_arrays(shard: ShardReader, index: VertexIndex) -> list[str]:
    problems = []
    shapes = {"landmarks": (len(index), 3), "keypoints68": (68, 3), "pose": (7,), "crop": (4,)}
    for name in ("landmarks", "keypoints68", "pose", "shape", "expression", "crop"):
        array = shard.array(name)
        if array.shape != (len(shard), *shapes.get(name, array.shape[1:])):
            problems.append(f"{shard.path.name}: {name} has shape {array.shape}")
            continue
        bad = ~np.isfinite(array).reshape(len(array), -1).all(axis=1)
        if name in ("landmarks", "keypoints68"):
            low, high = landmark_range_px(shard.attributes["crop_size"])
            bad |= ~((array >= low) & (array <= high)).all(axis=(1, 2))
        if name in ("pose", "crop"):  # their scales
            bad |= ~(array[:, 6 if name == "pose" else 0] > 0)
        if bad.any():
            problems.append(f"{shard.path.name}: {name} of {shard.sample_ids[int(np.argmax(bad))]} out of range")
    return problems


def _check_images(shard: ShardReader, every_image: bool) -> list[str]:
    size = shard.attributes["crop_size"]
    try:
        jpegs, offsets = shard.array("image/bytes").data, shard.image_offsets.tolist()
        for row in range(len(shard)):
            is_decoded = every_image or row % EVERY == 0
            look = decode_crop if is_decoded else check_crop
            look(jpegs[offsets[row] : offsets[row + 1]], size, partial(_name_of_image, shard, row))
            if is_decoded and shard.has_position_maps:
                shard.position_map(row)
    except FormatError as error:
        return [str(error)]
    return []


def _name_of_image(shard: ShardReader, row: int) -> str:
    return f"{shard.path.name}: the image of {shard.sample_ids[row]}"


def _check_pairs(shard: ShardReader, index: VertexIndex) -> list[str]:
    """Take each mirrored sample and its partner back to the photograph: one must be the other's mirror image."""
    rows = {sample_id: row for row, sample_id in enumerate(shard.sample_ids)}
    mirrored = np.flatnonzero(shard.array("mirrored"))
    ids = [shard.sample_ids[row] for row in mirrored]
    if len(plain := np.flatnonzero(~shard.array("flipped")[mirrored])):
        return [f"{shard.path.name}: {ids[plain[0]]} is not marked as flipped"]
    partners = [rows.get(sample_id.removesuffix(MIRROR_SUFFIX), -1) for sample_id in ids]
    if -1 in partners:
        return [f"{shard.path.name}: {ids[partners.index(-1)]} has no partner"]
    for name in ("pose", "shape", "expression", "image_size"):
        other = (shard.array(name)[mirrored] != shard.array(name)[partners]).any(axis=1)
        if other.any():
            return [f"{shard.path.name}: {ids[int(np.argmax(other))]} has another {name} than its partner"]
    has = np.flatnonzero(index.mirror >= 0)
    wrong = np.zeros(len(mirrored), bool)
    for name, which, mirror in (
        ("landmarks", has, np.searchsorted(has, index.mirror[has])),
        ("keypoints68", np.arange(len(KEYPOINT_MIRROR)), KEYPOINT_MIRROR),
    ):
        points, crops = shard.array(name)[:, which], shard.array("crop").astype(np.float32)[:, None]
        in_image = (points - crops[..., 1:]) / crops[..., :1]
        original, mirrored_back = in_image[partners], in_image[mirrored]
        original[..., 0] = shard.array("image_size")[partners, 1:] - 1 - original[..., 0]
        apart = np.abs(mirrored_back - original[:, mirror]).max(axis=(1, 2), initial=0)
        wrong |= apart > MIRROR_TOLERANCE_PX
    if wrong.any():
        return [f"{shard.path.name}: {ids[int(np.argmax(wrong))]} is not the mirror image of its partner"]
    return []
