"""Objects of a user's class, as its methods see them: parameters set, and the methods that can be called at hand.

Both sides make them: a worker the one that it serves, a program one for `.local()`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from . import hooks
from .errors import ExecutionError
from .origin import invalid

if TYPE_CHECKING:
    from asyncio import Lock
    from types import CoroutineType

    from .cls import Cls, Obj
    from .function import Function
    from .hooks import Partial
    from .variant import Value


def loaded(found: object, name: str, opening: Mapping[str, Any] | None = None) -> tuple[type, Cls]:
    """The class that a name of the user's module stands for, and its handle; `name` is what the app calls it. `opening`
    is that of the variant that the worker serves: the methods of its object lead to workers of the same kind."""
    from .cls import Cls

    if isinstance(found, type):
        found = Cls(name=name, user_class=found)
    if isinstance(found, Cls) and found.has_code:
        if opening:
            from .variant import said_by

            return found.user_class, found._varied(said_by(opening))
        return found.user_class, found
    raise ExecutionError(f"{name} is not a class in the container, but {found!r}")


def make(user_class: type, parameters: Mapping[str, Value], cls: Cls) -> Any:
    """The instance that a worker serves. No hook has run yet: whoever serves it runs them, see `hooks.hooks`.

    >>> from slipway.dsl.cls import Cls
    >>> class Model:
    ...     size: str = hooks.Parameter(default="small", required=False)
    ...     level: int = hooks.Parameter()
    ...     embed = hooks.Partial(target=lambda self, text: text * self.level, role="method")
    >>> made = make(Model, {"level": 3}, Cls(name="Model", user_class=Model))
    >>> made.size, made.embed, made.embed.local("a")
    ('small', <Function Model.embed>, 'aaa')
    """
    from .cls import Obj

    obj = Obj(cls, dict(parameters))
    local = LocalInstance(obj)
    local.entered = True
    obj._slipway.local = local
    return local.instance


class Handles:
    """The methods of one instance by what stands for them in the class: `self.embed` becomes a function of the app."""

    __slots__ = ("_methods", "_obj")

    def __init__(self, obj: Obj) -> None:
        self._obj = obj
        self._methods = {id(partial): name for name, partial in obj._slipway.cls.methods.items()}

    def of(self, partial: Partial) -> Function[..., Any, Any] | None:
        name = self._methods.get(id(partial))
        return None if name is None else self._obj._slipway.method(name)


class LocalInstance:
    """The instance of an object in this process. Its `enter` hooks run once, when the first method is called."""

    def __init__(self, obj: Obj) -> None:
        import threading

        own = obj._slipway
        self.instance = _made(own.cls.user_class, own.parameters)
        self.entered = False
        self._entering: object = None  # the thread or task that runs the hooks, whose own calls are let through
        self._lock = threading.RLock()
        self._async_lock: Lock | None = None
        try:
            self.instance.__dict__[hooks.HANDLES] = Handles(obj)
        except AttributeError:
            raise ExecutionError(f"{own.cls.name} has __slots__, and so no place for its methods' handles") from None

    def enter(self) -> None:
        """Run the hooks that have not run: those before a snapshot, then those after it."""
        import threading

        with self._lock:
            if self.entered or self._entering is threading.current_thread():
                return
            self._entering = threading.current_thread()
            try:
                for hook in self._hooks():
                    _finish(hook(self.instance), hook)
                self.entered = True
            finally:
                self._entering = None

    async def enter_aio(self) -> None:
        import asyncio

        if self.entered or self._entering is asyncio.current_task():
            return
        if self._async_lock is None:
            self._async_lock = asyncio.Lock()
        async with self._async_lock:
            if self.entered:
                return
            self._entering = asyncio.current_task()
            try:
                for hook in self._hooks():
                    result = hook(self.instance)
                    if hasattr(result, "__await__"):
                        await result
                self.entered = True
            finally:
                self._entering = None

    def _hooks(self) -> tuple[Callable[..., Any], ...]:
        kind = type(self.instance)
        return (*hooks.hooks(kind, "enter", snap=True), *hooks.hooks(kind, "enter", snap=False))

    def bound(self, raw: Callable[..., Any]) -> Callable[..., Any]:
        """A method as `.local()` calls it: the hooks first. Of asynchronous ones they run once it is awaited."""
        import inspect

        method = raw.__get__(self.instance)
        if inspect.iscoroutinefunction(raw):

            async def later(*args: Any, **kwargs: Any) -> Any:
                await self.enter_aio()
                return await method(*args, **kwargs)

            return later
        if inspect.isasyncgenfunction(raw):

            async def items(*args: Any, **kwargs: Any) -> Any:
                await self.enter_aio()
                async for item in method(*args, **kwargs):
                    yield item

            return items

        def now(*args: Any, **kwargs: Any) -> Any:
            self.enter()
            return method(*args, **kwargs)

        return now


def _made(user_class: type, parameters: Mapping[str, Value]) -> Any:
    """An instance with its parameters set."""
    instance = user_class()
    for name, (_, parameter) in hooks.parameters(user_class).items():
        if name in parameters:
            setattr(instance, name, parameters[name])
        elif not parameter.required:
            setattr(instance, name, parameter.default)
    return instance


def _finish(result: Any, hook: Callable[..., Any]) -> None:
    """Carry an asynchronous hook out, on the way into a method that is not."""
    if not hasattr(result, "__await__"):
        return
    import asyncio

    coroutine: CoroutineType[Any, Any, Any] = result
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        asyncio.run(coroutine)
        return
    coroutine.close()
    raise invalid(
        f"{hook.__qualname__} is asynchronous, and the method is not",
        hint="In async code, call an `async def` method: await obj.method.local(...).",
    )
