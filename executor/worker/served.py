"""What a worker serves: the user's function, or an object of the user's class with its hooks. Runs in the container."""

from __future__ import annotations

import sys
from importlib import import_module
from types import CoroutineType
from typing import TYPE_CHECKING, Any

from slipway.dsl.errors import ExecutionError

from . import payload

if TYPE_CHECKING:
    from asyncio import AbstractEventLoop
    from collections.abc import Callable, Iterable

_ASYNC = 0x80 | 0x200  # of a code object: it is a coroutine or an asynchronous generator


class Target:
    """What an input calls; `name` is for messages."""

    __slots__ = ("function", "is_async", "is_generator", "name")

    def __init__(self, name: str, function: Callable[..., Any], is_async: bool, is_generator: bool) -> None:
        self.name = name
        self.function = function
        self.is_async = is_async
        self.is_generator = is_generator


class Served:
    """What START names, imported. `targets` are in the order of its methods; a plain function is the only one."""

    def __init__(self, start: dict[str, Any]) -> None:
        self.name: str = start["function"]["name"]
        self.concurrency = int(start.get("concurrency", 1))
        self.batched = bool(start.get("batch"))
        self.targets: list[Target] = []
        self._instance: Any = None
        self._class: type | None = None
        self._loop: AbstractEventLoop | None = None

    @property
    def is_async(self) -> bool:
        """Whether any of its code needs a loop."""
        if self._loop is not None or any(target.is_async for target in self.targets):
            return True
        return any(_is_async(hook) for hook in self._hooks("enter") + self._hooks("exit"))

    @property
    def loop(self) -> AbstractEventLoop:
        """The one loop of hooks and inputs."""
        if self._loop is None:
            import asyncio  # takes a quarter of a worker's start; most need none

            self._loop = asyncio.new_event_loop()
            asyncio.set_event_loop(self._loop)
        return self._loop

    def load(self, start: dict[str, Any]) -> None:
        """Import the user's code and make the object. Raises what that raises, or `ExecutionError`."""
        spec = start["function"]
        found = _find(spec)
        if not start.get("methods"):
            from slipway.dsl.function import raw_of

            self.targets = [Target(self.name, raw_of(found), spec["is_async"], spec["is_generator"])]
            return
        from slipway.dsl import hooks, instance

        self._class, cls = instance.loaded(found, self.name, start.get("variant"))
        self._instance = instance.make(self._class, _parameters(start["parameters"]), cls)
        partials = hooks.methods(self._class)
        for name, is_async, is_generator in start["methods"]:
            if name not in partials:
                raise ExecutionError(f"{self.name} has no method {name} in the container")
            function = partials[name].target.__get__(self._instance)
            self.targets.append(Target(f"{self.name}.{name}", function, is_async, is_generator))

    # --- hooks

    def enter(self, *, snap: bool) -> None:
        """Run the hooks before the snapshot, or those after it. Raises what they raise."""
        for hook in self._hooks("enter", snap=snap):
            self._run(hook)

    def exit(self) -> None:
        """Run the exit hooks; what they raise is printed, and the next one runs all the same."""
        for hook in self._hooks("exit"):
            self._run_last(hook)

    def _hooks(self, role: str, *, snap: bool | None = None) -> tuple[Callable[..., Any], ...]:
        if self._class is None:
            return ()
        from slipway.dsl import hooks

        return hooks.hooks(self._class, role, snap=snap)

    def _run_last(self, hook: Callable[..., Any]) -> None:
        try:
            self._run(hook)
        except BaseException as error:  # noqa: BLE001 - the user's code may raise anything, and the others still run
            from . import failure

            print(f"{self.name}: the exit hook {hook.__name__} failed:", file=sys.stderr)  # noqa: T201
            failure.show(error)

    def _run(self, hook: Callable[..., Any]) -> None:
        result = hook(self._instance)
        if isinstance(result, CoroutineType):
            self.loop.run_until_complete(result)

    def let_go_of_loop(self) -> str:
        """Close the loop that hooks have run on: forks of this process need one each. Why that can't be done, or ""."""
        loop = self._loop
        if loop is None:
            return ""
        import asyncio

        if tasks := asyncio.all_tasks(loop):
            names = ", ".join(sorted(task.get_name() for task in tasks))
            return f"tasks that enter(snap=True) started are still running: {names}"
        loop.run_until_complete(loop.shutdown_default_executor())  # its threads
        self.close()
        asyncio.set_event_loop(None)
        self._loop = None
        return ""

    def close(self) -> None:
        """Let what the user's code left on the loop end in order."""
        loop = self._loop
        if loop is None:
            return
        import asyncio

        tasks: Iterable[asyncio.Task[Any]] = asyncio.all_tasks(loop)
        for task in tasks:
            task.cancel()
        if tasks:
            loop.run_until_complete(asyncio.gather(*tasks, return_exceptions=True))
        loop.run_until_complete(loop.shutdown_asyncgens())
        loop.close()


def _find(spec: dict[str, Any]) -> Any:
    """The function or class that a declaration names, or its handle."""
    if spec.get("serialized"):
        from base64 import b64decode

        return payload.load(b64decode(spec["serialized"]))
    found: Any = import_module(spec["module"])
    try:
        for name in spec["qualname"].split("."):
            found = getattr(found, name)
    except AttributeError:
        raise ExecutionError(
            f"the module {spec['module']} has no {spec['qualname']} in the container",
            hint="Is it defined under a condition that does not hold there?",
        ) from None
    return found


def _parameters(said: dict[str, Any]) -> dict[str, Any]:
    """Parameters as START has them, bytes as {"base64": …}."""
    from base64 import b64decode

    return {name: b64decode(value["base64"]) if isinstance(value, dict) else value for name, value in said.items()}


def _is_async(hook: Callable[..., Any]) -> bool:
    code = getattr(hook, "__code__", None)
    return code is not None and bool(code.co_flags & _ASYNC)
