"""A corpus of portraits in the 300W-LP layout: jpg and mat side by side, and the model they were made with."""

from __future__ import annotations

import re
from collections.abc import Callable
from functools import lru_cache, partial
from pathlib import Path

import numpy as np
import simplejpeg

from densegen.arrays import Float32, Image
from densegen.errors import BuildError, ConfigurationError
from densegen.executors import INLINE, Pool
from densegen.face.model_file import read_model, write_model
from densegen.files import LOCK_NAMES, is_leftover, only_one, remove_leftovers, write_bytes, write_text
from densegen.geometry.pose import pose_vertices
from densegen.outputs import refuse_no_folder
from densegen.sources.fits import Fit, complete_fit, fit_bytes
from densegen.synthetic.appearance import Appearance, random_appearance
from densegen.synthetic.face import face_model
from densegen.synthetic.portrait import draw_portrait, random_light

__all__ = [
    "DRAWN",
    "MANIFEST_NAME",
    "MODEL_NAME",
    "POSES_PER_PERSON",
    "SUBSET",
    "check_corpus_folder",
    "corpus_manifest",
    "make_portrait",
    "random_pose",
    "write_corpus",
    "write_corpus_manifest",
]

SUBSET = "SYNTH"
MODEL_NAME = "model.safetensors"
MANIFEST_NAME = "manifest.yaml"
DRAWN = "# Procedural faces, drawn by 'densegen synth"
"""How the manifest of a drawn corpus begins."""

MAKER = "densegen procedural face"

IMAGE_SIZE = 450
POSES_PER_PERSON = 4
"""Portraits of one person with one expression, as 300W-LP turns one photograph to several yaw angles."""


