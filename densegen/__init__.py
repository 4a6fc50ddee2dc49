"""Offline generation of dense 3D face landmark datasets from 3D morphable model fits.

Importing this package loads nothing heavy: import what you need from its modules, in the order in which
the data flows: ``fits``, ``morphable_model``, ``pose``, ``crop``, ``position_map``, ``vertex_index``, ``flip``,
``shards``; ``pipeline`` tells the whole story of one fit, ``build`` that of a dataset.
"""

from importlib.metadata import PackageNotFoundError, version

__all__ = ["__version__"]

try:
    __version__ = version("densegen")
except PackageNotFoundError:  # a source tree on sys.path that was never installed
    __version__ = "0+unknown"
