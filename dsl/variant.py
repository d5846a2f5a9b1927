"""What sets some calls of a function or class apart, so that they have workers of their own."""

from __future__ import annotations

from base64 import b64encode
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, TypedDict

from attrs import evolve, field, frozen

if TYPE_CHECKING:
    from collections.abc import Iterable

    from .retries import Retries
    from .secret import Secret
    from .volume import Volume

Value = str | int | bool | bytes


class VariantArguments(TypedDict, total=False):
    """The parameters of `with_options`. None leaves one as it is."""

    cpu: float | tuple[float, float] | None
    memory: int | tuple[int, int] | None
    gpu: str | list[str] | None
    env: Mapping[str, str | None] | None
    secrets: Iterable[Secret] | None
    volumes: Mapping[str, Volume] | None
    retries: int | Retries | None
    max_containers: int | None
    buffer_containers: int | None
    scaledown_window: int | float | None
    timeout: int | float | None
    region: str | list[str] | None
    cloud: str | None
    routing_region: str | None


NO_EFFECT = ("cloud", "region", "routing_region")


@frozen(kw_only=True)
class Variant:
    """The parameters of an object of a class, and options that differ from the declared ones.

    `options` are (name, value) in the shapes of docs/wire.md, sorted by name, as `with_options` and its like put them
    together. `secrets` stand in place of the declared ones (None: the declared ones stay), `env` is laid over all.

    >>> Variant(parameters=(("size", "small"),)).opening()
    {'parameters': {'size': 'small'}}
    """

    parameters: tuple[tuple[str, Value], ...] = ()
    options: tuple[tuple[str, Any], ...] = ()
    secrets: tuple[Secret, ...] | None = field(default=None, repr=False)
    env: tuple[tuple[str, str], ...] = field(default=(), repr=False)

    def opening(self, values_of: Callable[[Secret], Mapping[str, str]] | None = None) -> dict[str, Any]:
        """Its part of the request "function.open". Bytes go as {"base64": …}. `values_of` reads a secret's values
        where they are not in it: of a file, of the environment."""
        said: dict[str, Any] = {}
        options, values = dict(self.options), {}
        if self.secrets is not None:
            read = values_of or _own_values
            values = {str(number): dict(read(secret)) for number, secret in enumerate(self.secrets)}
            options["secrets"] = list(values)
        if self.env:
            options["env"] = "env"
            values["env"] = dict(self.env)
        if self.parameters:
            said["parameters"] = {name: _plain(value) for name, value in self.parameters}
        if options:
            said["options"] = options
        if values:
            said["secrets"] = values
        return said


def said_by(opening: Mapping[str, Any]) -> Variant:
    """The variant of which this is the opening, but for its parameters.

    >>> varied = with_options(None, timeout=60, env={"A": "1"})
    >>> said_by(varied.opening()) == varied
    True
    """
    from .secret import Secret

    options, values = dict(opening.get("options", {})), opening.get("secrets", {})
    slots, env = options.pop("secrets", None), options.pop("env", None)
    made = () if slots is None else (Secret(kind="dict", values=tuple(values[slot].items())) for slot in slots)
    return Variant(
        options=tuple(sorted((name, _frozen(value)) for name, value in options.items())),
        secrets=None if slots is None else tuple(made),
        env=() if env is None else tuple(sorted(values[env].items())),
    )


def _frozen(value: Any) -> Any:
    return tuple(map(_frozen, value)) if isinstance(value, list | tuple) else value


def _plain(value: Value) -> Any:
    return {"base64": b64encode(value).decode("ascii")} if isinstance(value, bytes) else value


def _own_values(secret: Secret) -> Mapping[str, str]:
    """The values of a secret that holds them itself."""
    if secret.kind not in {"dict", "env"}:
        from .errors import ExecutionError

        raise ExecutionError(f"{secret.origin}: nothing here can read {secret!r}")
    return dict(secret.values)


def with_parameters(variant: Variant | None, parameters: Mapping[str, Value]) -> Variant:
    """The variant for objects with these parameters.

    >>> with_parameters(None, {"size": "small", "level": 3}).parameters
    (('level', 3), ('size', 'small'))
    """
    return evolve(variant or Variant(), parameters=tuple(sorted(parameters.items())))


def with_options(variant: Variant | None, **options: Any) -> Variant:
    """The variant with further options, checked as `@app.function` checks them. What is None stays as it is.

    `volumes` and `secrets` replace those that were there, and the names in `env` are added to it. Raises `TypeError`
    for a parameter that there isn't, and `InvalidError` for one that can't be set here, or to this.

    >>> with_options(with_options(None, memory=512, timeout=60), timeout=90).options
    (('memory_limit_mib', None), ('memory_mib', 512), ('timeout_ms', 90000))
    >>> with_options(None, min_containers=1)
    Traceback (most recent call last):
    ...
    slipway.dsl.errors.InvalidError: ...: with_options can't set min_containers=
    A variant starts workers when it is called. Say it in @app.function(...) or @app.cls(...).
    """
    given = {name: value for name, value in options.items() if value is not None}
    _only_variable(options)
    _say_without_effect(given)
    variant = variant or Variant()
    if "secrets" in given:
        variant = evolve(variant, secrets=_secrets(given["secrets"]))
    if "env" in given:
        from .secret import checked_env

        variant = evolve(
            variant, env=tuple(sorted({**dict(variant.env), **dict(checked_env(given["env"], "env"))}.items()))
        )
    return _with(variant, _flat(given))


