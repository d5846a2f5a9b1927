"""What can be wrong with one function.

Nothing here waits, sleeps, opens or spawns.
"""

from __future__ import annotations

import posixpath
import re
from functools import partial

from slipway.dsl.declaration import (
    Autoscaling,
    CronDecl,
    EndpointDecl,
    FunctionDecl,
    PeriodDecl,
    Resources,
    Retries,
    VolumeDecl,
)

from .check_class import check_class
from .faults import Faults, Say, did_you_mean, place
from .titles import function_address, shorten

GPU = re.compile(r"([A-Za-z][A-Za-z0-9\-_.]*)!?(?::([0-9]+))?")
GPUS = ("T4", "L4", "A10", "A10G", "L40S", "A100", "A100-40GB", "A100-80GB", "H100", "H200", "B200", "B300")
METHODS = ("GET", "POST", "PUT", "DELETE", "PATCH", "HEAD", "OPTIONS")
STYLES = ("fastapi", "asgi", "wsgi", "web_server")
SYSTEM = ("/proc", "/sys", "/dev", "/.slipway", "/venv", "/etc", "/usr", "/bin", "/lib")
CRON_ALIASES = {
    "@hourly": "0 * * * *",
    "@daily": "0 0 * * *",
    "@midnight": "0 0 * * *",
    "@weekly": "0 0 * * 0",
    "@monthly": "0 0 1 * *",
    "@yearly": "0 0 1 1 *",
    "@annually": "0 0 1 1 *",
}
LONGEST_MS = 30 * 24 * 3_600_000


def check_function(function: FunctionDecl, images: int, faults: Faults) -> None:
    say: Say = partial(faults.error, function_address(function), origin=function.origin)
    if not 0 <= function.image < images:
        say("its image is not in the declaration", found=f"image {function.image} of {images}", hint=BUG)
    if function.serialized is None and "<" in function.qualname:
        what, decorator = ("class", "@app.cls") if function.methods else ("function", "@app.function")
        say(
            f"a {what} that is not at the top level of its file can't be found by the worker",
            found=function.qualname,
            hint=f"Move it to the top level, or send it by value: {decorator}(serialized=True)",
        )
    if function.methods:
        check_class(function, say)
    if function.retries is not None:
        _check_retries(function, function.retries, say)
    if function.batching is not None:
        _check_batching(function, say)
    _check_times(function, say)
    _check_autoscaling(function.autoscaling, say)
    _check_concurrency(function, say)
    check_resources(function.resources, say)
    _check_volumes(function, faults)
    _check_schedule(function, faults)
    if function.endpoint is not None:
        _check_endpoint(function, function.endpoint, faults)


BUG = "This is a bug in Slipway; please report it with the file that shows it."


def _check_retries(function: FunctionDecl, retries: Retries, say: Say) -> None:
    if function.endpoint is not None:
        say("a web function can't be retried", found="retries=…", hint="Leave retries= out; the caller may ask again.")
    if function.is_generator or (function.methods and all(method.is_generator for method in function.methods)):
        say("a generator can't be retried", found="retries=…", hint="Leave retries= out, or return a list.")
    if retries.max_retries < 0:
        say("retries can't be negative", found=retries.max_retries, hint="Write retries=0 or more.")
    if not 1000 <= retries.backoff_milli <= 10_000:
        found = retries.backoff_milli / 1000
        say("backoff_coefficient is out of range", found=found, hint="It goes from 1.0 to 10.0.")
    if not 0 <= retries.initial_delay_ms <= 60_000:
        say("initial_delay is out of range", found=f"{retries.initial_delay_ms} ms", hint="It goes from 0 to 60 s.")
    if not 1000 <= retries.max_delay_ms <= 60_000:
        say("max_delay is out of range", found=f"{retries.max_delay_ms} ms", hint="It goes from 1 to 60 s.")


def _check_batching(function: FunctionDecl, say: Say) -> None:
    assert function.batching is not None
    if function.is_generator or any(method.is_generator for method in function.methods):
        say("a batched function can't be a generator", hint="Return a list as long as the batch.")
    if function.batching.max_batch_size < 1:
        say("max_batch_size is less than 1", found=function.batching.max_batch_size, hint="Write at least 1.")
    if function.batching.wait_ms < 0:
        say("wait_ms is negative", found=function.batching.wait_ms, hint="Write 0 or more milliseconds.")


def _check_times(function: FunctionDecl, say: Say) -> None:
    for name, ms in (("timeout", function.timeout_ms), ("startup_timeout", function.startup_timeout_ms)):
        if ms is not None and not 1000 <= ms <= LONGEST_MS:
            hint = f"Write whole seconds, 1 to {LONGEST_MS // 1000} (30 days): {name}=600"
            say(f"{name} is out of range", found=f"{ms / 1000:g} s", hint=hint)


