"""What the pages show is what happens.

- `python` blocks run; one that begins with `# name.py` is that file, and is declared and compiled too.
- `console` blocks run against an engine within the test and must print what they show; `…` at the end of a line
  stands for what differs from machine to machine.
- `sh` blocks are commands for a real machine: each must be one that exists, with options that exist.
"""

from __future__ import annotations

import re
import shlex
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click
import pytest
from fake_engine import FakeEngine, Slipway

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "scripts"))
PAGES = (ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md")))
BLOCK = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
FILE = re.compile(r"# ([\w/]+\.py)\n")
GUIDES = [page for page in PAGES if page.name not in {"wire.md", "cli.md"}]


def name_of(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


@pytest.fixture(autouse=True)
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A folder of its own; what loading leaves behind is undone."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("SLIPWAY_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("NO_COLOR", "1")
    monkeypatch.delenv("COLUMNS", raising=False)
    monkeypatch.setattr(sys, "path", list(sys.path))
    before = set(sys.modules)
    yield tmp_path
    for name in set(sys.modules) - before:
        if not name.startswith("slipway"):
            del sys.modules[name]


@pytest.mark.parametrize("page", GUIDES, ids=name_of)
def test_the_blocks_of_a_page(page: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    engine = FakeEngine()
    monkeypatch.setattr("slipway.engine_client.connect", lambda *_, **__: engine)
    slipway = Slipway(capsys)
    names: dict[str, Any] = {"__name__": "__main__"}
    for kind, text in BLOCK.findall(page.read_text()):
        file = FILE.match(text)
        if kind == "python" and file:
            Path(file[1]).write_text(text)
            slipway("plan", file[1])
        elif kind == "python":
            exec(compile(text, name_of(page), "exec"), names)
        elif kind == "console":
            check_console(text, slipway)
        elif kind == "sh":
            for line in text.splitlines():
                check_command(line)


def check_console(text: str, slipway: Slipway) -> None:
    """Each command prints what is shown below it."""
    for part in re.split(r"^\$ ", text, flags=re.MULTILINE)[1:]:
        command, _, shown = part.partition("\n")
        program, *words = shlex.split(command)
        assert program == "slipway"
        out = slipway(*words).out.replace(
            f"debian_slim {sys.version_info[0]}.{sys.version_info[1]}", "debian_slim 3.11"
        )
        printed = out.rstrip("\n").splitlines()
        expected = shown.rstrip("\n").splitlines()
        assert len(printed) == len(expected), "\n".join(printed)
        for got, wanted in zip(printed, expected, strict=True):
            open_ended = wanted.endswith("…") and not got.endswith("…")
            assert got.startswith(wanted[:-1]) if open_ended else got == wanted, "\n".join(printed)


def check_command(line: str) -> None:
    """A command of ours exists with these options; other programs' are none of our business."""
    words = shlex.split(line, comments=True)
    while words and "=" in words[0]:
        words.pop(0)
    if not words or not words[0].endswith("slipway"):
        return
    from slipway.cli.commands import cli

    context = click.Context(cli, info_name="slipway", help_option_names=["-h", "--help"])
    command: click.Command = cli
    rest = words[1:]
    while isinstance(command, click.Group) and rest and not rest[0].startswith("-"):
        _, found, rest = command.resolve_command(context, rest)
        assert found is not None, line
        command = found
    if rest and "--help" not in rest:
        command.make_context(command.name, rest, parent=context)


# --- nothing undocumented -----------------------------------------------------------------------------


def test_the_page_of_the_command_line_is_as_made() -> None:
    from write_cli_page import PAGE, page

    assert PAGE.read_text() == page(), "run `make docs`"


def test_links_lead_somewhere() -> None:
    for page in PAGES:
        for link in re.findall(r"\]\(([^)#]+)(?:#[^)]*)?\)", page.read_text()):
            if not link.startswith("http"):
                assert (page.parent / link).exists(), f"{name_of(page)}: {link}"


def test_every_public_name_of_images_and_calls_is_on_a_page() -> None:
    import slipway

    text = "\n".join(page.read_text() for page in PAGES)
    from slipway.dsl.later import Later

    steps = {name: value for name, value in vars(slipway.Image).items() if not isinstance(value, Later)}
    here = [name for name, value in steps.items() if callable(value) or isinstance(value, staticmethod)]
    assert [name for name in here if not name.startswith("_") and name not in text] == []


def test_the_changelog_has_a_place_for_what_comes() -> None:
    assert "## [Unreleased]" in (ROOT / "CHANGELOG.md").read_text()
