"""Packages by names of our own: `slipway.dsl.own.cloudpickle` is the one that came with Slipway.

What a user's program knows as `cloudpickle` is its own affair, of any version or none, while both ends of a call must
agree on one. A worker has its copies beside our code, attrs too: see `executor/worker/package.py`.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    cloudpickle: Any


def _folder() -> str:
    """Where the packages lie."""
    package = os.path.dirname(os.path.dirname(__file__))  # noqa: PTH120 - in workers too, where pathlib takes its time
    if os.path.exists(f"{package}/code.digest"):  # noqa: PTH110
        return os.path.normpath(f"{package}/../../fallback")
    from importlib.util import find_spec

    spec = find_spec("cloudpickle")
    assert spec is not None and spec.origin is not None, "it is one of our dependencies"
    return os.path.dirname(os.path.dirname(spec.origin))  # noqa: PTH120


__path__ = [_folder()]
