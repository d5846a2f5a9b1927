"""How long a native container takes: made, `python -c pass` run in it, killed; medians beside a bare process.

python bench/container.py [N]
"""

from __future__ import annotations

import asyncio
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Awaitable
from pathlib import Path
from typing import TypeVar

from slipway.executor.ports import Container, ContainerSpec
from slipway.executor.runtime.native import NativeRuntime

T = TypeVar("T")


async def _run(container: Container, *argv: str) -> None:
    how = await (await container.exec(argv)).wait()
    assert how.code == 0, how


async def _timed(into: list[float], act: Awaitable[T]) -> T:
    before = time.perf_counter()
    result = await act
    into.append((time.perf_counter() - before) * 1000)
    return result


async def measure(home: Path, count: int) -> dict[str, list[float]]:
    """Milliseconds of each act, `count` times over."""
    runtime = NativeRuntime(home)
    await runtime.start()
    took: dict[str, list[float]] = {name: [] for name in ("create", "exec /bin/true", "exec python", "kill")}
    try:
        base = await runtime.resolve("debian_slim", "")
        for number in range(count):
            spec = ContainerSpec(name=f"b{number}", base=base)
            container = await _timed(took["create"], runtime.create(spec))
            await _timed(took["exec /bin/true"], _run(container, "/bin/true"))
            await _timed(took["exec python"], _run(container, "python", "-c", "pass"))
            await _timed(took["kill"], container.kill())
    finally:
        await runtime.close()
    return took


def bare(count: int) -> list[float]:
    took = []
    for _ in range(count):
        before = time.perf_counter()
        subprocess.run([sys.executable, "-c", "pass"], check=True)
        took.append((time.perf_counter() - before) * 1000)
    return took


def main() -> None:
    count = int(sys.argv[1]) if len(sys.argv) > 1 else 50
    with tempfile.TemporaryDirectory() as folder:
        took = asyncio.run(measure(Path(folder) / "home", count))
    took["a bare python -c pass"] = bare(count)
    print(f"median of {count}, ms")
    for name, values in took.items():
        print(f"  {name:24} {statistics.median(values):7.2f}   (best {min(values):.2f})")


if __name__ == "__main__":
    main()
