"""The errors that densetrain raises beside densegen's, whose tree they join.

::

    DensegenError
    ├── ConfigurationError, FormatError, SampleError, BuildError, VerificationError   see densegen.errors
    ├── TrainingError        training had to stop; the last good checkpoint stays
    └── ParityError          an exported file does not compute what the network computes; see densetrain.network.export
"""

from densegen.errors import DensegenError

__all__ = ["TrainingError"]


class TrainingError(DensegenError):
    """Training had to stop; the last good checkpoint stays, and the same command goes on from it."""
