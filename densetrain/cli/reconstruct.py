"""``densetrain reconstruct``: the whole surface of faces in photographs."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, get_args

import click

from densegen.console import counted, refuse_unread, say
from densegen.outputs import refuse_no_folder
from densegen.remembered import model_option
from densetrain.choices import DetectorName, Reconstructed
from densetrain.cli.inputs import first_box, refuse_failed, refuse_idle, refuse_short, run_each

if TYPE_CHECKING:
    from densegen.arrays import Float64, Image
    from densegen.face.morphable_model import MorphableModel
    from densegen.fitting.prior import Prior
    from densegen.fitting.reconstruction import Reconstructor
    from densetrain.network.regressor import Regressor
    from densetrain.prediction.boxes import Boxes
    from densetrain.prediction.detect import Detector
    from densetrain.prediction.result_files import ResultNames

__all__ = ["reconstruct"]

PATH = click.Path(path_type=Path)


@click.command(short_help="Find the whole surface of faces.")
@click.argument("paths", metavar="[RUN] IMAGES...", nargs=-1, type=PATH)
@model_option("morphable model that the surface is of")
@click.option("--landmarks", type=PATH,
              help="anybody's landmarks instead of RUN: as 'densegen fits make' reads them")  # fmt: skip
@click.option("--points", "kind", type=click.Choice(["ibug68", "aflw21", "names"]),
              help="what --landmarks are  [default: by their number]")  # fmt: skip
@click.option("--names", type=PATH, help="text file of one photograph a line, for --landmarks in a .npy file")
@click.option("--first-pixel", type=click.IntRange(0, 1), help="of --landmarks  [default: 1 in .pts, else 0]")
@click.option("--prior", "prior_path", type=PATH,
              help="folder of fits that say what faces are like  [default: the model's own spread]")  # fmt: skip
@click.option("--out", type=PATH, default=Path("faces"), show_default=True, help="folder for what is written")
@click.option("--box", type=float, nargs=4, help="left top right bottom of the face's 68 points, pixels")
@click.option("--boxes", "boxes_file", type=PATH, help='JSON file: {"a.jpg": [[left, top, right, bottom], ...]}')
@click.option("--detector", type=click.Choice(get_args(DetectorName)), default="auto", show_default=True,
              help="what finds faces: yunet if its file is here, else cascade")  # fmt: skip
@click.option("--write", "outputs", multiple=True, type=click.Choice(get_args(Reconstructed)),
              help="may be repeated  [default: png, json, glb, mat]")  # fmt: skip
@click.option("--sigma", type=click.FloatRange(1e-4, 0.5), help="how far a landmark is off, by the face's size")
@click.option("--flip-test", is_flag=True, help="average with the mirrored crop, at twice the cost; turn doubtful ones")
@click.option("--limit", type=click.IntRange(1), help="only so many frames of video")
@click.option("--device", default="cpu", show_default=True, help="torch's name of it")
def reconstruct(
    paths: tuple[Path, ...], model_path: Path, landmarks: Path | None, out: Path, device: str, flip_test: bool,
    **options: Any,
) -> None:  # fmt: skip
    """Find the whole surface of faces in images, or in video, whose frames share one identity.

    The morphable model's face that explains the landmarks best: coefficients, pose, the residual of each landmark
    (json), the mesh with the photograph as texture (glb, obj, ply), the fit as 300W-LP stores it (mat), and a picture.

    \b
    reads    RUN or --landmarks, images, --model, --prior
    writes   OUT/NAME-0.glb, .mat, .json, NAME.png
    example  densetrain reconstruct run photo.jpg --model bfm.safetensors
    """
    from densegen.face.model_file import read_model
    from densegen.files import remove_leftovers
    from densetrain.network.regressor import open_regressor
    from densetrain.prediction.inputs import VIDEO_SUFFIXES, list_images

    if len(paths) < (1 if landmarks is not None else 2):
        raise click.UsageError("give a RUN and images, or images and --landmarks")
    of_network, of_file = (
        ("box", "boxes_file", "flip_test", "detector", "limit", "device"),
        ("kind", "names", "first_pixel"),
    )
    refuse_unread(of_file if landmarks is None else of_network, "a RUN" if landmarks is None else "--landmarks")
    inputs = list_images(paths if landmarks is not None else paths[1:])
    asked = _Asked(**options)
    if landmarks is None:
        filming = any(path.suffix.lower() in VIDEO_SUFFIXES for path in inputs)
        refuse_idle(asked.box, asked.boxes_file, filming=filming)
    refuse_no_folder(out)
    model = read_model(model_path)
    if landmarks is not None:
        job = _job_of_landmarks(landmarks, model, inputs, out, asked)
    else:
        job = _job_of_network(open_regressor(paths[0], device, flip_test=flip_test), model, inputs, out, asked)
    remove_leftovers(out, untouched_s=3600)
    refuse_failed(run_each(inputs, job.run), inputs)


@dataclass(frozen=True)
class _Asked:
    """The options of a reconstruction; see ``reconstruct``."""

    kind: str | None
    names: Path | None
    first_pixel: int | None
    prior_path: Path | None
    box: tuple[float, float, float, float] | None
    boxes_file: Path | None
    detector: DetectorName
    outputs: tuple[Reconstructed, ...]
    sigma: float | None
    limit: int | None

    @property
    def kinds(self) -> tuple[Reconstructed, ...]:
        return self.outputs or ("png", "json", "glb", "mat")

    @property
    def boxes(self) -> Boxes:
        """The boxes that were given."""
        from densetrain.prediction.boxes import Boxes

        return Boxes.read(self.box, self.boxes_file)


_Found = list[tuple["Float64", "Float64 | None"]]
"""Landmarks of each face, px, image frame, and the sigma of each, px, if it is known."""


@dataclass(frozen=True)
class _Job:
    """One call of ``reconstruct``: how landmarks are found, and what is made of them.

    network, detect : find faces in video; None if the landmarks come from a file
    names : of the results
    """

    find: Callable[[Path, Image], _Found]
    reconstructor: Reconstructor
    network: Regressor | None
    detect: Detector | None
    names: ResultNames
    asked: _Asked

    def run(self, path: Path) -> None:
        from densegen.errors import FormatError, SampleError
        from densegen.files import write_many
        from densegen.fitting.face_mesh import reconstruction_files
        from densegen.sources.photograph import read_photograph
        from densetrain.prediction.inputs import VIDEO_SUFFIXES, read_image

        stem = self.names.stem_of(path)
        if path.suffix.lower() in VIDEO_SUFFIXES:
            self._film(path, stem)
            return
        # A person's landmarks are of the pixels as they are stored.
        image = read_image(path) if self.network is not None else read_photograph(path)
        found, faces, failed = self.find(path, image), [], []
        for number, (points, sigma) in enumerate(found):
            try:
                faces.append(self.reconstructor(points, len(image), sigma))
            except SampleError as error:
                failed.append(f"face {number}: {error}" if len(found) > 1 else str(error))
        if not faces and failed:
            raise FormatError(f"{path.name}: {failed[0]}")
        contents = reconstruction_files(faces, self.reconstructor, image, stem.name, self.asked.kinds, path.name)
        write_many({stem.with_name(name): data for name, data in contents.items()})
        errors = ", ".join(f"{face.error_percent:.2f} %" for face in faces)
        say(f"{path}: {counted(len(faces), 'face')}, landmarks explained to {errors}: {stem}*")
        if failed:
            raise FormatError(f"{path.name}: {failed[0]}; of {len(found)} faces {len(faces)} were written")

    def _film(self, path: Path, stem: Path) -> None:
        from densegen.console import ProgressBar
        from densegen.errors import FormatError
        from densetrain.prediction.video_surface import reconstruct_video

        if self.network is None or self.detect is None:
            raise FormatError(f"{path.name}: --landmarks are of images, not of video: give a RUN")
        if self.asked.outputs:
            raise FormatError(
                f"{path.name}: --write is for images: video gives .mp4, .jsonl, -fits.json and -identity.ply"
            )
        boxes = self.asked.boxes.of(path)
        with ProgressBar("filming", "frames") as bar:
            film = reconstruct_video(
                path, self.network, self.detect, self.reconstructor, stem, start=first_box(boxes, path),
                limit=self.asked.limit, progress=bar.advance_of,
            )  # fmt: skip
        say(
            f"{path}: {film.frames:,} frames, a face in {film.with_face:,}, one identity: "
            f"{stem}.mp4, .jsonl, -fits.json, -identity.ply"
        )
        refuse_short(film, path)


def _job_of_network(network: Regressor, model: MorphableModel, inputs: list[Path], out: Path, asked: _Asked) -> _Job:
    import numpy as np

    from densegen.fitting.model_points import landmark_points
    from densegen.fitting.reconstruction import NETWORK_SIGMA, Reconstructor
    from densetrain.prediction.detect import opened_when_asked
    from densetrain.prediction.predict import predict

    boxes, detect = asked.boxes, opened_when_asked(asked.detector)
    sigma = asked.sigma or NETWORK_SIGMA
    reconstructor = Reconstructor(model, landmark_points(model, network.index), _prior(asked, model), sigma=sigma)

    def find(path: Path, image: Image) -> _Found:
        faces = predict(network, image, boxes.of(path), detector=detect, name=path.name)
        own = asked.sigma is None
        return [(face.landmarks.astype(np.float64), face.sigma_px if own else None) for face in faces]

    taken = [*inputs, *filter(None, [asked.boxes_file])]
    return _Job(find, reconstructor, network, detect, _names(out, taken, asked), asked)


def _job_of_landmarks(path: Path, model: MorphableModel, inputs: list[Path], out: Path, asked: _Asked) -> _Job:
    from densegen.errors import FormatError
    from densegen.fitting.face_tasks import marks_of_photograph
    from densegen.fitting.fitter import SIGMA, points_of
    from densegen.fitting.reconstruction import Reconstructor
    from densegen.index.vertex_index import read_index
    from densegen.sources.annotations import read_annotations

    annotations = read_annotations(path, kind=asked.kind, first_pixel=asked.first_pixel, names=asked.names)
    points = points_of(annotations, model, read_index())
    sigma = asked.sigma or SIGMA
    reconstructor = Reconstructor(model, points, _prior(asked, model), robust=True, sigma=sigma)

    def find(image_path: Path, image: Image) -> _Found:
        found = marks_of_photograph(image_path, annotations)
        if not found:
            raise FormatError(f"{path.name} has no landmarks of {image_path.name}")
        return [(face.points, None) for face in found]

    taken = [*inputs, *filter(None, [path, asked.names])]
    return _Job(find, reconstructor, None, None, _names(out, taken, asked), asked)


def _names(out: Path, inputs: list[Path], asked: _Asked) -> ResultNames:
    from densetrain.prediction.result_files import ResultNames

    return ResultNames(out, inputs, after_image="faces", plain="obj" in asked.kinds)


def _prior(asked: _Asked, model: MorphableModel) -> Prior:
    from densegen.fitting.prior import read_prior

    return read_prior(asked.prior_path, model)
