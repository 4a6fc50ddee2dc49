"""Video files and webcams: frames in, frames with landmarks out."""

from __future__ import annotations

import itertools
import os
import shutil
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, replace
from pathlib import Path
from time import monotonic
from typing import Any

import numpy as np

from densegen.arrays import Float64, Image, Int64
from densegen.errors import ConfigurationError, FormatError
from densegen.extras import install_line
from densegen.files import file_size, is_utf8, replace_files
from densegen.geometry.crop import box_around
from densetrain.head_pose import head_pose
from densetrain.network.regressor import Regressor
from densetrain.prediction.boxes import check_boxes_on
from densetrain.prediction.detect import Detector
from densetrain.prediction.drawing import draw_faces
from densetrain.prediction.face import Face
from densetrain.prediction.faces import REFINE, SMALLEST, detected, find_faces
from densetrain.prediction.results import FrameRecord, image_record
from densetrain.prediction.smoothing import Smoother

__all__ = ["Filmed", "Follower", "process_video"]

DEFAULT_RATE_HZ = 25.0
MAX_RATE_HZ = 1000.0
MAX_FRAMES = 100_000_000
TIMED_FRAMES = 240
"""Frames whose times are looked at before a film begins."""


class Follower:
    """Follows the largest face from frame to frame.

    Each frame's crop is laid around the last frame's landmarks; if they are lost, the detector is asked again.

    start : (4,) box of the face in the first frame, else the detector's
    refine : how often at most the crop of a box that is not the last frame's is laid again; by default ``REFINE`` times
        for a detector's, and never for ``start``

    Raises :class:`ConfigurationError` if the vertex index has no subset ibug68 to follow.
    """

    def __init__(
        self, regressor: Regressor, detector: Detector, *, start: Float64 | None = None,
        refine: int | None = None,
    ) -> None:  # fmt: skip
        if "ibug68" not in regressor.index.subsets:
            raise ConfigurationError(f"video is followed by the 68, which {regressor.index.name} lacks")
        self.regressor, self.detector, self.box, self.refine = regressor, detector, start, refine
        self.begins = start is not None
        self.found = start
        """The box that was found last, by the detector or by a person."""
        self.reference = regressor.about.reference
        self.rate_hz: float | None = None
        self.smoother: Smoother | None = None

    def smooth_at(self, rate_hz: float) -> None:
        """From now on, smooth landmarks; the next frame comes at this rate after the last one."""
        self.rate_hz = rate_hz

    def __call__(self, image: Image) -> list[Face]:
        """The face in the next frame, (H, W, 3) uint8 RGB; none if it is lost."""
        face = self._find(image)
        if face is None:
            self.box = self.smoother = None
            return []
        if self.rate_hz is not None:
            self.smoother = self.smoother or Smoother(self.rate_hz)
            self.smoother.rate_hz = self.rate_hz
            landmarks = self.smoother(face.landmarks)
            pose = None if self.reference is None else head_pose(landmarks[None], self.reference)[0]
            keypoints = self.regressor.index.subset("ibug68", landmarks)
            face = replace(face, landmarks=landmarks, keypoints68=keypoints, pose_deg=pose)
        return [face]

    def _find(self, image: Image) -> Face | None:
        """The face near the last one, else the largest that the detector finds; keeps the box to look at next."""
        times = (self.refine or 0) if self.begins else 0
        if self.begins and self.box is not None:
            check_boxes_on(image, self.box[None], "the first frame")
        self.begins = False
        if self.box is not None and (face := self._look(image, self.box, times)) is not None:
            return face
        found = detected(self.detector, image, "a frame of the film")
        if not len(found):
            return None
        self.found, self.smoother = found[0][:4], None
        return self._look(image, self.found, REFINE if self.refine is None else self.refine)

    def _look(self, image: Image, box: Float64, refine: int) -> Face | None:
        """The face in a box; none if its own box is of another size than this one, or lies outside the image. Where no
        face is, the answers shrink from frame to frame, so it is also compared with the box that was found last.
        """
        (face,) = find_faces(self.regressor, image, box[None], refine=refine, reference=self.reference)
        assert face.keypoints68 is not None  # the index has them
        now = box_around(face.keypoints68)
        (height, width), middle = image.shape[:2], (now[:2] + now[2:]) / 2
        assert self.found is not None
        grown, in_all = (float((now[2:] - now[:2]).mean() / (one[2:] - one[:2]).mean()) for one in (box, self.found))
        plausible = 0.4 < grown < 2.5 and 0.2 < in_all < 5 and float((now[2:] - now[:2]).min()) >= SMALLEST
        if not (plausible and 0 <= middle[0] < width and 0 <= middle[1] < height):
            return None
        self.box = now
        return face


