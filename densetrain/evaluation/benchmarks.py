"""Public benchmarks, their labels and their protocols: AFLW2000-3D and AFLW. NumPy alone.

A benchmark is a list of faces with true points and yaw angles; what is compared is decided here, once, and travels as
a :class:`~densetrain.evaluation.protocol.Protocol` with every number.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from densegen.arrays import Float64, Image, Mask
from densegen.errors import ConfigurationError, FormatError, SampleError
from densegen.files import file_size, read_text
from densegen.geometry.crop import box_around, box_size
from densegen.records import read_archive
from densegen.sources.fits import read_labels
from densegen.sources.photograph import IMAGE_SUFFIXES, read_photograph
from densetrain.choices import Comparison, Labels, Reading, YawSource
from densetrain.evaluation.metrics import nme, points21
from densetrain.evaluation.protocol import Protocol

__all__ = ["AFLW2000", "Benchmark", "aflw", "aflw2000", "read_predictions"]

AFLW2000, AFLW = 2000, 21080
LABEL_FILES = {"original": "AFLW2000-3D.pts68.npy", "reannotated": "AFLW2000-3D-Reannotated.pts68.npy"}
YAW_FILES = {"pose": "AFLW2000-3D.pose.npy", "new-pose": "AFLW2000-3D-new.pose.npy"}
LIST_FILE = "AFLW2000-3D_crop.list"
FIRST_PIXEL = {"original": 1.0, "reannotated": 0.0}
"""What each label file calls the centre of the first pixel; the original labels come from MATLAB."""

AFLW_CROP = 120
CROP_CENTRE = 0.5
"""Pixels of an AFLW crop from its box's corner, as the labels count, to its first pixel's centre. 29 crops, laid on
the photographs of AFLW2000-3D that they were cut from, say 0.49 in x and y."""
MAX_LABEL_BYTES = 256 << 20
MAX_LIST_BYTES = 8 << 20
MAX_PREDICTED_PX = 1_000_000


@dataclass(frozen=True, eq=False)
class Benchmark:
    """Faces with their truth.

    names : of the faces
    truth : (n, P, 2) float64, pixels of the images, or what ``to_truth`` makes of them; in AFLW2000-3D centres from 0
    raw : (n, P, 2) float64, the same points as the label file has them
    visible : (n, P) bool
    normaliser : (n,) float64, sqrt(w h) of the true 68 points' box, pixels of ``truth``
    yaw_deg : (n,) float64, as the file has it, not wrapped
    boxes : (n, 4) float64, left, top, right, bottom of the 68-point truth, pixels of the images
    images : the image files, or None if only labels are here
    to_truth : (n, 4) scale_x, scale_y, x, y that take image pixels, centres from 0, to the truth's, or None if they are
        the same
    as_script : (n, 4) what the benchmark's public script makes of them, before it compares them with ``raw``
    protocol : what a number made with it must be printed with, but for how the points are compared
    """

    protocol: Protocol
    names: tuple[str, ...]
    truth: Float64
    raw: Float64
    visible: Mask
    normaliser: Float64
    yaw_deg: Float64
    boxes: Float64
    images: tuple[Path, ...] | None
    as_script: Float64
    to_truth: Float64 | None = None

    def __len__(self) -> int:
        return len(self.names)

    @property
    def title(self) -> str:
        return self.protocol.benchmark

    @property
    def readings(self) -> tuple[Reading, ...]:
        """How predictions are compared: one way if the public script's is the same, else both."""
        same = self.to_truth is None and np.allclose(self.raw, _moved(self.truth, self.as_script), rtol=0, atol=1e-6)
        return ("geometric",) if same else ("geometric", "public script")

    def errors(self, predicted: npt.NDArray[np.floating], comparison: Comparison = "geometric") -> Float64:
        """(n,) NME in percent of (n, 68, 2 or 3) predictions in pixels of the images, centres from 0.

        comparison : ``geometric``, each label set by its own first pixel; ``public script``, as the benchmark's
            published code compares, see ``as_script``; or ``label files``, if that is what the predictions are: number
            by number, as they stand
        """
        points, truth = predicted[..., :2].astype(np.float64), self.truth
        if comparison == "label files":
            truth = self.raw
        elif comparison == "public script":
            points, truth = _moved(points, self.as_script), self.raw
        elif self.to_truth is not None:
            points = _moved(points, self.to_truth)
        if truth.shape[1] == 21:
            points = points21(points).astype(np.float64)
        return nme(points, truth, self.normaliser, self.visible)

    def truth_in_image(self, row: int) -> Float64:
        """(P, 2) true points of a face in pixels of its image, centres from 0; NaN if not visible."""
        points = self.truth[row]
        if self.to_truth is not None:
            points = (points - self.to_truth[row, 2:]) / self.to_truth[row, :2]
        return np.where(self.visible[row][:, None], points, np.nan)

    def read_images(self) -> Iterator[Image]:
        """Each face's photograph, (H, W, 3) uint8 RGB; raises :class:`FormatError` for one that cannot be read."""
        if self.images is None:
            raise ConfigurationError(f"{self.title}: the images are needed: give their folder with --root")
        for path in self.images:
            try:
                yield read_photograph(path)
            except SampleError as error:
                raise FormatError(f"{self.title}: {error}") from error


