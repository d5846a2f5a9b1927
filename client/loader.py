"""Imports the user's file the way `python app.py` would, and finds the app and the function that a reference names."""

from __future__ import annotations

import importlib
import importlib.util
import sys
import traceback
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from difflib import get_close_matches
from importlib.machinery import SourceFileLoader
from pathlib import Path
from types import CodeType, ModuleType, TracebackType
from typing import Any, NoReturn

from attrs import frozen

from slipway.dsl import context
from slipway.dsl.app import App, LocalEntrypoint
from slipway.dsl.cls import Cls
from slipway.dsl.declaration import Fault, Origin
from slipway.dsl.errors import DeclarationError, Error, InvalidError, NotFoundError
from slipway.dsl.function import Function


@frozen
class MethodTarget:
    """A method of a class, which runs in a worker once an object is made: `cls(**parameters).name`."""

    cls: Cls
    method: str

    @property
    def name(self) -> str:
        return f"{self.cls.name}.{self.method}"

    @property
    def raw(self) -> Callable[..., Any]:
        raw: Callable[..., Any] = self.cls.methods[self.method].target
        return raw

    @property
    def is_generator(self) -> bool:
        return self.cls.methods[self.method].yields


Target = LocalEntrypoint[..., Any] | Function[..., Any, Any] | MethodTarget

MOST_FRAMES = 6  # of the user's, when their file cannot be imported: one screen

_loaded: dict[str, str] = {}  # module name -> file, of what this process has loaded


@frozen(kw_only=True)
class Loaded:
    """The user's file after its import: the app that the reference names, and the name that came behind it."""

    ref: str  # as the user wrote it, without what follows "::"
    path: Path
    module: ModuleType
    app: App
    name: str | None = None


def load(ref: str, *, as_module: bool = False) -> Loaded:
    """Import what `ref` names: `file.py`, `file.py::name`, `file.py::app.name`, or a dotted module with `as_module`.

    Raises `NotFoundError` when there is no such file, `DeclarationError` when it cannot be imported, and
    `InvalidError` for everything else that is wrong with the reference.
    """
    where, _, name = ref.partition("::")
    if as_module:
        with _importing(Path.cwd()):
            module = _import_dotted(where)
        path = Path(module.__file__ or where)
    else:
        path = _find(where, name)
        with _importing(path.parent, Path.cwd()):
            module = _import_file(path)
    app, rest = _choose(_apps(module), where, name, path)
    return Loaded(ref=where, path=path, module=module, app=app, name=rest)


# --- which file ---------------------------------------------------------------------------------------


def _find(where: str, name: str) -> Path:
    path = Path(where).expanduser()
    if path.is_dir():
        found = sorted(file.name for file in path.glob("*.py"))[:5]
        raise InvalidError(
            f"{where} is a folder, and an app is a file",
            hint=f"In it are: {', '.join(found)}." if found else "For a package, name its module: -m package.module",
        )
    if not path.exists():
        _missing(where, path)
    if path.suffix != ".py":
        raise InvalidError(f"{where} is not a Python file", hint="An app is declared in a file that ends in .py.")
    if "." in path.stem:
        raise InvalidError(
            f"{where} has a dot within its name, so that no program can import it",
            hint=f"Call it {path.stem.replace('.', '_')}.py",
        )
    return path.absolute()


def _missing(where: str, path: Path) -> NoReturn:
    file, colon, rest = where.rpartition(":")
    if colon and Path(file).is_file():
        raise InvalidError(f"there is no file {where!r}", hint=f"A name stands behind two colons: {file}::{rest}")
    if Path(where + ".py").is_file():
        raise NotFoundError(f"there is no file {where!r}", hint=f"Did you mean {where}.py?")
    as_path = Path(*where.split("."))
    if "/" not in where and (as_path.with_suffix(".py").is_file() or (as_path / "__init__.py").is_file()):
        raise NotFoundError(f"there is no file {where!r}", hint=f"A module is named with -m: -m {where}")
    folder = path.parent
    if not folder.is_dir():
        raise NotFoundError(f"there is no file {where!r}", hint=f"There is no folder {str(folder)!r} either.")
    here = sorted(file.name for file in folder.glob("*.py"))
    close = get_close_matches(path.name, here, n=1, cutoff=0.5)
    if close:
        hint = f"Did you mean {Path(where).with_name(close[0])}?"
    elif here:
        hint = f"Python files in {folder.absolute()}: {', '.join(here[:8])}{', …' if len(here) > 8 else ''}"
    else:
        hint = f"There is no Python file in {folder.absolute()}."
    raise NotFoundError(f"there is no file {where!r}", hint=hint)


# --- import -------------------------------------------------------------------------------------------


