"""The errors that densetrain raises beside densegen's, whose tree they join.

::

    DensegenError
    ├── ConfigurationError, FormatError, SampleError   see densegen.errors
    └── TrainingError        training had to stop; the last good checkpoint stays
"""

from densegen.errors import DensegenError

__all__ = ["TrainingError"]


class TrainingError(DensegenError):
    """Training had to stop; the last good checkpoint stays, and the same command goes on from it."""
