"""From an app, as the user's file built it with handles, to its declaration: frozen data that travels.

Here everything is read that the handles only named: paths are made absolute, modules found, source texts and the
values of secrets taken. The values go beside the declaration, by slot, and never into it.
"""

from __future__ import annotations

import inspect
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from attrs import frozen

from slipway.dsl.app import App
from slipway.dsl.cls import Cls
from slipway.dsl.declaration import (
    AddLocal,
    AppDecl,
    Concurrency,
    Fault,
    FunctionDecl,
    LocalSource,
    MethodDecl,
    ParameterDecl,
    SourceDecl,
    VolumeDecl,
)
from slipway.dsl.errors import Error, InvalidError
from slipway.dsl.function import Function
from slipway.dsl.hooks import Parameter, Partial
from slipway.dsl.image import Image
from slipway.dsl.options import FunctionSettings

from .by_value import by_value
from .identity import held_by
from .images import Images
from .notes import fault_of, notes
from .sources import code_of, left_behind, module_name, module_of
from .values import Slots

AnyFunction = Function[..., Any, Any]
Handle = AnyFunction | Cls


def declare(app: App, *, file: Path) -> tuple[AppDecl, dict[str, dict[str, str]]]:
    """The declaration of an app, and the values of its secrets by slot. `file` is the app file.

    Faults of the user's that don't stand in the way are in the declaration; the plan shows them all at once.
    Raises `InvalidError` or `NotFoundError`, each with its place, for what can't be declared at all.

    >>> app = App("example")
    >>> declaration, secrets = declare(app, file=Path("app.py"))
    >>> declaration.name, declaration.functions, secrets
    ('example', (), {})
    """
    return _Declaring.of(app, file.absolute()).declaration()


@frozen(kw_only=True, eq=False)
class _Declaring:
    """One declaration in the making."""

    app: App
    file: Path
    slots: Slots
    images: Images
    default: Image

    @classmethod
    def of(cls, app: App, file: Path) -> _Declaring:
        slots, python = Slots(), f"{sys.version_info.major}.{sys.version_info.minor}"
        images = Images(slots=slots, file=file, python=python, names=_variables(app))
        return cls(app=app, file=file, slots=slots, images=images, default=Image.debian_slim())

    def declaration(self) -> tuple[AppDecl, dict[str, dict[str, str]]]:
        app = self.app
        faults: list[Fault] = []
        code = self._code(faults)
        declared = tuple(pair for handle in _handles(app) for pair in self._try(handle, code, faults))
        # A class with web endpoints alone has nothing to call until there are URLs; `notes` says so.
        functions = tuple(decl for handle, decl in declared if isinstance(handle, Function) or decl.methods)
        faults.extend(self._left_behind(declared))
        used = ((name, decl) for handle, decl in declared for name in _used(handle, decl))
        decl = AppDecl(
            name=app.name or self.file.stem,
            images=tuple(self.images.decls),
            functions=functions,
            tags=app.tags,
            faults=(*app.faults, *faults, *self.images.faults, *self.slots.faults, *notes(used)),
            python=self.images.python,
            file=str(self.file),
            origin=app.origin,
        )
        return decl, self.slots.values

    def _try(self, handle: Handle, code: SourceDecl, faults: list[Fault]) -> Iterator[tuple[Handle, FunctionDecl]]:
        """The declaration of a function or class; what can't be declared becomes one fault among the others."""
        try:
            decl = self._function(handle, code)
        except Error as error:
            faults.append(fault_of(error, _address(handle), handle.origin))
            return
        if isinstance(handle, Cls) and not handle.methods:
            faults.append(
                Fault(
                    severity="warning",
                    address=_address(handle),
                    summary="the class has no methods that can be called, so it is left out",
                    hint="Decorate some with @slipway.method().",
                    origin=handle.origin,
                )
            )
        yield handle, decl

    def _function(self, handle: Handle, code: SourceDecl) -> FunctionDecl:
        settings, app = handle.settings, handle.app or self.app
        assert settings is not None, "what is part of an app has settings"
        raw = _python_of(handle)
        module = module_of(raw)
        included = app.include_source if settings.include_source is None else settings.include_source
        serialized, identity = by_value(raw, handle.name, handle.origin) if settings.serialized else (None, None)
        image = settings.image or app.image or self.app.image or self.default
        return FunctionDecl(
            name=handle.name,
            module=raw.__module__ if module is None else module_name(module),
            qualname=raw.__qualname__,
            image=self.images.index(image),
            code=code if included and not settings.serialized else SourceDecl(),
            serialized=serialized,
            serialized_identity=identity,
            secrets=self.slots.all((*app.secrets, *settings.secrets)),
            volumes=_volumes(app, settings),
            resources=settings.resources,
            timeout_ms=settings.timeout_ms,
            startup_timeout_ms=settings.startup_timeout_ms,
            retries=settings.retries,
            autoscaling=settings.autoscaling,
            schedule=settings.schedule.decl if settings.schedule else None,
            concurrency=handle.concurrency or Concurrency(),
            memory_snapshot=settings.memory_snapshot,
            block_network=settings.block_network,
            options=settings.plain,
            origin=handle.origin,
            **(_of_class(handle) if isinstance(handle, Cls) else _of_function(handle)),
        )

    def _left_behind(self, declared: tuple[tuple[Handle, FunctionDecl], ...]) -> Iterator[Fault]:
        """A warning for each module beside the app file that a function's file uses and its workers won't have."""
        said: set[tuple[str, str]] = set()
        seen: set[tuple[str, int]] = set()
        for handle, decl in declared:
            module = module_of(_python_of(handle))
            whose = decl.name if decl.serialized else module.__name__ if module else ""
            if module is None or not (decl.code.sources or decl.serialized) or (whose, decl.image) in seen:
                continue
            seen.add((whose, decl.image))
            values = held_by(_python_of(handle)) if decl.serialized else tuple(vars(module).values())
            image = self.images.decls[decl.image]
            added = (s for step in image.steps if isinstance(step, AddLocal) for s in step.sources)
            taken = {Path(s.remote).name.removesuffix(".py") for s in (*decl.code.sources, *added)}
            for name in left_behind(values, {*taken, module.__name__.partition(".")[0]}, self.file):
                if (whose, name) in said:
                    continue
                said.add((whose, name))
                user = decl.name if decl.serialized else Path(str(module.__file__)).name
                yield Fault(
                    severity="warning",
                    address=_address(handle),
                    summary=f"{user} uses the module {name}, which its workers don't have",
                    found="" if decl.serialized else f"import {name}, at the top of the file",
                    hint=f'Add it to the image: .add_local_python_source("{name}")',
                    origin=decl.origin,
                )

    def _code(self, faults: list[Fault]) -> SourceDecl:
        """The files of every module in which the app has functions: one may import another, as with `app.include`."""
        found: dict[str, LocalSource] = {}
        seen: set[str] = set()
        for handle in _handles(self.app):
            settings, module = handle.settings, module_of(_python_of(handle))
            if settings is None or settings.serialized or module is None or module.__name__ in seen:
                continue
            seen.add(module.__name__)
            try:
                sources = code_of(module, handle.origin).sources
            except InvalidError as error:
                faults.append(fault_of(error, _address(handle), handle.origin))
                continue
            for source in sources:
                found.setdefault(source.remote, source)
        return SourceDecl(sources=tuple(found.values()))


