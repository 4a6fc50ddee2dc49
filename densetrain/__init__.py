"""Train, evaluate and use dense 3D face landmark regressors on the shards of ``densegen build``.

::

    from densetrain import evaluate, fit, load, predict

    fit("shards", "paper", "run")
    network = load("run")
    faces = predict(network, "photo.jpg")

Importing this package loads nothing heavy: each name is loaded when it is first used.
"""

from typing import TYPE_CHECKING, Any

from densegen import __version__
from densegen.door import attribute_of

if TYPE_CHECKING:
    from densegen.dataset.shard_set import open_dataset
    from densetrain.config import read_settings
    from densetrain.evaluation.benchmarks import aflw, aflw2000
    from densetrain.evaluation.evaluate import evaluate
    from densetrain.network.regressor import open_regressor as load
    from densetrain.prediction.predict import predict
    from densetrain.training.fit import fit

__all__ = ["__version__", "aflw", "aflw2000", "evaluate", "fit", "load", "open_dataset", "predict", "read_settings"]

_PLACES = {
    "aflw": "densetrain.evaluation.benchmarks:aflw",
    "aflw2000": "densetrain.evaluation.benchmarks:aflw2000",
    "evaluate": "densetrain.evaluation.evaluate:evaluate",
    "fit": "densetrain.training.fit:fit",
    "load": "densetrain.network.regressor:open_regressor",
    "open_dataset": "densegen.dataset.shard_set:open_dataset",
    "predict": "densetrain.prediction.predict:predict",
    "read_settings": "densetrain.config:read_settings",
}


def __getattr__(name: str) -> Any:
    return attribute_of(__name__, name, _PLACES)


def __dir__() -> list[str]:
    return __all__