def make_portrait(seed: int, number: int) -> tuple[Fit, Image]:
    """Portrait ``number`` of the corpus with this seed, and its exact fit; depends on nothing else.

    returns : the fit, and (450, 450, 3) uint8, RGB
    """
    model = face_model()
    shape, look, expression = _person(seed, number // POSES_PER_PERSON)
    own = np.random.default_rng([seed, number, 2])
    vertices = model.vertices(shape, expression)
    pose = random_pose(own, vertices)
    image = draw_portrait(vertices, pose, look, random_light(own), own, IMAGE_SIZE, IMAGE_SIZE)
    keypoints = pose_vertices(vertices, pose, IMAGE_SIZE)[model.keypoints68]
    return complete_fit(pose, shape, expression, keypoints, keypoints), image


@lru_cache(maxsize=2)
def _person(seed: int, number: int) -> tuple[Float32, Appearance, Float32]:
    """Shape coefficients, looks and expression coefficients; kept for the next portrait of the same person."""
    model, generator = face_model(), np.random.default_rng([seed, number, 1])
    shape = (generator.normal(0, 0.8, len(model.shape_basis)).clip(-2, 2) * model.shape_std).astype(np.float32)
    return shape, random_appearance(generator), _random_expression(generator, model.expression_std)


def write_corpus(
    out: str | Path,
    samples: int,
    seed: int,
    pool: Pool = INLINE,
    advance: Callable[[int], None] = lambda n: None,
) -> None:
    """Write ``samples`` portraits to ``out/SYNTH`` and the model to ``out/model.safetensors``.

    The same arguments give the same bytes; an earlier corpus there is drawn again. Raises what
    :func:`check_corpus_folder` raises, and :class:`BuildError` if another process draws there or the disk is full.
    """
    out = Path(out)
    check_corpus_folder(out, samples)
    try:
        with only_one(out, f"another process is drawing into {out}: wait for it, or choose another folder"):
            (out / SUBSET).mkdir(exist_ok=True)
            for folder in (out, out / SUBSET):
                remove_leftovers(folder)
            # The model is written last: if it is there, the corpus is complete.
            for name in (MODEL_NAME, MANIFEST_NAME):
                (out / name).unlink(missing_ok=True)
            chunks = (range(first, min(first + 8, samples)) for first in range(0, samples, 8))
            for count in pool.run(partial(_write_portraits, out, seed), chunks):
                advance(count)
            write_model(face_model(), out / MODEL_NAME)
    except OSError as error:
        raise BuildError(f"{error.filename or out}: {error.strerror or error}") from error


def _stem(number: int) -> str:
    return f"{SUBSET}_{number // POSES_PER_PERSON:05d}_{number % POSES_PER_PERSON}"


def check_corpus_folder(out: Path, samples: int) -> None:
    """Refuse a folder that would not hold one corpus of so many samples, and nothing else, in the end; writes nothing.

    Raises :class:`ConfigurationError`.
    """
    refuse_no_folder(out)
    known = {SUBSET, MODEL_NAME, MANIFEST_NAME, *LOCK_NAMES}
    there = [path for path in out.iterdir() if not is_leftover(path)] if out.is_dir() else []
    if foreign := sorted(path.name for path in there if path.name not in known):
        raise ConfigurationError(
            f"{out} holds something else than a drawn corpus ({foreign[0]}): choose another folder"
        )
    if (out / MODEL_NAME).is_file() and read_model(out / MODEL_NAME).fingerprint != face_model().fingerprint:
        raise ConfigurationError(f"{out / MODEL_NAME} is another model than the procedural face: choose another folder")
    manifest = out / MANIFEST_NAME
    if manifest.is_file():
        text = manifest.read_text(encoding="utf-8", errors="replace")
        if not text.startswith(DRAWN):
            raise ConfigurationError(f"{manifest} is not of a drawn corpus: choose another folder")
        drawn = re.match(rf"{re.escape(DRAWN)} --samples (\d{{1,9}}) --seed (\d{{1,19}})'\.\n", text)
        if drawn is None or text != corpus_manifest(int(drawn[1]), int(drawn[2])):
            raise ConfigurationError(
                f"{manifest} was edited, or written by another version: move it away, or choose another folder"
            )
    portraits = [path for path in (out / SUBSET).iterdir() if not is_leftover(path)] if (out / SUBSET).is_dir() else []
    if len(portraits) > 2 * samples or any(not _is_portrait(path, samples) for path in portraits):
        raise ConfigurationError(f"{out / SUBSET} holds other files than {samples} portraits: choose another folder")


def corpus_manifest(samples: int, seed: int) -> str:
    """The text of the manifest of a drawn corpus."""
    import yaml

    from densegen.sources.manifest import read_manifest

    demo = read_manifest("demo").model_dump(mode="json", exclude_unset=True)
    del demo["synthetic"]  # the corpus is there: a build draws no other
    demo["subsets"][0]["fits"] = samples
    head = f"{DRAWN} --samples {samples} --seed {seed}'.\n"
    return head + yaml.safe_dump(demo, sort_keys=False, allow_unicode=True)


def write_corpus_manifest(out: Path, samples: int, seed: int) -> None:
    """Write :func:`corpus_manifest` beside a corpus."""
    write_text(out / MANIFEST_NAME, corpus_manifest(samples, seed))


def _is_portrait(path: Path, samples: int) -> bool:
    match = re.fullmatch(rf"{SUBSET}_(\d{{5,}})_(\d)\.(jpg|mat)", path.name)
    return match is not None and int(match[1]) * POSES_PER_PERSON + int(match[2]) < samples


def _write_portraits(out: Path, seed: int, numbers: range) -> int:
    from threadpoolctl import threadpool_limits

    with threadpool_limits(1):  # idle BLAS threads spin, and the cores are the other processes'
        for number in numbers:
            fit, image = make_portrait(seed, number)
            stem = _stem(number)
            write_bytes(out / SUBSET / f"{stem}.jpg", simplejpeg.encode_jpeg(image, 92, "RGB", "420"))
            write_bytes(out / SUBSET / f"{stem}.mat", fit_bytes(fit, MAKER))
    return len(numbers)


def _random_expression(generator: np.random.Generator, std: Float32) -> Float32:
    """(Ke,) float32 coefficients: each expression is present with probability 0.35, about four of twelve at a time."""
    share = np.abs(generator.normal(0, 1, len(std))) * (generator.random(len(std)) < 0.35)
    expression: Float32 = (share.clip(0, 2.2) * std).astype(np.float32)
    return expression


def random_pose(generator: np.random.Generator, vertices: Float32) -> Float32:
    """A random pose: yaw of at most 90 degrees to either side, the face well inside the picture.

    vertices : (V, 3) float32, model frame
    returns : (7,) float32, see ``conventions.POSE_FIELDS``
    """
    pitch, yaw, roll = generator.normal(-3, 12), generator.uniform(-90, 90), generator.normal(0, 12)
    face_px = generator.uniform(170, 255)
    scale = face_px / float(np.ptp(vertices[:, 1]))
    pose = np.array([*np.deg2rad([np.clip(pitch, -35, 35), yaw, np.clip(roll, -40, 40)]), 0, 0, 0, scale], np.float32)
    posed = pose_vertices(vertices, pose, IMAGE_SIZE)
    middle = (posed.min(axis=0) + posed.max(axis=0)) / 2
    room = (IMAGE_SIZE - face_px) / 2 - 40
    target = IMAGE_SIZE / 2 + generator.uniform(-0.6, 0.6, 2) * max(room, 0)
    # The camera frame's y points up, the image frame's down.
    pose[3] = target[0] - middle[0]
    pose[4] = middle[1] - target[1]
    return pose
