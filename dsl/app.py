"""Apps: what a file declares as one whole."""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Callable, Coroutine, Iterable, Mapping
from functools import cached_property
from types import FunctionType
from typing import TYPE_CHECKING, Any, Generic, ParamSpec, Protocol, TypeVar, overload

from . import context, inside, registry
from .function import Function
from .later import Later
from .origin import checked_name, here, invalid, origin_of
from .running import AppRun
from .session import Running, the_runner

if TYPE_CHECKING:
    from typing import (
        Unpack,
        dataclass_transform,  # since 3.11; a checker knows it
    )

    from .cls import Cls
    from .declaration import Fault, Origin
    from .hooks import Partial
    from .image import Image
    from .options import ClsArguments, FunctionArguments, FunctionSettings
    from .secret import Secret
    from .volume import Volume

P = ParamSpec("P")
R = TypeVar("R")
TAG = r"[A-Za-z0-9._-]{1,63}"
APP_ID = r"ap-[a-zA-Z0-9]{22}"


if TYPE_CHECKING:
    # So that an editor knows what `Model(size=...)` takes. (mypy does not ask a method for this.)
    from .partial import parameter

    _with_parameters = dataclass_transform(kw_only_default=True, field_specifiers=(parameter,))
else:

    def _with_parameters(method: Any) -> Any:
        return method


class FunctionDecorator(Protocol):
    """What `app.function(...)` returns."""

    @overload
    def __call__(self, function: Partial) -> Function[..., Any, Any]: ...
    @overload
    def __call__(self, function: Callable[P, Coroutine[Any, Any, R]]) -> Function[P, R, Coroutine[Any, Any, R]]: ...
    @overload
    def __call__(self, function: Callable[P, R]) -> Function[P, R, R]: ...


class LocalEntrypoint(Generic[P, R]):
    """A function that `slipway run` starts here, with the app running. Calling it just calls the function."""

    def __init__(self, raw: Callable[P, R], name: str, app: App) -> None:
        self.raw = raw
        self.name = name
        self.app = app
        self.__doc__ = raw.__doc__
        self.__wrapped__ = raw

    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> R:
        return self.raw(*args, **kwargs)

    @cached_property
    def origin(self) -> Origin:
        return origin_of(self.raw)

    def __repr__(self) -> str:
        return f"<LocalEntrypoint {self.name}>"


