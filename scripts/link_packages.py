"""Link build/ns/slipway/... to the floors, from pyproject's own table: so type checkers see one `slipway` package."""

from __future__ import annotations

import shutil
from pathlib import Path

import tomllib

ROOT = Path(__file__).resolve().parent.parent


def link() -> Path:
    table = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]["package-dir"]
    top = ROOT / "build" / "ns" / "slipway"
    shutil.rmtree(top, ignore_errors=True)
    top.mkdir(parents=True)
    for entry in (ROOT / table["slipway"]).iterdir():
        if entry.suffix in {".py", ".typed"}:
            (top / entry.name).symlink_to(entry)
    for package, folder in table.items():
        if package.count(".") == 1:
            (top / package.split(".")[1]).symlink_to(ROOT / folder)
    return top


if __name__ == "__main__":
    print(link())