def _handles(app: App) -> tuple[Handle, ...]:
    """The functions and classes of an app."""
    return (*app.functions.values(), *app.classes.values())


def _address(handle: Handle) -> str:
    return f"{'class' if isinstance(handle, Cls) else 'function'} {handle.name}"


def _python_of(handle: Handle) -> Any:
    """The Python function or class that a handle is of."""
    return handle.user_class if isinstance(handle, Cls) else handle.here("declare")


def _of_function(function: AnyFunction) -> dict[str, Any]:
    """What is said of a function alone."""
    return {
        "is_async": function.is_async,
        "is_generator": function.is_generator,
        "required_args": _required(function.here("declare")),
        "endpoint": function.endpoint,
        "batching": function.batching,
    }


def _of_class(cls: Cls) -> dict[str, Any]:
    """What is said of a class alone."""
    called = {name: partial for name, partial in cls.methods.items() if partial.endpoint is None}
    parameters = sorted(cls.parameters.items())
    return {
        "methods": tuple(_method(name, partial) for name, partial in called.items()),
        "parameters": tuple(
            ParameterDecl(name=name, type=kind.__name__, default=_default(said)) for name, (kind, said) in parameters
        ),
        "batching": next((partial.batching for partial in called.values() if partial.batching), None),
    }


def _method(name: str, partial: Partial) -> MethodDecl:
    raw = partial.target
    return MethodDecl(
        name=name,
        is_async=inspect.iscoroutinefunction(raw) or inspect.isasyncgenfunction(raw),
        is_generator=partial.yields,
    )


def _default(parameter: Parameter) -> str | None:
    value = parameter.default
    return None if parameter.required else value if isinstance(value, str) else repr(value)


def _variables(app: App) -> dict[int, str]:
    """What the user calls each image: the first global that holds it, in the modules of the app's functions."""
    found: dict[int, str] = {}
    for namespace in {id(names): names for names in map(_globals, _handles(app))}.values():
        for name, value in list(namespace.items()):
            if isinstance(value, Image):
                found.setdefault(id(value), name)
    return found


def _globals(handle: Handle) -> dict[str, Any]:
    if isinstance(handle, Cls):
        return vars(sys.modules[handle.user_class.__module__]) if handle.user_class.__module__ in sys.modules else {}
    names: dict[str, Any] = handle.here("declare").__globals__
    return names


def _required(raw: Any) -> tuple[str, ...]:
    """The parameters that a call must give."""
    parameters = inspect.signature(raw, follow_wrapped=False).parameters.values()
    loose = {inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD}
    return tuple(p.name for p in parameters if p.default is p.empty and p.kind not in loose)


def _volumes(app: App, settings: FunctionSettings) -> tuple[tuple[str, VolumeDecl], ...]:
    """The app's volumes and the function's, which win where both have the path."""
    return tuple(sorted({path: v.decl for path, v in (*app.volumes, *settings.volumes)}.items()))


def _used(handle: Handle, decl: FunctionDecl) -> Iterator[str]:
    """The parameters that say something, by name, and decorators by theirs."""
    if handle.settings is not None:
        yield from handle.settings.given
    endpoints = (partial.endpoint for partial in handle.methods.values()) if isinstance(handle, Cls) else ()
    if decl.endpoint is not None or any(endpoints):
        yield "endpoint"
