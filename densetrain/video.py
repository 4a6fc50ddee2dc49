"""Video files and webcams: frames in, frames with landmarks out."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from densegen.errors import ConfigurationError, FormatError
from densegen.files import replace_file, write_text
from densetrain.detect import Detector
from densetrain.head_pose import head_pose
from densetrain.predict import Face, Smoother, draw_faces, faces_as_json, find_faces
from densetrain.regressor import Regressor

__all__ = ["process_video"]

DEFAULT_RATE = 25.0


def process_video(
    source: Path | int, regressor: Regressor, detector: Detector, stem: Path, triangles: npt.NDArray[np.int64], *,
    smooth: bool = True, reference: npt.NDArray[np.float64] | None = None, limit: int | None = None,
    start: npt.NDArray[np.float64] | None = None, refine: int = 1,
    progress: Callable[[int], None] = lambda n: None,
) -> tuple[int, int]:  # fmt: skip
    """Write ``STEM.mp4`` with the landmarks drawn and ``STEM.json`` with a line a frame; frames, and those with a face.

    source : a file, or a webcam's number. The largest face is followed: each frame's crop is laid around the last
    frame's landmarks, and the detector is asked again when they are lost. Ctrl-C ends a webcam's recording.
    start : (4,) box of the face in the first frame, else the detector's
    refine : how often the crop of a detector's box is laid again

    Raises :class:`ConfigurationError` where OpenCV is not installed or the vertex index has no subset ibug68 to follow,
    :class:`FormatError` where there is no frame.
    """
    if "ibug68" not in regressor.index.subsets:
        raise ConfigurationError(f"video is followed by the 68, which {regressor.index.name} lacks")
    try:
        import cv2
    except ImportError as error:
        raise ConfigurationError("video needs OpenCV: pip install 'densegen[video]'") from error
    reader = cv2.VideoCapture(source if isinstance(source, int) else str(source))
    rate = float(reader.get(cv2.CAP_PROP_FPS)) or DEFAULT_RATE
    smoother = Smoother(rate) if smooth else None
    box = start
    lines: list[str] = []
    seen = 0
    writer: Any = None
    # OpenCV tells the container from the name's ending, so the temporary file keeps it.
    try:
        with replace_file(stem.with_name(f"{stem.name}.mp4")) as temporary:
            unfinished = temporary.with_name(f"{temporary.name}.mp4")
            try:
                while limit is None or len(lines) < limit:
                    there, frame = reader.read()
                    if not there:
                        break
                    image = np.ascontiguousarray(frame[..., ::-1]).astype(np.uint8)
                    faces, box = _follow(image, regressor, detector, box, reference, refine)
                    if faces and smoother is not None:
                        smoothed = smoother(faces[0].landmarks)
                        points = regressor.index.subset("ibug68", smoothed)
                        pose = None if reference is None else head_pose(smoothed[None], reference)[0]
                        faces = [replace(faces[0], landmarks=smoothed, keypoints68=points, pose_deg=pose)]
                    seen += bool(faces)
                    drawn = draw_faces(image, faces, triangles, scale=1)
                    if writer is None:
                        size = (drawn.shape[1], drawn.shape[0])
                        writer = cv2.VideoWriter(str(unfinished), cv2.VideoWriter.fourcc(*"mp4v"), rate, size)
                        if not writer.isOpened():
                            raise ConfigurationError("OpenCV cannot write MP4 here: its video codecs are missing")
                    writer.write(np.ascontiguousarray(drawn[..., ::-1]))
                    lines.append(json.dumps({"number": len(lines), **faces_as_json(faces)}))
                    progress(1)
            except KeyboardInterrupt:
                pass  # what was recorded is kept
            finally:
                reader.release()
                if writer is not None:
                    writer.release()
            if not lines:
                unfinished.unlink(missing_ok=True)
                what = f"webcam {source}" if isinstance(source, int) else str(source)
                raise FormatError(f"{what} gives no frame: not a readable video, or no such camera")
            unfinished.replace(temporary)
    finally:
        reader.release()
    write_text(stem.with_name(f"{stem.name}.json"), "".join(f"{line}\n" for line in lines))
    return len(lines), seen


def _follow(
    image: npt.NDArray[np.uint8],
    regressor: Regressor,
    detector: Detector,
    box: npt.NDArray[np.float64] | None,
    reference: npt.NDArray[np.float64] | None,
    refine: int,
) -> tuple[list[Face], npt.NDArray[np.float64] | None]:
    """The face near ``box``, or the largest that the detector finds; and the box to look at next."""
    again = 0
    if box is None:
        found = detector(image)
        if not len(found):
            return [], None
        box, again = found[0], refine
    faces = find_faces(regressor, image, box[None], refine=again, reference=reference)
    keypoints = faces[0].keypoints68
    assert keypoints is not None  # the index has them
    low, high = keypoints[:, :2].min(axis=0), keypoints[:, :2].max(axis=0)
    height, width = image.shape[:2]
    middle = (low + high) / 2
    plausible = 0.4 < float((high - low).mean() / (box[2:] - box[:2]).mean()) < 2.5
    if not plausible or not (0 <= middle[0] < width and 0 <= middle[1] < height):
        return [], None
    return faces, np.concatenate([low, high]).astype(np.float64)
