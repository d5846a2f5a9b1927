"""What an app file says of images, volumes and secrets, as its workers see it.

A worker imports the file for the sake of one function. What the file declares besides was checked when the app was
planned, and is not looked at again: making the classes that hold it would take longer than all else in a worker's
start. So in a worker `slipway.Image` and the like are the classes here. What they do there the real ones do likewise.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import TYPE_CHECKING, Any

from . import context, hooks
from .dual import Dual
from .later import Later

if TYPE_CHECKING:
    from .app import App
    from .function import Function


class Imports:
    """What every image does, wherever it is."""

    __slots__ = ()

    failures: list[Exception]  # of its `with imports():` blocks, in this process

    @contextmanager
    def imports(self) -> Iterator[None]:
        """Around imports of packages that only the image has: here they may fail, in its containers they may not.

        >>> from slipway.dsl.image import Image
        >>> image = Image.debian_slim().pip_install("torch")
        >>> with image.imports():
        ...     import a_package_that_only_the_image_has
        """
        try:
            yield
        except Exception as error:  # noqa: BLE001 - whatever an import may raise
            self.failures.append(error)
            if context.is_local() and not isinstance(error, ImportError):
                warnings.warn(f"an import for an image failed here: {type(error).__name__}: {error}", stacklevel=3)


_HINT = "Mounted at a path, a volume is a plain folder: open its files in a function."


class Folder:
    """What every volume does, wherever it is."""

    __slots__ = ()

    listdir = Later("Volume.listdir", _HINT)
    iterdir = Later("Volume.iterdir", _HINT)
    read_file = Later("Volume.read_file", _HINT)
    remove_file = Later("Volume.remove_file", _HINT)
    copy_files = Later("Volume.copy_files", _HINT)
    batch_upload = Later("Volume.batch_upload", _HINT)
    ephemeral = Later("Volume.ephemeral", _HINT)
    rename = Later("Volume.rename", _HINT)

    @property
    def commit(self) -> Dual[[], None]:
        """Make what was written visible to others. A volume is one shared folder here, so it already is."""
        return Dual(_nothing)

    @property
    def reload(self) -> Dual[[], None]:
        """See what others wrote. A volume is one shared folder here, so that is seen at once."""
        return Dual(_nothing)


def _nothing() -> None:
    """Done already."""


class _Told(type):
    """Every way to make one is taken, and gives one: `Image.debian_slim("3.11")`, `Secret.from_dict({...})`."""

    def __getattr__(cls, name: str) -> Any:
        if name.startswith("_"):
            raise AttributeError(f"{cls.__name__} has no attribute {name!r}")
        return cls


class Told(metaclass=_Told):
    """Said in the file, and of no more use in a worker. Every way to say more gives another."""

    def __init__(self, *args: object, **options: object) -> None: ...

    def __getattr__(self, name: str) -> Any:
        return getattr(type(self), name)

    def __repr__(self) -> str:
        return f"<{type(self).__name__}>"


class Image(Imports, Told):
    """An image in one of its containers.

    >>> image = Image.debian_slim("3.11").pip_install("numpy").env({"A": "1"})
    >>> with image.imports():
    ...     import a_package_that_is_missing
    >>> image.failures
    [ModuleNotFoundError("No module named 'a_package_that_is_missing'")]
    """

    def __init__(self, *args: object, **options: object) -> None:
        self.failures = []


class _Remembered(_Told):
    """The way in which one was made is kept, so that `real` can make the real one."""

    def __getattr__(cls, name: str) -> Any:
        if name.startswith("_"):
            raise AttributeError(f"{cls.__name__} has no attribute {name!r}")
        return partial(cls, _made_by=name)


class Volume(Folder, Told, metaclass=_Remembered):
    """A volume where it is mounted.

    >>> volume = Volume.from_name("models", create_if_missing=True).read_only()
    >>> volume.name, volume.commit()
    ('models', None)
    """

    def __init__(self, name: str = "", *, _made_by: str = "", _mount: Any = None, **options: object) -> None:
        self.name = name
        self.made = _made_by, (name,), options
        self.mount: dict[str, Any] = _mount or {}

    def with_mount_options(self, **options: object) -> Volume:
        by, _, given = self.made
        return Volume(self.name, _made_by=by, _mount={**self.mount, **options}, **given)

    def read_only(self) -> Volume:
        return self.with_mount_options(read_only=True)


def volume(name: str) -> Any:
    """A volume from a pickle, as it is here."""
    if context.is_inside():
        return Volume.from_name(name)
    from .volume import Volume as Handle

    return Handle.from_name(name)


class Secret(Told, metaclass=_Remembered):
    def __init__(self, *args: object, _made_by: str = "", **options: object) -> None:
        self.made = _made_by, args, options


class Cron(Told): ...


class Period(Told): ...


class Retries(Told):
    def __init__(self, *args: object, **options: object) -> None:
        self.made = "", args, options


def real(told: Any) -> Any:
    """The object that was meant, where code in a worker says something to the engine: `f.with_options(secrets=[…])`.

    >>> real(Volume.from_name("models").read_only()).decl.read_only, real(3)
    (True, 3)
    """
    if not isinstance(told, Volume | Secret | Retries):
        return told
    from .retries import Retries as RealRetries
    from .secret import Secret as RealSecret
    from .volume import Volume as RealVolume

    kinds: dict[type, Any] = {Volume: RealVolume, Secret: RealSecret, Retries: RealRetries}
    kind, (by, args, options) = kinds[type(told)], told.made
    made = (getattr(kind, by) if by else kind)(*args, **options)
    return made.with_mount_options(**told.mount) if isinstance(told, Volume) else made


def decorator(app: App, options: Any) -> Any:
    """What `@app.function(...)` is in a worker: it makes a handle with what is needed there."""
    from .function import Function

    def decorate(target: Any) -> Function[..., Any, Any]:
        raw = target.target if isinstance(target, hooks.Partial) else target
        function: Function[..., Any, Any] = Function(
            name=options.get("name") or raw.__name__,
            app=app,
            raw=raw,
            image=options.get("image"),
            endpoint=getattr(target, "endpoint", None),
            is_generator=options.get("is_generator"),
        )
        app.functions[function.name] = function
        return function

    return decorate


def class_decorator(app: App, options: Any) -> Any:
    """What `@app.cls(...)` is in a worker."""
    from .cls import Cls

    def decorate(target: Any) -> Cls:
        user_class = target.target if isinstance(target, hooks.Partial) else target
        made = Cls(name=user_class.__name__, app=app, user_class=user_class, image=options.get("image"))
        app.classes[made.name] = made
        return made

    return decorate


# --- what decorates the functions in a class's body: their roles are all that a worker asks for ---------------------


def _role(role: str, target: Any, **said: Any) -> hooks.Partial:
    partial = target if isinstance(target, hooks.Partial) else hooks.Partial(target=target)
    return partial.but(role=role or partial.role, **said)


def method(*, is_generator: bool | None = None) -> Callable[[Any], hooks.Partial]:
    return lambda target: _role("method", target, is_generator=is_generator)


def enter(*, snap: bool = False) -> Callable[[Any], hooks.Partial]:
    return lambda target: _role("enter", target, snap=snap)


def exit() -> Callable[[Any], hooks.Partial]:
    return lambda target: _role("exit", target)


def batched(**options: object) -> Callable[[Any], hooks.Partial]:
    return lambda target: _role("batched", target)


def concurrent(**options: object) -> Callable[[Any], hooks.Partial]:
    return lambda target: _role("", target)


def parameter(**said: Any) -> Any:
    """As in `slipway.dsl.partial`, where what is said was checked."""
    return hooks.Parameter(default=said.get("default"), required="default" not in said, init=said.get("init", True))
