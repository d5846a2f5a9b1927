"""The Pythons that `add_python=` puts into images: found and fetched by our own uv, into the home's cache. Blocks."""

from __future__ import annotations

import json
import os
import platform
import subprocess
from collections.abc import Mapping
from pathlib import Path

from slipway.compiler.facts import Missing, PythonFact
from slipway.dsl.errors import ImageBuildError

FIND_SECONDS = 20.0
FETCH_SECONDS = 1800.0
WAY_OUT = (
    "Let uv reach its downloads or a mirror of them (UV_PYTHON_INSTALL_MIRROR), or use an image that has a Python."
)


def find(version: str, uv: Path, environ: Mapping[str, str] = os.environ) -> PythonFact | Missing:
    """Which build is the one for this version, as uv itself knows without asking anybody."""
    asked = f"cpython-{version}-linux-{platform.machine()}-gnu"
    argv = (str(uv), "python", "list", asked, "--only-downloads", "--offline", "--output-format", "json")
    try:
        done = subprocess.run(argv, env=_environment(environ), capture_output=True, timeout=FIND_SECONDS, check=True)
        keys = [str(found["key"]) for found in json.loads(done.stdout)]
    except (OSError, subprocess.SubprocessError, ValueError, KeyError, TypeError):
        return PythonFact()  # its list of downloads lies elsewhere, say: the version that was asked for has to do
    if keys:
        return PythonFact(resolved=keys[0])
    return Missing(
        summary=f"there is no Python {version} that could be added to an image",
        hint='Write a version that there is, as add_python="3.12"; uv python list --only-downloads shows them.',
    )


def fetch(version: str, resolved: str, folder: Path, uv: Path, environ: Mapping[str, str] = os.environ) -> Path:
    """The folder of that Python below `folder`, fetched where it isn't there. Raises `ImageBuildError`."""
    wanted = resolved or f"cpython-{version}-linux-{platform.machine()}-gnu"
    there = folder / wanted
    if not there.is_dir():
        folder.mkdir(parents=True, exist_ok=True)
        _install(version, wanted, folder, uv, environ)
        there = there if there.is_dir() else _newest(version, folder)
    return there


def _install(version: str, wanted: str, folder: Path, uv: Path, environ: Mapping[str, str]) -> None:
    argv = (str(uv), "python", "install", wanted, "--install-dir", str(folder), "--no-bin", "--no-progress")
    try:
        done = subprocess.run(
            argv, env=_environment(environ), capture_output=True, timeout=FETCH_SECONDS, check=False, text=True
        )
    except (OSError, subprocess.SubprocessError) as error:
        raise ImageBuildError(f"Python {version} could not be fetched: {error}", hint=WAY_OUT) from error
    if done.returncode != 0:
        said = " ".join(done.stderr.split())
        raise ImageBuildError(f"Python {version} could not be fetched: {said[:600]}", hint=WAY_OUT, log=done.stderr)


def _newest(version: str, folder: Path) -> Path:
    found = sorted(path for path in folder.glob(f"cpython-{version}*-linux-*") if (path / "bin").is_dir())
    if not found:
        raise ImageBuildError(f"uv fetched Python {version}, but it is not in {folder}", hint=WAY_OUT)
    return found[-1]


def _environment(environ: Mapping[str, str]) -> dict[str, str]:
    """uv's own settings, but for those that forbid what this is for, or put it elsewhere."""
    ours = {"UV_PYTHON_DOWNLOADS", "UV_PYTHON_PREFERENCE", "UV_PYTHON_INSTALL_DIR", "UV_PYTHON", "VIRTUAL_ENV"}
    return {name: value for name, value in environ.items() if name not in ours} | {"NO_COLOR": "1"}