def aflw2000(
    root: str | Path | None,
    protocol: str | Path | None = None,
    labels: Labels = "original",
    yaw: YawSource | None = None,
) -> Benchmark:
    """AFLW2000-3D (Zhu et al., CVPR 2016), 68 points, 2D.

    root : folder of the images and ``.mat`` files; every pair there counts, though the public list has 2,000
    protocol : folder of the public label, yaw and list files; needed for ``reannotated``, ``pose`` and ``new-pose``
    yaw : which file the bins come from; by default ``pose`` with a protocol folder, else the fit's own

    Raises :class:`ConfigurationError` if files are missing, :class:`FormatError` if they are something else.
    """
    root, protocol = (None if folder is None else Path(folder) for folder in (root, protocol))
    yaw = yaw or ("pose" if protocol is not None else "fit")
    for what, word, words in (("labels", labels, LABEL_FILES), ("yaw", yaw, ("fit", *YAW_FILES))):
        if word not in words:
            raise ConfigurationError(f"there are no {what} {word!r}: {', '.join(words)}")
    if protocol is None and (labels == "reannotated" or yaw != "fit"):
        raise ConfigurationError(f"labels {labels} and yaw {yaw} are in the public files: give their --protocol folder")
    if root is None and (protocol is None or yaw == "fit"):
        raise ConfigurationError("aflw2000-3d needs the folder of images and .mat files (--root), or --protocol")
    listed = _read_list(protocol / LIST_FILE) if protocol is not None else []
    names = _list_faces(root) if root is not None else [Path(n).stem for n in listed]
    if not names:
        raise ConfigurationError(f"{root} is no folder of AFLW2000-3D: image*.mat with image*.jpg beside them")
    images = None if root is None else _find_images(root, names)
    fitted, fitted_yaw = (None, None) if root is None or (protocol and yaw != "fit") else _read_labels(root, names)
    if protocol is not None:
        rows = _rows_of(names, listed)
        raw = _points(protocol / LABEL_FILES[labels], 68, len(listed))[rows]
    else:
        assert fitted is not None
        raw = fitted
    if yaw == "fit":
        assert fitted_yaw is not None
        yaw_deg = fitted_yaw
    else:
        assert protocol is not None
        yaw_deg = _numbers(protocol / YAW_FILES[yaw], (len(listed),))[rows]
    truth = raw - FIRST_PIXEL[labels]
    return Benchmark(
        names=tuple(names),
        truth=truth,
        raw=raw,
        visible=np.ones(truth.shape[:2], bool),
        normaliser=box_size(truth),
        yaw_deg=yaw_deg,
        boxes=box_around(truth),
        images=images,
        protocol=Protocol(
            benchmark="AFLW2000-3D",
            faces=len(names),
            all_faces=AFLW2000,
            which_faces=_digest_of_some(names, AFLW2000),
            points="68 points",
            labels=labels,
            yaw=yaw,
        ),
        as_script=np.ones((len(names), 4)),
    )


