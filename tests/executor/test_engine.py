"""An engine begins, whatever of what was deployed can't be served any more."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest
from fakes import FakeRuntime

from slipway.compiler.encode import dumps
from slipway.compiler.nodes import Graph
from slipway.dsl.errors import NotFoundError
from slipway.executor.channels import Scope
from slipway.executor.engine import Engine
from slipway.executor.home import Home
from slipway.executor.ports import Deployment
from slipway.executor.requests import methods
from slipway.executor.store.state import State


def deployed(app: str, graph: bytes) -> Deployment:
    return Deployment(app=app, lineage="l", serial=1, graph=graph, created_ms=0, runtime="native")


def test_an_app_that_is_damaged_keeps_no_other_from_being_served(tmp_path: Path) -> None:
    async def main() -> None:
        home = Home(tmp_path)
        home.create()
        state = State.open(home.state, version="0.1.0")
        await state.flip(deployed("damaged", b"nothing"), onto=("", 0))
        await state.flip(deployed("whole", dumps(Graph(app="whole", runtime="native"))), onto=("", 0))
        await state.close()
        async with Engine.open(home, runtimes=(FakeRuntime(),)) as engine:
            assert list(engine.live) == ["whole"]
            with pytest.raises(
                NotFoundError, match="damaged is deployed, but can't be served: this is not JSON"
            ) as said:
                await engine.channels.open(Scope(), {"app": "damaged", "function": "f"})
            assert "slipway apply" in said.value.hint
            listed = await methods(engine)["app.list"](Scope(), {}, lambda *_: None)
            assert {app["app"]: app["state"][:6] for app in listed["apps"]} == {"whole": "deploy", "damaged": "broken"}

    asyncio.run(main())
