"""Puts this folder on the path, so that tests can share `strategies`, `fakes`, `golden.samples` and an engine."""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))

pytest_plugins = ["docker_engine", "registry"]