def aflw(root: str | Path | None, protocol: str | Path) -> Benchmark:
    """AFLW, 21 points, from the public evaluation files of 3DDFA; images are its 120x120 crops.

    root : folder of the crops; None to score predictions alone
    protocol : folder with ``AFLW_GT_crop.list``, ``AFLW_GT_crop_yaws.npy``, ``AFLW_GT_crop_roi_box.npy``,
        ``AFLW_GT_pts21.npy`` and ``AFLW_GT_pts68.npy``

    Raises :class:`ConfigurationError` if files are missing, :class:`FormatError` if they are something else.
    """
    root, protocol = None if root is None else Path(root), Path(protocol)
    names = _read_list(protocol / "AFLW_GT_crop.list")
    points68 = _points(protocol / "AFLW_GT_pts68.npy", 68, len(names))
    truth = _points(protocol / "AFLW_GT_pts21.npy", 21, len(names))
    roi = _numbers(protocol / "AFLW_GT_crop_roi_box.npy", (len(names), 4))
    yaw_deg = _numbers(protocol / "AFLW_GT_crop_yaws.npy", (len(names),))
    scale = (roi[:, 2:] - roi[:, :2]) / AFLW_CROP
    to_truth = np.concatenate([scale, roi[:, :2] + scale * CROP_CENTRE], axis=1)
    boxes = (box_around(points68) - np.tile(to_truth[:, 2:], 2)) / np.tile(scale, 2)
    return Benchmark(
        names=tuple(Path(name).stem for name in names),
        truth=truth,
        raw=truth,
        visible=(truth != -1).all(axis=2),
        normaliser=box_size(points68),
        yaw_deg=yaw_deg,
        boxes=boxes,
        images=None if root is None else _find_images(root, [Path(name).stem for name in names]),
        protocol=Protocol(
            benchmark="AFLW",
            faces=len(names),
            all_faces=AFLW,
            which_faces=_digest_of_some(names, AFLW),
            points="21 points",
            only_visible=True,
        ),
        as_script=np.concatenate([scale, roi[:, :2] + scale], axis=1),
        to_truth=to_truth,
    )


def _digest_of_some(names: Sequence[str], all_faces: int) -> str | None:
    """What tells one part of a benchmark's faces from another: eight digits of the SHA-256 of their names in order."""
    if len(names) == all_faces:
        return None
    return hashlib.sha256("\n".join(sorted(names)).encode()).hexdigest()[:8]


def _moved(points: Float64, by: Float64) -> Float64:
    """(n, P, 2) points through (n, 4) scale_x, scale_y, x, y."""
    moved: Float64 = points * by[:, None, :2] + by[:, None, 2:]
    return moved


def read_predictions(path: Path, names: tuple[str, ...]) -> Float64:
    """(n, 68, 2 or 3) predictions in the order of ``names``, from an ``.npz`` of ``names`` and ``landmarks``.

    Raises :class:`FormatError` if it is something else, holds numbers that are not finite, or lacks a face.
    """
    if not path.exists():
        raise ConfigurationError(f"the predictions {path} do not exist")
    archive = read_archive(path, ("names", "landmarks"), "file of predictions")
    landmarks = archive["landmarks"]
    words = archive["names"]
    if words.dtype.kind == "S":
        words = np.char.decode(words, "utf-8", "replace")
    if words.ndim != 1 or words.dtype.kind != "U" or landmarks.dtype.kind not in "fiu":
        raise FormatError(
            f"{path.name} is not a file of predictions: 'names' are no list of words, or 'landmarks' no numbers"
        )
    found = [Path(str(name)).stem for name in words]
    if landmarks.ndim != 3 or landmarks.shape[1] != 68 or landmarks.shape[2] not in (2, 3):
        raise FormatError(f"{path.name}: landmarks have the shape {landmarks.shape}, expected (n, 68, 2 or 3)")
    if len(found) != len(landmarks):
        raise FormatError(f"{path.name} has {len(found)} names for {len(landmarks)} faces")
    row = {name: number for number, name in enumerate(found)}
    if twice := [name for number, name in enumerate(found) if row[name] != number]:
        raise FormatError(f"{path.name} has a face twice: {twice[0]}")
    if missing := [name for name in names if name not in row]:
        raise FormatError(f"{path.name} lacks {len(missing)} of {len(names)} faces, the first is {missing[0]}")
    chosen = landmarks[[row[name] for name in names]].astype(np.float64)
    if not (np.abs(chosen) < MAX_PREDICTED_PX).all():  # NaN is not
        raise FormatError(f"{path.name} holds numbers that are not finite, or beyond {MAX_PREDICTED_PX:,} px")
    return chosen


