"""``python -m tests.faults.training_faults WHAT DATASET RUN FOLDER KIND MOMENTS``: training, an export, a report or a
prediction on a disk that fails. A process of its own: torch's own threads do not survive a fork.

Prints the number of moments that were tried; fails at the first broken promise.
"""

from __future__ import annotations

import hashlib
import shutil
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import cast

import torch

from densegen.files import is_leftover
from densetrain.evaluation.evaluate import read_result
from densetrain.evaluation.report import write_report
from densetrain.network import export as exporter
from densetrain.network.checkpoint import load_regressor
from densetrain.network.export import export
from densetrain.network.weights import load_torch
from densetrain.prediction.faces import find_faces
from densetrain.prediction.inputs import read_image
from densetrain.prediction.result_files import write_faces
from densetrain.training.fit import fit
from tests.densetrain.conftest import tiny
from tests.faults.injection import ESCAPED, Kind, digests, run_with_fault


def weights(folder: Path) -> dict[str, str]:
    """SHA-256 over the numbers in each checkpoint: logs beside them carry the time."""
    found = {}
    for path in sorted(folder.glob("*.ckpt")):
        digest = hashlib.sha256()
        _add(load_torch(path), digest)
        found[path.name] = digest.hexdigest()
    return found


def results(folder: Path) -> dict[str, str]:
    """What a prediction gave; what a killed one left beside it is removed when it has lain for an hour."""
    return {name: digest for name, digest in digests(folder).items() if not is_leftover(Path(name))}


def _add(value: object, digest: hashlib._Hash) -> None:
    if isinstance(value, torch.Tensor):
        digest.update(value.contiguous().numpy().tobytes())
    elif isinstance(value, dict):
        for name, part in value.items():
            digest.update(str(name).encode())
            _add(part, digest)
    elif isinstance(value, list | tuple):
        for part in value:
            _add(part, digest)
    else:
        digest.update(repr(value).encode())


def jobs(
    what: str, dataset: Path, run: Path, out: Path
) -> tuple[Callable[[], object], Callable[[Path], dict[str, str]]]:
    """What is run, and what of its folder is compared."""
    if what == "fit":
        return lambda: fit([dataset], tiny("data.validate_on=train", "trainer.epochs=3"), out), weights
    if what == "export":
        trace_once(run)
        return lambda: export(load_regressor(run), out), digests
    if what == "report":
        result = read_result(next(run.glob("evaluation/*.json")))
        sheets = dict.fromkeys(run.glob("evaluation/*-worst.png"), result)
        return lambda: write_report([result], [], out, sheets), digests
    picture = next(run.glob("*.jpg"))

    def predict() -> None:
        import numpy as np

        regressor, image = load_regressor(run), read_image(picture)
        faces = find_faces(regressor, image, np.array([[120.0, 120.0, 320.0, 320.0]]))
        write_faces(
            faces, image, picture.name, out / "face", ("png", "json", "csv", "ply"), np.array([[0, 1, 2]]), regressor
        )

    return predict, results


def trace_once(run: Path) -> None:
    """Torch traces the network now, and no more: that takes seconds and touches no folder that is watched."""
    with tempfile.TemporaryDirectory() as folder:
        exporter._write_fp32(load_regressor(run), Path(folder) / "model.onnx")
        traced = (Path(folder) / "model.onnx").read_bytes()

    def write(_: object, path: Path) -> None:
        path.write_bytes(traced)

    exporter._write_fp32 = write


def main(what: str, dataset: str, run: str, folder: str, kind: str, moments: str) -> None:
    out, log = Path(folder) / "out", Path(folder) / "log"
    function, compared = jobs(what, Path(dataset), Path(run), out)
    torch.set_num_threads(1)
    calm = run_with_fault(function, (out,), log)
    assert calm.code == 0, calm.said
    good = compared(out)
    assert good
    step = 1 if int(moments) == 0 else max(calm.touched // int(moments), 1)
    tried = range(1, calm.touched + 1, step)
    for at in tried:
        shutil.rmtree(out)
        broken = run_with_fault(function, (out,), log, cast("Kind", kind), at)
        assert broken.code != ESCAPED, f"{kind} at {at}: {broken.said}"
        if what != "fit" and out.is_dir():
            there = digests(out)
            wrong = [name for name, digest in there.items() if name in good and digest != good[name]]
            assert not wrong, f"{kind} at {at}: {wrong} under a final name"
        again = run_with_fault(function, (out,), log)
        assert again.code == 0, f"rerun after {kind} at {at}: {again.said}"
        assert compared(out) == good, f"rerun after {kind} at {at}"
    print(len(tried))


if __name__ == "__main__":
    main(*sys.argv[1:])
