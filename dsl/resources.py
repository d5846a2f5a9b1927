"""What a worker may use: the forms in which the user says it, as whole numbers."""

from __future__ import annotations

import re
from typing import Any

from .declaration import Resources
from .origin import invalid

GPU = r"([A-Za-z][A-Za-z0-9_.!+-]*)(?::([0-9]+))?"


def checked_gpu(value: object) -> tuple[str, ...]:
    """GPUs, ranked, as upper-case text: "h100" or "H100:8", or a list of those.

    >>> checked_gpu(["h100:2", "A100-80gb"])
    ('H100:2', 'A100-80GB')
    """
    if value is None:
        return ()
    if isinstance(value, list | tuple):
        if not value:
            raise invalid("gpu=[] names no GPU", hint='Write gpu="A100", or leave it out.')
        return tuple(one for item in value for one in checked_gpu(item))
    if not isinstance(value, str):
        raise invalid(f"gpu= takes a string or a list of them, not {type(value).__name__}", hint='Write gpu="A100".')
    match = re.fullmatch(GPU, value.strip())
    if match is None:
        raise invalid(f"gpu={value!r} isn't a GPU", hint='Write a kind and, where more than one, a count: "H100:2".')
    count = int(match[2] or 1)
    if not 1 <= count <= 64:
        raise invalid(f"gpu={value!r}: the count must be from 1 to 64")
    return (match[1].upper() + (f":{count}" if count > 1 else ""),)


def checked_resources(*, cpu: Any, memory: Any, gpu: Any, ephemeral_disk: Any) -> Resources:
    """The values of `cpu=`, `memory=`, `gpu=` and `ephemeral_disk=`, each a request or a pair (request, limit)."""
    cpu_request, cpu_limit = _pair("cpu", cpu, "cores", whole=False)
    memory_request, memory_limit = _pair("memory", memory, "MiB", whole=True)
    disk, _ = _pair("ephemeral_disk", ephemeral_disk, "MiB", whole=True)
    return Resources(
        cpu_milli=cpu_request,
        cpu_limit_milli=cpu_limit,
        memory_mib=memory_request,
        memory_limit_mib=memory_limit,
        gpus=checked_gpu(gpu),
        ephemeral_disk_mib=disk,
    )


def _pair(name: str, value: Any, unit: str, *, whole: bool) -> tuple[int | None, int | None]:
    """(request, limit) in whole units; cores become thousandths."""
    if value is None:
        return None, None
    pair = value if isinstance(value, tuple) else (value, None)
    if len(pair) != 2 or (isinstance(value, tuple) and name == "ephemeral_disk"):
        raise invalid(f"{name}={value!r}: it takes a number of {unit} or a pair (request, limit)")
    request, limit = (None if item is None else _amount(name, item, unit, whole=whole) for item in pair)
    if request is not None and limit is not None and limit < request:
        raise invalid(f"{name}={value!r}: the limit is below the request")
    return request, limit


def _amount(name: str, value: Any, unit: str, *, whole: bool) -> int:
    if isinstance(value, bool) or not isinstance(value, int if whole else (int, float)) or not 0 < value < 1e9:
        what = f"a whole number of {unit}" if whole else f"a number of {unit}"
        raise invalid(f"{name}={value!r}: it takes {what} above 0")
    return int(value) if whole else max(1, round(value * 1000))


def checked_seconds(name: str, value: Any, low: float, high: float) -> int:
    """A time in seconds as whole milliseconds.

    >>> checked_seconds("timeout", 1.5, 1, 86400)
    1500
    """
    if isinstance(value, bool) or not isinstance(value, int | float) or not low <= value <= high:
        raise invalid(f"{name}={value!r}: it takes seconds, from {low} to {high}")
    return round(value * 1000)


def checked_count(name: str, value: Any, low: int, high: int | None = None) -> int:
    """A whole number within bounds."""
    if isinstance(value, bool) or not isinstance(value, int) or value < low or (high is not None and value > high):
        raise invalid(f"{name}={value!r}: it takes a whole number from {low}{f' to {high}' if high else ' on'}")
    return value
