"""The files of an image's faces, and names for them that replace nothing else."""

from __future__ import annotations

import itertools
import json
import re
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path

import numpy as np

from densegen.arrays import Image, Int64
from densegen.console import plain as printable
from densegen.drawing import png_bytes
from densegen.errors import FormatError, SampleError
from densegen.files import write_many
from densegen.fitting.reconstruction import Reconstructor
from densegen.index.formats.mesh import mesh_bytes
from densegen.sources.fits import fit_bytes
from densetrain.choices import Written
from densetrain.network.regressor import Regressor
from densetrain.prediction.drawing import draw_faces
from densetrain.prediction.face import Face
from densetrain.prediction.results import as_csv, image_record

__all__ = ["ResultNames", "write_faces"]

MESH_FROM_IMAGE = np.array([1, -1, 1], np.float32)
"""Mesh viewers have y up."""


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
