"""Applies an app of five layers, a bundle and a volume to a home, with the native runtime; killed where the fault says.

`python build_app.py HOME` prints, as JSON, what the apply said and what a container of the last layer sees.
"""

from __future__ import annotations

import asyncio
import json
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent.parent))

from assembly import Assembly, app, tip

from slipway.dsl.declaration import AppDecl, FunctionDecl, LocalSource, RunCommands, SourceDecl, VolumeDecl
from slipway.executor.images import image_parts, nodes_of
from slipway.executor.indexes import Indexes
from slipway.executor.ports import ContainerSpec
from slipway.executor.runtime.native import NativeRuntime
from slipway.executor.store.recovery import recover

LAYERS = 5


def declared() -> AppDecl:
    steps = tuple(
        RunCommands(commands=(f"mkdir -p /made && echo {number} > /made/{number}", "ls /made >> /made/seen"))
        for number in range(LAYERS)
    )
    here = LocalSource(local=str(Path(__file__).resolve()), remote="/root/build_app.py")
    volume = VolumeDecl(name="data", create_if_missing=True)
    function = FunctionDecl(
        name="f",
        module="build_app",
        qualname="f",
        image=0,
        code=SourceDecl(sources=(here,)),
        volumes=(("/data", volume),),
    )
    return app(steps, functions=(function,))


async def main(home: Path) -> None:
    async with Assembly.opened(home, NativeRuntime(home), indexes=Indexes()) as assembly:
        cut_short = await recover(assembly.state, assembly.blobs, assembly.bundles, home / "volumes")
        plan = await assembly.plan(declared())
        applied = await assembly.applier.apply(plan)
        nodes = nodes_of(plan.graph)
        parts = image_parts(nodes, tip(plan.graph).address)
        container = await assembly.runtime.create(ContainerSpec(name="look", base=parts.base, layers=parts.layers))
        said: list[bytes] = []
        process = await container.exec(
            ("/bin/sh", "-c", "cat /made/?; cat /made/seen"), output=lambda _n, d: said.append(d)
        )
        await process.wait()
        await container.kill()
        result = {
            "serial": applied.serial,
            "executed": applied.executed,
            "failures": [failure.message for failure in applied.failures],
            "cut_short": list(cut_short),
            "seen": b"".join(said).decode(),
            "volumes": [volume.folder for volume in await assembly.state.volumes()],
        }
        print(json.dumps(result))


if __name__ == "__main__":
    asyncio.run(main(Path(sys.argv[1])))
