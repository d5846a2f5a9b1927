"""A function as a variant has it: its parameters filled in, options changed, all checked as a declaration is.

Nothing here waits, sleeps, opens or spawns. What comes in came over the wire and is not trusted.
"""

from __future__ import annotations

import re
from base64 import b64decode
from collections.abc import Callable, Mapping
from difflib import get_close_matches
from typing import Any

from attrs import evolve, field, frozen

from slipway.dsl.declaration import (
    AppDecl,
    Batching,
    Concurrency,
    FunctionDecl,
    ParameterDecl,
    Retries,
    VolumeDecl,
)
from slipway.dsl.errors import InvalidError
from slipway.dsl.hooks import MOST_PARAMETERS, TYPES, size_of
from slipway.dsl.variant import Value

from .check_class import read_default
from .check_function import check_function
from .encode import digest_of
from .faults import ENV_KEY, Faults
from .nodes import FunctionSpec

MOST_VALUE = 32_768  # letters of one value of a secret
Values = tuple[tuple[str, str], ...]


@frozen(kw_only=True)
class Varied:
    """`secrets` are values in place of the declared secrets (None: those stay), `env` is laid over all; `volumes` are
    those of the function, told apart by what is to be done where one is not there."""

    function: FunctionSpec
    parameters: tuple[tuple[str, Value], ...] = ()
    volumes: tuple[VolumeDecl, ...] = ()
    secrets: tuple[Values, ...] | None = field(default=None, repr=False)
    env: Values = field(default=(), repr=False)

    def digest(self, mac: Callable[[Mapping[str, str]], str]) -> str:
        """Tells it from every other variant of the function. `mac` stands in for values that nobody may guess at."""
        return digest_of(
            (
                self.function,
                tuple((name, type(value).__name__, repr(value)) for name, value in self.parameters),
                None if self.secrets is None else tuple(mac(dict(values)) for values in self.secrets),
                mac(dict(self.env)) if self.env else None,
            )
        )


def base(function: FunctionSpec) -> Varied | None:
    """The function as it is declared, and a class with its defaults; None for a class that has to be given more.

    >>> base(FunctionSpec(name="f", module="app", qualname="f")).parameters
    ()
    """
    if any(parameter.default is None for parameter in function.parameters):
        return None
    return Varied(function=function, parameters=_parameters(function, {}))


def vary(function: FunctionSpec, opening: Mapping[str, Any]) -> Varied:
    """The variant that a request "function.open" asks for. Raises `InvalidError`. One that asks for nothing that the
    function isn't already is equal to its `base`; any other has no workers before they are needed.

    >>> f = FunctionSpec(name="f", module="app", qualname="f")
    >>> vary(f, {"options": {"timeout_ms": 90_000}}).function.timeout_ms, vary(f, {"options": {}}) == base(f)
    (90000, True)
    """
    parameters = _parameters(function, _table(opening, "parameters"))
    options = dict(_table(opening, "options"))
    secrets, env = options.pop("secrets", None), options.pop("env", None)
    changed, volumes = _with_options(function, options)
    known = _table(opening, "secrets")
    said = Varied(
        function=changed,
        parameters=parameters,
        volumes=volumes,
        secrets=None if secrets is None else tuple(_values(known, slot) for slot in _list(secrets, "secrets")),
        env=() if env is None else _values(known, env),
    )
    plain = base(function)
    if plain is not None and said == plain:
        return plain
    return evolve(said, function=evolve(changed, autoscaling=evolve(changed.autoscaling, min_containers=0)))


# --- parameters ---------------------------------------------------------------------------------------


