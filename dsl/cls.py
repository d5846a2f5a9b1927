"""Classes of an app. They are declared and checked; a later release runs them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NoReturn

from .declaration import Origin
from .later import Later
from .origin import invalid

if TYPE_CHECKING:
    from .app import App
    from .options import FunctionSettings

HINT = "Make functions of its methods: a value that @enter would set can be kept in a module's global."


class Cls:
    """A handle to a class of an app.

    >>> from slipway.dsl.app import App
    >>> from slipway.dsl.partial import method
    >>> app = App("example")
    >>> @app.cls(serialized=True)
    ... class Model:
    ...     @method()
    ...     def predict(self, x): ...
    >>> Model
    <Cls Model: predict>
    """

    from_name = Later("Cls.from_name", HINT)
    with_options = Later("Cls.with_options", HINT)
    with_concurrency = Later("Cls.with_concurrency", HINT)
    with_batching = Later("Cls.with_batching", HINT)

    def __init__(
        self,
        *,
        name: str,
        app: App,
        user_class: type,
        methods: tuple[str, ...],
        settings: FunctionSettings,
        origin: Origin,
    ) -> None:
        self.name = name
        self.app = app
        self.user_class = user_class
        self.methods = methods
        self.settings = settings
        self.origin = origin

    def __call__(self, *args: Any, **kwargs: Any) -> NoReturn:
        raise invalid(f"{self.name}(...): classes are not in this release of Slipway", hint=HINT)

    def __getattr__(self, name: str) -> Any:
        if name in self.__dict__.get("methods", ()):
            raise AttributeError(f"{self.name}.{name} is a method: make an object first, {self.name}().{name}")
        raise AttributeError(f"{self.name} has no attribute {name!r}")

    def __repr__(self) -> str:
        return f"<Cls {self.name}: {', '.join(self.methods)}>"
