"""Packages for tests of builds, and a Python as uv downloads them: made here, so that no index is needed."""

from __future__ import annotations

import hashlib
import json
import platform
import subprocess
import tarfile
import zipfile
from pathlib import Path

import pytest
from docker_engine import interpreters


def wheel_of(folder: Path) -> Path:
    """A tiny package `tinypack`, whose `value` is 42."""
    path = folder / "tinypack-1.0-py3-none-any.whl"
    info = "tinypack-1.0.dist-info"
    with zipfile.ZipFile(path, "w") as wheel:
        wheel.writestr("tinypack.py", "value = 41 + 1\n")
        wheel.writestr(f"{info}/METADATA", "Metadata-Version: 2.1\nName: tinypack\nVersion: 1.0\n")
        wheel.writestr(f"{info}/WHEEL", "Wheel-Version: 1.0\nGenerator: t\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
        wheel.writestr(f"{info}/RECORD", f"tinypack.py,,\n{info}/METADATA,,\n{info}/WHEEL,,\n{info}/RECORD,,\n")
    return path


LEFT_OUT = {"test", "tests", "idlelib", "tkinter", "lib2to3", "__pycache__", "ensurepip"}


def python_downloads(folder: Path, minor: str = "3.12") -> tuple[str, Path]:
    """The full version, and a list of downloads for uv with one entry: an interpreter of this machine, packed the way
    in which uv's own are."""
    found = interpreters(minor)
    if not found:
        pytest.skip(f"no Python {minor} on this machine")
    python, prefix = found[0], found[0].parents[1]
    said = subprocess.run([python, "-c", "import platform; print(platform.python_version())"], capture_output=True)
    version = said.stdout.decode().strip()
    archive = folder / f"cpython-{version}.tar.gz"
    with tarfile.open(archive, "w:gz", compresslevel=1) as tar:
        for path in (python, *prefix.glob("lib/libpython3*"), prefix / f"lib/python{minor}", prefix / "include"):
            tar.add(path, f"python/{path.relative_to(prefix)}", filter=_wanted)
        link = tarfile.TarInfo("python/bin/python3")
        link.type, link.linkname = tarfile.SYMTYPE, f"python{minor}"
        tar.addfile(link)
    key = f"cpython-{version}-linux-{platform.machine()}-gnu"
    entry = {
        "name": "cpython",
        "arch": {"family": platform.machine(), "variant": None},
        "os": "linux",
        "libc": "gnu",
        **dict(zip(("major", "minor", "patch"), map(int, version.split(".")), strict=True)),
        "prerelease": "",
        "url": archive.as_uri(),
        "sha256": hashlib.sha256(archive.read_bytes()).hexdigest(),
        "variant": None,
        "build": "20260101",
    }
    downloads = folder / "downloads.json"
    downloads.write_text(json.dumps({key: entry}))
    return version, downloads


def _wanted(info: tarfile.TarInfo) -> tarfile.TarInfo | None:
    path = Path(info.name)
    if set(path.parts) & LEFT_OUT or any(part.startswith("config-") for part in path.parts):
        return None
    return None if path.parent.name == "site-packages" and not path.name.startswith("pip") else info
