"""Landmarks on photographs and video: find faces, crop, regress, and write what was found. No torch here."""

from __future__ import annotations

import itertools
import json
import re
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path

import numpy as np
import numpy.typing as npt

from densegen.arrays import Float32, Float64, Image, Int64, UInt8
from densegen.console import plain as printable
from densegen.drawing import KEYPOINT_COLOUR, depth_colours, draw_points, png_bytes, sigma_colours
from densegen.errors import ConfigurationError, FormatError, SampleError
from densegen.files import is_leftover, write_many
from densegen.fitting.reconstruction import Reconstructor
from densegen.index.formats.mesh import mesh_bytes
from densegen.sources.fits import fit_bytes
from densegen.sources.photograph import read_photograph
from densetrain.choices import DetectorName, Written
from densetrain.network.regressor import FlipTested, Regressor
from densetrain.prediction.boxes import check_boxes, check_boxes_on
from densetrain.prediction.detect import Detector, open_detector
from densetrain.prediction.face import Face
from densetrain.prediction.faces import REFINE, detect, find_faces, turn_back
from densetrain.prediction.results import as_csv, image_record

__all__ = [
    "VIDEO_SUFFIXES",
    "Face",
    "ResultNames",
    "Smoother",
    "check_drop",
    "draw_faces",
    "list_images",
    "passed_over",
    "predict",
    "read_image",
    "write_faces",
]

IMAGE_SUFFIXES = (".jpg", ".jpeg", ".png")
VIDEO_SUFFIXES = (
    ".mp4", ".mov", ".avi", ".mkv", ".webm", ".m4v", ".3gp", ".ts", ".mts", ".wmv", ".mpg", ".mpeg", ".mjpeg", ".gif",
)  # fmt: skip
OTHER_SUFFIXES = (".webp", ".bmp", ".tif", ".tiff", ".heic", ".heif", ".avif", ".jp2", ".jxl")

MAX_DRAWN = 100_000_000
"""Bytes; a picture that would be larger is drawn at its own size."""

MESH_COLOUR = (165, 165, 165)
MESH_FROM_IMAGE = np.array([1, -1, 1], np.float32)
"""Mesh viewers have y up."""


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


def predict(
    network: Regressor, image: Image | str | Path, boxes: npt.ArrayLike | None = None, *,
    detector: DetectorName | Detector = "auto", refine: int | None = None, drop_above: float | None = None,
    name: str = "the image",
) -> list[Face]:  # fmt: skip
    """The faces of an image and their landmarks, in pixels of the image.

    image : (H, W, 3) uint8 RGB, or a file
    boxes : (n, 4) left, top, right, bottom of the box around each face's 68 keypoints, pixels, image frame; by default
        ``detector`` finds them
    detector : its name, or a function from an image to boxes; not asked if ``boxes`` are given. If it finds nothing, it
        looks again at the image upside down and on its sides
    refine : how often at most the crop is laid again, around the 68 that were found; by default ``REFINE`` times for
        detected boxes, and never for given ones
    drop_above : leaves out found faces whose expected NME is above this, percent: what is no face has a large one;
        needs a network with a flip test
    name : of an image that is no file, for errors

    Raises :class:`FormatError` if the image cannot be read, no face is found, or a box lies beside the image,
    :class:`ConfigurationError` if the detector is not installed or the network does not say what to expect, and
    ``ValueError`` if ``image`` is no such image or ``boxes`` are not boxes.
    """
    check_drop(network, drop_above)
    if isinstance(image, str | Path):
        name, image = Path(image).name, read_image(Path(image))
    if not isinstance(image, np.ndarray):
        raise ValueError(f"{name} is of {type(image).__name__}, expected an array (H, W, 3) of uint8, or a file")
    if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3:
        raise ValueError(f"{name} is {image.shape} {image.dtype}, expected (H, W, 3) uint8, RGB")
    if boxes is not None:
        given = np.asarray(boxes, np.float64)
        given = check_boxes(np.atleast_2d(given) if given.size else given.reshape(0, 4))
        check_boxes_on(image, given, name)
        return find_faces(network, image, given, refine=refine or 0, reference=network.about.reference)
    opened = open_detector(detector) if isinstance(detector, str) else detector
    turns, given = detect(opened, image, name)
    times, turned = REFINE if refine is None else refine, np.ascontiguousarray(np.rot90(image, turns))
    faces = find_faces(network, turned, given, refine=times, reference=network.about.reference)
    if drop_above is not None and not (faces := [f for f in faces if (f.expected_nme or 0) <= drop_above]):
        raise FormatError(f"{name}: of what was found nothing is expected to be within {drop_above:g} %")
    return turn_back(faces, turns, image, network.about.reference) if turns else faces


