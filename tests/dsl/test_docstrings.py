"""Every public docstring of the floor has an example, and every example runs."""

from __future__ import annotations

import doctest
import importlib
import inspect
import pkgutil

import pytest

import slipway.dsl

MODULES = sorted(info.name for info in pkgutil.iter_modules(slipway.dsl.__path__))
# What a user reads of is on this list; each of its public functions and methods shows how it is used.
PUBLIC = ("App", "Cls", "Cron", "FilePatternMatcher", "Function", "Image", "Period", "Retries", "Secret", "Volume")
DECORATORS = ("batched", "concurrent", "enter", "exit", "method", "parameter")
WEB = ("asgi_app", "fastapi_endpoint", "web_endpoint", "web_server", "wsgi_app")
CONTEXT = ("current_function_call_id", "current_input_id", "enable_output", "is_local")


@pytest.mark.parametrize("name", MODULES)
def test_examples_run(name: str) -> None:
    module = importlib.import_module(f"slipway.dsl.{name}")
    result = doctest.testmod(module, optionflags=doctest.ELLIPSIS)
    assert result.failed == 0


@pytest.mark.parametrize("name", (*PUBLIC, *DECORATORS, *WEB, *CONTEXT))
def test_public_names_show_an_example(name: str) -> None:
    found = getattr(slipway, name)
    assert ">>>" in (found.__doc__ or ""), name


@pytest.mark.parametrize("method", [n for n, m in vars(slipway.Image).items() if n[0] != "_" and inspect.isroutine(m)])
def test_image_methods_show_an_example(method: str) -> None:
    assert ">>>" in (getattr(slipway.Image, method).__doc__ or ""), method
