"""Classes of an app: handles through which a program makes objects whose methods run in workers."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from . import context, hooks, registry
from .errors import ExecutionError
from .function import Function
from .later import Later
from .origin import here, invalid, text_argument
from .scaled import Varying
from .session import worker_app

if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Self

    from .app import App
    from .declaration import Concurrency, Origin
    from .hooks import Parameter, Partial
    from .image import Image
    from .instance import LocalInstance
    from .options import FunctionSettings
    from .variant import Value, Variant


class Cls(Varying):
    """A class of an app. Called with its parameters it makes an object, whose methods run in workers of their own.

    >>> from slipway.dsl.app import App
    >>> from slipway.dsl.partial import method, parameter
    >>> app = App("example")
    >>> @app.cls(serialized=True)
    ... class Model:
    ...     size: str = parameter(default="small")
    ...     @method()
    ...     def predict(self, x): return f"{self.size} {x}"
    >>> Model
    <Cls Model: predict>
    >>> Model(size="large").predict.local(1)
    'large 1'
    >>> Model.predict
    Traceback (most recent call last):
    ...
    AttributeError: ...: Model.predict is a method: make an object first, Model().predict
    """

    lookup = Later("Cls.lookup", "Use Cls.from_name.")

    def __init__(
        self,
        *,
        name: str,
        app: App | None = None,
        app_name: str | None = None,
        user_class: type | None = None,
        settings: FunctionSettings | None = None,
        concurrency: Concurrency | None = None,
        image: Image | None = None,
        origin: Origin | None = None,
        variant: Variant | None = None,
    ) -> None:
        self.name = name
        self.app = app
        self.app_name = app_name
        self.settings = settings
        self.concurrency = concurrency
        self.image = image
        self.variant = variant
        self._user_class = user_class
        self._origin = origin
        self.methods: dict[str, Partial] = {} if user_class is None else hooks.methods(user_class)
        self.parameters: dict[str, tuple[type, Parameter]] = {}
        if user_class is not None:
            self.parameters = hooks.parameters(user_class)
            self.__doc__ = user_class.__doc__
            self.__module__ = user_class.__module__
            self.__name__ = user_class.__name__
            self.__qualname__ = user_class.__qualname__

    @staticmethod
    def from_name(
        app_name: str,
        name: str,
        *,
        version: int | None = None,
        environment_name: str | None = None,
        client: object = None,
    ) -> Cls:
        """A class of a deployed app. It is looked up when a method is first called.

        >>> Cls.from_name("search", "Model")(size="large").predict
        <Function Model.predict of search>
        """
        if version is not None:
            raise invalid("calling an older version of an app is not in this release of Slipway")
        app_name, name = text_argument(app_name, "the name of an app"), text_argument(name, "the name of a class")
        if "." in name:
            raise invalid(f"{name!r} is a method, and Cls.from_name takes classes")
        return Cls(name=name, app_name=app_name)

    def __call__(self, *wrong: object, **parameters: Value) -> Obj:
        if wrong:
            raise invalid(f"{self.name}(...) takes its parameters by name", hint=self._usage())
        return Obj(self, self._checked(parameters))

    # --- variants -------------------------------------------------------------------------------------

    def _varied(self, variant: Variant) -> Self:
        return type(self)(
            name=self.name,
            app=self.app,
            app_name=self.app_name,
            user_class=self._user_class,
            settings=self.settings,
            concurrency=self.concurrency,
            image=self.image,
            origin=self._origin,
            variant=variant,
        )

    # --- what it stands for ---------------------------------------------------------------------------

    @property
    def has_code(self) -> bool:
        """Whether the class itself is in this process."""
        return self._user_class is not None

    @property
    def user_class(self) -> type:
        """The Python class, where this process has it."""
        if self._user_class is None:
            raise ExecutionError(
                f"{here()}: {self!r} was looked up by name, its code isn't here",
                hint=f"Call a method in a worker: {self.name}(...).method.remote(...).",
            )
        if self.failures and not context.is_local():
            raise self.failures[0]
        return self._user_class

    @property
    def failures(self) -> list[Exception]:
        """What an `with image.imports():` of its image could not import here."""
        image = self.image if self.image is not None or self.app is None else self.app.image
        return [] if image is None else image.failures

    @property
    def origin(self) -> Origin:
        """Where the class is written."""
        return here() if self._origin is None else self._origin

    def __mro_entries__(self, bases: tuple[Any, ...]) -> tuple[type, ...]:
        return (self._user_class or self.user_class,)  # `class Better(Model):` inherits from what it stands for

    def __instancecheck__(self, instance: object) -> bool:
        return self._user_class is not None and isinstance(instance, self._user_class)

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__") or "methods" not in self.__dict__:
            raise AttributeError(f"Cls has no attribute {name!r}")
        value = None if self._user_class is None else getattr(self._user_class, name, None)
        if self._user_class is None or name in self.methods:
            way = f"make an object first, {self.name}().{name}"
            raise AttributeError(f"{here()}: {self.name}.{name} is a method: {way}", name=name, obj=self)
        if isinstance(value, hooks.Partial):
            raise AttributeError(f"{here()}: {self.name}.{name} is a hook, which a worker calls", name=name, obj=self)
        if isinstance(value, hooks.Parameter):
            way = f"{self.name}({name}=...).{name}"
            raise AttributeError(f"{here()}: {self.name}.{name} is a parameter: objects have it, {way}", name=name)
        return getattr(self._user_class, name)

    def __reduce__(self) -> tuple[Any, ...]:
        app = self.app
        running = (app.running or worker_app()) if app is not None else None
        named = running.app_id if running else self.app_name or (app.whole.name if app is not None else None) or ""
        if app is None and self._user_class is not None and (worker := worker_app()) is not None:
            named = worker.app_id  # a class that came to this worker by value
        return _restore, (named, self.name, self.variant)

    def __repr__(self) -> str:
        app = self.app_name if self.app is None else None
        methods = f": {', '.join(self.methods)}" if self.has_code else ""
        return f"<Cls {self.name}{f' of {app}' if app else ''}{methods}>"

    # --- parameters -----------------------------------------------------------------------------------

    def _checked(self, given: dict[str, Value]) -> dict[str, Value]:
        if self._user_class is not None:
            for name in given:
                if name not in self.parameters:
                    from difflib import get_close_matches  # a worker's start is to be quick

                    near = get_close_matches(name, self.parameters, n=1)
                    hint = f"Did you mean {near[0]!r}?" if near else self._usage()
                    raise invalid(f"{self.name}() has no parameter {name!r}", hint=hint)
            missing = [n for n, (_, p) in self.parameters.items() if p.required and n not in given]
            if missing:
                raise invalid(f"{self.name}() lacks {', '.join(missing)}", hint=self._usage())
        for name, value in given.items():
            wanted = self.parameters[name][0] if self._user_class is not None else None
            if type(value) is not wanted and (wanted is not None or type(value) not in hooks.TYPES.values()):
                a = "a str, an int, a bool or bytes" if wanted is None else f"of type {wanted.__name__}"
                raise invalid(
                    f"{self.name}({name}={value!r:.60}): the parameter is {a}, this is of type {type(value).__name__}"
                )
        size, most = hooks.size_of(given), hooks.MOST_PARAMETERS
        if size > most:
            raise invalid(
                f"the parameters of {self.name} take {size} bytes, and at most {most} are allowed",
                hint="Pass big values as arguments of a method, or read them from a volume.",
            )
        return given

    def _usage(self) -> str:
        if self._user_class is None:
            return f"Write {self.name}(name=value)."
        said = (
            f"{n}: {t.__name__}{'' if p.required else f' = {p.default!r}'}" for n, (t, p) in self.parameters.items()
        )
        return f"Its parameters: {', '.join(said)}." if self.parameters else "It has no parameters."


class Obj:
    """An object of a class of an app. Its methods are functions: `obj.predict.remote(x)`, `obj.predict.map(xs)`, ….

    Everything else that it is asked for is asked of an instance of the class, made here for the purpose.
    """

    __slots__ = ("__weakref__", "_slipway")

    def __init__(self, cls: Cls, parameters: dict[str, Value]) -> None:
        self._slipway = _Own(self, cls, parameters)

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(f"Obj has no attribute {name!r}")
        return self._slipway.attribute(name)

    def __reduce__(self) -> tuple[Any, ...]:
        return Obj, (self._slipway.cls, self._slipway.parameters)

    def __repr__(self) -> str:
        said = ", ".join(f"{name}={value!r}" for name, value in self._slipway.parameters.items())
        return f"{self._slipway.cls.name}({said})"


SCALING = ("autoscaler", "update_autoscaler", "get_current_stats", "hydrate")


class _Own:
    """What an object has of ours, under one name, so that all others are the user's."""

    __slots__ = ("_functions", "_obj", "_variant", "cls", "local", "parameters")

    def __init__(self, obj: Obj, cls: Cls, parameters: dict[str, Value]) -> None:
        self.cls = cls
        self.parameters = parameters
        self.local: LocalInstance | None = None
        self._obj = obj
        self._variant: Variant | None = cls.variant
        self._functions: dict[str, Function[..., Any, Any]] = {}
        if parameters:
            from .variant import with_parameters  # here: a worker may never need it

            self._variant = with_parameters(cls.variant, parameters)

    def attribute(self, name: str) -> Any:
        if name in self.cls.methods:
            return self.method(name)
        if name in SCALING and not (self.cls.has_code and hasattr(self.cls.user_class, name)):
            function = self._function("")
            return function.autoscaler.update if name == "update_autoscaler" else getattr(function, name)
        if not self.cls.has_code:
            if name.startswith("_"):
                raise AttributeError(f"{self.cls!r} has no method {name!r}")
            return self.method(name)
        return getattr(self.instance.instance, name)

    def method(self, name: str) -> Function[..., Any, Any]:
        return self._functions.get(name) or self._function(name)

    def _function(self, method: str) -> Function[..., Any, Any]:
        """The handle of a method; "" is the class as a whole."""
        cls, said = self.cls, self.cls.methods.get(method)
        made = self._functions[method] = Method(
            self._obj,
            name=cls.name,
            app=cls.app,
            app_name=cls.app_name,
            raw=None if said is None else said.target,
            settings=cls.settings,
            endpoint=None if said is None else said.endpoint,
            batching=None if said is None else said.batching,
            concurrency=cls.concurrency,
            is_generator=None if said is None else said.is_generator,
            image=cls.image,
            method=method,
            variant=self._variant,
        )
        return made

    @property
    def instance(self) -> LocalInstance:
        """The instance in this process."""
        if self.local is None:
            from .instance import LocalInstance

            self.local = LocalInstance(self._obj)
        return self.local


