"""Functions and classes that go to their workers by value: as bytes, and the text that is their identity."""

from __future__ import annotations

import base64
import warnings
from typing import Any

from slipway.dsl.declaration import Origin
from slipway.dsl.errors import InvalidError
from slipway.dsl.own import cloudpickle

from .identity import whole_identity
from .sources import module_of

MOST, MUCH = 16 << 20, 256 << 10


def by_value(raw: Any, name: str, origin: Origin) -> tuple[str, str]:
    """A function or class by value, its own module's code along; and the text that is its identity."""
    module = module_of(raw)
    own = module is not None and module.__name__ != "__main__"
    if own:
        cloudpickle.register_pickle_by_value(module)
    try:
        data = cloudpickle.dumps(raw)
    except Exception as error:  # pickling runs the code of whatever it holds on to
        raise InvalidError(
            f"{origin}: {name} can't be sent by value: {type(error).__name__}: {error}",
            hint="It holds on to something that stays here, such as a lock, a file or a connection: "
            "make it inside of the function.",
        ) from error
    finally:
        if own:
            cloudpickle.unregister_pickle_by_value(module)
    if len(data) > MOST:
        raise InvalidError(
            f"{origin}: {name} takes {len(data) >> 20} MiB by value, and at most {MOST >> 20} are allowed",
            hint="Pass big values as arguments, or read them from a volume.",
        )
    if len(data) > MUCH:
        warnings.warn(f"{name} takes {len(data) >> 10} KiB by value; pass big values as arguments", stacklevel=2)
    return base64.b64encode(data).decode("ascii"), whole_identity(raw)
