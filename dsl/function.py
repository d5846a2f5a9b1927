"""Functions: handles through which a program calls what runs in a worker."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from functools import cached_property, update_wrapper
from typing import TYPE_CHECKING, Any, Generic, NoReturn, ParamSpec, TypeVar

from . import context, registry
from .calls import ForEach, Local, Map, Remote, StarMap
from .errors import ExecutionError, InvalidError
from .later import Later
from .origin import here, invalid, origin_of, text_argument
from .session import FunctionRef, Session, current_session, the_runner, worker_app

if TYPE_CHECKING:
    from .app import App
    from .declaration import Batching, Concurrency, EndpointDecl, Origin
    from .image import Image
    from .options import FunctionSettings

P = ParamSpec("P")
R = TypeVar("R")
L = TypeVar("L")


_VARARGS = 0x04  # as in `inspect`, which takes longer to import than all of this


class Function(Generic[P, R, L]):
    """A function of an app. `f.remote(x)` runs it in a worker, `f.local(x)` right here; `f(x)` alone says so.

    >>> from slipway.dsl.app import App
    >>> app = App("example")
    >>> @app.function(serialized=True)
    ... def square(x):
    ...     return x * x
    >>> square.local(3)
    9
    >>> square(3)
    Traceback (most recent call last):
    ...
    slipway.dsl.errors.InvalidError: ...: a function of an app can't be called directly: square(...)
    Use square.remote(...) to run it in a worker, or square.local(...) to run it here.
    """

    remote_gen = Later("Function.remote_gen", "Return a list and use .remote.")
    spawn = Later("Function.spawn", "Use .remote, or .map for many.")
    spawn_map = Later("Function.spawn_map", "Use .for_each.")
    experimental_spawn_map = Later("Function.experimental_spawn_map", "Use .map.")
    with_options = Later("Function.with_options", "Say it in @app.function(...).")
    with_concurrency = Later("Function.with_concurrency")
    with_batching = Later("Function.with_batching")
    get_web_url = Later("Function.get_web_url")
    get_current_stats = Later("Function.get_current_stats")
    keep_warm = Later("Function.keep_warm", "Say @app.function(min_containers=...).")
    update_autoscaler = Later("Function.update_autoscaler", "Say @app.function(min_containers=...).")
    stats = Later("Function.stats")
    from_id = Later("Function.from_id", "Use Function.from_name.")

    def __init__(
        self,
        *,
        name: str,
        app: App | None = None,
        app_name: str | None = None,
        raw: Callable[P, Any] | None = None,
        settings: FunctionSettings | None = None,
        endpoint: EndpointDecl | None = None,
        concurrency: Concurrency | None = None,
        batching: Batching | None = None,
        is_generator: bool | None = None,
        image: Image | None = None,
    ) -> None:
        self.name = name
        self.app = app
        self.app_name = app_name
        self.settings = settings
        self.image = image
        self.endpoint = endpoint
        self.concurrency = concurrency
        self.batching = batching
        self._raw = raw
        self._is_generator = is_generator
        self._ref = FunctionRef(app="", name=name)
        if raw is not None:
            update_wrapper(self, raw, updated=())  # name, module, doc and signature are the function's

    @staticmethod
    def from_name(
        app_name: str,
        name: str,
        *,
        version: int | None = None,
        environment_name: str | None = None,
        client: object = None,
    ) -> Function[..., Any, Any]:
        """A function of a deployed app. It is looked up when it is first called.

        >>> Function.from_name("search", "query")
        <Function query of search>
        """
        if version is not None:
            raise invalid("calling an older version of an app is not in this release of Slipway")
        app_name, name = text_argument(app_name, "the name of an app"), text_argument(name, "the name of a function")
        if "." in name:
            raise invalid(f"{name!r} is a method, and Function.from_name takes functions")
        return Function(name=name, app_name=app_name)

    # --- calling --------------------------------------------------------------------------------------

    @cached_property
    def remote(self) -> Remote[P, R]:
        """Run it in a worker and return the result; `await f.remote.aio(...)` in async code."""
        return Remote(self)

    @cached_property
    def local(self) -> Local[P, L]:
        """Run it in this process, as if it weren't part of an app."""
        return Local(self)

    @cached_property
    def map(self) -> Map[R]:
        """Run it for each input, in as many workers as may be, and give the results in order."""
        return Map(self)

    @cached_property
    def starmap(self) -> StarMap[R]:
        """As `map`, for inputs that are sequences of arguments."""
        return StarMap(self)

    @cached_property
    def for_each(self) -> ForEach:
        """Run it for each input and wait for all, results left aside."""
        return ForEach(self)

    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> NoReturn:
        name = self.name
        raise invalid(
            f"a function of an app can't be called directly: {name}(...)",
            hint=f"Use {name}.remote(...) to run it in a worker, or {name}.local(...) to run it here.",
        )

    # --- for whoever acts -----------------------------------------------------------------------------

    @cached_property
    def is_async(self) -> bool:
        import inspect

        return inspect.iscoroutinefunction(self._raw) or inspect.isasyncgenfunction(self._raw)

    @cached_property
    def is_generator(self) -> bool:
        import inspect

        found = inspect.isgeneratorfunction(self._raw) or inspect.isasyncgenfunction(self._raw)
        return found if self._is_generator is None else self._is_generator

    @cached_property
    def origin(self) -> Origin:
        """Where the function is written."""
        return origin_of(self.here("origin"))

    @property
    def raw(self) -> Callable[P, Any]:
        """The Python function. In a worker, raises what an `with image.imports():` of its image could not import."""
        raw = self.here("raw")
        image = self.image
        if image is None and self.app is not None:
            image = self.app.image
        if image is not None and image.failures and not context.is_local():
            raise image.failures[0]
        return raw

    @property
    def raw_function(self) -> Callable[P, Any]:
        return self.raw

    def here(self, what: str) -> Callable[P, Any]:
        """The Python function, where this process has it."""
        if self._raw is None:
            raise ExecutionError(
                f"{here()}: {self.name}.{what}: {self!r} was looked up by name, its code isn't here",
                hint=f"Use {self.name}.remote(...).",
            )
        return self._raw

    def target(self, what: str) -> tuple[Session, FunctionRef]:
        """The session to act through, and what to ask it for."""
        session = current_session.get()
        app = self.app
        running = None if app is None else app.running
        running = running or worker_app()
        if running is not None:
            named = self.app_name if app is None else None
            return session or running.session, self._named(named or running.app_id)
        if app is None:
            return session or the_runner().session(), self._named(self.app_name or "")
        if session is not None:
            return session, self._named(app.name or "")
        raise ExecutionError(
            f"{here()}: {self.name}.{what}() needs the app to be running, and it isn't",
            hint="Put the call in a `with app.run():` block, or in a @app.local_entrypoint() and use `slipway run`.",
        )

    def _named(self, app: str) -> FunctionRef:
        if self._ref.app != app:
            self._ref = FunctionRef(app=app, name=self.name)
        return self._ref

    def callable_by(self, what: str) -> None:
        """Refuse a call that this kind of function doesn't have."""
        if self.is_generator:
            raise invalid(
                f"{self.name} is a generator, and {self.name}.{what} takes functions that return once",
                hint="Return a list instead; generators come with a later release.",
            )
        if self.endpoint is not None:
            raise invalid(
                f"{self.name} is a web endpoint and is called by its URL, not by .{what}",
                hint="To call it from Python, move its work into a function of its own.",
            )

    def check(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        """Refuse arguments that don't fit the function, before anything is sent."""
        raw = self._raw
        if raw is None:
            return
        code = raw.__code__
        if not kwargs and not code.co_kwonlyargcount and not code.co_flags & _VARARGS:
            least = code.co_argcount - len(raw.__defaults__ or ())
            if least <= len(args) <= code.co_argcount:
                return
        import inspect

        signature = inspect.signature(raw, follow_wrapped=False)
        try:
            signature.bind(*args, **kwargs)
        except TypeError as error:
            bare = [p.replace(annotation=p.empty) for p in signature.parameters.values()]
            raise TypeError(f"{here()}: {error}: the function is {self.name}{inspect.Signature(bare)}") from None

    def warn_if_mounted(self) -> None:
        """Say that a function with volumes runs without them here."""
        if self.settings is not None and self.settings.volumes and context.is_local():
            warnings.warn(f"{self.name}.local(...) runs without the function's volumes", stacklevel=3)

    def __reduce__(self) -> tuple[Any, ...]:
        running = (self.app.running if self.app else None) or (worker_app() if self.app else None)
        app = running.app_id if running else self.app_name or (self.app.name if self.app else None) or ""
        return _restore, (app, self.name)

    def __repr__(self) -> str:
        app = self.app_name if self.app is None else self.app.name
        return f"<Function {self.name}{f' of {app}' if app else ''}>"


def _restore(app: str, name: str) -> Function[..., Any, Any]:
    """A handle from a pickle: the one that this process has declared, else one to be looked up."""
    worker = worker_app()
    for known in reversed(registry.apps):
        running = known.running or worker
        if app in {known.name or "", running.app_id if running else ""} and name in known.functions:
            return known.functions[name]
    return Function(name=name, app_name=app)


def raw_of(found: object) -> Callable[..., Any]:
    """The Python function that a name of the user's module stands for: a handle's, or the thing itself."""
    if isinstance(found, Function):
        return found.raw
    if not callable(found):
        raise InvalidError(f"{found!r} is not a function")
    return found