def _parameters(function: FunctionSpec, given: Mapping[str, Any]) -> tuple[tuple[str, Value], ...]:
    """The parameters of an object: what is given, the rest as the class says. Sorted by name."""
    name, known = function.name, {parameter.name: parameter for parameter in function.parameters}
    if given and not function.methods:
        raise InvalidError(f"{name} is a function, and takes no parameters", hint=f"Call it: {name}.remote(...).")
    for unknown in given.keys() - known.keys():
        close = get_close_matches(unknown, known, n=1)
        listed = ", ".join(f"{p.name}: {p.type}" for p in function.parameters)
        hint = f"Did you mean {close[0]!r}?" if close else f"It has: {listed or 'none'}."
        raise InvalidError(f"{name}() has no parameter {unknown!r}", hint=hint)
    missing = [p.name for p in function.parameters if p.default is None and p.name not in given]
    if missing:
        hint = f"Write {name}({', '.join(f'{m}=...' for m in missing)})."
        raise InvalidError(f"{name}() lacks {', '.join(missing)}", hint=hint)
    filled = {n: _value(p, given[n], name) if n in given else _known_default(p) for n, p in known.items()}
    if size_of(filled) > MOST_PARAMETERS:
        raise InvalidError(
            f"the parameters of {name} take {size_of(filled)} bytes, and at most {MOST_PARAMETERS} are allowed",
            hint="Pass big values as arguments of a method, or read them from a volume.",
        )
    return tuple(sorted(filled.items()))


def _known_default(parameter: ParameterDecl) -> Value:
    value = read_default(parameter)
    assert value is not None, "it was checked when the app was planned"
    return value


def _value(parameter: ParameterDecl, given: Any, name: str) -> Value:
    value: Any = given
    if isinstance(given, dict) and given.keys() == {"base64"} and isinstance(given["base64"], str):
        try:
            value = b64decode(given["base64"], validate=True)
        except ValueError:
            value = given
    if type(value) is TYPES[parameter.type] and isinstance(value, str | int | bytes):
        return value
    raise InvalidError(
        f"{name}({parameter.name}={value!r:.60}): the parameter is of type {parameter.type}, "
        f"this is of type {type(value).__name__}"
    )


# --- options ------------------------------------------------------------------------------------------

WHOLE: dict[str, bool] = {  # options that are whole numbers, and whether they may be taken back: None
    "cpu_milli": True,
    "cpu_limit_milli": True,
    "memory_mib": True,
    "memory_limit_mib": True,
    "timeout_ms": False,
    "max_containers": False,
    "buffer_containers": False,
    "scaledown_window_ms": False,
    "max_retries": False,
    "backoff_milli": False,
    "initial_delay_ms": False,
    "max_delay_ms": False,
    "max_inputs": False,
    "target_inputs": True,
    "max_batch_size": False,
    "wait_ms": False,
}
RESOURCES = ("cpu_milli", "cpu_limit_milli", "memory_mib", "memory_limit_mib", "gpus")
SCALING = ("max_containers", "buffer_containers", "scaledown_window_ms")
RETRIES = ("max_retries", "backoff_milli", "initial_delay_ms", "max_delay_ms")


def _with_options(function: FunctionSpec, given: Mapping[str, Any]) -> tuple[FunctionSpec, tuple[VolumeDecl, ...]]:
    """The function with its options, and the volumes that take the place of its own."""
    if not given:
        return function, ()
    options = {name: _option(name, value) for name, value in given.items()}
    volumes: tuple[tuple[str, VolumeDecl], ...] = options.get("volumes", ())

    def said(names: tuple[str, ...]) -> dict[str, Any]:
        return {name: options[name] for name in names if name in options}

    changes: dict[str, Any] = said(("timeout_ms",))
    if resources := said(RESOURCES):
        changes["resources"] = evolve(function.resources, **resources)
    if scaling := said(SCALING):
        changes["autoscaling"] = evolve(function.autoscaling, **scaling)
    if retries := said(RETRIES):
        made = evolve(function.retries or Retries(max_retries=0), **retries)
        changes["retries"] = made if made.max_retries else None
    if concurrency := said(("max_inputs", "target_inputs")):
        changes["concurrency"] = evolve(Concurrency(), **concurrency)
    if batching := said(("max_batch_size", "wait_ms")):
        changes["batching"] = evolve(function.batching or Batching(max_batch_size=1, wait_ms=0), **batching)
    if "volumes" in options:
        changes["volumes"] = tuple((path, v.name, v.read_only, v.sub_path) for path, v in volumes)
    changed = evolve(function, **changes)
    _check(changed, volumes)
    return changed, tuple(volume for _, volume in volumes)


