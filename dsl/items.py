"""What an image is made of while the file is being read: steps, with the handles and functions that they hold."""

from __future__ import annotations

import difflib
import re
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypedDict, Union

from attrs import evolve, field, frozen

from .declaration import LocalSource, Setting, Step, StepOptions
from .origin import here, invalid
from .patterns import FilePatternMatcher, PatternSet
from .resources import checked_gpu
from .secret import Secret, checked_secrets, env_secret

if TYPE_CHECKING:
    from typing import Unpack as Unpack

Ignore = Union["tuple[str, ...]", FilePatternMatcher, Callable[[Path], bool]]
Packages = Union[str, "list[str]", "tuple[str, ...]"]

# Where the files that a step reads lie while it runs; fixed, so that a file's name and place are no identity.
PYTHON = r"3\.\d{1,2}(\.\d+)?t?"
BUILD_FOLDER = "/.slipway/build"


class StepArguments(TypedDict, total=False):
    """What every build step takes besides its own."""

    env: Mapping[str, str | None] | None
    secrets: Iterable[Secret] | None
    gpu: str | list[str] | None
    force_build: bool


class PipArguments(StepArguments, total=False):
    """What the steps take that install Python packages."""

    find_links: str | None
    index_url: str | None
    extra_index_url: str | None
    pre: bool
    extra_options: str


PIP_ONLY = frozenset(PipArguments.__annotations__) - frozenset(StepArguments.__annotations__)


@frozen(kw_only=True, eq=False)
class Item:
    """One step as far as it can be said without reading a file; the rest is found when the declaration is made."""

    step: Step
    secrets: tuple[Secret, ...] = ()
    ignore: Ignore | None = ()  # for the folders that the step takes; None: .dockerignore decides
    function: Callable[..., Any] | None = None  # run_function
    args: tuple[Any, ...] = ()
    kwargs: Mapping[str, Any] = field(factory=dict)
    include_source: bool = True
    modules: tuple[str, ...] = ()  # add_local_python_source
    ignored: tuple[str, ...] = ()  # parameters given that have no effect


def make_item(step: Step, options: StepArguments, *, force: bool, **more: Any) -> Item:
    """The item for a step with its `env=, secrets=, gpu=, force_build=`; `force`: a step below is forced."""
    known_only(options, StepArguments.__annotations__, f"Image.{getattr(step, 'method', step.KIND)}")
    secrets = checked_secrets(options.get("secrets"))
    env = options.get("env")
    if env:
        secrets = (*secrets, env_secret(env))
    gpus = checked_gpu(options.get("gpu"))
    if len(gpus) > 1:
        raise invalid("a build step takes one kind of GPU, not a list")
    step_options = StepOptions(gpu=gpus[0] if gpus else None, force_build=force or bool(options.get("force_build")))
    return Item(step=evolve(step, options=step_options, origin=here()), secrets=secrets, **more)


def known_only(given: Mapping[str, Any], known: Iterable[str], what: str) -> None:
    """Refuse a parameter that there isn't, naming the one that was probably meant."""
    known = list(known)
    for name in given:
        if name not in known:
            near = difflib.get_close_matches(name, known, n=1)
            hint = f" Did you mean {near[0]!r}?" if near else ""
            raise TypeError(f"{here()}: {what}() has no parameter {name!r}.{hint}")


def strings(method: str, values: Iterable[Any]) -> tuple[str, ...]:
    """Strings, given one by one or in lists."""
    found: list[str] = []
    for value in values:
        if isinstance(value, list | tuple):
            found.extend(strings(method, value))
        elif isinstance(value, str):
            found.append(value)
        else:
            raise invalid(f"Image.{method} takes strings, not {type(value).__name__} ({value!r})")
    return tuple(found)


def packages(method: str, values: Iterable[Any]) -> tuple[str, ...]:
    """Package requirements, sorted: the order in which they are said is not identity."""
    found = strings(method, values)
    for package in found:
        if package.lstrip().startswith("-"):
            raise invalid(
                f"Image.{method} takes packages, and {package!r} is an option",
                hint=f'Write extra_options="{package.strip()}".',
            )
        if not package.strip():
            raise invalid(f"Image.{method} was given an empty package name")
    return tuple(sorted({package.strip() for package in found}))


def local(path: Any, remote: str, method: str, *, is_dir: bool = False, **more: Any) -> LocalSource:
    """A local file or folder, its path as it was said."""
    if not isinstance(path, str | Path):
        raise invalid(f"Image.{method} takes a local path, not {type(path).__name__}")
    return LocalSource(local=str(path), remote=remote, is_dir=is_dir, origin=here(), **more)


def remote_path(path: Any, method: str) -> str:
    """A path in the container: absolute, without `..`; a slash at its end is kept."""
    text = str(path)
    if not text.startswith("/"):
        raise invalid(
            f"Image.{method}: the place in the container must be absolute, and {text!r} isn't",
            hint=f'Write "/root/{text.removeprefix("./")}".',
        )
    if ".." in text.split("/"):
        raise invalid(f'Image.{method}: the place in the container may not have ".." in it: {text!r}')
    return text


def checked_ignore(ignore: Any, method: str) -> Ignore:
    """What an `ignore=` parameter may be: patterns, a `FilePatternMatcher`, or a function of the path."""
    if isinstance(ignore, FilePatternMatcher):
        return ignore
    if isinstance(ignore, str):
        raise invalid(f"Image.{method}: ignore= takes a list of patterns", hint=f"Write ignore=[{ignore!r}].")
    if callable(ignore):
        return ignore  # type: ignore[no-any-return]
    return PatternSet(strings(method, ignore)).patterns


def checked_python(name: str, version: object) -> str | None:
    if version is None:
        return None
    if not isinstance(version, str):
        about = f': write "{version}" (3.1 and 3.10 are the same number)' if isinstance(version, float) else ""
        what = "a number" if isinstance(version, int | float) else type(version).__name__
        raise TypeError(f"{here()}: {name} must be a string, not {what}{about}")
    if not re.fullmatch(PYTHON, version):
        raise invalid(f"{name}={version!r} isn't a version of Python 3", hint=f'For example {name}="3.11".')
    return version


def build_function(function: Any) -> Callable[..., Any]:
    """A function that a build can find again: one with a name of its own at the top of a module."""
    if not callable(function) or not hasattr(function, "__code__"):
        what = f"{type(function).__name__} ({function!r})"
        raise invalid(f"Image.run_function takes a plain Python function, not {what}")
    if "<" in function.__qualname__.removesuffix(">") or function.__name__ == "<lambda>":
        raise invalid(
            f"Image.run_function can't use {function.__qualname__}: a build must find it by name",
            hint="Define it with def at the top of the file.",
        )
    return function  # type: ignore[no-any-return]


def step_name(step: Step) -> str:
    """The method by which the user asked for a step.

    >>> step_name(Setting(what="env"))
    'env'
    """
    if isinstance(step, Setting):
        return step.what
    return getattr(step, "method", "") or step.KIND
