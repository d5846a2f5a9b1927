"""Which runtime an app gets: who is heard first, what native can't do, what the plan says of it."""

from __future__ import annotations

import pytest

from slipway.compiler.facts import BaseNeed, Missing
from slipway.dsl.declaration import (
    AppDecl,
    AptInstall,
    DebianSlim,
    FromRegistry,
    ImageDecl,
    Origin,
    PipInstall,
    RunCommands,
    StepOptions,
)
from slipway.dsl.errors import InvalidError
from slipway.executor.choice import Choice, Wishes, bases_to_look_for, beside, default, notes, obstacles, wished
from slipway.executor.config_file import parse

KNOWN = ("native", "docker")
SETTINGS = parse('runtime = "docker"\n[apps.search]\nruntime = "native"\n')[0]


@pytest.mark.parametrize(
    ("wishes", "runtime", "because"),
    [
        (
            Wishes(app="search", option="docker", variable="native", settings=SETTINGS, deployed="native"),
            "docker",
            "",
        ),
        (
            Wishes(app="search", variable="docker", settings=SETTINGS, deployed="native"),
            "docker",
            "SLIPWAY_RUNTIME says so",
        ),
        (Wishes(app="search", settings=SETTINGS, deployed="docker"), "native", "config.toml:3 says so"),
        (Wishes(app="shop", settings=SETTINGS, deployed="native"), "docker", "config.toml:1 says so"),
        (Wishes(app="shop", deployed="docker"), "docker", "as deployed"),
        (Wishes(app="shop", variable="", deployed="native"), "native", "as deployed"),
    ],
)
def test_who_is_heard_first(wishes: Wishes, runtime: str, because: str) -> None:
    assert wished(wishes, KNOWN) == Choice(runtime=runtime, because=because)


def test_without_a_wish_there_is_none() -> None:
    assert wished(Wishes(app="shop"), KNOWN) is None


def test_a_runtime_that_there_is_not() -> None:
    with pytest.raises(InvalidError, match=r"there is no runtime 'dokcer' \(SLIPWAY_RUNTIME\)") as said:
        wished(Wishes(app="shop", variable="dokcer"), KNOWN)
    assert said.value.hint == 'Did you mean "docker"?'
    with pytest.raises(InvalidError) as said:
        wished(Wishes(app="shop", option="vm"), KNOWN)
    assert said.value.hint == "There is: native, docker."


def at(line: int) -> Origin:
    return Origin(file="app.py", line=line)


APP = AppDecl(
    name="shop",
    python="3.11",
    images=(
        ImageDecl(name="base", base=FromRegistry(tag="redis:7", origin=at(7))),
        ImageDecl(
            name="plain",
            base=DebianSlim(python_version="3.14", origin=at(9)),
            steps=(
                PipInstall(packages=("x",), method="uv_pip_install", origin=at(10)),
                AptInstall(packages=("git",), origin=at(11)),
                RunCommands(commands=("nvidia-smi",), options=StepOptions(gpu="T4"), origin=at(12)),
            ),
        ),
    ),
)
REFUSALS = {"from_registry": "no; or docker", "apt_install": "no root; or docker", "gpu": "none; or docker"}


def test_all_that_native_cannot_do_for_an_app() -> None:
    (need,) = bases_to_look_for(APP, REFUSALS)
    assert (need.kind, need.ref) == ("debian_slim", "3.14")
    lacks: dict[BaseNeed, Missing] = {need: Missing(summary="this host has no Python 3.14")}
    assert [(one.words, one.place.line) for one in obstacles(APP, "native", REFUSALS, lacks)] == [
        ("native can't do from_registry here (image base)", 7),
        ("not native: this host has no Python 3.14 (image plain)", 9),
        ("native can't do apt_install here (image plain)", 11),
        ("native can't do gpu='T4' in a build step here (image plain)", 12),
    ]
    assert obstacles(APP, "native", {}, {}) == ()


def test_docker_where_native_cannot_and_docker_is_there() -> None:
    found = obstacles(APP, "native", REFUSALS, {})
    choice = default(found, "")
    assert choice.runtime == "docker" and choice.place.line == 7
    (note,) = notes(choice, None)
    assert (note.severity, note.address, note.origin.line) == ("note", "runtime docker", 7)
    assert note.summary == "native can't do from_registry here (image base), and 2 more"
    (told,) = beside(choice)
    assert (told.severity, told.address, told.summary) == ("error", "runtime native", note.summary)


def test_both_reasons_where_neither_can() -> None:
    choice = default(obstacles(APP, "native", REFUSALS, {}), "no engine answers")
    assert choice.runtime == "native"
    (told,) = beside(choice)
    assert (told.severity, told.address, told.summary) == ("error", "runtime docker", "no engine answers")
    assert beside(Choice(runtime="docker")) == ()


def test_the_plan_says_what_is_not_plain() -> None:
    assert notes(Choice(runtime="native"), None) == ()
    assert notes(Choice(runtime="native", because="as deployed"), "native") == ()
    assert notes(Choice(runtime="docker"), "docker") == ()  # asked for
    (note,) = notes(Choice(runtime="docker", because="as deployed"), "docker")
    assert note.summary == "as deployed"
    (note,) = notes(Choice(runtime="docker"), "native")
    assert note.summary == "in place of native, with images of its own; workers on native finish what they do, and go"
    (note,) = notes(Choice(runtime="native", because="SLIPWAY_RUNTIME says so"), "docker")
    assert note.summary.startswith("in place of docker (SLIPWAY_RUNTIME says so), ")