@contextmanager
def _importing(*folders: Path) -> Iterator[None]:
    """Put the folders where Python looks first (and leave them there: functions import later), and say what goes on."""
    for folder in reversed(folders):
        if str(folder) not in sys.path:
            sys.path.insert(0, str(folder))
    token = context.importing.set(True)
    try:
        yield
    finally:
        context.importing.reset(token)


class FromSource(SourceFileLoader):
    """Compiles the file each time. Byte code on disk is known by size and whole second: an edit at once goes unseen."""

    def get_code(self, fullname: str) -> CodeType:
        code: CodeType = self.source_to_code(self.get_data(self.path), self.path)
        return code


def _import_file(path: Path) -> ModuleType:
    name = path.stem
    _refuse_taken(name, path)
    spec = importlib.util.spec_from_file_location(name, path, loader=FromSource(name, str(path)))
    assert spec is not None and spec.loader is not None, "a .py file has a loader"
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    _loaded[name] = str(path)
    try:
        spec.loader.exec_module(module)
    except BaseException as error:  # noqa: BLE001 - whatever a user's file raises is told as their fault
        sys.modules.pop(name, None)
        _explain(error, path)
    return module


def _refuse_taken(name: str, path: Path) -> None:
    """A file that is called like a module in use would be imported in its place, here and in the worker."""
    known = sys.modules.get(name)
    if name not in sys.stdlib_module_names and (known is None or name in _loaded):
        return
    whose = "the standard library" if name in sys.stdlib_module_names else "a package that is installed here"
    raise InvalidError(
        f"{path.name} is called like the module {name!r} of {whose}, and would be imported in its place",
        hint=f"Rename it, for example to {name}_app.py",
    )


def _import_dotted(name: str) -> ModuleType:
    if name.endswith(".py") or "/" in name:
        raise InvalidError(f"-m takes a module, and {name!r} is a file", hint="Leave -m out, or write package.module.")
    try:
        module = importlib.import_module(name)
    except ModuleNotFoundError as error:
        if error.name and (name == error.name or name.startswith(error.name + ".")):
            raise NotFoundError(
                f"there is no module {error.name!r}", hint=f"Looked in {Path.cwd()} and where Python looks."
            ) from None
        _explain(error, None)
    except BaseException as error:  # noqa: BLE001 - whatever a user's file raises is told as their fault
        _explain(error, None)
    return module


def _explain(error: BaseException, path: Path | None) -> NoReturn:
    """Turn what the import raised into one fault that names the user's line. Never returns."""
    if isinstance(error, (Error, KeyboardInterrupt, GeneratorExit)):
        raise error  # an `Error` names its place already
    fault = _syntax_fault(error, path) if isinstance(error, SyntaxError) else _import_fault(error, path)
    raise DeclarationError((fault,)) from error


def _syntax_fault(error: SyntaxError, path: Path | None) -> Fault:
    found = ""
    if error.text:
        line = error.text.rstrip("\n")
        bare = line.lstrip()
        found = bare
        if error.offset and error.offset > 0:
            found += "\n" + " " * max(error.offset - 1 - (len(line) - len(bare)), 0) + "^"
    origin = Origin(file=error.filename or str(path or "<unknown>"), line=error.lineno or 0)
    return Fault(
        severity="error", address="", summary=f"{type(error).__name__}: {error.msg}", found=found, origin=origin
    )


def _import_fault(error: BaseException, path: Path | None) -> Fault:
    frames = _user_frames(error.__traceback__)
    last = frames[-1] if frames else None
    origin = Origin(file=last.filename, line=last.lineno or 0) if last else Origin(file=str(path or "<unknown>"))
    text = str(error).removeprefix(f"{origin}: ")
    if isinstance(error, SystemExit):
        summary = f"the file ended the program while it was imported (sys.exit({error.code!r}))"
    else:
        summary = f"{type(error).__name__}: {text}" if text else type(error).__name__
    shown = frames[-MOST_FRAMES:]
    found = "\n".join(f"{f.filename}:{f.lineno} in {f.name}\n    {f.line or ''}".rstrip() for f in shown)
    return Fault(
        severity="error", address="", summary=summary, found=found, hint=_import_hint(error, path), origin=origin
    )


def _user_frames(start: TracebackType | None) -> list[traceback.FrameSummary]:
    """The frames that are neither ours nor the import system's."""
    frames = []
    for frame, line in traceback.walk_tb(start):
        module = frame.f_globals.get("__name__", "")
        if module.split(".")[0] in {"slipway", "importlib"} or frame.f_code.co_filename.startswith("<frozen"):
            continue
        frames.append(traceback.FrameSummary(frame.f_code.co_filename, line, frame.f_code.co_name))
    return frames


