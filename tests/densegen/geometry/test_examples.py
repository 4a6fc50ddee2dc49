"""The examples in the docstrings of ``densegen.geometry``."""

from __future__ import annotations

import doctest
import importlib
import pkgutil

import pytest

import densegen.geometry

MODULES = [module.name for module in pkgutil.iter_modules(densegen.geometry.__path__, "densegen.geometry.")]


@pytest.mark.parametrize("name", MODULES)
def test_the_examples_of_a_module_are_right(name: str) -> None:
    assert doctest.testmod(importlib.import_module(name)).failed == 0


def test_there_are_examples() -> None:
    finder = doctest.DocTestFinder(exclude_empty=True)
    found = [t for name in MODULES for t in finder.find(importlib.import_module(name)) if t.examples]
    assert len(found) >= 7
