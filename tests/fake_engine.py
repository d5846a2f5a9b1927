"""The command line against an engine that lives in the test: real files, real declarations, real plans, no process."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from attrs import define, field

from slipway.cli.main import main
from slipway.compiler import diff
from slipway.compiler.facts import (
    BaseFact,
    BaseNeed,
    Fact,
    Facts,
    Need,
    SecretFact,
    SecretNeed,
    TextNeed,
    TreeNeed,
    VolumeFact,
)
from slipway.compiler.nodes import Graph
from slipway.compiler.plan import Plan
from slipway.compiler.wire import from_wire, to_wire
from slipway.compiler.world import needs
from slipway.dsl.declaration import AppDecl
from slipway.dsl.errors import NotFoundError
from slipway.executor.trees import read_text, read_tree

OnEvent = Callable[[dict[str, Any]], None]


def fact(need: Need) -> Fact:
    match need:
        case BaseNeed():
            identity = (("os", "debian 12"), ("python", "3.11.7"))
            return BaseFact(identity=identity, says="this host: Debian 12, Python 3.11.7")
        case TreeNeed():
            return read_tree(need.source, {}).fact
        case TextNeed():
            return read_text(need.path)
        case SecretNeed():
            return SecretFact(version=1)
    return VolumeFact(exists=False)


@define
class FakeEngine:
    """Plans for real and keeps what is applied; `replies` and `events` say the rest."""

    asked: list[tuple[str, dict[str, Any]]] = field(factory=list)
    replies: dict[str, Callable[[dict[str, Any]], dict[str, Any]]] = field(factory=dict)
    events: dict[str, list[dict[str, Any]]] = field(factory=dict)
    deployed: Graph | None = None
    serial: int = 0
    plans: dict[str, Plan] = field(factory=dict)
    last_ms: dict[str, int] = field(factory=dict)
    closed: bool = False

    def request(self, method: str, params: dict[str, Any], on_event: OnEvent | None = None) -> dict[str, Any]:
        self.asked.append((method, params))
        for event in self.events.get(method, ()):
            assert on_event is not None
            on_event(event)
        if method in self.replies:
            return self.replies[method](params)
        return {"plan": self._plan, "apply": self._apply}[method](params)

    def _plan(self, params: dict[str, Any]) -> dict[str, Any]:
        declaration = from_wire(AppDecl, params["declaration"])
        plan = diff.plan(
            declaration,
            Facts(runtime="native", found=tuple((need, fact(need)) for need in needs(declaration))),
            deployed=self.deployed,
            built=frozenset(node.digest for node in self.deployed.nodes) if self.deployed else frozenset(),
            last_ms=self.last_ms,
            lineage="one" if self.serial else "",
            serial=self.serial,
            engine_version="0.1.0",
        )
        name = f"plan{len(self.plans)}"
        self.plans[name] = self.plans[params["folder"]] = plan
        return {"plan": to_wire(plan), "id": name}

    def _apply(self, params: dict[str, Any]) -> dict[str, Any]:
        if "plan" in params:
            plan = from_wire(Plan, params["plan"])
        elif (wanted := params.get("id") or params["folder"]) in self.plans:
            plan = self.plans[wanted]
        else:
            raise NotFoundError("no plan was made in this folder", hint="Make one: slipway plan app.py")
        done = [change.address for change in plan.changes if change.verb.value != "="]
        executed = sum(change.build for change in plan.changes)
        self.serial += bool(done)
        self.deployed = plan.graph
        return {"serial": self.serial, "done": done, "failed": [], "skipped": [], "executed": executed}

    def __enter__(self) -> FakeEngine:
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def close(self) -> None:
        pass


@define
class Ran:
    code: int
    out: str
    err: str


class Slipway:
    """Runs commands as a shell would, without starting a process."""

    def __init__(self, capsys: pytest.CaptureFixture[str]) -> None:
        self._capsys = capsys

    def __call__(self, *argv: str, code: int = 0) -> Ran:
        got = main(list(argv))
        out, err = self._capsys.readouterr()
        assert got == code, f"exit code {got}\n{out}\n{err}"
        return Ran(got, out, err)