def _option(name: str, value: Any) -> Any:
    if name in WHOLE:
        if type(value) is int or (value is None and WHOLE[name]):
            return value
    elif name == "gpus":
        if all(isinstance(gpu, str) for gpu in _list(value, "gpus")):
            return tuple(value)
    elif name == "volumes":
        return tuple(sorted((_volume(item) for item in _list(value, "volumes")), key=lambda pair: pair[0]))
    else:
        hint = f"Options are {', '.join((*WHOLE, 'gpus', 'volumes', 'secrets', 'env'))}."
        raise InvalidError(f"function.open: there is no option {name!r:.60}", hint=hint)
    raise InvalidError(f"function.open: the option {name} can't be {value!r:.60}")


def _volume(item: Any) -> tuple[str, VolumeDecl]:
    match item:
        case [str() as path, str() as name, bool() as read_only, (str() | None) as sub_path, bool() as create]:
            decl = VolumeDecl(name=name, read_only=read_only, sub_path=sub_path, create_if_missing=create)
            return path, decl
    raise InvalidError(f"function.open: this is no volume: {item!r:.60}")


def _check(function: FunctionSpec, volumes: tuple[tuple[str, VolumeDecl], ...]) -> None:
    """Everything that can be wrong with a function as it is declared can be wrong with a variant of it."""
    faults = Faults(decl=AppDecl(name=""))
    decl = FunctionDecl(
        name=function.name,
        module=function.module,
        qualname=function.qualname,
        image=0,
        is_async=function.is_async,
        is_generator=function.is_generator,
        serialized="",
        volumes=volumes,
        resources=function.resources,
        timeout_ms=function.timeout_ms,
        startup_timeout_ms=function.startup_timeout_ms,
        retries=function.retries,
        autoscaling=evolve(function.autoscaling, min_containers=0),
        concurrency=function.concurrency,
        batching=function.batching,
        methods=function.methods,
        parameters=function.parameters,
    )
    check_function(decl, 1, faults)
    for fault in faults.found:
        raise InvalidError(
            f"{function.name}: {fault.summary}" + (f" ({fault.found})" if fault.found else ""), hint=fault.hint
        )


# --- values -------------------------------------------------------------------------------------------


def _table(opening: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    value = opening.get(name) or {}
    if not isinstance(value, dict) or not all(isinstance(key, str) for key in value):
        raise InvalidError(f"function.open: {name!r} is no object")
    return value


def _list(value: Any, name: str) -> list[Any]:
    if not isinstance(value, list | tuple):
        raise InvalidError(f"function.open: {name!r} is no list")
    return list(value)


def _values(known: Mapping[str, Any], slot: Any) -> Values:
    """The values of environment variables that a slot holds, by name. No error shows one."""
    given = known.get(slot) if isinstance(slot, str) else None
    if not isinstance(given, dict):
        raise InvalidError("function.open: the values of a secret are no object")
    for key, value in given.items():
        if not isinstance(key, str) or not ENV_KEY.fullmatch(key):
            raise InvalidError(f"function.open: {key!r:.60} is not the name of an environment variable")
        text = isinstance(value, str) and len(value) <= MOST_VALUE and "\0" not in value
        if not text or re.search("[\ud800-\udfff]", value):
            raise InvalidError(f"function.open: the value of {key} can't be that of an environment variable")
    return tuple(sorted(given.items()))
