"""What can be wrong with one class: its methods and its parameters.

Nothing here waits, sleeps, opens or spawns.
"""

from __future__ import annotations

from collections import Counter

from slipway.dsl.declaration import FunctionDecl, ParameterDecl
from slipway.dsl.hooks import TYPES

from .faults import Say


def check_class(function: FunctionDecl, say: Say) -> None:
    names = Counter(method.name for method in function.methods)
    for name in [name for name, count in names.items() if count > 1 or not name.isidentifier()]:
        say("its methods are not told apart", found=f"{name!r:.60}", hint="Give each method a name of its own.")
    if function.batching is not None and len(function.methods) > 1:
        say(
            "a class with a batched method has no other methods",
            found=", ".join(names),
            hint="Move the batched method into a class of its own.",
        )
    for parameter in function.parameters:
        _check_parameter(parameter, say)
    if len({parameter.name for parameter in function.parameters}) < len(function.parameters):
        say("two of its parameters have one name", hint="Give each parameter a name of its own.")


def _check_parameter(parameter: ParameterDecl, say: Say) -> None:
    name = parameter.name
    if parameter.type not in TYPES:
        hint = f"Write {name}: str = slipway.parameter(...), or int, bool or bytes."
        say(f"the parameter {name} is of a type that parameters can't have", found=parameter.type, hint=hint)
    elif parameter.default is not None and read_default(parameter) is None:
        say(f"the default of the parameter {name} is no {parameter.type}", found=parameter.default, hint="Mend it.")


def read_default(parameter: ParameterDecl) -> str | int | bool | bytes | None:
    """The value that a default's text stands for; None where there is none, or where it makes no sense.

    >>> read_default(ParameterDecl(name="level", type="int", default="3"))
    3
    """
    text = parameter.default
    if text is None or parameter.type == "str":
        return text
    try:
        value = _literal(text)
    except (ValueError, SyntaxError, RecursionError, MemoryError):
        return None
    return value if type(value) is TYPES.get(parameter.type) else None


def _literal(text: str) -> object:
    from ast import literal_eval  # few classes have such a default

    return literal_eval(text)
