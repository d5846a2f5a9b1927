"""What `@app.function(...)` and `@app.cls(...)` take, and how it is read."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable, Mapping
from typing import TYPE_CHECKING, Any, TypedDict

from attrs import frozen

from .declaration import Autoscaling, Resources
from .declaration import Retries as RetriesDecl
from .image import Image
from .items import known_only
from .origin import invalid
from .resources import checked_count, checked_resources, checked_seconds
from .retries import Retries, checked_retries
from .schedule import Cron, Period
from .secret import Secret, checked_secrets, env_secret
from .volume import Volume, checked_volumes

if TYPE_CHECKING:
    from .hooks import Partial

Seconds = int | float
LONGEST = 30 * 86_400
UNLIMITED, AS_NEEDED = Resources(), Autoscaling()


class ClsArguments(TypedDict, total=False):
    """The parameters of `@app.cls`. What each takes, and what holds where it isn't given: docs/guide/functions.md."""

    image: Image | None
    env: Mapping[str, str | None] | None
    secrets: Iterable[Secret] | None
    gpu: str | list[str] | None
    serialized: bool
    network_file_systems: Mapping[str, Any]
    volumes: Mapping[str, Volume]
    cpu: float | tuple[float, float] | None
    memory: int | tuple[int, int] | None
    ephemeral_disk: int | None
    min_containers: int | None
    max_containers: int | None
    buffer_containers: int | None
    scaledown_window: Seconds | None
    proxy: Any
    retries: int | Retries | None
    timeout: Seconds
    startup_timeout: Seconds | None
    cloud: str | None
    region: str | list[str] | None
    routing_region: str | None
    nonpreemptible: bool
    enable_memory_snapshot: bool
    block_network: bool
    restrict_modal_access: bool
    single_use_containers: bool
    i6pn: bool | None
    include_source: bool | None
    experimental_options: Mapping[str, Any] | None
    _experimental_restrict_output: bool
    # Older names.
    max_inputs: int | None
    concurrency_limit: int | None
    keep_warm: int | None
    container_idle_timeout: Seconds | None
    allow_concurrent_inputs: int | None


class FunctionArguments(ClsArguments, total=False):
    """The parameters of `@app.function`."""

    schedule: Cron | Period | None
    name: str | None
    is_generator: bool | None


CLS = frozenset(ClsArguments.__annotations__)
FUNCTION = CLS | frozenset(FunctionArguments.__annotations__)

RENAMED = {
    "concurrency_limit": "max_containers",
    "keep_warm": "min_containers",
    "container_idle_timeout": "scaledown_window",
}

# Parameters without a field of their own in the declaration: kept as text.
PLAIN = (
    "cloud",
    "region",
    "routing_region",
    "proxy",
    "nonpreemptible",
    "restrict_modal_access",
    "i6pn",
    "experimental_options",
    "_experimental_restrict_output",
)


@frozen(kw_only=True, eq=False)
class FunctionSettings:
    """The parameters of one function or class, read and checked; handles still as handles."""

    image: Image | None = None
    secrets: tuple[Secret, ...] = ()  # `env=` is the last
    volumes: tuple[tuple[str, Volume], ...] = ()
    resources: Resources = UNLIMITED
    timeout_ms: int = 300_000
    startup_timeout_ms: int | None = None
    retries: RetriesDecl | None = None
    autoscaling: Autoscaling = AS_NEEDED
    schedule: Cron | Period | None = None
    block_network: bool = False
    serialized: bool = False
    include_source: bool | None = None
    name: str | None = None
    is_generator: bool | None = None
    concurrent_inputs: int | None = None
    given: tuple[str, ...] = ()  # the parameters that say something, by the names they have now
    plain: tuple[tuple[str, str], ...] = ()
    hints: tuple[str, ...] = ()  # older names that were used
    network_file_systems: bool = False
    memory_snapshot: bool = False


def read_settings(given: Mapping[str, Any], *, decorator: str) -> FunctionSettings:
    """Check every parameter by itself and in relation to the others. Raises `InvalidError` or `TypeError`."""
    known_only(given, FUNCTION if decorator == "function" else CLS, f"@app.{decorator}")
    options, hints = _renamed(given)
    single_use = bool(options.get("single_use_containers"))
    if (max_inputs := options.pop("max_inputs", None)) is not None:
        if max_inputs != 1:
            raise invalid(f"max_inputs={max_inputs!r}: only 1 is possible", hint="Write single_use_containers=True.")
        single_use, hints = True, (*hints, "max_inputs=1 is called single_use_containers=True now")
    concurrent = options.pop("allow_concurrent_inputs", None)
    if concurrent is not None:
        checked_count("allow_concurrent_inputs", concurrent, 1)
        hints = (*hints, f"allow_concurrent_inputs={concurrent} is @slipway.concurrent(max_inputs={concurrent}) now")
    schedule = options.get("schedule")
    if schedule is not None and not isinstance(schedule, Cron | Period):
        raise invalid(f"schedule={schedule!r}: it takes slipway.Cron or slipway.Period", hint='Cron("0 3 * * *")')
    env, secrets = options.get("env"), checked_secrets(options.get("secrets"))
    return FunctionSettings(
        image=checked_image(options.get("image")),
        secrets=(*secrets, env_secret(env)) if env else secrets,
        volumes=checked_volumes(options.get("volumes")),
        resources=checked_resources(**{k: options.get(k) for k in ("cpu", "memory", "gpu", "ephemeral_disk")}),
        **_times(options),
        retries=checked_retries(options.get("retries")),
        autoscaling=_autoscaling(options, single_use=single_use),
        schedule=schedule,
        block_network=bool(options.get("block_network")),
        serialized=bool(options.get("serialized")),
        include_source=options.get("include_source"),
        name=None if options.get("name") is None else checked_function_name(options["name"]),
        is_generator=options.get("is_generator"),
        concurrent_inputs=concurrent,
        given=tuple(sorted([k for k, v in options.items() if v] + (["single_use_containers"] if single_use else []))),
        plain=tuple((k, _text(options[k])) for k in PLAIN if options.get(k)),
        hints=hints,
        network_file_systems=bool(options.get("network_file_systems")),
        memory_snapshot=bool(options.get("enable_memory_snapshot")),
    )


