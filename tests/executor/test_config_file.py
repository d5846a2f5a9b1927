"""A home's settings: what can be said, what is wrong with what was said, and that a change is seen."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from slipway.dsl.errors import DeclarationError
from slipway.executor.config import AppSettings, Config, DockerSettings
from slipway.executor.config_file import ConfigFile, parse

ALL = """
runtime = "docker"

[apps.search]
runtime = "native"
network = "back"
oci_runtime = "runsc"
user = "1000:1000"
shm_size = "64MiB"

[apps."other.app"]
runtime = "docker"

[docker]
host = "unix:///run/docker.sock"
network = "host"
oci_runtime = "runc"
user = "nobody"
shm_size = "2 GiB"

[docker.bases]
"debian_slim 3.12" = "registry.example/python:3.12"
micromamba = "mamba:1"

[gc]
keep = "50GB"

[calls]
keep_results = 14
"""


def test_everything_that_can_be_said() -> None:
    reading, faults = parse(ALL)
    assert faults == ()
    assert reading.config == Config(
        runtime="docker",
        docker=DockerSettings(
            host="unix:///run/docker.sock",
            network="host",
            oci_runtime="runc",
            user="nobody",
            shm_mib=2048,
            bases=(("debian_slim 3.12", "registry.example/python:3.12"), ("micromamba", "mamba:1")),
        ),
        apps=(
            (
                "search",
                AppSettings(runtime="native", network="back", oci_runtime="runsc", user="1000:1000", shm_mib=64),
            ),
            ("other.app", AppSettings(runtime="docker")),
        ),
        keep_mib=47683,
        keep_results_days=14,
    )
    assert reading.config.docker_of("search").network == "back"
    assert reading.place("apps", "other.app", "runtime") == "config.toml:12"
    assert reading.place("gc", "keep") == "config.toml:26"


def told(text: str) -> list[str]:
    faults = parse(text)[1]
    assert all(fault.severity == "error" and fault.hint for fault in faults)
    return [f"{fault.origin.line} {fault.address}: {fault.summary}; {fault.found}; {fault.hint}" for fault in faults]


def test_all_faults_at_once_in_the_order_of_the_file() -> None:
    assert told(
        'runtim = "docker"\n'
        'network = "x"\n'
        "[apps.search]\n"
        'runtime = "dokcer"\n'
        "shm_size = 5\n"
        "[docker]\n"
        'host = "unix:///a"\n'
        'context = "b"\n'
        "user = 1000\n"
        'bases = {"debain_slim" = "q"}\n'
        "[gc]\n"
        'keep = "50"\n'
        "[shop]\n"
    ) == [
        "1 runtim: there is no such setting; runtim = 'docker'; Did you mean \"runtime\"?",
        "2 network: there is no such setting; network = 'x'; It belongs below [docker].",
        "4 apps.search.runtime: there is no such runtime; runtime = 'dokcer'; Did you mean \"docker\"?",
        "5 apps.search.shm_size: a size is text, and this is a number; shm_size = 5; "
        'Say it with its unit: "512MiB", "2GiB" or "50GB".',
        "8 docker.context: host and context are both said; context = 'b'; Keep one of the two.",
        '9 docker.user: it must be text, and is a number; user = 1000; Put it in quotes: "1000"',
        "10 docker.bases.debain_slim: there is no such base; debain_slim = 'q'; Did you mean \"debian_slim\"?",
        '12 gc.keep: this is not a size; keep = \'50\'; Say it with its unit: "512MiB", "2GiB" or "50GB".',
        "13 shop: there is no such setting; ; Here go: runtime, apps, docker, gc, logs, calls.",
    ]


@pytest.mark.parametrize(
    ("text", "line", "summary"),
    [
        ("a = \n", 1, "this is not TOML: Invalid value"),
        ('runtime = "native"\nruntime = "docker"\n', 2, "this is not TOML: Cannot overwrite a value"),
        ("x = [", 1, "this is not TOML"),
        ("x = " + "[" * 5000, 1, "this is not TOML"),
        ("x = " + "9" * 5000, 1, "this is not TOML"),
        ("docker = 5", 1, "it must be a table, and is a number"),
        ("[docker]\nbases = true", 2, "it must be a table, and is true or false"),
        ("[[apps]]\n", 1, "it must be a table, and is a list"),
        ('[apps]\nsearch = "docker"', 2, "it must be a table, and is text"),
        ('[docker]\nhost = ""', 2, "it is empty"),
        ("[docker]\nhost = 2026-11-23", 2, "it must be text, and is a date"),
        ('[gc]\nkeep = "0.1MiB"', 2, "this is less than 1 MiB"),
        ("[calls]\nkeep_results = 0", 2, "it must be a number of days, from 1 to 30"),
        ("[calls]\nkeep_results = true", 2, "it must be a number of days, from 1 to 30"),
        ("keep_results = 7", 1, "there is no such setting"),
        ('docker.shm_size = "2gb"', 1, "this is not a size"),
        ('[docker.bases]\n"debian_slim latest" = "x"', 2, "there is no such base"),
    ],
)
def test_what_makes_no_sense_is_told_with_its_line(text: str, line: int, summary: str) -> None:
    (fault,) = parse(text)[1]
    assert fault.summary.startswith(summary) and fault.origin.line == line and fault.hint


def test_the_file_is_read_anew_where_it_changed(tmp_path: Path) -> None:
    path = tmp_path / "config.toml"
    file = ConfigFile(path)
    assert file.read().config == file.current() == Config()
    path.write_text('runtime = "docker"')
    os.utime(path, ns=(1, 1))
    assert file.read().config.runtime == "docker" and file.read() is file.read()
    path.write_text('runtime = "native"')  # as long as it was
    os.utime(path, ns=(2, 2))
    assert file.read().config.runtime == "native"
    path.unlink()
    assert file.read().config == Config()


def test_what_goes_on_keeps_the_last_settings_that_made_sense(tmp_path: Path) -> None:
    path = tmp_path / "config.toml"
    file = ConfigFile(path)
    path.write_text('runtime = "docker"')
    assert file.read().config.runtime == "docker"
    path.write_text('runtime = "docker2"')
    for _ in range(2):
        with pytest.raises(DeclarationError) as said:
            file.read()
        assert str(said.value.faults[0].origin) == f"{path}:1"
        assert file.current().runtime == "docker"


def test_what_is_no_file_of_text_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "config.toml"
    file = ConfigFile(path)
    os.mkfifo(path)
    with pytest.raises(DeclarationError, match="it is not a file of settings"):
        file.read()
    path.unlink()
    path.mkdir()
    with pytest.raises(DeclarationError, match="it is not a file of settings"):
        file.read()
    path.rmdir()
    path.write_bytes(b"runtime = '\xff'")
    with pytest.raises(DeclarationError, match="it is not UTF-8"):
        file.read()
    assert file.current() == Config()


def test_the_example_of_the_guide_is_right() -> None:
    page = (Path(__file__).parents[2] / "docs" / "guide" / "configuration.md").read_text()
    reading, faults = parse(page.partition("```toml\n")[2].partition("```")[0])
    assert faults == () and reading.config.keep_mib and dict(reading.config.apps)["search"].shm_mib == 8192
