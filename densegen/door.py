"""A package's door: public names that are loaded when they are first used (PEP 562)."""

from collections.abc import Mapping
from importlib import import_module
from typing import Any

__all__ = ["attribute_of"]


def attribute_of(package: str, name: str, places: Mapping[str, str]) -> Any:
    """What ``package.name`` is; for a package's ``__getattr__``.

    places : ``module:name`` of each public name

    Raises ``AttributeError`` if it is none of them.
    """
    if name not in places:
        raise AttributeError(f"module {package!r} has no attribute {name!r}")
    module, _, attribute = places[name].partition(":")
    return getattr(import_module(module), attribute)
