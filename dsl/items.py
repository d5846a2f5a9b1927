"""What an image is made of while the file is being read: steps, with the handles and functions that they hold."""

from __future__ import annotations

import difflib
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypedDict, Union

from attrs import evolve, field, frozen

from slipway.dsl.declaration import LocalSource, Step, StepOptions
from slipway.dsl.origin import here, invalid
from slipway.dsl.patterns import FilePatternMatcher, PatternSet
from slipway.dsl.resources import checked_gpu
from slipway.dsl.secret import Secret, checked_secrets, env_secret

if TYPE_CHECKING:
    from typing import Unpack as Unpack

Ignore = Union["tuple[str, ...]", FilePatternMatcher, Callable[[Path], bool]]
Packages = Union[str, "list[str]", "tuple[str, ...]"]

# Where the files that a step reads lie while it runs; fixed, so that a file's name and place are no identity.
BUILD_FOLDER = "/.slipway/build"


class StepArguments(TypedDict, total=False):
    """What every build step takes besides its own."""

    env: Mapping[str, str | None] | None
    secrets: Iterable[Secret] | None
    gpu: str | list[str] | None
    force_build: bool


@frozen(kw_only=True, eq=False)
class Item:
    """One step as far as it can be said without reading a file; the rest is found when the declaration is made."""

    step: Step
    secrets: tuple[Secret, ...] = ()
    ignore: Ignore = ()  # for the folders that the step takes
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