class Method(Function[..., Any, Any]):
    """A method of an object: a function of the app that belongs to the object's class and parameters."""

    def __init__(self, obj: Obj, **said: Any) -> None:
        super().__init__(**said)
        self._obj = obj

    @property
    def raw(self) -> Callable[..., Any]:
        bound: Callable[..., Any] = self.here("raw").__get__(self._obj)
        return bound

    def here(self, what: str) -> Callable[..., Any]:
        raw = super().here(what)
        return self._obj._slipway.instance.bound(raw) if what == "local" else raw

    def _varied(self, variant: Variant) -> Self:
        cls = self.name
        raise invalid(
            f"{self.title} is a method, and the workers of {cls} serve all of its methods",
            hint=f"Say it of the class: {cls}.with_options(...)(...).{self.method}.",
        )

    def __reduce__(self) -> tuple[Any, ...]:
        return getattr, (self._obj, self.method)


def _restore(app: str, name: str, variant: Variant | None) -> Cls:
    """A handle from a pickle: the one that this process has declared, else one to be looked up."""
    worker = worker_app()
    for known in reversed(registry.apps):
        running = known.running or worker
        if app in {known.name or "", running.app_id if running else ""} and name in known.classes:
            found = known.classes[name]
            return found if variant is None else found._varied(variant)
    return Cls(name=name, app_name=app, variant=variant)
