"""``densetrain predict``, ``annotate`` and ``export``."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, get_args

import click

from densegen.console import ProgressBar, counted, refuse_unread, say
from densegen.outputs import check_output, refuse_no_folder
from densetrain.choices import DetectorName, Variant, Written
from densetrain.cli.inputs import first_box, refuse_failed, refuse_idle, refuse_short, run_each

if TYPE_CHECKING:
    from densegen.arrays import Int64
    from densegen.fitting.reconstruction import Reconstructor
    from densetrain.network.regressor import Regressor
    from densetrain.prediction.boxes import Boxes


__all__ = ["annotate", "export", "predict"]

PATH = click.Path(path_type=Path)


@click.command(short_help="Find landmarks in images and video.")
@click.argument("paths", metavar="[RUN] IMAGES...", nargs=-1, type=PATH)
@click.option("--onnx", type=PATH, help="an exported .onnx file instead of RUN")
@click.option("--out", type=PATH, default=Path("landmarks"), show_default=True, help="folder for what is written")
@click.option("--box", type=float, nargs=4, help="left top right bottom of the face's 68 points, pixels")
@click.option("--boxes", "boxes_file", type=PATH, help='JSON file: {"a.jpg": [[left, top, right, bottom], ...]}')
@click.option("--detector", type=click.Choice(get_args(DetectorName)), default="auto", show_default=True,
              help="what finds faces: yunet if its file is here, else cascade")  # fmt: skip
@click.option("--refine", type=click.IntRange(0, 5), help="how often at most the crop is laid again "
              "around what was found  [default: 2 for a detector's box, 0 for a given one]")  # fmt: skip
@click.option("--write", "outputs", multiple=True, type=click.Choice(get_args(Written)),
              help="may be repeated  [default: png, json]")  # fmt: skip
@click.option("--model", "model_path", type=PATH, help="morphable model, for --write fit")
@click.option("--prior", "prior_path", type=PATH, help="folder of fits that say what faces are like, for --write fit")
@click.option("--webcam", type=click.IntRange(0, 99), help="number of a webcam; Ctrl-C ends the recording")
@click.option("--smooth/--no-smooth", default=True, show_default=True, help="landmarks of video over time")
@click.option("--limit", type=click.IntRange(1), help="only so many frames of video")
@click.option("--drop-above", type=click.FloatRange(0, min_open=True), metavar="PERCENT",
              help="leave out found faces whose expected NME is larger; needs --flip-test")  # fmt: skip
@click.option("--flip-test", is_flag=True, help="average with the mirrored crop, at twice the cost; turn doubtful ones")
@click.option("--device", default="cpu", show_default=True, help="torch's name of it")
def predict(
    paths: tuple[Path, ...], onnx: Path | None, webcam: int | None, flip_test: bool, device: str, **options: Any
) -> None:
    """Find landmarks on images, folders of them, video files or a webcam.

    RUN is a run's folder, a checkpoint, the folder of an export, .safetensors or .onnx, which needs no torch. Draws the
    mesh, the landmarks and the 68, and writes coordinates and the head pose.

    \b
    reads    RUN; images (.jpg, .png), folders of them, video
    writes   OUT/NAME.json, NAME.png; --write chooses others
    example  densetrain predict run photo.jpg --out landmarks
    """
    from densegen.errors import ConfigurationError
    from densegen.files import remove_leftovers
    from densegen.index.formats.mesh import landmark_triangles
    from densegen.sources.photograph import IMAGE_SUFFIXES
    from densetrain.network.regressor import open_regressor
    from densetrain.prediction.boxes import Boxes
    from densetrain.prediction.inputs import VIDEO_SUFFIXES, list_images, passed_over
    from densetrain.prediction.predict import check_drop

    if onnx is None and not paths:
        raise click.UsageError("give a RUN, or --onnx")
    if onnx is not None and onnx.suffix != ".onnx":
        raise ConfigurationError(f"{onnx} is no .onnx file: give a run's folder or checkpoint before the images")
    if onnx is None and paths[0].suffix.lower() in (*IMAGE_SUFFIXES, *VIDEO_SUFFIXES):
        raise ConfigurationError(f"{paths[0]} is no network: RUN comes first, then the images")
    images = paths if onnx is not None else paths[1:]
    if not images and webcam is None:
        raise click.UsageError("give images, a folder, a video, or --webcam")
    # What is wrong with the inputs is said before a network is loaded.
    # Of a folder, what --write is not for is passed over.
    inputs = list_images(images, video=not options["outputs"]) if images else []
    if others := passed_over(images):
        kinds = ", ".join(f"{count:,} {suffix}" for suffix, count in others.items())
        say(f"passed over, convert them to JPEG or PNG: {kinds}", err=True)
    filming = webcam is not None or any(path.suffix.lower() in VIDEO_SUFFIXES for path in inputs)
    asked = _checked(_Asked(**options), filming=filming, webcam_alone=not inputs)
    boxes = Boxes.read(asked.box, asked.boxes_file)
    refuse_no_folder(asked.out)
    regressor = open_regressor(onnx or paths[0], device, flip_test=flip_test)
    check_drop(regressor, asked.drop_above)
    job = _Job(asked, regressor, landmark_triangles(regressor.index), boxes, inputs)
    remove_leftovers(asked.out, untouched_s=3600)
    failed = run_each(inputs, job.run)
    if webcam is not None:
        job.film(webcam, job.names.stem_of(Path(f"webcam-{webcam}"), keep=True))
    refuse_failed(failed, inputs)


@dataclass(frozen=True)
class _Asked:
    """The options of a prediction; see ``predict``."""

    out: Path
    box: tuple[float, float, float, float] | None
    boxes_file: Path | None
    detector: DetectorName
    refine: int | None
    drop_above: float | None
    outputs: tuple[Written, ...]
    model_path: Path | None
    prior_path: Path | None
    smooth: bool
    limit: int | None


def _checked(asked: _Asked, *, filming: bool, webcam_alone: bool) -> _Asked:
    """The options, with the model that is remembered if one is needed; raises what is wrong with them.

    filming : whether there is video among the inputs
    webcam_alone : whether there is nothing else
    """
    from densegen.errors import ConfigurationError
    from densegen.remembered import remembered_model

    if asked.outputs and filming:
        raise ConfigurationError("--write is for images: video gives .mp4 and .jsonl")
    if asked.drop_above is not None and filming:
        raise ConfigurationError("--drop-above is for images: video follows one face")
    if asked.drop_above is not None and (asked.box or asked.boxes_file):
        raise click.UsageError("--drop-above is for faces that a detector finds, not for given boxes")
    if webcam_alone:
        refuse_unread({"boxes_file"}, "a webcam")
    refuse_idle(asked.box, asked.boxes_file, filming=filming)
    if asked.prior_path is not None and "fit" not in asked.outputs:
        raise click.UsageError("--prior is for --write fit")
    if "fit" in asked.outputs and asked.model_path is None:
        asked = replace(asked, model_path=remembered_model())
    if (asked.model_path is not None) != ("fit" in asked.outputs):
        raise click.UsageError("--write fit needs a --model, and a --model is for --write fit")
    return asked


class _Job:
    """One call of ``predict``: the network, and what to do with each input."""

    def __init__(self, asked: _Asked, regressor: Regressor, triangles: Int64, boxes: Boxes, inputs: list[Path]) -> None:
        from densetrain.prediction.detect import opened_when_asked
        from densetrain.prediction.result_files import ResultNames

        self.asked, self.regressor, self.triangles, self.boxes = asked, regressor, triangles, boxes
        self.detect = opened_when_asked(asked.detector)
        self.reconstructor = self._reconstructor()
        self.names = ResultNames(asked.out, (*inputs, *filter(None, [asked.boxes_file])))

    def run(self, path: Path) -> None:
        from densetrain.prediction.inputs import VIDEO_SUFFIXES, read_image
        from densetrain.prediction.predict import predict as find
        from densetrain.prediction.result_files import write_faces

        stem = self.names.stem_of(path)
        if path.suffix.lower() in VIDEO_SUFFIXES:
            self.film(path, stem)
            return
        image = read_image(path)
        faces = find(
            self.regressor, image, self.boxes.of(path), detector=self.detect,
            refine=self.asked.refine, drop_above=self.asked.drop_above, name=path.name,
        )  # fmt: skip
        outputs = self.asked.outputs or ("png", "json")
        made = write_faces(faces, image, path.name, stem, outputs, self.triangles, self.regressor, self.reconstructor)
        say(f"{path}: {counted(len(faces), 'face')}: {', '.join(map(str, made))}")

    def _reconstructor(self) -> Reconstructor | None:
        from densegen.face.model_file import read_model
        from densegen.fitting.model_points import landmark_points
        from densegen.fitting.prior import read_prior
        from densegen.fitting.reconstruction import Reconstructor

        if self.asked.model_path is None:
            return None
        model = read_model(self.asked.model_path)
        points = landmark_points(model, self.regressor.index)
        return Reconstructor(model, points, read_prior(self.asked.prior_path, model))

    def film(self, source: Path | int, stem: Path) -> None:
        from densetrain.prediction.video import Follower, process_video

        boxes = self.boxes.everywhere if isinstance(source, int) else self.boxes.of(source)
        start = first_box(boxes, source)
        follower = Follower(self.regressor, self.detect, start=start, refine=self.asked.refine)
        with ProgressBar("filming", "frames") as bar:
            film = process_video(
                source, follower, stem, self.triangles, smooth=self.asked.smooth, limit=self.asked.limit,
                progress=bar.advance_of,
            )  # fmt: skip
        say(f"{source}: {film.frames:,} frames, a face in {film.with_face:,}: {stem}.mp4, {stem}.jsonl")
        refuse_short(film, source)


@click.command(short_help="Write a network's landmarks of fits' faces.")
@click.argument("run", type=PATH)
@click.argument("root", type=PATH)
@click.option("--out", type=PATH, required=True, help="NumPy archive (.npz)")
@click.option("--manifest", "manifest_name", help="where ROOT's fits lie  [default: ROOT/manifest.yaml, else anywhere]")
@click.option("--model", "model_path", type=PATH, help="morphable model that says where a fit's 68 points lie, as in a "
              "build  [default: the fit's file says it]")  # fmt: skip
@click.option("--flip-test/--no-flip-test", default=True, show_default=True, help="average with the mirrored crop")
@click.option("--device", default="cpu", show_default=True, help="torch's name of it")
def annotate(
    run: Path, root: Path, out: Path, manifest_name: str | None, model_path: Path | None, flip_test: bool, device: str
) -> None:
    """Write what RUN says of the faces of the fits in the folder ROOT, to move the fits onto it.

    Each crop is laid around the 68 points of a fit: pt3d_68 of its file, or the posed mesh's with --model. 'densegen
    fits refine' reads OUT, together with a person's points if there are some.

    \b
    reads    RUN (as 'predict' takes it), ROOT's fits and photographs, --model
    writes   OUT (names, landmarks in pixels of the photographs)
    example  densetrain annotate run faces --out network.npz
    """
    from densegen.errors import FormatError
    from densegen.face.model_file import read_model
    from densegen.files import replace_file
    from densegen.sources.manifest_init import fits_below
    from densetrain.network.regressor import open_regressor
    from densetrain.prediction.annotate import annotate as ask

    check_output(out, run, kind=".npz")
    _, entries = fits_below(root, manifest_name)
    model = None if model_path is None else read_model(model_path, mapped=True)
    network = open_regressor(run, device, flip_test=flip_test)
    with replace_file(out) as temporary:  # if it cannot be written, that is said before the work
        temporary.touch()
        with ProgressBar("annotating", "faces") as bar:
            bar.start(len(entries))
            found = ask(network, entries, root, model, bar.advance)
        if found.passed_over:
            name, why = found.passed_over[0]
            say(f"passed over: {len(found.passed_over):,}, the first: {name}: {why}", err=True)
        if not found.names:
            remedy = "" if model is not None else "; with --model a fit needs no pt3d_68 in its file"
            raise FormatError(f"not one of {len(entries):,} fits in {root} has its 68 points and a photograph{remedy}")
        temporary.write_bytes(found.to_npz())
    say(f"{out}: {len(found.names):,} faces, {len(network.index)} landmarks each")
    where = f" --manifest {manifest_name}" if manifest_name else ""
    say(f"next: 'densegen fits refine {root}{where} --landmarks {out} --sigma 0.4 --out ...'")


@click.command(short_help="Write a network as ONNX and safetensors.")
@click.argument("run", type=PATH)
@click.option("--out", type=PATH, required=True, help="folder for the files")
@click.option("--variant", "variants", multiple=True, type=click.Choice(get_args(Variant)),
              help="of ONNX; may be repeated  [default: fp32]")  # fmt: skip
@click.option("--calibrate", type=PATH, help="finished build: its crops calibrate int8 and check the files")
@click.option("--samples", type=click.IntRange(1), default=64, show_default=True, help="crops of --calibrate")
def export(run: Path, out: Path, variants: tuple[str, ...], calibrate: Path | None, samples: int) -> None:
    """Write RUN as ONNX and safetensors with a model card; each ONNX file is checked against torch.

    \b
    reads    RUN, --calibrate
    writes   OUT/model.onnx, model.safetensors, config.json, README.md
    example  densetrain export run --out model --variant fp16
    """
    from densetrain.network.checkpoint import load_regressor
    from densetrain.network.export import check_folder
    from densetrain.network.export import export as write_export

    if calibrate is None:
        refuse_unread({"samples"}, "an export without --calibrate")
    check_folder(out)
    regressor = load_regressor(run)
    crops = None
    if calibrate is not None:
        import numpy as np

        from densegen.dataset.shard_set import open_dataset
        from densetrain.evaluation.evaluate import check_belongs

        shards = open_dataset(calibrate)
        check_belongs(regressor, shards)
        rows = shards.rows("train")
        reader = shards.open()
        spread = np.linspace(0, len(rows) - 1, min(samples, len(rows))).round().astype(np.int64)
        crops = reader.images(rows[spread])
        reader.close()
    with ProgressBar("exporting", "files") as bar:
        bar.start(len({"fp32", *variants}))
        made = write_export(regressor, out, variants or ("fp32",), crops, bar.advance)
    for one in made:
        say(f"{one.path}: largest difference {one.largest_px:.2g} px, mean {one.mean_px:.2g} px")
    say(str(out / "model.safetensors"))
