"""`slipway gc`: it shows, asks, frees; nobody who isn't there is asked."""

from __future__ import annotations

import json
import sys
from typing import Any

import pytest
from fake_engine import FakeEngine, Slipway

from slipway.cli.gc import ages, offer_lines
from slipway.cli.output import paint

DAY = 86_400_000
NOW = 100 * DAY


def thing(title: str, size: int, used_ms: int | None = None, **more: Any) -> dict[str, Any]:
    known = {"kind": "layer", "runtime": "native", "ident": "sha256:" + "ab" * 32, "title": title, "size": size}
    return known | {"used_ms": used_ms} | more


def offer(**more: Any) -> dict[str, Any]:
    layers = [thing(f"run_commands {number}", number * 1_000_000, NOW - number * DAY) for number in range(1, 8)]
    known = {
        "id": "x",
        "keep": None,
        "kinds": [
            {"kind": "layer", "runtime": "native", "number": 7, "size": 28_000_000}
            | {"first_used_ms": NOW - 7 * DAY, "last_used_ms": NOW - DAY},
            {"kind": "blob", "runtime": "", "number": 40, "size": 9_000, "first_used_ms": NOW, "last_used_ms": NOW},
        ],
        "things": layers,
        "free": {"number": 47, "size": 28_009_000},
        "spare": {"number": 0, "size": 0},
        "needed": {"number": 3, "size": 5_000_000_000},
        "skipped": [],
    }
    return known | more


def nothing() -> dict[str, Any]:
    none = {"number": 0, "size": 0}
    return offer(kinds=[], things=[], free=none, needed=none)


def text(shown: dict[str, Any]) -> list[str]:
    return [paint(line, colour=False) for line in offer_lines(shown, now_ms=NOW)]


def test_what_would_be_freed_by_kind_and_the_largest_by_name() -> None:
    assert text(offer()) == [
        "WHAT              NUMBER   SIZE  WHY",
        "layers                 7  28 MB  no deployment needs them; last used 1 day to 7 days ago",
        "  run_commands 7           7 MB  last used 7 days ago",
        "  run_commands 6           6 MB  last used 6 days ago",
        "  run_commands 5           5 MB  last used 5 days ago",
        "  run_commands 4           4 MB  last used 4 days ago",
        "  run_commands 3           3 MB  last used 3 days ago",
        "  and 2 more",
        "source files          40   9 kB  nothing reads them any more; last used just now",
        "",
        "28 MB to free. 5 GB are needed.",
    ]


def test_runtimes_are_told_apart_where_there_are_two() -> None:
    kinds = offer()["kinds"]
    more = kinds[0] | {"runtime": "docker", "number": 1, "first_used_ms": None, "last_used_ms": None}
    things = [thing("", 5, runtime="docker")]
    lines = [line for line in text(offer(kinds=[kinds[0], more], things=things)) if line.startswith("layers")]
    assert [line.split("  ")[0] for line in lines] == ["layers of native", "layers of docker"]
    assert "last used at an unknown time" in lines[1]
    skipped = text(offer(skipped=[{"runtime": "docker", "why": "nobody answers"}]))
    assert "note: the docker runtime was not looked into: nobody answers" in skipped


def test_what_the_budget_leaves_is_told() -> None:
    lines = text(offer(keep=20_000_000_000, spare={"number": 3, "size": 19_000_000_000}))
    assert lines[-1] == "28 MB to free. 19 GB more stay: at most 20 GB of what nothing needs may. 5 GB are needed."


@pytest.mark.parametrize(
    ("passed", "said"), [(59_000, "just now"), (60_000, "1 minute ago"), (3 * 3_600_000, "3 hours ago")]
)
def test_ages(passed: int, said: str) -> None:
    assert ages(NOW, NOW - passed, NOW - passed) == said
    assert ages(NOW, NOW - 3 * DAY, NOW - 1000) == "up to 3 days ago"


def test_it_shows_and_frees_nothing_where_nobody_can_be_asked(engine: FakeEngine, slipway: Slipway) -> None:
    engine.replies["gc"] = lambda _: offer()
    out = slipway("gc", "--keep", "1.5GiB", "--caches").out
    assert engine.asked == [("gc", {"caches": True, "keep": 3 << 29})]
    assert out.splitlines()[-1] == "Nothing was freed. To free it: slipway gc --yes --keep 1536MiB --caches"
    assert json.loads(slipway("gc", "--json").out) == {name: value for name, value in offer().items() if name != "id"}
    assert "To free it" not in slipway("gc", "--dry-run", "--yes").out
    assert [method for method, _ in engine.asked] == ["gc"] * 3
    engine.replies["gc"] = lambda _: nothing()
    assert slipway("gc", "--yes").out == "Nothing to free.\n"


def test_it_frees_after_a_yes(engine: FakeEngine, slipway: Slipway, monkeypatch: pytest.MonkeyPatch) -> None:
    engine.replies["gc"] = lambda _: offer()
    left = [thing("apt_install git", 5, why="layer sha256:ab is in use by container w1")]
    engine.replies["gc.free"] = lambda _: {"freed": {"number": 46, "size": 21_000_000}, "left": left}
    engine.events["gc.free"] = [{"event": "freed", "number": 7, "size": 20_000_000}]
    out = slipway("gc", "--yes").out.splitlines()
    assert engine.asked[-1] == ("gc.free", {"id": "x"})
    assert out[-2:] == [
        "not freed: layer apt_install git: layer sha256:ab is in use by container w1",
        "Freed 21 MB in 46 things.",
    ]
    said = json.loads(slipway("gc", "--yes", "--json").out)
    assert said["freed"]["number"] == 46 and said["left"][0]["why"].endswith("w1")
    monkeypatch.setattr(sys.stdin, "isatty", lambda: True)
    answers = iter([True, False])
    monkeypatch.setattr("slipway.cli.gc.click.confirm", lambda question: next(answers))
    assert "Freed 21 MB" in slipway("gc").out
    assert "Nothing was freed" in slipway("gc").out


@pytest.mark.parametrize("size", ["20", "GB", "-1GB", "20 gigabytes", "1e3GB", ""])
def test_a_size_without_a_unit_is_refused(slipway: Slipway, size: str) -> None:
    assert "is not a size. Say it with its unit" in slipway("gc", "--keep", size, code=2).err


def test_nothing_may_stay(engine: FakeEngine, slipway: Slipway) -> None:
    engine.replies["gc"] = lambda _: nothing()
    slipway("gc", "--keep", "0")
    slipway("gc", "--keep", "0GB")
    assert engine.asked == [("gc", {"caches": False, "keep": 0})] * 2