def _check_autoscaling(scaling: Autoscaling, say: Say) -> None:
    low, high = scaling.min_containers, scaling.max_containers
    for name in ("min_containers", "buffer_containers"):
        if getattr(scaling, name) < 0:
            say(f"{name} is negative", found=getattr(scaling, name), hint=f"Write {name}=0 or more.")
    if high is not None and high < 1:
        say("max_containers is less than 1", found=high, hint="Write max_containers=1 or more, or leave it out.")
    if high is not None and high >= 1 and low > high:
        found = f"min_containers={low}, max_containers={high}"
        say("min_containers is more than max_containers", found=found, hint=f"Write max_containers={low}.")
    if not 2000 <= scaling.scaledown_window_ms <= 3_600_000:
        found = f"{scaling.scaledown_window_ms / 1000:g} s"
        say("scaledown_window is out of range", found=found, hint="It goes from 2 to 3600 s.")


def _check_concurrency(function: FunctionDecl, say: Say) -> None:
    most, target = function.concurrency.max_inputs, function.concurrency.target_inputs
    if most > 1 and function.batching is not None:
        found = f"max_inputs={most}, max_batch_size={function.batching.max_batch_size}"
        say("it is concurrent and batched, and can be only one", found=found, hint="Leave one of the two out.")
    if most < 1:
        say("max_inputs is less than 1", found=most, hint="Write @concurrent(max_inputs=1) or more.")
    elif target is not None and not 1 <= target <= most:
        found = f"target_inputs={target}, max_inputs={most}"
        say("target_inputs is out of range", found=found, hint="It goes from 1 to max_inputs.")


def check_resources(resources: Resources, say: Say) -> None:
    pairs = (
        ("cpu", resources.cpu_milli, resources.cpu_limit_milli, 1000, ""),
        ("memory", resources.memory_mib, resources.memory_limit_mib, 1, " MiB"),
    )
    for name, request, limit, unit, word in pairs:
        for value in (request, limit):
            if value is not None and value <= 0:
                say(
                    f"{name} must be more than nothing", found=f"{value / unit:g}{word}", hint="Leave it out: no limit."
                )
        if request is not None and limit is not None and limit < request:
            found = f"{name}=({request / unit:g}, {limit / unit:g})"
            say(f"the limit of {name} is below the request", found=found, hint="Write (request, limit), limit last.")
    disk = resources.ephemeral_disk_mib
    if disk is not None and disk <= 0:
        say("ephemeral_disk must be more than nothing", found=f"{disk} MiB", hint="Leave it out.")
    for gpu in resources.gpus:
        check_gpu(gpu, say)


def check_gpu(gpu: str, say: Say) -> None:
    match = GPU.fullmatch(gpu.strip())
    if match is None or match[2] == "0" * len(match[2] or "x"):
        first = re.match(r"[A-Za-z][A-Za-z0-9\-_.]*", gpu.strip())
        example = first[0] if first else "A100"
        say("this is not a GPU", found=f"{gpu!r:.60}", hint=f'Write a model, or model:count: gpu="{example}:2"')
        return
    name = match[1].upper()
    # A model that nobody knows may well be a card of one's own; one that looks mistyped hardly is.
    confused = name.replace("O", "0").replace("I", "1")
    if name not in GPUS and confused in GPUS:
        say("no GPU is called that", found=gpu, hint=did_you_mean(name, GPUS, f"Is it {confused}?"))


def path_problem(path: str) -> str:
    """Why a folder can't be mounted at this path of a container; "" where nothing is wrong.

    >>> path_problem("/tmp"), path_problem("/data")
    ('/tmp belongs to the container itself', '')
    """
    if not path.startswith("/"):
        return "the path is relative"
    if ".." in path.split("/") or posixpath.normpath(path) != path or "\0" in path:
        return "the path is not written plainly"
    if path in ("/", "/root", "/tmp") or any(path == top or path.startswith(top + "/") for top in SYSTEM[:4]):  # noqa: S108
        return f"{path} belongs to the container itself"
    if path in SYSTEM:
        return f"{path} holds the container's programs"
    return ""


def plain_path(path: str) -> str:
    """The path that was probably meant."""
    better = posixpath.normpath("/" + path.lstrip("/").replace("\0", ""))
    return better if not path_problem(better) else "/data"


def _check_volumes(function: FunctionDecl, faults: Faults) -> None:
    places: dict[tuple[str, str | None], str] = {}
    for path, volume in function.volumes:
        say: Say = partial(faults.error, function_address(function), origin=place(volume.origin, function.origin))
        check_volume(path, volume, say)
        other = places.setdefault((volume.name, volume.sub_path), path)
        if other != path:
            say(
                f"the volume {volume.name!r} is mounted twice",
                found=f"{other} and {path}",
                hint="Mount it at one path, or use two volumes.",
            )


