"""The examples in the docstrings of the compiler are run."""

from __future__ import annotations

import doctest
import importlib
from pathlib import Path

import pytest

import slipway.compiler

MODULES = sorted(path.stem for path in Path(slipway.compiler.__path__[0]).glob("[a-z]*.py"))


@pytest.mark.parametrize("name", MODULES)
def test_docstrings(name: str) -> None:
    module = importlib.import_module(f"slipway.compiler.{name}")
    # An error's traceback is told by its first line; ours go on with a hint.
    failed, _ = doctest.testmod(module, optionflags=doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE)
    assert failed == 0


@pytest.mark.parametrize("name", MODULES)
def test_nothing_here_acts(name: str) -> None:
    """The compiler is pure: no file, no clock, no environment, no process."""
    source = (Path(slipway.compiler.__path__[0]) / f"{name}.py").read_text()
    for word in ("import os", "import time", "import datetime", "import pathlib", "open(", "import asyncio", "random"):
        assert word not in source
