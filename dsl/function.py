"""Functions: handles through which a program calls what runs in a worker."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from functools import cached_property, update_wrapper
from typing import TYPE_CHECKING, Any, Generic, NoReturn, ParamSpec, TypeVar

from . import context, registry
from .calls import Local, Remote, RemoteGen, Spawn, Way, a_generator, no_generator
from .errors import ExecutionError, InvalidError
from .later import Later
from .origin import here, invalid, origin_of, text_argument
from .scaled import Scaled, Varying
from .session import FunctionRef, Session, current_session, the_runner, worker_app

if TYPE_CHECKING:
    from typing import Self

    from .app import App
    from .declaration import Batching, Concurrency, EndpointDecl, Origin
    from .image import Image
    from .maps import ForEach, Map, SpawnMap, SpawnTogether, StarMap
    from .options import FunctionSettings
    from .variant import Variant

P = ParamSpec("P")
R = TypeVar("R")
L = TypeVar("L")


_VARARGS = 0x04  # as in `inspect`, which takes longer to import than all of this


class Function(Scaled, Varying, Generic[P, R, L]):
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

    get_web_url = Later("Function.get_web_url")
    keep_warm = Later("Function.keep_warm", "Use f.autoscaler.update(min_containers=...).")
    stats = Later("Function.stats", "Use f.get_current_stats().")

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
        method: str = "",
        variant: Variant | None = None,
    ) -> None:
        """Of a class, `name` is the class, `method` one of its methods and `raw` that method as it is written."""
        self.name = name
        self.method = method
        self.variant = variant
        self.app = app
        self.app_name = app_name
        self.settings = settings
        self.image = image
        self.endpoint = endpoint
        self.concurrency = concurrency
        self.batching = batching
        self._raw = raw
        self._is_generator = is_generator
        self._ref = FunctionRef("", name, method, variant)
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
            cls, _, method = name.partition(".")
            way = f"Use Cls.from_name({app_name!r}, {cls!r})().{method}."
            raise invalid(f"{name!r} is a method, and Function.from_name takes functions", hint=way)
        return Function(name=name, app_name=app_name)

    @staticmethod
    def from_id(function_id: str, client: object = None) -> Function[..., Any, Any]:
        """A function by its `object_id`, which names it and its app. It is looked up when it is first called.

        >>> Function.from_id("fu-search/query")
        <Function query of search>
        """
        prefix, app, name = function_id[:3], *function_id[3:].partition("/")[::2]
        if prefix != "fu-" or not app or not name:
            raise invalid(f"{function_id!r} is not the id of a function", hint="They look like fu-search/query.")
        name, _, method = name.partition(".")
        return Function(name=name, app_name=app, method=method)

    @property
    def object_id(self) -> str:
        """What to find the function by with `from_id`. Raises `ExecutionError` where its app doesn't run."""
        if self.variant is not None:
            raise ExecutionError(
                f"{here()}: {self!r} is a variant, which has no id of its own", hint="Pass the handle itself on."
            )
        _, ref = self.target("object_id")
        return f"fu-{ref.app}/{ref.title}"

    # --- calling --------------------------------------------------------------------------------------

    @cached_property
    def remote(self) -> Remote[P, R]:
        """Run it in a worker and return the result; `await f.remote.aio(...)` in async code."""
        return Remote(self)

    @cached_property
    def remote_gen(self) -> RemoteGen[P]:
        """Run a generator in a worker and loop over its items; `async for` over `f.remote_gen.aio(...)`."""
        return RemoteGen(self)

    @cached_property
    def spawn(self) -> Spawn[P, R]:
        """Start a call that goes on without this program; its result is fetched from the `FunctionCall`."""
        return Spawn(self)

    @cached_property
    def local(self) -> Local[P, L]:
        """Run it in this process, as if it weren't part of an app."""
        return Local(self)

    @cached_property
    def map(self) -> Map[R]:
        """Run it for each input, in as many workers as may be, and give the results in order."""
        from .maps import Map  # not every worker needs it, and its start is to be quick

        return Map(self)

    @cached_property
    def starmap(self) -> StarMap[R]:
        """As `map`, for inputs that are sequences of arguments."""
        from .maps import StarMap

        return StarMap(self)

    @cached_property
    def for_each(self) -> ForEach:
        """Run it for each input and wait for all, results left aside."""
        from .maps import ForEach

        return ForEach(self)

    @cached_property
    def spawn_map(self) -> SpawnMap:
        """Start a call for each input, and wait for no result."""
        from .maps import SpawnMap

        return SpawnMap(self)

    @cached_property
    def experimental_spawn_map(self) -> SpawnTogether[R]:
        """Start one call with many inputs, whose results are fetched from the `FunctionCall`."""
        from .maps import SpawnTogether

        return SpawnTogether(self)

    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> NoReturn:
        name = self.name
        raise invalid(
            f"a function of an app can't be called directly: {name}(...)",
            hint=f"Use {name}.remote(...) to run it in a worker, or {name}.local(...) to run it here.",
        )

    # --- variants -------------------------------------------------------------------------------------

    def _varied(self, variant: Variant) -> Self:
        varied = object.__new__(type(self))
        own = {name: value for name, value in vars(self).items() if not isinstance(value, Way) and name != "autoscaler"}
        varied.__dict__.update(own)  # but for what calls this one
        varied.variant = variant
        varied._ref = FunctionRef("", self.name, self.method, variant)
        return varied

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
                f"{here()}: {self.title}.{what}: {self!r} was looked up by name, its code isn't here",
                hint=f"Use {self.title}.remote(...).",
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
            f"{here()}: {self.title}.{what}() needs the app to be running, and it isn't",
            hint="Put the call in a `with app.run():` block, or in a @app.local_entrypoint() and use `slipway run`.",
        )

    def _named(self, app: str) -> FunctionRef:
        if self._ref.app != app:
            self._ref = FunctionRef(app, self.name, self.method, self.variant)
        return self._ref

    def callable_by(self, what: str) -> None:
        """Refuse a call that this kind of function doesn't have."""
        if self._raw is not None or self._is_generator is not None:  # else the engine knows
            if what == "remote_gen" and not self.is_generator:
                raise no_generator(self.title)
            if what != "remote_gen" and self.is_generator:
                raise a_generator(self.title, what)
        if self.endpoint is not None:
            raise invalid(
                f"{self.title} is a web endpoint and is called by its URL, not by .{what}",
                hint="To call it from Python, move its work into a function of its own.",
            )

    def check(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        """Refuse arguments that don't fit the function, before anything is sent."""
        raw = self._raw
        if raw is None:
            return
        if self.method:
            args = (None, *args)  # it is bound in the worker
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
            raise TypeError(f"{here()}: {error}: the function is {self.title}{inspect.Signature(bare)}") from None

    def warn_if_mounted(self) -> None:
        """Say that a function with volumes runs without them here."""
        if self.settings is not None and self.settings.volumes and context.is_local():
            warnings.warn(f"{self.title}.local(...) runs without the function's volumes", stacklevel=3)

    def __reduce__(self) -> tuple[Any, ...]:
        running = (self.app.running if self.app else None) or (worker_app() if self.app else None)
        app = running.app_id if running else self.app_name or (self.app.whole.name if self.app else None) or ""
        known = self._is_generator if self._raw is None else self.is_generator
        declared = self.app.name if self.app else None
        return restore, (app, self.name, self.method, self.variant, known, declared)

    def __repr__(self) -> str:
        app = self.app_name if self.app is None else self.app.name
        return f"<Function {self.title}{f' of {app}' if app else ''}>"


def restore(
    app: str, name: str, method: str, variant: Variant | None, is_generator: bool | None, declared: str | None
) -> Function[..., Any, Any]:
    """A handle from a pickle: the one that this process has declared, else one to be looked up."""
    worker = worker_app()
    latest_first = list(reversed(registry.apps))
    latest_first.sort(key=lambda one: one.name != declared)  # a file may have several apps; a worker serves one
    for known in latest_first:
        running = known.running or worker
        if app in {known.name or "", running.app_id if running else ""} and name in known.functions and not method:
            found = known.functions[name]
            return found if variant is None else found._varied(variant)
    return Function(name=name, app_name=app, method=method, variant=variant, is_generator=is_generator)


def raw_of(found: object) -> Callable[..., Any]:
    """The Python function that a name of the user's module stands for: a handle's, or the thing itself."""
    if isinstance(found, Function):
        return found.raw
    if not callable(found):
        raise InvalidError(f"{found!r} is not a function")
    return found
