"""Offline generation of dense 3D face landmark datasets from 3D morphable model fits.

::

    from densegen import build, open_dataset, plan_build

    build(plan_build("300w_lp", "300W_LP", model="bfm.safetensors"), "shards")
    sample = open_dataset("shards")[7]

Importing this package loads nothing heavy: each name is loaded when it is first used. Its folders, in the order in
which the data flows: ``sources``, ``face``, ``geometry``, ``index``, ``dataset``; ``fitting`` is the way back, from
landmarks to fits.
"""

from importlib.metadata import PackageNotFoundError, version
from typing import TYPE_CHECKING, Any

from densegen.door import attribute_of

if TYPE_CHECKING:
    from densegen.dataset.build import build, plan_build
    from densegen.dataset.pipeline import mesh_in_image
    from densegen.dataset.shard_set import open_dataset
    from densegen.dataset.shards import ShardReader
    from densegen.dataset.verify import verify_dataset
    from densegen.face.model_file import read_model
    from densegen.fitting.reconstruction import Reconstructor
    from densegen.fitting.solver import FaceSolver
    from densegen.geometry.position_map import make_uv_table
    from densegen.index.vertex_index import read_index
    from densegen.sources.fits import read_fit
    from densegen.sources.manifest import choose_settings, read_manifest
    from densegen.sources.photograph import read_photograph

__all__ = [
    "FaceSolver",
    "Reconstructor",
    "ShardReader",
    "__version__",
    "build",
    "choose_settings",
    "make_uv_table",
    "mesh_in_image",
    "open_dataset",
    "plan_build",
    "read_fit",
    "read_index",
    "read_manifest",
    "read_model",
    "read_photograph",
    "verify_dataset",
]

_PLACES = {
    "FaceSolver": "densegen.fitting.solver:FaceSolver",
    "Reconstructor": "densegen.fitting.reconstruction:Reconstructor",
    "ShardReader": "densegen.dataset.shards:ShardReader",
    "build": "densegen.dataset.build:build",
    "choose_settings": "densegen.sources.manifest:choose_settings",
    "make_uv_table": "densegen.geometry.position_map:make_uv_table",
    "mesh_in_image": "densegen.dataset.pipeline:mesh_in_image",
    "open_dataset": "densegen.dataset.shard_set:open_dataset",
    "plan_build": "densegen.dataset.build:plan_build",
    "read_fit": "densegen.sources.fits:read_fit",
    "read_index": "densegen.index.vertex_index:read_index",
    "read_manifest": "densegen.sources.manifest:read_manifest",
    "read_model": "densegen.face.model_file:read_model",
    "read_photograph": "densegen.sources.photograph:read_photograph",
    "verify_dataset": "densegen.dataset.verify:verify_dataset",
}

try:
    __version__ = version("densegen")
except PackageNotFoundError:  # a source tree on sys.path that was never installed
    __version__ = "0+unknown"


def __getattr__(name: str) -> Any:
    return attribute_of(__name__, name, _PLACES)


def __dir__() -> list[str]:
    return __all__