class App:
    """Functions that are planned, applied and run together.

    >>> from slipway.dsl.image import Image
    >>> app = App("example", image=Image.debian_slim().pip_install("numpy"))
    >>> @app.function(memory=512, serialized=True)
    ... def norm(xs): ...
    >>> app.functions
    {'norm': <Function norm of example>}
    """

    lookup = Later("App.lookup", "Use Function.from_name.")
    server = Later("App.server")
    stop = Later("App.stop", "Use `slipway destroy`.")
    set_tags = Later("App.set_tags", "Say App(tags={...}).")

    def __init__(
        self,
        name: str | None = None,
        *,
        tags: Mapping[str, str] | None = None,
        image: Image | None = None,
        secrets: Iterable[Secret] = (),
        volumes: Mapping[str, Volume] | None = None,
        include_source: bool = True,
    ) -> None:
        self.name = None if name is None else _app_name(name)
        self.tags = _checked_tags(tags or {})
        self.image = image
        self.secrets: tuple[Secret, ...] = ()
        self.volumes: tuple[tuple[str, Volume], ...] = ()
        self.include_source = include_source
        if not context.is_inside():
            self._declare(image, secrets, volumes)
        self.functions: dict[str, Function[..., Any, Any]] = {}
        self.classes: dict[str, Cls] = {}
        self.entrypoints: dict[str, LocalEntrypoint[..., Any]] = {}
        self.faults: list[Fault] = []
        self._running: Running | None = None
        self._parents: list[App] = []  # apps that include this one
        registry.apps.append(self)

    def _declare(self, image: object, secrets: object, volumes: object) -> None:
        """Check what the app says for all of its functions."""
        from .options import checked_image
        from .secret import checked_secrets
        from .volume import checked_volumes

        self.image = checked_image(image)
        self.secrets = checked_secrets(secrets)
        self.volumes = checked_volumes(volumes)
        self.origin: Origin = here()

    # --- declaring ------------------------------------------------------------------------------------

    def function(self, *wrong: object, **options: Unpack[FunctionArguments]) -> FunctionDecorator:
        """Make a function part of the app, with an image, resources and all else that its workers need.

        `cpu` is in cores and `memory` in MiB, each a number or a pair (request, limit), and not limited where nothing
        is said; `timeout` is in seconds, 300 where nothing is said. docs/guide/functions.md lists all that a function
        takes. Raises `TypeError` for a parameter that doesn't exist and `InvalidError` for a value that can't be.

        >>> app = App("example")
        >>> @app.function(cpu=2, memory=(512, 2048), timeout=60, serialized=True)
        ... def work(x): ...
        >>> app.function(memroy=512)
        Traceback (most recent call last):
        ...
        TypeError: ...: @app.function() has no parameter 'memroy'. Did you mean 'memory'?
        """
        _parentheses(wrong, "function")
        if context.is_inside():
            return inside.decorator(self, options)  # type: ignore[no-any-return] # as the overloads say
        from .hooks import Partial
        from .options import checked_function, read_settings

        settings = read_settings(options, decorator="function")

        def decorate(target: Any) -> Function[..., Any, Any]:
            if isinstance(target, Function):
                raise invalid(f"{target.name} is part of an app already", hint="One @app.function is enough.")
            said = target if isinstance(target, Partial) else Partial(target=target)
            raw = checked_function(said.target, settings, said)
            return self._add_function(raw, settings, said)

        return decorate  # type: ignore[return-value] # the overloads say which function gives which handle

    @_with_parameters
    def cls(self, *wrong: object, **options: Unpack[ClsArguments]) -> Callable[[Any], Cls]:
        """Make a class part of the app: its objects' methods run in workers, which each hold one object.

        It takes what `@app.function` takes, but for `name`, `schedule` and `is_generator`. docs/guide/classes.md is
        about what stands in the class.

        >>> App("example").cls(gpu="A100")(App("other"))
        Traceback (most recent call last):
        ...
        TypeError: @app.cls decorates classes, and App isn't one: use @app.function()
        """
        _parentheses(wrong, "cls")
        if context.is_inside():
            return inside.class_decorator(self, options)  # type: ignore[no-any-return] # it decorates likewise
        from .classes import checked_class
        from .options import read_settings

        settings = read_settings(options, decorator="cls")

        def decorate(target: Any) -> Cls:
            return self._add_class(checked_class(target, settings), settings)

        return decorate

    def local_entrypoint(
        self, *wrong: object, name: str | None = None
    ) -> Callable[[Callable[P, R]], LocalEntrypoint[P, R]]:
        """Make a function the start of `slipway run`: it runs here, with the app's functions ready to be called.

        >>> app = App("example")
        >>> @app.local_entrypoint()
        ... def main(query: str = "all"):
        ...     return query
        >>> main()
        'all'
        """
        if wrong and isinstance(wrong[0], str):
            name, wrong = wrong[0], wrong[1:]
        _parentheses(wrong, "local_entrypoint")

        def decorate(raw: Any) -> LocalEntrypoint[P, R]:
            if not isinstance(raw, FunctionType):
                raise invalid("@app.local_entrypoint decorates plain functions", hint="It runs here, not in a worker.")
            entrypoint: LocalEntrypoint[P, R] = LocalEntrypoint(raw, name or raw.__name__, self)
            known = self.entrypoints.get(entrypoint.name)
            if known is not None and not context.is_inside() and not _interactive(entrypoint.origin):
                raise invalid(f"there are two local entrypoints called {known.name}: {known.origin} is the other")
            self.entrypoints[entrypoint.name] = entrypoint
            return entrypoint

        return decorate

    def include(self, other_app: App, inherit_tags: bool = True) -> App:
        """Take in the functions and classes of another app. Its local entrypoints stay its own.

        >>> common, app = App("common"), App("example")
        >>> @common.function(serialized=True)
        ... def fetch(url): ...
        >>> app.include(common).functions
        {'fetch': <Function fetch of common>}
        """
        if not isinstance(other_app, App):
            raise invalid(f"app.include takes an App, not {type(other_app).__name__}")
        taken: dict[str, Any] = {**self.functions, **self.classes}
        both: tuple[tuple[str, Any], ...] = (*other_app.functions.items(), *other_app.classes.items())
        for name, handle in both:
            known = taken.get(name)
            if known is not None and known is not handle:
                self._fault("warning", _address(handle), f"it replaces the one at {known.origin}", here())
                self.functions.pop(name, None)
                self.classes.pop(name, None)
        self.functions.update(other_app.functions)
        self.classes.update(other_app.classes)
        self.faults.extend(fault for fault in other_app.faults if fault not in self.faults)
        other_app._parents.append(self)
        if inherit_tags:
            self.tags = tuple(sorted({**dict(other_app.tags), **dict(self.tags)}.items()))
        return self

    # --- acting ---------------------------------------------------------------------------------------

    def run(
        self,
        *,
        name: str | None = None,
        client: object = None,
        detach: bool = False,
        interactive: bool = False,
        environment_name: str | None = None,
    ) -> AppRun:
        """The app, running for the length of a `with` or `async with` block.

        >>> app = App("example")
        >>> app.run()
        <run of App('example')>
        """
        if interactive:
            raise invalid("app.run(interactive=True) is not in this release of Slipway")
        return AppRun(self, name=None if name is None else _app_name(name), detach=detach)

    @property
    def deploy(self) -> Deploy:
        """Build what isn't built and put the app in force: `app.deploy()`, or `await app.deploy.aio()`."""
        return Deploy(self)

    @property
    def running(self) -> Running | None:
        """How to reach the app while it runs, by itself or as part of one that includes it."""
        if self._running is not None:
            return self._running
        return next((found for parent in self._parents if (found := parent.running) is not None), None)

    @property
    def whole(self) -> App:
        """The app that this one is part of: itself, where no other includes it."""
        return self._parents[-1].whole if self._parents else self

    @property
    def app_id(self) -> str | None:
        """The id of the running app; None when it isn't running."""
        running = self.running
        return running.app_id if running else None

    @property
    def description(self) -> str:
        """The name, or where there is none that of the file."""
        if self.name:
            return self.name
        main = getattr(sys.modules.get("__main__"), "__file__", None) or self.origin.file
        return os.path.splitext(os.path.basename(main))[0]  # noqa: PTH119, PTH122 - pathlib is imported for nothing else

    def __reduce__(self) -> tuple[Any, ...]:
        return _restore, (self.name,)

    def __repr__(self) -> str:
        return f"App({self.name!r})" if self.name else "App()"

    # --- within ---------------------------------------------------------------------------------------

    def _add_function(
        self, raw: Callable[..., Any], settings: FunctionSettings, said: Partial
    ) -> Function[..., Any, Any]:
        from .declaration import Concurrency
        from .options import checked_function_name

        name = settings.name or checked_function_name(raw.__name__)
        concurrency = said.concurrency
        if concurrency is None and settings.concurrent_inputs is not None:
            concurrency = Concurrency(max_inputs=settings.concurrent_inputs)
        function: Function[..., Any, Any] = Function(
            name=name,
            app=self,
            raw=raw,
            settings=settings,
            endpoint=said.endpoint,
            concurrency=concurrency,
            batching=said.batching,
            is_generator=settings.is_generator if settings.is_generator is not None else said.is_generator,
            image=settings.image,
        )
        self._say(settings, said.hints, f"function {name}", function.origin)
        self._collision(function)
        self.functions[name] = function
        return function

    def _add_class(self, said: Partial, settings: FunctionSettings) -> Cls:
        from .cls import Cls

        user_class: type = said.target
        made = Cls(
            name=user_class.__name__,
            app=self,
            user_class=user_class,
            settings=settings,
            concurrency=said.concurrency,
            image=settings.image,
            origin=here(),
        )
        hints = (*said.hints, *(hint for partial in made.methods.values() for hint in partial.hints))
        self._say(settings, hints, f"class {made.name}", made.origin)
        self._collision(made)
        self.classes[made.name] = made
        return made

    def _say(self, settings: FunctionSettings, hints: Iterable[str], address: str, origin: Origin) -> None:
        """Older names that were used, and what there isn't."""
        for hint in (*settings.hints, *hints):
            self._fault("note", address, hint, origin)
        if settings.network_file_systems:
            hint = 'Use volumes={path: slipway.Volume.from_name("...", create_if_missing=True)}.'
            self._fault("error", address, "there are no network file systems here", origin, hint=hint)

    def _collision(self, made: Function[..., Any, Any] | Cls) -> None:
        """Say that the app has one of this name already, be it a function or a class. At a prompt it is replaced."""
        name, origin, what = made.name, made.origin, _address(made).partition(" ")[0]
        known = self.functions.get(name) or self.classes.get(name)
        if known is None:
            return
        if _interactive(origin):
            self.functions.pop(name, None)
            self.classes.pop(name, None)
            return
        self._fault(
            "error",
            _address(made),
            f"the app has two of this name, at {known.origin} and at {origin}",
            origin,
            found=f"{what} {name}, twice" if type(known) is type(made) else f"{_address(known)} and {_address(made)}",
            hint="Rename one of them" + (", or say @app.function(name=...)." if what == "function" else "."),
        )

    def _fault(
        self, severity: str, address: str, summary: str, origin: Origin, *, found: str = "", hint: str = ""
    ) -> None:
        from .declaration import Fault

        fault = Fault(severity=severity, address=address, summary=summary, found=found, hint=hint, origin=origin)
        self.faults.append(fault)