def with_concurrency(variant: Variant | None, *, max_inputs: int, target_inputs: int | None = None) -> Variant:
    """The variant whose workers take this many inputs at once, as `@slipway.concurrent` says it.

    >>> with_concurrency(None, max_inputs=8).options
    (('max_inputs', 8), ('target_inputs', None))
    """
    from .partial import checked_concurrency

    said = checked_concurrency(max_inputs, target_inputs)
    return _with(variant or Variant(), {"max_inputs": said.max_inputs, "target_inputs": said.target_inputs})


def with_batching(variant: Variant | None, *, max_batch_size: int, wait_ms: int) -> Variant:
    """The variant whose inputs are collected as `@slipway.batched` says it.

    >>> with_batching(None, max_batch_size=8, wait_ms=50).options
    (('max_batch_size', 8), ('wait_ms', 50))
    """
    from .partial import checked_batching

    said = checked_batching(max_batch_size, wait_ms)
    return _with(variant or Variant(), {"max_batch_size": said.max_batch_size, "wait_ms": said.wait_ms})


def _with(variant: Variant, options: dict[str, Any]) -> Variant:
    return evolve(variant, options=tuple(sorted({**dict(variant.options), **options}.items())))


def _only_variable(options: Mapping[str, Any]) -> None:
    """Refuse what a variant can't have, and what nothing has."""
    from .items import known_only
    from .origin import invalid

    known = VariantArguments.__annotations__
    for name in options:
        if name in known:
            continue
        from .options import FUNCTION

        if name == "min_containers":
            hint = "A variant starts workers when it is called. Say it in @app.function(...) or @app.cls(...)."
            raise invalid("with_options can't set min_containers=", hint=hint)
        if name in FUNCTION:
            hint = f"Say it in @app.function(...) or @app.cls(...). Variants can have {', '.join(known)}."
            raise invalid(f"with_options can't set {name}=", hint=hint)
    known_only(options, known, "with_options")


def _say_without_effect(given: Mapping[str, Any]) -> None:
    from warnings import warn_explicit

    from .origin import here

    said = [f"{name}=" for name in NO_EFFECT if given.get(name)]
    if said:
        place = here()
        text = f"{', '.join(said)} has no effect here: your own machines are where they are"
        warn_explicit(text, UserWarning, place.file, place.line)


def _secrets(given: Any) -> tuple[Secret, ...]:
    from .inside import real
    from .origin import invalid
    from .secret import checked_secrets

    found = checked_secrets([real(item) for item in given] if isinstance(given, list | tuple) else given)
    for secret in found:
        if secret.kind == "name":
            raise invalid(
                "secrets by name come with a later release", hint="Use Secret.from_dict({...}) or Secret.from_dotenv()."
            )
    return found


def _flat(given: Mapping[str, Any]) -> dict[str, Any]:
    """The options by the names that they have on the wire, in whole numbers."""
    from .options import LONGEST
    from .resources import checked_count, checked_resources, checked_seconds

    said: dict[str, Any] = {}
    resources = checked_resources(**{name: given.get(name) for name in ("cpu", "memory", "gpu")}, ephemeral_disk=None)
    if "cpu" in given:
        said |= {"cpu_milli": resources.cpu_milli, "cpu_limit_milli": resources.cpu_limit_milli}
    if "memory" in given:
        said |= {"memory_mib": resources.memory_mib, "memory_limit_mib": resources.memory_limit_mib}
    if "gpu" in given:
        said["gpus"] = resources.gpus
    if "timeout" in given:
        said["timeout_ms"] = checked_seconds("timeout", given["timeout"], 1, LONGEST)
    if "scaledown_window" in given:
        said["scaledown_window_ms"] = checked_seconds("scaledown_window", given["scaledown_window"], 2, 3600)
    for name, low in (("max_containers", 1), ("buffer_containers", 0)):
        if name in given:
            said[name] = checked_count(name, given[name], low)
    if "retries" in given:
        said |= _retries(given["retries"])
    if "volumes" in given:
        said["volumes"] = _volumes(given["volumes"])
    return said


def _retries(given: Any) -> dict[str, int]:
    from .declaration import Retries
    from .inside import real
    from .retries import checked_retries

    said = checked_retries(real(given)) or Retries(max_retries=0)
    names = ("max_retries", "backoff_milli", "initial_delay_ms", "max_delay_ms")
    return {name: getattr(said, name) for name in names}


def _volumes(given: Any) -> tuple[tuple[Any, ...], ...]:
    """(path, name, read_only, sub_path, create_if_missing), sorted by path."""
    from .inside import real
    from .volume import checked_volumes

    known = {path: real(volume) for path, volume in given.items()} if isinstance(given, Mapping) else given
    decls = [(path, volume.decl) for path, volume in checked_volumes(known)]
    return tuple(sorted((path, d.name, d.read_only, d.sub_path, d.create_if_missing) for path, d in decls))
