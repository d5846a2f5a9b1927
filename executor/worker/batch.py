"""The inputs of a batch as one call: each parameter gets a list. Nothing here waits, sleeps, opens or spawns."""

from __future__ import annotations

from collections import OrderedDict
from inspect import BoundArguments, Parameter, signature
from typing import TYPE_CHECKING, Any

from slipway.dsl.errors import InvalidError

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

Arguments = tuple[tuple[Any, ...], dict[str, Any]]
_STARS = (Parameter.VAR_POSITIONAL, Parameter.VAR_KEYWORD)


def together(function: Callable[..., Any], inputs: Sequence[Arguments], name: str) -> Arguments:
    """The arguments of the one call that stands for all of these. Raises `InvalidError` where they don't fit.

    >>> def score(texts, weight): ...
    >>> together(score, [(("a", 1), {}), (("b",), {"weight": 2})], "score")
    ((['a', 'b'], [1, 2]), {})
    """
    shape = signature(function)
    for parameter in shape.parameters.values():
        if parameter.kind in _STARS:
            raise InvalidError(
                f"{name} is batched and takes {parameter}",
                hint="Name each parameter: it gets a list, one item an input.",
            )
    columns: dict[str, list[Any]] = {name_of: [] for name_of in shape.parameters}
    for args, kwargs in inputs:
        try:
            bound = shape.bind(*args, **kwargs).arguments
        except TypeError as error:
            raise InvalidError(f"an input of this batch doesn't fit {name}{shape}: {error}") from None
        left = columns.keys() - bound.keys()
        if left:
            raise InvalidError(
                f"an input of this batch leaves out {', '.join(sorted(left))} of {name}{shape}",
                hint="A batched function has no defaults: give every parameter with each input.",
            )
        for name_of, value in bound.items():
            columns[name_of].append(value)
    whole = BoundArguments(shape, OrderedDict(columns))
    return whole.args, whole.kwargs


def apart(results: Any, count: int, name: str) -> list[Any]:
    """One result for each input. Raises `InvalidError` where there are more or fewer of them.

    >>> apart([1, 2], 2, "score")
    [1, 2]
    """
    if not isinstance(results, list):
        raise InvalidError(
            f"{name} is batched and returned a {type(results).__name__}", hint="Return a list, one result an input."
        )
    if len(results) != count:
        raise InvalidError(
            f"{name} was given a batch of {count} and returned {len(results)} results",
            hint="Return a list with one result for each input, in their order.",
        )
    return results