def _read_list(path: Path) -> list[str]:
    if not path.exists():
        raise ConfigurationError(f"{path} does not exist: it is one of the benchmark's public files")
    names = read_text(path, "list of names", MAX_LIST_BYTES).split()
    if not names or len({Path(name).stem for name in names}) != len(names):
        raise FormatError(f"{path.name} names {'a face twice' if names else 'no face'}")
    return names


def _rows_of(names: list[str], listed: list[str]) -> list[int]:
    place = {Path(name).stem: row for row, name in enumerate(listed)}
    if strange := [name for name in names if name not in place]:
        raise FormatError(f"{strange[0]} is not in the public list of AFLW2000-3D")
    return [place[name] for name in names]


def _list_faces(root: Path) -> list[str]:
    # macOS puts a ._NAME beside each NAME on disks of other systems.
    return sorted(path.stem for path in root.glob("*.mat") if not path.name.startswith("."))


def _find_images(root: Path, names: list[str]) -> tuple[Path, ...]:
    if not root.is_dir():
        raise ConfigurationError(f"the folder {root} does not exist")
    here = {
        path.stem: path
        for path in sorted(root.iterdir())
        if path.suffix.lower() in IMAGE_SUFFIXES and not path.name.startswith(".")
    }
    if missing := [name for name in names if name not in here]:
        raise ConfigurationError(f"{root} lacks {len(missing)} of {len(names)} images, the first is {missing[0]}")
    return tuple(here[name] for name in names)


def _read_labels(root: Path, names: list[str]) -> tuple[Float64, Float64]:
    """(n, 68, 2) points as the fits' files have them, and (n,) yaw in degrees, not wrapped: the public file's."""
    points, yaw_deg = [], []
    for name in names:
        try:
            xy, yaw = read_labels(root / f"{name}.mat")
        except SampleError as error:
            raise FormatError(f"AFLW2000-3D: {error}") from error
        points.append(xy.astype(np.float64))
        yaw_deg.append(yaw)
    return np.stack(points), np.rad2deg(np.array(yaw_deg))


def _points(path: Path, count: int, faces: int) -> Float64:
    """(n, P, 2) from a label file of (n, 2 or 3, P), n the number of ``faces``."""
    labels = _load(path)
    if labels.ndim != 3 or labels.shape[1] not in (2, 3) or (labels.shape[0], labels.shape[2]) != (faces, count):
        raise FormatError(f"{path.name} has the shape {labels.shape}, expected ({faces}, 2, {count})")
    return np.ascontiguousarray(labels[:, :2].transpose(0, 2, 1), np.float64)


def _numbers(path: Path, shape: tuple[int, ...]) -> Float64:
    numbers = _load(path)
    if numbers.shape != shape:
        raise FormatError(f"{path.name} has the shape {numbers.shape}, expected {shape}")
    return numbers.astype(np.float64)


def _load(path: Path) -> npt.NDArray[Any]:
    if not path.exists():
        raise ConfigurationError(f"{path} does not exist: it is one of the benchmark's public files")
    try:
        if file_size(path) > MAX_LABEL_BYTES:
            raise FormatError(f"{path.name} is larger than {MAX_LABEL_BYTES >> 20} MiB: not a label file")
        with path.open("rb") as file:
            array = np.load(file, allow_pickle=False)
    except FormatError:
        raise
    # What NumPy raises for files that are cut off, something else, or claim more than there is memory: almost anything.
    except Exception as error:
        raise FormatError(f"{path.name} is not a readable NumPy file: {error}") from error
    if not isinstance(array, np.ndarray) or array.dtype.kind not in "fiu" or not np.isfinite(array).all():
        raise FormatError(f"{path.name} does not hold finite numbers")
    return array
