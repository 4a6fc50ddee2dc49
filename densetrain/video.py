"""Video files and webcams: frames in, frames with landmarks out."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from densegen.errors import ConfigurationError, FormatError
from densegen.files import replace_file
from densetrain.detect import Detector
from densetrain.head_pose import head_pose
from densetrain.predict import Face, Smoother, draw_faces, faces_as_json, find_faces
from densetrain.regressor import Regressor

__all__ = ["Follower", "process_video"]

ImageArray = npt.NDArray[np.uint8]

DEFAULT_RATE_HZ = 25.0


class Follower:
    """Follows the largest face from frame to frame.

    Each frame's crop is laid around the last frame's landmarks; where they are lost, the detector is asked again.

    start : (4,) box of the face in the first frame, else the detector's
    refine : how often the crop of a detector's box is laid again

    Raises :class:`ConfigurationError` where the vertex index has no subset ibug68 to follow.
    """

    def __init__(
        self, regressor: Regressor, detector: Detector, *, start: npt.NDArray[np.float64] | None = None,
        refine: int = 1,
    ) -> None:  # fmt: skip
        if "ibug68" not in regressor.index.subsets:
            raise ConfigurationError(f"video is followed by the 68, which {regressor.index.name} lacks")
        self.regressor, self.detector, self.box, self.refine = regressor, detector, start, refine
        self.reference = regressor.about.reference
        self.rate_hz: float | None = None
        self.smoother: Smoother | None = None

    def smooth_at(self, rate_hz: float) -> None:
        """From now on, smooth landmarks over frames that come at this rate."""
        self.rate_hz = rate_hz

    def __call__(self, image: ImageArray) -> list[Face]:
        """The face in the next frame, (H, W, 3) uint8 RGB; none where it is lost."""
        face = self._find(image)
        if face is None:
            self.box = self.smoother = None
            return []
        if self.rate_hz is not None:
            self.smoother = self.smoother or Smoother(self.rate_hz)
            landmarks = self.smoother(face.landmarks)
            pose = None if self.reference is None else head_pose(landmarks[None], self.reference)[0]
            keypoints = self.regressor.index.subset("ibug68", landmarks)
            face = replace(face, landmarks=landmarks, keypoints68=keypoints, pose_deg=pose)
        return [face]

    def _find(self, image: ImageArray) -> Face | None:
        """The face near the last one, else the largest that the detector finds; keeps the box to look at next."""
        refine, box = 0, self.box
        if box is None:
            found = self.detector(image)
            if not len(found):
                return None
            box, refine = found[0], self.refine
        (face,) = find_faces(self.regressor, image, box[None], refine=refine, reference=self.reference)
        assert face.keypoints68 is not None  # the index has them
        low, high = face.keypoints68[:, :2].min(axis=0), face.keypoints68[:, :2].max(axis=0)
        self.box = np.concatenate([low, high]).astype(np.float64)
        (height, width), middle = image.shape[:2], (low + high) / 2
        plausible = 0.4 < float((high - low).mean() / (box[2:] - box[:2]).mean()) < 2.5
        inside = 0 <= middle[0] < width and 0 <= middle[1] < height
        return face if plausible and inside else None


def process_video(
    source: Path | int, follower: Follower, stem: Path, triangles: npt.NDArray[np.int64], *,
    smooth: bool = True, limit: int | None = None, progress: Callable[[int, int | None], None] = lambda n, total: None,
) -> tuple[int, int]:  # fmt: skip
    """Write ``STEM.mp4`` with the landmarks drawn and ``STEM.json`` with a line a frame; frames, and those with a face.

    source : a file, or a webcam's number, whose recording Ctrl-C ends and keeps
    progress : gets the number of frames since the last call, and of all, where the file says it

    Raises :class:`ConfigurationError` where OpenCV is not installed or cannot write, :class:`FormatError` where there
    is no frame.
    """
    cv2 = _import_opencv()
    reader = cv2.VideoCapture(source if isinstance(source, int) else str(source))
    rate_hz = float(reader.get(cv2.CAP_PROP_FPS)) or DEFAULT_RATE_HZ
    if smooth:
        follower.smooth_at(rate_hz)
    total = None if isinstance(source, int) else int(reader.get(cv2.CAP_PROP_FRAME_COUNT)) or None
    if limit is not None:
        total = min(total or limit, limit)
    count = seen = 0
    try:
        with (
            _video_file(stem.with_name(f"{stem.name}.mp4"), rate_hz, cv2) as write,
            replace_file(stem.with_name(f"{stem.name}.json")) as lines_path,
            lines_path.open("w", encoding="utf-8") as lines,
        ):
            try:
                while limit is None or count < limit:
                    there, frame = reader.read()
                    if not there:
                        break
                    image = np.ascontiguousarray(frame[..., ::-1]).astype(np.uint8)
                    faces = follower(image)
                    write(draw_faces(image, faces, triangles, scale=1))
                    lines.write(json.dumps({"number": count, **faces_as_json(faces, image, follower.regressor)}) + "\n")
                    count += 1
                    seen += bool(faces)
                    progress(1, total)
            except KeyboardInterrupt:
                if not isinstance(source, int):
                    raise
            if not count:
                what = f"webcam {source}" if isinstance(source, int) else str(source)
                raise FormatError(f"{what} gives no frame: not a readable video, or no such camera")
    finally:
        reader.release()
    return count, seen


def _import_opencv() -> Any:
    try:
        import cv2
    except ImportError as error:
        raise ConfigurationError("video needs OpenCV: pip install 'densegen[video]'") from error
    return cv2


@contextmanager
def _video_file(path: Path, rate_hz: float, cv2: Any) -> Iterator[Callable[[ImageArray], None]]:
    """What writes a frame, (H, W, 3) uint8 RGB, into an MP4 file that is whole or not there."""
    writer: Any = None
    with replace_file(path) as temporary:
        # OpenCV tells the container from the name's ending.
        unfinished = temporary.with_name(f"{temporary.name}.mp4")

        def write(frame: ImageArray) -> None:
            nonlocal writer
            if writer is None:
                writer = cv2.VideoWriter(str(unfinished), cv2.VideoWriter.fourcc(*"mp4v"), rate_hz, frame.shape[1::-1])
                if not writer.isOpened():
                    raise ConfigurationError("OpenCV cannot write MP4 here: its video codecs are missing")
            writer.write(np.ascontiguousarray(frame[..., ::-1]))

        try:
            yield write
            if writer is not None:
                writer.release()
                unfinished.replace(temporary)
        finally:
            if writer is not None:
                writer.release()
            unfinished.unlink(missing_ok=True)