def _renamed(given: Mapping[str, Any]) -> tuple[dict[str, Any], tuple[str, ...]]:
    """The parameters by the names that they have now."""
    options, hints = dict(given), []
    for old, new in RENAMED.items():
        if old in options:
            value = options.pop(old)
            if options.get(new) is not None:
                raise invalid(f"{old}= and {new}= are the same parameter, and both are given", hint=f"Keep {new}=.")
            options[new] = value
            hints.append(f"{old}= is called {new}= now")
    return options, tuple(hints)


def _times(options: Mapping[str, Any]) -> dict[str, Any]:
    timeout = options.get("timeout", 300)
    if timeout is None:
        raise invalid("timeout=None: a function always has a timeout", hint="Write the most seconds it may take.")
    startup = options.get("startup_timeout")
    return {
        "timeout_ms": checked_seconds("timeout", timeout, 1, LONGEST),
        "startup_timeout_ms": None if startup is None else checked_seconds("startup_timeout", startup, 1, LONGEST),
    }


def _autoscaling(options: Mapping[str, Any], *, single_use: bool) -> Autoscaling:
    least = checked_count("min_containers", options.get("min_containers") or 0, 0)
    most = options.get("max_containers")
    if most is not None and checked_count("max_containers", most, 1) < least:
        raise invalid(f"min_containers={least} is above max_containers={most}")
    window = options.get("scaledown_window")
    return Autoscaling(
        min_containers=least,
        max_containers=most,
        buffer_containers=checked_count("buffer_containers", options.get("buffer_containers") or 0, 0),
        scaledown_window_ms=60_000 if window is None else checked_seconds("scaledown_window", window, 2, 3600),
        single_use_containers=single_use,
    )


def checked_image(image: Any) -> Image | None:
    """What an `image=` parameter says."""
    if image is None or isinstance(image, Image):
        return image
    raise invalid(f"image= takes a slipway.Image, not {type(image).__name__}", hint="slipway.Image.debian_slim()")


def _text(value: Any) -> str:
    """The text of an option's value, for display."""
    return repr(value) if isinstance(value, str | int | float | bool | list | tuple | dict) else type(value).__name__


def checked_function_name(name: object) -> str:
    """A name for a function: letters, digits, `-` and `_`, at most 64."""
    if not isinstance(name, str) or not 1 <= len(name) <= 64 or not name.replace("-", "_").replace("_", "a").isalnum():
        raise invalid(f"{name!r} can't be the name of a function", hint="Use letters, digits, - and _, at most 64.")
    if not name.isascii():
        raise invalid(f"{name!r} can't be the name of a function", hint="Its letters must be ASCII; say name=.")
    return name


def checked_function(raw: Any, settings: FunctionSettings, partial: Partial) -> Callable[..., Any]:
    """The function that `@app.function` was put on, if it can be one of an app."""
    if isinstance(raw, type):
        raise TypeError(f"@app.function decorates functions, and {raw.__name__} is a class: use @app.cls()")
    if not inspect.isfunction(raw):
        raise invalid(f"@app.function decorates Python functions, not {type(raw).__name__}")
    name, place = raw.__name__, raw.__qualname__.split("<locals>.")[-1]
    if partial.role in {"method", "enter", "exit"} or "." in place:
        raise invalid(
            f"{raw.__qualname__} is a method, and @app.function decorates functions",
            hint="Decorate the class with @app.cls(), and the method with @slipway.method().",
        )
    if "<" in raw.__qualname__ and not settings.serialized:
        raise invalid(
            f"{raw.__qualname__} is defined inside of a function, so a worker can't import it",
            hint="Move it to the top of the file, or say @app.function(serialized=True) to send it by value.",
        )
    generator = settings.is_generator if settings.is_generator is not None else partial.yields
    if settings.retries and (generator or partial.endpoint):
        what = "a generator" if generator else "a web endpoint"
        raise invalid(f"retries= can't be on {name}, it is {what}", hint="Leave retries= out.")
    if partial.batching and generator:
        raise invalid(f"{name} is batched, so it can't be a generator")
    if partial.endpoint and partial.endpoint.style in {"asgi", "wsgi", "web_server"} and raw.__code__.co_argcount:
        raise invalid(f"{name} makes a web app, so it can't have parameters", hint="It is called once, without any.")
    return raw