def check_drop(network: Regressor, drop_above: float | None) -> None:
    """Raise :class:`ConfigurationError` if faces are to be left out by what a network does not say."""
    if drop_above is None:
        return
    if not isinstance(network, FlipTested):
        raise ConfigurationError("to leave out faces by their expected NME needs a flip test: --flip-test")
    if network.about.flip_line is None:
        raise ConfigurationError(f"{network.name} does not say what NME to expect: train it with this densetrain")


def read_image(path: Path) -> Image:
    """(H, W, 3) uint8 RGB, upright; raises :class:`FormatError` if it cannot be read."""
    try:
        return read_photograph(path, upright=True)
    except SampleError as error:
        raise FormatError(str(error)) from error
    except OSError as error:  # of the disk, or a file that may not be read
        raise FormatError(f"{path.name} cannot be read: {error.strerror or error}") from error


def draw_faces(image: Image, faces: list[Face], triangles: Int64 | None, *, scale: int = 2) -> Image:
    """The image with the landmark mesh, the landmarks by depth, and the 68 in white; ``scale`` times as large if it is
    not large itself. The landmarks of a network that says how unsure it is are coloured by that: see
    ``drawing.sigma_colours``.
    """
    from PIL import Image, ImageDraw

    scale = scale if image.size * scale**2 <= MAX_DRAWN else 1
    canvas = Image.fromarray(image).resize((image.shape[1] * scale, image.shape[0] * scale))
    pen = ImageDraw.Draw(canvas)
    for face in faces:
        points = (face.landmarks[:, :2].astype(np.float64) + 0.5) * scale - 0.5
        if triangles is not None:
            edges = np.unique(np.sort(triangles[:, [0, 1, 1, 2, 2, 0]].reshape(-1, 2), axis=1), axis=0)
            for a, b in edges:
                pen.line([tuple(points[a]), tuple(points[b])], fill=MESH_COLOUR, width=1)
        if face.expected_nme is not None:
            corner = tuple((face.box[:2] * scale).clip(2).tolist())
            pen.text(
                corner, f"{face.expected_nme:.1f} %", fill="white", stroke_fill="black", stroke_width=2, font_size=16
            )
    drawn = np.asarray(canvas, np.uint8)
    for face in faces:
        places = (face.landmarks + 0.5) * scale - 0.5
        drawn = draw_points(drawn, places, _colours(face), scale=1, radius=1.9, rim=0.8)
        if face.keypoints68 is not None:
            drawn = draw_points(
                drawn, (face.keypoints68 + 0.5) * scale - 0.5, KEYPOINT_COLOUR, scale=1, radius=2.2, rim=0.9
            )
    return drawn


def _colours(face: Face) -> UInt8:
    """By depth, or by how unsure the network is of a landmark, if it says that."""
    if face.sigma_px is None:
        return depth_colours(face.landmarks)
    return sigma_colours(face.sigma_px / np.sqrt(np.prod(face.box[2:] - face.box[:2])))


def write_faces(
    faces: list[Face], image: Image, name: str, stem: Path, outputs: tuple[Written, ...], triangles: Int64,
    regressor: Regressor, reconstructor: Reconstructor | None = None,
) -> list[Path]:  # fmt: skip
    """Write the faces of one image: ``STEM.png``, ``STEM.json``, ``STEM.csv``, ``STEM-0.ply``, ``STEM-0.obj``,
    ``STEM-0.mat``; all of them or none.

    name : of the image's file
    reconstructor : makes the fits; needed for them alone
    """
    contents: dict[Path, bytes] = {}
    record = image_record(name, faces, image, triangles, regressor)
    for kind in outputs:
        path = stem.with_name(f"{stem.name}.{kind}")
        if kind == "png":
            contents[path] = png_bytes(draw_faces(image, faces, triangles))
        elif kind == "json":
            contents[path] = (record.model_dump_json() + "\n").encode()
        elif kind == "csv":
            contents[path] = as_csv(faces).encode()
        elif kind == "fit":
            assert reconstructor is not None
            for number, face in enumerate(faces):
                try:
                    found = reconstructor(face.landmarks, len(image), face.sigma_px)
                except SampleError as error:
                    raise FormatError(f"{stem.name}: no fit follows from face {number}: {error}") from error
                contents[stem.with_name(f"{stem.name}-{number}.mat")] = fit_bytes(found.fit, "densetrain predict")
        else:
            for number, face in enumerate(faces):
                path = stem.with_name(f"{stem.name}-{number}.{kind}")
                contents[path] = mesh_bytes(face.landmarks * MESH_FROM_IMAGE, triangles, kind)
    write_many(contents)
    return list(contents)


