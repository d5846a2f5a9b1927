"""Frees what a home doesn't need, with the native runtime; killed where the fault says.

`python gc_app.py HOME make` deploys an app and takes it away again, with a layer that has two names.
`python gc_app.py HOME free` frees all of it; `free KEPT` deploys it as it was first, and frees the rest.
Each prints, as JSON, what is there in the end.
"""

from __future__ import annotations

import asyncio
import json
import sys
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent.parent))

from assembly import app

from slipway.compiler.encode import to_wire
from slipway.dsl.declaration import AppDecl, FunctionDecl, LocalSource, RunCommands, SourceDecl
from slipway.executor.channels import Scope
from slipway.executor.engine import Engine
from slipway.executor.home import Home
from slipway.executor.requests import methods
from slipway.executor.runtime.native import NativeRuntime


def declared(first: str) -> AppDecl:
    """An app whose second layer stands on the same content whatever `first` says, so that it is built once."""
    steps = (
        RunCommands(commands=(f"true {first}", "echo base > /base")),
        RunCommands(commands=("cat /base /base > /twice",)),
        RunCommands(commands=(f"echo {first} > /top",)),
    )
    here = LocalSource(local=str(Path(__file__).resolve()), remote="/root/gc_app.py")
    function = FunctionDecl(name="f", module="gc_app", qualname="f", image=0, code=SourceDecl(sources=(here,)))
    return app(steps, functions=(function,))


async def main(path: Path, what: str, kept: str = "") -> None:
    home = Home(path)
    home.create()
    async with Engine.open(home, runtimes=(NativeRuntime(path),)) as engine:
        known = methods(engine)

        async def ask(method: str, **params: Any) -> dict[str, Any]:
            return await known[method](Scope(), params, lambda event, *descriptors: None)

        async def apply(first: str) -> int:
            plan = await ask("plan", declaration=to_wire(declared(first)), folder="/")
            return int((await ask("apply", id=plan["id"]))["executed"])

        executed = 0
        if what == "make":
            await apply("one")
            await apply("two")
            await ask("destroy", app="app")
        elif what == "free":
            executed = await apply(kept) if kept else 0
            offer = await ask("gc", caches=True)
            left = (await ask("gc.free", id=offer["id"]))["left"]
            assert left == [], left
        stored = [stored async for stored in engine.runtimes["native"].layers()]
        result = {
            "executed": executed,
            "layers": len(stored),
            "bundles": len(list(home.bundles.iterdir())),
            "blobs": len(list(engine.blobs.iterate())),
            "uses": len(await engine.state.uses()),
            "free": (await ask("gc", caches=True))["free"],
        }
        print(json.dumps(result))


if __name__ == "__main__":
    asyncio.run(main(Path(sys.argv[1]), *sys.argv[2:]))