@dataclass(frozen=True)
class Filmed:
    """What a film gave: its frames, those with a face, and the frames that the file says it has, if it says it."""

    frames: int
    with_face: int
    expected: int | None

    @property
    def ends_early(self) -> bool:
        # A header's count can be off by one or two.
        return self.expected is not None and self.frames < self.expected - 2


def process_video(
    source: Path | int, follower: Follower, stem: Path, triangles: Int64, *,
    smooth: bool = True, limit: int | None = None, progress: Callable[[int, int | None], None] = lambda n, total: None,
) -> Filmed:  # fmt: skip
    """Write ``STEM.mp4`` with the landmarks drawn and ``STEM.jsonl`` with a line a frame, both or neither.

    source : a file, or a webcam's number; Ctrl-C ends a webcam's recording after the frame in work and keeps it
    stem : path of both files, without their suffixes
    triangles : (F, 3) int64, landmark ids, the mesh to draw
    smooth : whether landmarks are smoothed over time
    limit : only the first so many frames
    progress : gets the number of frames since the last call, and of all, if the file says it

    The MP4 has one rate, the mean of the source's; the lines have each frame's own time. A webcam drops frames while
    the network works: its times are the clock's, and the MP4 shows the last frame until there is a new one.

    Raises :class:`ConfigurationError` if OpenCV is not installed or cannot write, :class:`FormatError` if there is no
    frame, or the film could not be written whole.
    """
    cv2 = _import_opencv()
    if isinstance(source, Path):
        _check_file(source)
    rate_hz, total = _rate_and_length(source, cv2)
    expected = total
    if limit is not None:
        total = min(total or limit, limit)
    reader = _open(source, cv2)
    live = isinstance(source, int)
    name = source.name if isinstance(source, Path) else f"webcam {source}"
    count = seen = 0
    paths = [stem.with_name(f"{stem.name}.{kind}") for kind in ("mp4", "jsonl")]
    try:
        with replace_files(paths) as (film_path, lines_path), _Film(film_path, rate_hz, cv2) as film:
            with lines_path.open("w", encoding="utf-8") as lines, _ctrl_c_noted() if live else nullcontext() as noted:
                frames = _frames(reader, cv2, rate_hz) if noted is None else _live_frames(reader, cv2, noted)
                last_s = -1 / rate_hz
                try:
                    for image, time_s in itertools.islice(frames, limit):
                        time_s = time_s if time_s > last_s else last_s + 1 / rate_hz
                        if smooth:
                            follower.smooth_at(1 / (time_s - last_s))
                        faces = follower(image)
                        drawn = draw_faces(image, faces, triangles, scale=1)
                        film.write(drawn, until=round(time_s * rate_hz) if live else None)
                        found = image_record(name, faces, image, triangles, follower.regressor)
                        record = FrameRecord(number=count, time_s=round(time_s, 4), **dict(found))
                        lines.write(record.model_dump_json() + "\n")
                        count, last_s = count + 1, time_s
                        seen += bool(faces)
                        progress(1, total)
                except KeyboardInterrupt:
                    if not (live and count):
                        raise
                if noted is not None and noted.is_set() and not count:
                    raise KeyboardInterrupt
            if not count:
                what = name if live else str(source)
                raise FormatError(f"{what} gives no frame: not a readable video, or no such camera")
            film.finish(stem)
    finally:
        reader.release()
    return Filmed(count, seen, expected if limit is None or expected is None else min(limit, expected))