def _import_hint(error: BaseException, path: Path | None) -> str:
    if isinstance(error, ModuleNotFoundError) and error.name:
        top = error.name.partition(".")[0]
        return (
            f"Is {top} only in the image? Import it inside the function, or in a `with image.imports():` block. "
            f"Else install it here, in {sys.prefix}."
        )
    if isinstance(error, ImportError) and "relative import" in str(error) and path is not None:
        return f"A file of a package is loaded as a module: -m {path.parent.name}.{path.stem}"
    if isinstance(error, SystemExit):
        return 'Put what should not happen on import below `if __name__ == "__main__":`.'
    return ""


# --- which app, which function ------------------------------------------------------------------------


def _apps(module: ModuleType) -> dict[str, App]:
    """The file's apps by variable. One that another of them includes is part of that one."""
    found: dict[str, App] = {}
    for variable, value in vars(module).items():
        if isinstance(value, App) and all(value is not app for app in found.values()):
            found[variable] = value
    whole = {v: app for v, app in found.items() if not any(parent in found.values() for parent in app._parents)}
    if len(whole) > 1:
        own = {v: app for v, app in whole.items() if app.origin.file == module.__file__}
        if len(own) == 1:  # the others were imported, to call their functions
            return own
    return whole


def _choose(apps: dict[str, App], where: str, name: str, path: Path) -> tuple[App, str | None]:
    if not apps:
        raise InvalidError(
            f"{path}: the file declares no App at its top level", hint='Write: app = slipway.App("a-name")'
        )
    first, _, rest = name.partition(".")
    named = apps.get(first) or next((app for app in apps.values() if first and app.name == first), None)
    if named is not None:
        return named, rest or None
    if len(apps) == 1:
        return next(iter(apps.values())), name or None
    holders = [app for app in apps.values() if name in app.functions or name in app.entrypoints]
    if name and len(holders) == 1:
        return holders[0], name
    listed = "\n".join(f"  {where}::{variable:<12} {app!r}, {app.origin}" for variable, app in apps.items())
    raise InvalidError(
        f"{path}: the file has {len(apps)} apps, and it isn't said which is meant", hint=f"Say one of:\n{listed}"
    )


def target(loaded: Loaded) -> Target:
    """What `slipway run` starts: what was named, else the one local entrypoint, else the one function."""
    app = loaded.app
    if loaded.name is not None:
        return _named(loaded, loaded.name)
    kinds: tuple[tuple[str, Mapping[str, Target]], ...] = (
        ("local entrypoints", app.entrypoints),
        ("functions", app.functions),
        ("methods", _methods(app)),
    )
    for kind, members in kinds:
        if len(members) == 1:
            return next(iter(members.values()))
        if members:
            raise InvalidError(
                f"{loaded.ref} has {len(members)} {kind}, and it isn't said which to run",
                hint="Say one of:\n" + "\n".join(f"  {loaded.ref}::{name}" for name in members),
            )
    raise InvalidError(
        f"{loaded.ref}: {app!r} has nothing to run",
        hint="Decorate a function with @app.local_entrypoint() or @app.function().",
    )


def _named(loaded: Loaded, name: str) -> Target:
    app = loaded.app
    known: dict[str, Target] = {**app.functions, **app.entrypoints, **_methods(app)}
    if name in known:
        return known[name]
    variable: object = getattr(loaded.module, name, None)
    for value in known.values():
        if value is variable:  # the Python name of a function that is called otherwise
            return value
    cls = app.classes.get(name)
    if cls is not None:
        return _only_method(loaded, cls)
    close = get_close_matches(name, known, n=1, cutoff=0.5)
    listed = ", ".join(known) or "none"
    plain = " (a plain function: it lacks @app.function())" if callable(variable) else ""
    raise NotFoundError(
        f"{loaded.ref} has no function or local entrypoint {name!r}{plain}",
        hint=(f"Did you mean {loaded.ref}::{close[0]}? " if close else "") + f"There are: {listed}",
    )


def _methods(app: App) -> dict[str, MethodTarget]:
    """The methods of an app's classes, as `Class.method`."""
    return {f"{cls.name}.{name}": MethodTarget(cls, name) for cls in app.classes.values() for name in cls.methods}


def _only_method(loaded: Loaded, cls: Cls) -> MethodTarget:
    if len(cls.methods) == 1:
        return MethodTarget(cls, next(iter(cls.methods)))
    named = "\n".join(f"  {loaded.ref}::{cls.name}.{name}" for name in cls.methods)
    raise InvalidError(
        f"{cls.name} has {len(cls.methods)} methods, and it isn't said which to run",
        hint=f"Say one of:\n{named}" if named else "Decorate one with @slipway.method().",
    )
