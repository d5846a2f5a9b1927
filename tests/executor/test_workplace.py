"""What build steps are given: Pythons to add, which our own uv fetches."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any, cast

import pytest

from slipway.compiler.facts import BaseFact, Missing, PythonFact
from slipway.dsl.declaration import AddPython
from slipway.dsl.errors import ImageBuildError
from slipway.executor import add_python
from slipway.executor.images import ImageParts
from slipway.executor.indexes import Indexes
from slipway.executor.steps import Recipe
from slipway.executor.workplace import Folders, Workplace

PARTS = ImageParts(base=BaseFact(identity=(("image", "x"),), says="x"))
BUILD = "cpython-3.12.4-linux-x86_64-gnu"
INSTALL = 'echo "$3" >>"$(dirname "$0")/asked"; mkdir -p "$5/$3/bin"'


def uv(folder: Path, script: str) -> Path:
    """A program in the place of uv."""
    path = folder / "uv"
    path.write_text(f"#!/bin/sh\n{script}\n")
    path.chmod(0o755)
    return path


def place(folder: Path, script: str) -> Workplace:
    folders = Folders(logs=folder / "logs", cache=folder / "cache", code=folder / "code", uv=uv(folder, script))
    nobody = cast(Any, None)
    return Workplace(folders=folders, bundles=nobody, volumes=nobody, indexes=Indexes)


async def python_of(workplace: Workplace, python: AddPython) -> str:
    setup = await workplace.prepare(Recipe(python=python), PARTS, name="b", layer="sha256:0", gpu=None)
    (mount,) = (mount for mount in setup.spec.mounts if mount.target == "/.slipway/python")
    assert mount.read_only
    return mount.source


def test_many_steps_that_add_a_python_fetch_it_once(tmp_path: Path) -> None:
    workplace = place(tmp_path, INSTALL)

    async def scenario() -> list[str]:
        step = AddPython(version="3.12", resolved=BUILD)
        return await asyncio.gather(*(python_of(workplace, step) for _ in range(8)))

    assert set(asyncio.run(scenario())) == {str(tmp_path / "cache" / "pythons" / BUILD)}
    assert asyncio.run(python_of(workplace, AddPython(version="3.12", resolved=BUILD))).endswith(BUILD)
    assert (tmp_path / "asked").read_text() == f"{BUILD}\n"


def test_a_python_that_came_under_another_name_is_found(tmp_path: Path) -> None:
    program = uv(tmp_path, 'mkdir -p "$5/cpython-3.12.9-linux-x86_64-gnu/bin"')
    assert add_python.fetch("3.12", "", tmp_path / "p", program).name == "cpython-3.12.9-linux-x86_64-gnu"


@pytest.mark.parametrize(
    ("script", "reason"),
    [("echo no route to host >&2; exit 1", "no route to host"), ("exit 0", "is not in")],
)
def test_why_a_python_could_not_be_fetched_is_said(tmp_path: Path, script: str, reason: str) -> None:
    with pytest.raises(ImageBuildError, match=reason) as caught:
        asyncio.run(python_of(place(tmp_path, script), AddPython(version="3.12")))
    assert "UV_PYTHON_INSTALL_MIRROR" in caught.value.hint


@pytest.mark.parametrize(
    ("script", "found"),
    [
        (f'echo \'[{{"key": "{BUILD}"}}, {{"key": "older"}}]\'', PythonFact(resolved=BUILD)),
        ("echo no list here", PythonFact()),
        ("exit 2", PythonFact()),
    ],
)
def test_which_build_a_version_is(tmp_path: Path, script: str, found: PythonFact) -> None:
    assert add_python.find("3.12", uv(tmp_path, script)) == found


def test_a_version_that_is_not_among_the_downloads_is_missing(tmp_path: Path) -> None:
    missing = add_python.find("3.99", uv(tmp_path, "echo '[]'"))
    assert isinstance(missing, Missing)
    assert "there is no Python 3.99" in missing.summary
