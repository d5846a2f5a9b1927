"""`slipway config`, and what the status says of runtimes and settings."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from fake_engine import FakeEngine, Slipway


@pytest.fixture
def file(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where the settings go; nothing in the environment says anything of runtimes."""
    for name in ("SLIPWAY_RUNTIME", "DOCKER_HOST", "DOCKER_CONTEXT", "DOCKER_TLS_VERIFY", "DOCKER_TLS"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("DOCKER_CONFIG", str(folder / "docker"))
    home = folder.parent / "home"
    home.mkdir()
    return home / "config.toml"


def settings(slipway: Slipway) -> dict[str, tuple[str, str]]:
    said = json.loads(slipway("config", "--json").out)
    return {row["name"]: (row["value"], row["origin"]) for row in said["settings"]}


def test_where_nothing_is_said(slipway: Slipway, file: Path) -> None:
    out = slipway("config").out
    assert f"There is no {file} yet." in out
    found = settings(slipway)
    assert found["home"] == (str(file.parent), "SLIPWAY_HOME")
    assert found["runtime"] == ("as deployed, else native where it can serve the app, else docker", "default")
    assert {"docker.network", "docker.user", "docker.shm_size", "gc.keep"} < set(found)


def test_who_said_what(slipway: Slipway, file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file.write_text(
        'runtime = "docker"\n[docker]\nhost = "unix:///here.sock"\n[docker.bases]\n"debian_slim 3.12" = "mine"\n'
        '[apps.search]\nshm_size = "1GiB"\n[gc]\nkeep = "50GB"\n[calls]\nkeep_results = 14\n'
    )
    found = settings(slipway)
    assert found["runtime"] == ("docker", f"{file}:1")
    assert found["docker.host"] == ("unix:///here.sock", f"{file}:3")
    assert found["docker.bases.debian_slim 3.12"] == ("mine", f"{file}:5")
    assert found["apps.search.shm_size"] == ("1024 MiB", f"{file}:7")
    assert found["gc.keep"] == ("47683 MiB", f"{file}:9")
    assert found["calls.keep_results"] == ("14 days", f"{file}:11")
    monkeypatch.setenv("SLIPWAY_RUNTIME", "native")
    monkeypatch.setenv("DOCKER_HOST", "ssh://far")
    assert settings(slipway)["runtime"] == ("native", "SLIPWAY_RUNTIME")
    file.unlink()
    value, origin = settings(slipway)["docker.host"]
    assert value.startswith("ssh://far (DOCKER_HOST) is an engine on another machine") and origin == "of no use"


def test_all_that_is_wrong_is_told(slipway: Slipway, file: Path) -> None:
    file.write_text('rutime = "docker"\n[docker]\nshm_size = "2"\n')
    err = slipway("config", code=1).err
    assert f"{file}:1: rutime: there is no such setting" in err and 'Did you mean "runtime"?' in err
    assert f"{file}:3: docker.shm_size: this is not a size" in err


def test_the_status_tells_of_a_runtime_in_trouble(slipway: Slipway, engine: FakeEngine) -> None:
    engine.replies["status"] = lambda _: {
        "pid": 7,
        "version": "0.1.0",
        "runtimes": [{"name": "native", "trouble": ""}, {"name": "docker", "trouble": "no engine answers at x"}],
        "settings": "config.toml:1: rutime: there is no such setting",
        "apps": [
            {"app": "a", "runtime": "native"},
            {"app": "b", "runtime": "docker", "workers": 2, "troubles": {"f": "it\n  died"}},
        ],
    }
    lines = slipway("status").out.splitlines()
    assert lines[2:] == [
        "runtime native: ready",
        "runtime docker: no engine answers at x",
        "settings of before, since those of now are wrong: config.toml:1: rutime: there is no such setting",
        "app a, deployed on native: 0 workers, 0 running, 0 queued",
        "app b, deployed on docker, which is in trouble: 2 workers, 0 running, 0 queued",
        "  b.f: its workers fail: it",
        "    died",
        "idle",
    ]


def test_a_plan_that_is_there_takes_no_other_runtime(slipway: Slipway, engine: FakeEngine) -> None:
    for what in ((), ("release.plan",)):
        assert "a plan is for one runtime already" in slipway("apply", *what, "--runtime", "docker", code=1).err
    assert engine.asked == []
