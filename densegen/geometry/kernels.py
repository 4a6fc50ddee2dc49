"""Compiled kernels: numba, with a cache on disk if there is a place for one."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numba

__all__ = ["kernel", "loose_kernel", "warm_up"]


def kernel(function: Callable[..., Any]) -> Callable[..., Any]:
    """Compile a function when it is first called, and keep the machine code beside the source for the next process.

    numba makes it again if this function's own file changes. So a kernel uses nothing of another file: the
    old one would stay inside.

    In a read-only installation without a writable home nothing is kept, and every process compiles for itself.
    """
    return _compiled(function)


def loose_kernel(function: Callable[..., Any]) -> Callable[..., Any]:
    """A kernel whose sums are added in the order that suits the processor: for numbers that steer a search
    and end in no result."""
    return _compiled(function, fastmath={"reassoc"})


def _compiled(function: Callable[..., Any], **options: Any) -> Callable[..., Any]:
    try:
        compiled: Callable[..., Any] = numba.njit(cache=True, nogil=True, **options)(function)
    except RuntimeError:  # numba's "no locator available"
        compiled = numba.njit(nogil=True, **options)(function)
    return compiled


@kernel
def _nothing() -> None:
    pass


def warm_up() -> None:
    """What a process's first kernel would wait for, half a second of numba's own preparations."""
    _nothing()