def _frames(reader: Any, cv2: Any, rate_hz: float) -> Iterator[tuple[Image, float]]:
    """A file's frames, (H, W, 3) uint8 RGB, and when each is shown, s."""
    for count in itertools.count():
        there, frame = reader.read()
        if not there:
            return
        yield _rgb(frame), _time_s(reader, cv2, count, rate_hz)


def _live_frames(reader: Any, cv2: Any, stop: threading.Event) -> Iterator[tuple[Image, float]]:
    """A camera's frames, all of the size of the first, and how long after it each came, s; until ``stop`` is set, or
    the camera fails.
    """
    start_s, size = 0.0, None
    while not stop.is_set():
        try:
            there, frame = reader.read()
        except cv2.error:
            if size is None:
                raise
            return
        if not there:
            return
        now_s = monotonic()
        if size is None:
            start_s, size = now_s, frame.shape[1::-1]
        yield _rgb(frame if frame.shape[1::-1] == size else cv2.resize(frame, size)), now_s - start_s


def _rgb(frame: Image) -> Image:
    return np.ascontiguousarray(frame[..., ::-1]).astype(np.uint8)


def _check_file(path: Path) -> None:
    try:
        file_size(path)
    except OSError as error:
        raise FormatError(f"{path} is no video: {error.strerror}") from error


def _open(source: Path | int, cv2: Any) -> Any:
    return cv2.VideoCapture(source if isinstance(source, int) else _for_opencv(source))


def _for_opencv(path: Path) -> str:
    """A whole path, since OpenCV takes a name with a colon for an address; one that is not UTF-8 crashes it."""
    if not is_utf8(whole := path.resolve()):
        raise FormatError(f"{path}: OpenCV reads and writes only paths in UTF-8: rename it")
    return str(whole)


def _rate_and_length(source: Path | int, cv2: Any) -> tuple[float, int | None]:
    """Frames a second and frames in all, if that is known.

    The rate that a file's header names is taken if the times of its first frames agree: recordings of browsers and
    phones have none, or another one for every frame.
    """
    reader = _open(source, cv2)
    try:
        named, length = float(reader.get(cv2.CAP_PROP_FPS)), float(reader.get(cv2.CAP_PROP_FRAME_COUNT))
        total = int(length) if not isinstance(source, int) and 0 < length < MAX_FRAMES else None
        times: list[float] = []
        while not isinstance(source, int) and len(times) < TIMED_FRAMES and reader.grab():
            times.append(float(reader.get(cv2.CAP_PROP_POS_MSEC)) / 1000)
    finally:
        reader.release()
    plausible = 0.1 <= named <= MAX_RATE_HZ
    span = times[-1] - times[0] if len(times) > 1 else 0.0
    if span <= 0:
        return (named if plausible else DEFAULT_RATE_HZ), total
    timed = (len(times) - 1) / span
    if plausible and abs(timed / named - 1) < 0.02:
        return named, total
    return min(max(timed, 0.1), MAX_RATE_HZ), total if plausible else None


def _time_s(reader: Any, cv2: Any, count: int, rate_hz: float) -> float:
    """When a file's frame that was just read is shown; files may tell times that stand still or go back."""
    told = float(reader.get(cv2.CAP_PROP_POS_MSEC)) / 1000
    return told if np.isfinite(told) else count / rate_hz