OF_RESULTS = re.compile(
    r"(.+?)(-\d+)?(-texture|-fits|-identity)?\.(png|json|csv|mp4|jsonl|mat|glb|obj|mtl|ply)", re.IGNORECASE | re.DOTALL
)
"""The name of a result: an input's stem, and what comes behind it."""


class ResultNames:
    """The names of results in a folder: no two inputs have the same, and no result replaces an input.

    In a folder that holds some of the inputs, only results replace what is there: a name whose files are not those of a
    record of the same image, by the same command, counts as taken.

    inputs : files that stay as they are
    after_image : the field that follows the image's name in the command's records
    plain : leave nothing but letters, digits, ``.``, ``_`` and ``-`` in a name, for results that name each other
    """

    def __init__(self, out: Path, inputs: Iterable[Path], *, after_image: str = "network", plain: bool = False) -> None:
        self.out, self.after_image, self.plain, folder = out, after_image, plain, out.resolve()
        in_out = [path.name for path in (one.resolve() for one in inputs) if path.parent == folder]
        there = [path.name for path in folder.iterdir()] if in_out and folder.is_dir() else []
        self._of_inputs, self._of_files = _stems_of_results(in_out), _stems_of_results([*in_out, *there])
        self._given: set[str] = set()

    def stem_of(self, path: Path, *, keep: bool = False) -> Path:
        """The path, without suffix, of an input's results; another one at each call.

        keep : never one with results: they cannot be made again
        """
        first = re.sub(r"[^\w.-]", "_", path.stem) if self.plain else path.stem
        for name in itertools.chain([first], (f"{first}-{number}" for number in itertools.count(2))):
            key = name.casefold()
            if key in self._given or key in self._of_inputs:
                continue
            if keep and any((self.out / f"{name}.{kind}").exists() for kind in ("mp4", "jsonl")):
                continue
            if key not in self._of_files or self._is_ours(self.out / name, path):
                self._given.add(key)
                return self.out / name
        raise AssertionError("counting ends nowhere")

    def _is_ours(self, stem: Path, image: Path) -> bool:
        """Whether a record of the image's stands at the stem already."""
        name = json.dumps(printable(image.name), ensure_ascii=False)
        begin = f'{{"image":{name},"{self.after_image}":'.encode()
        for kind in ("json", "jsonl"):
            with suppress(OSError), stem.with_name(f"{stem.name}.{kind}").open("rb") as file:
                if file.read(len(begin)) == begin:
                    return True
        return False


def _stems_of_results(names: Iterable[str]) -> set[str]:
    """The stems whose results could have these names; some disks take upper and lower case for the same."""
    stems: set[str] = set()
    for match in filter(None, map(OF_RESULTS.fullmatch, names)):
        stem, number, part = match[1].casefold(), match[2] or "", (match[3] or "").casefold()
        stems |= {stem, stem + number, stem + number + part}
    return stems


class Smoother:
    """Landmarks over time: the One Euro filter (Casiez, Roussel, Vogel, CHI 2012), every coordinate by itself.

    Slow movement is smoothed strongly, fast movement follows at once.

    min_cutoff_hz : cutoff at rest
    beta : by how much the cutoff rises with speed, in Hz per (pixels per second)
    """

    def __init__(self, rate_hz: float, min_cutoff_hz: float = 1.5, beta: float = 0.02) -> None:
        self.rate_hz, self.min_cutoff_hz, self.beta = rate_hz, min_cutoff_hz, beta
        self.value: Float64 | None = None
        self.speed: Float64 | None = None

    def __call__(self, landmarks: Float32) -> Float32:
        """The next frame's landmarks, smoothed; same shape."""
        new = landmarks.astype(np.float64)
        if self.value is None or self.speed is None or self.value.shape != new.shape:
            self.value, self.speed = new, np.zeros_like(new)
            return landmarks
        share = self._share(np.full_like(new, 1.0))
        self.speed = self.speed + share * ((new - self.value) * self.rate_hz - self.speed)
        self.value = self.value + self._share(self.min_cutoff_hz + self.beta * np.abs(self.speed)) * (new - self.value)
        return self.value.astype(np.float32)

    def _share(self, cutoff_hz: Float64) -> Float64:
        step: Float64 = 2 * np.pi * cutoff_hz / self.rate_hz
        return step / (step + 1)
