"""``densetrain doctor``: what this machine has for training and prediction."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import click

from densegen.console import say
from densegen.doctor import Row

__all__ = ["doctor"]

SHARED_MEMORY = Path("/dev/shm")
EXTRAS = ("train", "export", "timm", "video", "detect")


@click.command(short_help="Say what is installed and what is missing.")
def doctor() -> None:
    """Say what this machine has and lacks: libraries and their extras, accelerators, weights, the model, licences.

    \b
    reads    torch's cache of weights, the file of YuNet, the remembered model
    writes   to standard output
    example  densetrain doctor
    """
    from densegen.doctor import describe_libraries, describe_machine, describe_model, show

    show("machine", [*describe_machine(), *_shared_memory()], say)
    show("libraries", describe_libraries(("numpy", "h5py", "pydantic"), EXTRAS), say)
    show("accelerators", _accelerators(), say)
    show("weights", _weights(), say)
    show("detectors", _detectors(), say)
    show("model", describe_model(), say)
    say("networks trained on 300W-LP or on the Basel Face Model: for research only")


def _shared_memory() -> Iterator[Row]:
    if SHARED_MEMORY.is_dir():
        yield (
            "shared memory",
            f"{shutil.disk_usage(SHARED_MEMORY).free / 2**30:.1f} GiB for batches of worker processes",
        )


def _accelerators() -> Iterator[Row]:
    try:
        import torch
    except ImportError as error:
        yield "torch", f"none: {error}"
        return
    yield "torch", f"{torch.__version__}, {torch.get_num_threads()} threads on the CPU"
    for number in range(torch.cuda.device_count()):
        about = torch.cuda.get_device_properties(number)
        bf16 = ", bf16" if torch.cuda.is_bf16_supported() else ""
        yield f"cuda:{number}", f"{about.name}, {about.total_memory / 2**30:.0f} GiB{bf16}"
    if torch.backends.mps.is_available():
        yield "mps", "Apple's GPU"
    if not torch.cuda.device_count() and not torch.backends.mps.is_available():
        yield "GPU", "none: the CPU trains"


def _detectors() -> Iterator[Row]:
    from densegen.errors import DensegenError
    from densetrain.prediction.detect import how_to_get_yunet, open_detector, yunet_file

    yield "cascade", "frontal faces"
    if yunet_file() is None:
        yield "yunet", f"nearly all faces: {how_to_get_yunet()}"
        return
    try:
        open_detector("yunet")
        yield "yunet", f"nearly all faces: {yunet_file()}"
    except DensegenError as error:
        yield "yunet", f"none: {error}"


def _weights() -> Iterator[Row]:
    try:
        import torch
    except ImportError:
        return
    cache = Path(torch.hub.get_dir()) / "checkpoints"
    found = sorted(path.name for path in cache.glob("*.pth")) if cache.is_dir() else []
    yield "torchvision's cache", f"{cache}: {', '.join(found) or 'empty; model.pretrained=FILE takes a file instead'}"
