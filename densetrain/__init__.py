"""Train, evaluate and use dense 3D face landmark regressors on the shards of ``densegen build``."""

from densegen import __version__

__all__ = ["__version__"]
