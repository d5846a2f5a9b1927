"""From an app, as the user's file built it with handles, to its declaration: frozen data that travels.

Here everything is read that the handles only named: paths are made absolute, modules found, source texts and the
values of secrets taken. The values go beside the declaration, by slot, and never into it.
"""

from __future__ import annotations

import base64
import inspect
import sys
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from attrs import frozen

from slipway.dsl.app import App
from slipway.dsl.cls import Cls
from slipway.dsl.declaration import (
    AddLocal,
    AppDecl,
    ClsDecl,
    Concurrency,
    Fault,
    FunctionDecl,
    LocalSource,
    SourceDecl,
    VolumeDecl,
)
from slipway.dsl.errors import Error, InvalidError
from slipway.dsl.function import Function
from slipway.dsl.image import Image
from slipway.dsl.options import FunctionSettings
from slipway.dsl.own import cloudpickle

from .identity import whole_identity
from .images import Images
from .notes import fault_of, notes
from .sources import code_of, left_behind, module_name, module_of
from .values import Slots

MOST_SERIALIZED, MUCH_SERIALIZED = 16 << 20, 256 << 10

AnyFunction = Function[..., Any, Any]


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
        functions = tuple(f for function in app.functions.values() for f in self._try(function, code, faults))
        faults.extend(self._left_behind(functions))
        used = ((name, decl) for decl in functions for name in _used(app.functions[decl.name], decl))
        decl = AppDecl(
            name=app.name or self.file.stem,
            images=tuple(self.images.decls),
            functions=functions,
            classes=tuple(map(_class, app.classes.values())),
            tags=app.tags,
            faults=(*app.faults, *faults, *self.images.faults, *self.slots.faults, *notes(used)),
            python=self.images.python,
            file=str(self.file),
            origin=app.origin,
        )
        return decl, self.slots.values

    def _try(self, function: AnyFunction, code: SourceDecl, faults: list[Fault]) -> Iterator[FunctionDecl]:
        """The function's declaration; what can't be declared becomes one fault among the others."""
        try:
            yield self._function(function, code)
        except Error as error:
            faults.append(fault_of(error, f"function {function.name}", function.origin))

    def _function(self, function: AnyFunction, code: SourceDecl) -> FunctionDecl:
        settings, app = function.settings, function.app or self.app
        assert settings is not None, "a function of an app has settings"
        raw = function.here("declare")
        module = module_of(raw)
        included = app.include_source if settings.include_source is None else settings.include_source
        serialized, identity = _serialized(function) if settings.serialized else (None, None)
        image = settings.image or app.image or self.app.image or self.default
        return FunctionDecl(
            name=function.name,
            module=raw.__module__ if module is None else module_name(module),
            qualname=raw.__qualname__,
            image=self.images.index(image),
            code=code if included and not settings.serialized else SourceDecl(),
            is_async=function.is_async,
            is_generator=function.is_generator,
            required_args=_required(raw),
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
            endpoint=function.endpoint,
            concurrency=function.concurrency or Concurrency(),
            batching=function.batching,
            block_network=settings.block_network,
            options=settings.plain,
            origin=function.origin,
        )

    def _left_behind(self, functions: tuple[FunctionDecl, ...]) -> Iterator[Fault]:
        """A warning for each module beside the app file that a function's file uses and its workers won't have."""
        said: set[tuple[str, str]] = set()
        seen: set[tuple[str, int]] = set()
        for decl in functions:
            module = module_of(self.app.functions[decl.name].here("declare"))
            if module is None or not decl.code.sources or (module.__name__, decl.image) in seen:
                continue
            seen.add((module.__name__, decl.image))
            image = self.images.decls[decl.image]
            added = (s for step in image.steps if isinstance(step, AddLocal) for s in step.sources)
            taken = {Path(s.remote).name.removesuffix(".py") for s in (*decl.code.sources, *added)}
            for name in left_behind(module, {*taken, module.__name__.partition(".")[0]}, self.file):
                if (module.__name__, name) in said:
                    continue
                said.add((module.__name__, name))
                yield Fault(
                    severity="warning",
                    address=f"function {decl.name}",
                    summary=f"{Path(str(module.__file__)).name} uses the module {name}, which its workers don't have",
                    found=f"import {name}, at the top of the file",
                    hint=f'Add it to the image: .add_local_python_source("{name}")',
                    origin=decl.origin,
                )

    def _code(self, faults: list[Fault]) -> SourceDecl:
        """The files of every module in which the app has functions: one may import another, as with `app.include`."""
        found: dict[str, LocalSource] = {}
        seen: set[str] = set()
        for function in self.app.functions.values():
            settings, module = function.settings, module_of(function.here("declare"))
            if settings is None or settings.serialized or module is None or module.__name__ in seen:
                continue
            seen.add(module.__name__)
            try:
                sources = code_of(module, function.origin).sources
            except InvalidError as error:
                faults.append(fault_of(error, f"function {function.name}", function.origin))
                continue
            for source in sources:
                found.setdefault(source.remote, source)
        return SourceDecl(sources=tuple(found.values()))


