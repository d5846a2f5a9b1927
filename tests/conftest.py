"""Puts this folder on the path, so that tests can share `strategies`, `fakes`, `golden.samples` and an engine."""

from __future__ import annotations

import signal
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:  # a shell starts what runs in the background so, and all below it
    signal.signal(signal.SIGINT, signal.default_int_handler)

pytest_plugins = ["docker_engine", "registry"]