def _restore(name: str | None) -> App:
    """An app from a pickle: the one that this process has declared, else its name alone."""
    return next((app for app in reversed(registry.apps) if app.name == name), None) or App(name)


class Deploy:
    """`app.deploy()` and `await app.deploy.aio()`."""

    __slots__ = ("_app",)

    def __init__(self, app: App) -> None:
        self._app = app

    def __call__(
        self,
        *,
        name: str | None = None,
        environment_name: str | None = None,
        tag: str = "",
        client: object = None,
        strategy: str = "rolling",
    ) -> App:
        the_runner().deploy(self._app, name=self._name(name), tag=_deploy_tag(tag, strategy), strategy=strategy)
        return self._app

    async def aio(
        self,
        *,
        name: str | None = None,
        environment_name: str | None = None,
        tag: str = "",
        client: object = None,
        strategy: str = "rolling",
    ) -> App:
        runner = the_runner()
        await runner.deploy_aio(self._app, name=self._name(name), tag=_deploy_tag(tag, strategy), strategy=strategy)
        return self._app

    def _name(self, name: str | None) -> str:
        if context.importing.get() or not context.is_local():
            raise invalid(
                "app.deploy() stands at the top of a file that is being imported",
                hint='Put it below `if __name__ == "__main__":`.',
            )
        name = name or self._app.name
        if not name:
            raise invalid(
                "an app needs a name to be deployed", hint='Write slipway.App("name") or deploy(name="name").'
            )
        return _app_name(name)


