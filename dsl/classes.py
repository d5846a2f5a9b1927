"""What `@app.cls` makes sure of before a class becomes part of an app."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from . import hooks
from .cls import Cls
from .hooks import Partial
from .options import checked_function_name
from .origin import invalid

if TYPE_CHECKING:
    from .options import FunctionSettings

USE = "Use slipway.parameter() for what it is made with, and @slipway.enter() for what is to be done once."


def checked_class(target: Any, settings: FunctionSettings) -> Partial:
    """The class that `@app.cls` was put on, if it can be one of an app. Raises `TypeError` or `InvalidError`."""
    if isinstance(target, Cls):
        raise invalid(f"{target.name} is part of an app already", hint="One @app.cls is enough.")
    said = target if isinstance(target, Partial) else Partial(target=target)
    user_class = said.target
    if not isinstance(user_class, type):
        what = getattr(user_class, "__name__", type(user_class).__name__)
        raise TypeError(f"@app.cls decorates classes, and {what} isn't one: use @app.function()")
    checked_function_name(user_class.__name__)
    _check_construction(user_class)
    if "<" in user_class.__qualname__ and not settings.serialized:
        raise invalid(
            f"{user_class.__qualname__} is defined inside of a function, so a worker can't import it",
            hint="Move it to the top of the file, or say @app.cls(serialized=True) to send it by value.",
        )
    if settings.concurrent_inputs is not None and said.concurrency is None:
        from .partial import checked_concurrency

        said = said.but(concurrency=checked_concurrency(settings.concurrent_inputs, None))
    _check_members(said, settings)
    hooks.parameters(user_class)
    return said


def _check_construction(user_class: type) -> None:
    name = user_class.__name__
    if user_class.__init__ is not object.__init__:  # type: ignore[misc] # which of them it is, is the question
        owner = next(kind for kind in user_class.__mro__ if "__init__" in vars(kind))
        whose = "of its own" if owner is user_class else f"by way of {owner.__name__}"
        raise invalid(f"{name} has an __init__ {whose}", hint=USE)
    if not hasattr(user_class, "__dict__") or not user_class.__dictoffset__:
        raise invalid(f"the objects of {name} have no __dict__", hint="Leave __slots__ out.")


def _check_members(said: Partial, settings: FunctionSettings) -> None:
    name, found = said.target.__name__, hooks.partials(said.target)
    methods = hooks.methods(said.target)
    lone = next((n for n, p in found.items() if p.concurrency is not None), None)
    if lone is not None:
        raise invalid(
            f"@slipway.concurrent is for a whole class, not for one method like {name}.{lone}",
            hint="Put it between @app.cls and class.",
        )
    if any(p.snap for p in found.values()) and not settings.memory_snapshot:
        snap = next(n for n, p in found.items() if p.snap)
        raise invalid(f"{name}.{snap}: enter(snap=True) needs @app.cls(enable_memory_snapshot=True)")
    batched = [n for n, p in methods.items() if p.batching is not None]
    if batched and len(methods) > 1:
        others = ", ".join(n for n in methods if n != batched[0])
        raise invalid(
            f"{name}.{batched[0]} is batched, so it must be the only method of {name}; there is {others}, too",
            hint="Move it into a class of its own.",
        )
    if batched and said.concurrency is not None:
        raise invalid(f"{name} can be @slipway.concurrent or have a @slipway.batched method, not both")
    if settings.retries is not None and methods and all(map(_never_retried, methods.values())):
        raise invalid(f"retries= can't be on {name}: its methods are generators or web endpoints")


def _never_retried(method: Partial) -> bool:
    return method.yields or method.endpoint is not None
