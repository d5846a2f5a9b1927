"""The user's own files that a declaration names: where they lie here, and where they go in the container."""

from __future__ import annotations

import importlib.util
import os
import re
import sys
from collections.abc import Callable, Iterable, Iterator
from importlib.machinery import ModuleSpec
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

from attrs import evolve

from slipway.dsl.declaration import LocalSource, Origin, SourceDecl
from slipway.dsl.errors import InvalidError, NotFoundError
from slipway.dsl.items import Ignore
from slipway.dsl.patterns import NEVER_SOURCE, FilePatternMatcher, pattern_set

if TYPE_CHECKING:
    from slipway.dsl.app import App

ROOT = "/root"


def absolute(path: str) -> str:
    """A local path as Python would open it here and now, written out."""
    return os.path.abspath(Path(path).expanduser())  # noqa: PTH100 - resolve() would follow links, which a name may be


def resolved(source: LocalSource, ignore: Ignore = ()) -> LocalSource:
    """A source with its absolute path; for a folder with what is to be left out."""
    source = evolve(source, local=absolute(source.local))
    if not source.is_dir:
        return source
    if isinstance(ignore, FilePatternMatcher):
        return evolve(source, ignore=ignore.patterns)
    if isinstance(ignore, tuple):
        return evolve(source, ignore=ignore)
    return evolve(source, only=_chosen(source, ignore))


def _chosen(source: LocalSource, leave_out: Callable[[Path], bool]) -> tuple[str, ...]:
    """The files of a folder that a function of the user's doesn't leave out, sorted."""
    try:
        return tuple(sorted(path for path in files_below(source.local) if not leave_out(Path(path))))
    except Exception as error:  # the user's own function may raise anything
        raise InvalidError(
            f"{source.origin}: the function given as ignore= failed: {type(error).__name__}: {error}",
            hint="It is called with the path of each file, relative to the folder that is added.",
        ) from error


def files_below(folder: str) -> Iterator[str]:
    """The files of a folder and all below, relative to it, with "/" between."""
    for top, folders, names in os.walk(folder):
        folders.sort()
        inside = os.path.relpath(top, folder).replace(os.sep, "/")
        yield from (name if inside == "." else f"{inside}/{name}" for name in names)


# --- which file, and where a function's code is ------------------------------------------------------------


def app_file(app: App) -> Path:
    """The file that declares an app: where `App(...)` was said, or else the program. What is said at a prompt or in a
    notebook is in none: then a name for it in the working folder, where its paths start."""
    main = getattr(sys.modules.get("__main__"), "__file__", None)
    for file in (Path(app.origin.file), Path(main or "")):
        if file.is_file():
            return file.absolute()
    notebook = re.sub(r"[^A-Za-z0-9_.-]+", "-", Path(os.environ.get("JPY_SESSION_NAME", "")).stem).strip("-.")
    return Path.cwd() / (notebook or ("notebook" if "ipykernel" in sys.modules else "prompt"))


def module_name(module: ModuleType) -> str:
    """The name by which a worker imports the module. The program itself is called after its file."""
    if not module.__package__ or (module.__name__ == "__main__" and module.__spec__ is None):
        file = getattr(module, "__file__", None)
        return Path(file).stem if file else module.__name__
    spec = module.__spec__
    return spec.name.removesuffix(".__main__") if spec is not None else module.__name__


def code_of(module: ModuleType, origin: Origin) -> SourceDecl:
    """The files that hold a module: its script, or the whole package that it is part of."""
    file = getattr(module, "__file__", None)
    if file is None or file == "<stdin>":  # of `python -`
        raise InvalidError(
            f"{origin}: the code of {module.__name__} is in no file, so that it can't be taken to a worker",
            hint="Put it in a file, or say serialized=True in its decorator.",
        )
    name = module_name(module)
    top, dot, _ = name.partition(".")
    if not dot and not hasattr(module, "__path__"):
        return SourceDecl(sources=(_script(absolute(file), origin),))
    return SourceDecl(sources=(_package(top, _package_folder(top, absolute(file), name), origin),))