def _variables(app: App) -> dict[int, str]:
    """What the user calls each image: the first global that holds it, in the modules of the app's functions."""
    found: dict[int, str] = {}
    raws = [function.here("declare") for function in app.functions.values()]
    for namespace in {id(raw.__globals__): raw.__globals__ for raw in raws}.values():
        for name, value in list(namespace.items()):
            if isinstance(value, Image):
                found.setdefault(id(value), name)
    return found


def _required(raw: Any) -> tuple[str, ...]:
    """The parameters that a call must give."""
    parameters = inspect.signature(raw, follow_wrapped=False).parameters.values()
    loose = {inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD}
    return tuple(p.name for p in parameters if p.default is p.empty and p.kind not in loose)


def _volumes(app: App, settings: FunctionSettings) -> tuple[tuple[str, VolumeDecl], ...]:
    """The app's volumes and the function's, which win where both have the path."""
    return tuple(sorted({path: v.decl for path, v in (*app.volumes, *settings.volumes)}.items()))


def _class(cls: Cls) -> ClsDecl:
    module = sys.modules.get(cls.user_class.__module__)
    name = cls.user_class.__module__ if module is None else module_name(module)
    return ClsDecl(name=cls.name, module=name, methods=tuple(cls.methods), origin=cls.origin)


def _used(function: AnyFunction, decl: FunctionDecl) -> Iterator[str]:
    """The parameters that say something, by name, and decorators by theirs."""
    if function.settings is not None:
        yield from function.settings.given
    if decl.endpoint is not None:
        yield "endpoint"
    if decl.batching is not None:
        yield "batched"
    if decl.concurrency.max_inputs > 1 and not decl.is_async:
        yield "concurrent"


def _serialized(function: AnyFunction) -> tuple[str, str]:
    """A function by value, its own module's code along; and the text that is its identity."""
    raw = function.here("declare")
    module = module_of(raw)
    by_value = module is not None and module.__name__ != "__main__"
    if by_value:
        cloudpickle.register_pickle_by_value(module)
    try:
        data = cloudpickle.dumps(raw)
    except Exception as error:  # pickling runs the code of whatever the function holds on to
        raise InvalidError(
            f"{function.origin}: {function.name} can't be sent by value: {type(error).__name__}: {error}",
            hint="It holds on to something that stays here, such as a lock, a file or a connection: "
            "make it inside of the function.",
        ) from error
    finally:
        if by_value:
            cloudpickle.unregister_pickle_by_value(module)
    if len(data) > MOST_SERIALIZED:
        raise InvalidError(
            f"{function.origin}: {function.name} takes {len(data) >> 20} MiB by value, and at most 16 are allowed",
            hint="Pass big values as arguments, or read them from a volume.",
        )
    if len(data) > MUCH_SERIALIZED:
        warnings.warn(
            f"{function.name} takes {len(data) >> 10} KiB by value; pass big values as arguments", stacklevel=2
        )
    return base64.b64encode(data).decode("ascii"), whole_identity(raw)