def check_volume(path: str, volume: VolumeDecl, say: Say) -> None:
    """Where a volume is mounted, what it is called, and which folder of it is meant."""
    problem = path_problem(path)
    if problem:
        hint = f'Mount it somewhere else: volumes={{"{plain_path(path)}": …}}'
        say(f"a volume can't be mounted there: {problem}", found=f"{path!r:.80}", hint=hint)
    sub_path = volume.sub_path
    if sub_path is not None and (not sub_path.strip("/") or ".." in sub_path.split("/") or "\0" in sub_path):
        say("sub_path is not a folder in the volume", found=f"{sub_path!r:.80}", hint="Leave out '..'.")
    name = volume.name
    if not re.fullmatch(r"[a-zA-Z0-9\-_.]{1,64}", name) or name in (".", ".."):
        better = re.sub(r"[^a-zA-Z0-9\-_.]+", "-", name).strip("-.")[:64] or "data"
        hint = f'Names are 1 to 64 letters, digits, "-", "_" and ".": Volume.from_name("{better}")'
        say("this is not the name of a volume", found=f"{name!r:.80}", hint=hint)


def _check_schedule(function: FunctionDecl, faults: Faults) -> None:
    schedule = function.schedule
    if schedule is None:
        return
    origin = place(schedule.origin, function.origin)
    say: Say = partial(faults.error, f"schedule {function.name}", origin=origin)
    if function.required_args:
        say(
            "a scheduled function is called without arguments",
            found=f"{function.qualname}({', '.join(function.required_args)})",
            hint=f"Give {', '.join(function.required_args)} a default, or schedule a function that takes nothing.",
        )
    if isinstance(schedule, CronDecl):
        _check_cron(schedule, say)
    else:
        _check_period(schedule, say)


def _check_cron(cron: CronDecl, say: Say) -> None:
    fields = cron.expression.split()
    if cron.expression.strip() in CRON_ALIASES:
        say("cron words are not understood", found=cron.expression, hint=f'"{CRON_ALIASES[cron.expression.strip()]}"')
    elif len(fields) != 5:
        hint = 'Write minute hour day month weekday: Cron("0 3 * * 1") is Mondays at 3.'
        say(f"a cron expression has five fields, this one {len(fields)}", found=f"{cron.expression!r:.80}", hint=hint)
    elif bad := [part for part in fields if not re.fullmatch(r"[0-9A-Za-z*/,\-?#]+", part)]:
        hint = "A field is made of numbers, names, '*', '/', ',' and '-'."
        say("this is not a field of a cron expression", found=f"{bad[0]!r} in {shorten(cron.expression)!r}", hint=hint)
    if not re.fullmatch(r"[A-Za-z0-9_+\-]+(/[A-Za-z0-9_+\-]+)*", cron.timezone):
        say("this is not a time zone", found=f"{cron.timezone!r:.60}", hint='Write one as "Europe/Berlin" or "UTC".')


def _check_period(period: PeriodDecl, say: Say) -> None:
    parts = (period.months, period.days, period.ms)
    if min(parts) < 0 or not any(parts):
        say("a period must be longer than nothing", found=period_text(period), hint="For example Period(minutes=5).")
    elif not period.months and not period.days and period.ms < 1000:
        say("a period is at least one second", found=period_text(period), hint="For example Period(seconds=1).")


def period_text(period: PeriodDecl) -> str:
    parts = ((period.months, "months"), (period.days, "days"), (period.ms, "ms"))
    return " ".join(f"{count} {word}" for count, word in parts if count) or "0 s"


def _check_endpoint(function: FunctionDecl, endpoint: EndpointDecl, faults: Faults) -> None:
    origin = place(endpoint.origin, function.origin)
    say: Say = partial(faults.error, f"route {function.name}", origin=origin)
    if endpoint.style not in STYLES:
        say("there is no such kind of endpoint", found=endpoint.style, hint=f"There are {', '.join(STYLES)}.")
    if endpoint.method.upper() not in METHODS:
        hint = did_you_mean(endpoint.method.upper(), METHODS, f"Write one of {', '.join(METHODS)}.")
        say("this is not an HTTP method", found=f"{endpoint.method!r:.40}", hint=hint)
    if endpoint.label is not None and not re.fullmatch(r"[a-z0-9]([a-z0-9\-]{0,61}[a-z0-9])?", endpoint.label):
        better = re.sub(r"[^a-z0-9]+", "-", endpoint.label.lower()).strip("-")[:63] or "search"
        hint = f'Labels are 1 to 63 small letters, digits and "-": label="{better}"'
        say("this label can't be part of a host name", found=f"{endpoint.label!r:.80}", hint=hint)
    if endpoint.style == "web_server" and not 1 <= (endpoint.port or 0) <= 65_535:
        say("this is not a port", found=endpoint.port, hint="Write 1 to 65535: @slipway.web_server(8000)")
    if endpoint.style in ("asgi", "wsgi", "web_server") and function.required_args:
        found = ", ".join(function.required_args)
        say(f"a function behind {endpoint.style} takes no arguments", found=found, hint="Give them defaults.")