def _script(file: str, origin: Origin) -> LocalSource:
    return LocalSource(local=file, remote=f"{ROOT}/{Path(file).name}", origin=origin)


def _package(name: str, folder: str, origin: Origin, ignore: tuple[str, ...] = NEVER_SOURCE) -> LocalSource:
    return LocalSource(local=folder, remote=f"{ROOT}/{name}", is_dir=True, ignore=ignore, origin=origin)


def _package_folder(top: str, file: str, name: str) -> str:
    """The folder of a top-level package: of its parts on the path, the one that this file is in."""
    package = sys.modules.get(top)
    for folder in getattr(package, "__path__", ()):
        if file.startswith(absolute(folder) + os.sep):
            return absolute(folder)
    depth = len(name.split(".")) - (0 if Path(file).stem == "__init__" else 1)
    return str(Path(file).parents[max(depth - 1, 0)])


# --- modules by name -----------------------------------------------------------------------------------


def python_sources(modules: tuple[str, ...], ignore: Ignore, origin: Origin, near: Path) -> tuple[LocalSource, ...]:
    """The files of modules that are named, found as `import` finds them, from beside the app file first."""
    return tuple(source for name in modules for source in _python_source(name, ignore, origin, near))


def _python_source(name: str, ignore: Ignore, origin: Origin, near: Path) -> Iterator[LocalSource]:
    spec = _find(name, near)
    if spec is None:
        raise NotFoundError(
            f"{origin}: add_local_python_source: there is no module {name!r}",
            hint=f"Looked beside {near.name}, in {Path.cwd()}, and where this Python looks. "
            "It takes names of modules; for a path use add_local_dir.",
        )
    place = f"{ROOT}/{name.replace('.', '/')}"
    folders = list(spec.submodule_search_locations or ())
    if folders:
        for folder in folders:
            source = LocalSource(local=absolute(folder), remote=place, is_dir=True, origin=origin)
            yield _only_source(resolved(source, ignore))
    elif spec.origin and spec.origin.endswith(".py"):
        yield LocalSource(local=absolute(spec.origin), remote=f"{place}.py", origin=origin)
    else:
        raise InvalidError(
            f"{origin}: add_local_python_source: the module {name!r} isn't Python source ({spec.origin})",
            hint="Install it in the image with pip_install.",
        )


def _only_source(source: LocalSource) -> LocalSource:
    """A package without what never belongs to one, whatever else is said."""
    if source.only is None:
        return evolve(source, ignore=(*source.ignore, *NEVER_SOURCE))
    never = pattern_set(NEVER_SOURCE)
    return evolve(source, only=tuple(path for path in source.only if not never.matches(path)))


def _find(name: str, near: Path) -> ModuleSpec | None:
    loaded = sys.modules.get(name)
    if loaded is not None and loaded.__spec__ is not None:
        return loaded.__spec__
    before = list(sys.path)
    sys.path[:0] = [str(near.parent), str(Path.cwd())]
    try:
        return importlib.util.find_spec(name)
    except (ImportError, ValueError, AttributeError):  # a parent that can't be imported, or has no parts
        return None
    finally:
        sys.path[:] = before


def left_behind(values: Iterable[object], taken: set[str], near: Path) -> tuple[str, ...]:
    """Modules of the user's own that the values of some code are, or come from, and that no worker would have: those
    that Python found beside the app file or in the working folder, and that are not among the names that are taken."""
    homes = {str(near.parent), str(Path.cwd())}
    used = set()
    for value in values:
        name = value.__name__ if isinstance(value, ModuleType) else getattr(value, "__module__", None)
        if isinstance(name, str):
            used.add(name.partition(".")[0])
    return tuple(sorted(top for top in used - taken if _home(top) in homes))


def _home(top: str) -> str | None:
    """The folder in which Python found a top-level module."""
    module = sys.modules.get(top)
    places = [*getattr(module, "__path__", ()), getattr(module, "__file__", None)]
    if places[0] is None or top in {"__main__", "slipway"}:
        return None
    return str(Path(places[0]).parent)


def module_of(function: Callable[..., Any]) -> ModuleType | None:
    """The module in which a function is written."""
    return sys.modules.get(function.__module__)