@contextmanager
def _ctrl_c_noted() -> Iterator[threading.Event]:
    """An event that a first Ctrl-C sets; a second one interrupts, as usual: a camera may give nothing any more."""
    noted = threading.Event()
    if threading.current_thread() is not threading.main_thread():  # which alone may say what a signal does
        yield noted
        return

    def note(*_: object) -> None:
        if noted.is_set():
            raise KeyboardInterrupt
        noted.set()

    before = signal.signal(signal.SIGINT, note)
    try:
        yield noted
    finally:
        signal.signal(signal.SIGINT, signal.SIG_DFL if before is None else before)


def _import_opencv() -> Any:
    # What FFmpeg and OpenCV remark of a file would stand beside our own line.
    os.environ.setdefault("OPENCV_FFMPEG_LOGLEVEL", "-8")
    os.environ.setdefault("OPENCV_LOG_LEVEL", "OFF")
    try:
        import cv2
    except ModuleNotFoundError as error:
        raise ConfigurationError(f"video needs OpenCV: {install_line('video')}") from error
    except ImportError as error:  # installed, and a library of the system that it needs is not
        raise ConfigurationError(f"OpenCV is installed, but does not load: {error}") from error
    return cv2


class _Film:
    """An MP4 file that grows frame by frame; a context manager.

    path : a temporary name, which the whole film gets
    """

    def __init__(self, path: Path, rate_hz: float, cv2: Any) -> None:
        self.path, self.rate_hz, self.cv2 = path, _mpeg4_rate(rate_hz), cv2
        # OpenCV tells the container from the name's ending.
        self.unfinished = path.with_name(f"{path.name}.mp4").resolve()
        self.writer: Any = None
        self.frames = 0
        self._last: Image | None = None

    def __enter__(self) -> _Film:
        return self

    def __exit__(self, *_: object) -> None:
        if self.writer is not None:
            self.writer.release()
        self.unfinished.unlink(missing_ok=True)

    def write(self, frame: Image, until: int | None = None) -> None:
        """Add a frame, (H, W, 3) uint8 RGB, as the film's frame ``until``, counted from 0: the last one is repeated
        before it, and one whose place is taken is left out. By default it is the next one.
        """
        if until is not None and until < self.frames:
            return
        while self._last is not None and until is not None and self.frames < until:
            self._add(self._last)
        self._add(frame)
        self._last = frame

    def _add(self, frame: Image) -> None:
        if self.writer is None:
            code, size = self.cv2.VideoWriter.fourcc(*"mp4v"), frame.shape[1::-1]
            self.writer = self.cv2.VideoWriter(_for_opencv(self.unfinished), code, self.rate_hz, size)
            if not self.writer.isOpened():
                raise ConfigurationError(
                    f"OpenCV cannot write an MP4 of {size[0]}x{size[1]} at {self.rate_hz:g} frames/s into "
                    f"{self.path.parent}: its video codecs are missing, the folder is not writable, or the disk is full"
                )
        self.writer.write(np.ascontiguousarray(frame[..., ::-1]))
        self.frames += 1

    def finish(self, stem: Path) -> None:
        """Close the film and look whether it holds all of its frames: OpenCV says nothing of a full disk."""
        self.writer.release()
        look = self.cv2.VideoCapture(str(self.unfinished))
        held = int(look.get(self.cv2.CAP_PROP_FRAME_COUNT)) if look.isOpened() and look.grab() else 0
        look.release()
        if held != self.frames:
            free = shutil.disk_usage(self.path.parent).free >> 20
            raise FormatError(
                f"{stem}.mp4 could not be written whole, {held} of {self.frames} frames: {free} MiB are free; none is "
                "kept"
            )
        self.unfinished.replace(self.path)


def _mpeg4_rate(rate_hz: float) -> float:
    """The nearest rate that MPEG-4 can hold: as a fraction, with a numerator of at most 65,535."""
    return round(rate_hz, 3 if rate_hz < 65 else 2 if rate_hz < 650 else 0)
