"""Make a virtual environment with pip in it, with nothing but a Python: `python3 scripts/bootstrap.py .venv`.

Debian's Python comes without `ensurepip` until python3-venv is installed. Then pip is taken from the host's own pip,
or fetched from the package index; where neither works, the words say what to install.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import urllib.parse
import urllib.request
import venv
from collections.abc import Callable
from pathlib import Path

OLDEST = (3, 11)
INDEX = "https://pypi.org/simple"
JSON = "application/vnd.pypi.simple.v1+json"


def main(folder: str) -> int:
    if sys.version_info < OLDEST:
        found = ".".join(map(str, sys.version_info[:3]))
        return give_up(f"Slipway needs Python {OLDEST[0]}.{OLDEST[1]} or newer, and {sys.executable} is {found}.")
    target = Path(folder).absolute()
    python = target / "bin" / "python"
    if works(python):
        return 0
    venv.EnvBuilder(clear=True, symlinks=True, with_pip=False).create(target)
    ways: tuple[Callable[[Path], None], ...] = (by_ensurepip, by_host_pip, by_download)
    failures = []
    for way in ways:
        try:
            way(python)
        except (OSError, subprocess.CalledProcessError, ValueError, LookupError) as error:
            output = getattr(error, "stderr", None) or str(error)
            failures.append(f"  {way.__name__}: {output.strip().splitlines()[-1] if output.strip() else error}")
        if works(python):
            return 0
    version = ".".join(map(str, sys.version_info[:2]))
    return give_up(
        "No pip could be put into the environment:", *failures, f"On Debian or Ubuntu: apt install python{version}-venv"
    )


def give_up(*lines: str) -> int:
    print(*lines, sep="\n", file=sys.stderr)
    return 1


def works(python: Path) -> bool:
    """Whether the environment is of this very Python and has pip."""
    code = "import pip, sys; print(sys.version_info[:3], sys.base_prefix)"
    try:
        done = subprocess.run([python, "-c", code], capture_output=True, text=True)
    except OSError:
        return False
    return done.returncode == 0 and done.stdout.strip() == f"{sys.version_info[:3]} {sys.base_prefix}"


def by_ensurepip(python: Path) -> None:
    run([python, "-m", "ensurepip", "--upgrade", "--default-pip"])


def by_host_pip(python: Path) -> None:
    run([sys.executable, "-m", "pip", "--python", python, "install", "pip"])


def by_download(python: Path) -> None:
    """A wheel of pip can be run as it is, and so install itself."""
    index = os.environ.get("PIP_INDEX_URL", INDEX).rstrip("/")
    with tempfile.TemporaryDirectory() as folder:
        page = f"{index}/pip/"
        wheel = [file for file in json.loads(fetch(page, JSON))["files"] if wanted(file)][-1]
        path = Path(folder) / wheel["filename"]
        path.write_bytes(fetch(urllib.parse.urljoin(page, wheel["url"])))
        run([python, f"{path}/pip", "install", "--no-index", path])


def wanted(file: dict[str, object]) -> bool:
    name = str(file["filename"])
    version = name.split("-")[1]
    return name.endswith("-py3-none-any.whl") and not file.get("yanked") and version.replace(".", "").isdigit()


def fetch(url: str, accept: str = "*/*") -> bytes:
    request = urllib.request.Request(url, headers={"Accept": accept})
    with urllib.request.urlopen(request, timeout=60) as answer:
        data: bytes = answer.read()
    return data


def run(argv: list[str | Path]) -> None:
    subprocess.run([str(word) for word in argv], check=True, capture_output=True, text=True)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1] if len(sys.argv) > 1 else ".venv"))