def _deploy_tag(tag: Any, strategy: str) -> str:
    if strategy not in {"rolling", "recreate"}:
        raise invalid(f'strategy={strategy!r}: it takes "rolling" or "recreate"')
    if not isinstance(tag, str) or len(tag) > 50:
        raise invalid("tag= takes a string of at most 50 characters")
    return tag


def _app_name(name: object) -> str:
    name = checked_name(name, "an app")
    if re.fullmatch(APP_ID, name):
        raise invalid(f"{name!r} looks like the id of an app, and can't be the name of one")
    return name


def _checked_tags(tags: Mapping[Any, Any]) -> tuple[tuple[str, str], ...]:
    for text in (*tags.keys(), *tags.values()):
        if not isinstance(text, str) or not re.fullmatch(TAG, text):
            raise invalid(f"{text!r} can't be part of a tag", hint="Use letters, digits, ., _ and -, at most 63.")
    return tuple(sorted(tags.items()))


def _parentheses(wrong: tuple[object, ...], decorator: str) -> None:
    if wrong:
        raise invalid(
            f"@app.{decorator} takes its parameters by name", hint=f"Write @app.{decorator}(), with parentheses."
        )


def _address(handle: Function[..., Any, Any] | Cls) -> str:
    return f"{'function' if isinstance(handle, Function) else 'class'} {handle.name}"


def _interactive(origin: Origin) -> bool:
    """Whether something was said at a prompt or in a notebook, where saying it again replaces it."""
    return origin.file.startswith("<") or "ipykernel" in origin.file
