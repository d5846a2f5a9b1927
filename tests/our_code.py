"""Our own package as workers get it."""

from __future__ import annotations

import atexit
import shutil
import tempfile
from functools import cache
from pathlib import Path

from slipway.executor.worker import package


@cache
def our_code() -> Path:
    """Its folder, made once for all tests of this run."""
    folder = Path(tempfile.mkdtemp(prefix="slipway-code-"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    return package.prepare(folder)
