"""Which interpreter stands for a version: an order that does not depend on luck."""

from __future__ import annotations

import platform
import sys
from pathlib import Path

import pytest

from slipway.dsl.errors import InvalidError, NotFoundError
from slipway.executor.runtime import pythons
from slipway.executor.runtime.pythons import Interpreter, Pythons, System, system

RUNNING = Interpreter(executable="/run/python3.11", version="3.11.7", prefix="/run", machine="x86_64")


def program(path: Path, version: str, *, implementation: str = "cpython") -> Path:
    """A file that answers like an interpreter of that version, and counts how often it was asked."""
    path.parent.mkdir(parents=True, exist_ok=True)
    answer = f'["{version}", "{path.parent.parent}", "x86_64", "{implementation}"]'
    path.write_text(f"#!/bin/sh\necho asked >> {path}.asked\necho '{answer}'\n")
    path.chmod(0o755)
    return path


def asked(path: Path) -> int:
    log = Path(f"{path}.asked")
    return len(log.read_text().splitlines()) if log.exists() else 0


@pytest.fixture
def finder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Pythons:
    monkeypatch.setattr(pythons, "USUAL", ())
    return Pythons({"PATH": f"{tmp_path}/a:{tmp_path}/.pyenv/shims:{tmp_path}/b", "HOME": str(tmp_path)}, RUNNING)


def test_the_running_one_comes_first(finder: Pythons, tmp_path: Path) -> None:
    program(tmp_path / "a" / "python3.11", "3.11.2")
    assert finder.find("") == finder.find("3.11") == finder.find("3.11.7") == RUNNING
    assert asked(tmp_path / "a" / "python3.11") == 0


def test_a_patch_release_is_looked_for_further(finder: Pythons, tmp_path: Path) -> None:
    path = program(tmp_path / "b" / "python3.11", "3.11.2")
    assert finder.find("3.11.2") == Interpreter(
        executable=str(path), version="3.11.2", prefix=str(tmp_path), machine="x86_64"
    )


def test_then_path_then_pyenv_then_uv(finder: Pythons, tmp_path: Path) -> None:
    managed = program(tmp_path / ".local/share/uv/python/cpython-3.12.9-linux/bin/python3.12", "3.12.9")
    assert finder.find("3.12").executable == str(managed)
    newest = program(tmp_path / ".pyenv/versions/3.12.10/bin/python3.12", "3.12.10")
    program(tmp_path / ".pyenv/versions/3.12.9/bin/python3.12", "3.12.9")
    assert finder.find("3.12").executable == str(newest)
    on_path = program(tmp_path / "b" / "python3.12", "3.12.1")
    assert finder.find("3.12").executable == str(on_path)


def test_a_shim_is_passed_by(finder: Pythons, tmp_path: Path) -> None:
    shim = program(tmp_path / ".pyenv/shims/python3.12", "3.12.0")
    real = program(tmp_path / ".pyenv/versions/3.12.1/bin/python3.12", "3.12.1")
    assert finder.find("3.12").executable == str(real)
    assert asked(shim) == 0


def test_each_is_asked_once_until_it_changes(finder: Pythons, tmp_path: Path) -> None:
    path = program(tmp_path / "a" / "python3.12", "3.12.1")
    finder.find("3.12")
    finder.find("3.12")
    assert asked(path) == 1
    program(path, "3.12.22")
    assert finder.find("3.12").version == "3.12.22"


def test_what_is_no_cpython_or_too_old_or_broken_does_not_count(finder: Pythons, tmp_path: Path) -> None:
    program(tmp_path / "a" / "python3.12", "3.12.1", implementation="pypy")
    program(tmp_path / "a" / "python3.9", "3.9.1")
    broken = program(tmp_path / "a" / "python3.13", "3.13.1")
    broken.write_text("#!/bin/sh\nexit 1\n")
    program(tmp_path / "a" / "python3.12-config", "3.12.1")
    assert [found.version for found in finder.all()] == ["3.11.7"]


def test_a_missing_version_says_which_there_are_and_the_way_out(finder: Pythons, tmp_path: Path) -> None:
    program(tmp_path / "a" / "python3.12", "3.12.1")
    with pytest.raises(NotFoundError) as raised:
        finder.find("3.13")
    assert raised.value.message == "this host has no Python 3.13; it has 3.11.7, 3.12.1"
    assert "uv python install 3.13" in raised.value.hint
    assert "--runtime docker" in raised.value.hint


@pytest.mark.parametrize("ref", ["2.7", "3", "three", "3.11; rm", "3.11.7.1"])
def test_what_is_no_version_is_refused(finder: Pythons, ref: str) -> None:
    with pytest.raises(InvalidError, match="is no Python version"):
        finder.find(ref)


def test_the_real_running_one_is_below_any_virtual_environment() -> None:
    found = Pythons().find("")
    assert found.version == platform.python_version()
    assert found.prefix == sys.base_prefix
    assert Path(found.executable).is_relative_to(found.prefix)


def test_os_release_is_read(tmp_path: Path) -> None:
    file = tmp_path / "os-release"
    file.write_text(
        'PRETTY_NAME="Debian GNU/Linux 12 (bookworm)"\nNAME="Debian GNU/Linux"\nVERSION_ID="12"\nID=debian\n'
    )
    assert system((str(tmp_path / "missing"), str(file))) == System(id="debian", version="12", title="Debian 12")
    file.write_text('NAME="Arch Linux"\nID=arch\n')
    assert system((str(file),)) == System(id="arch", version="", title="Arch")
