"""A raised exception as bytes, and back: its type, message, arguments, notes and causes, and where it was raised.

The payload is the lengths of a one-line summary and of the traceback, the two as UTF-8 (all that the engine looks at),
and a pickle for the caller: the exceptions of the chain, each pickled by itself.
"""

from __future__ import annotations

import pickle
import struct
from typing import TYPE_CHECKING, Any

from slipway.dsl.errors import ExecutionError, SerializationError

from . import payload

if TYPE_CHECKING:
    from types import TracebackType

_LENGTHS = struct.Struct("<II")
MAX_TEXT = 2 * 1024 * 1024
MAX_CHAIN = 20
REMADE = "slipway:remade"  # marks (type, args, state) of an exception that is made without calling its __init__


class RemoteTraceback(Exception):
    """Stands at the root of a remote exception's causes, so that its traceback shows above the caller's own."""

    def __init__(self, text: str) -> None:
        super().__init__(text)
        self.text = text

    def __str__(self) -> str:
        return f'\n"""\n{self.text.rstrip()}\n"""'


# --- in the worker ------------------------------------------------------------------------------------


def describe(error: BaseException) -> str:
    """`ValueError: bad input`, whatever the exception's own `__str__` does."""
    try:
        text = str(error)
    except Exception as broken:  # noqa: BLE001 - the user's __str__ may raise anything
        text = f"<its __str__ raised {type(broken).__name__}>"
    name = type(error).__qualname__
    if type(error).__module__ not in ("builtins", "__main__"):
        name = f"{type(error).__module__}.{name}"
    return f"{name}: {text}" if text else name


def user_part(trace: TracebackType | None) -> TracebackType | None:
    """A traceback without the worker's own frames above the user's."""
    own = __name__.rpartition(".")[0]
    while trace is not None:
        name = str(trace.tb_frame.f_globals.get("__name__", ""))
        if not name.startswith((own, "importlib", "asyncio.")):
            break
        trace = trace.tb_next
    return trace  # None where none of it is the user's: wrong arguments, a module that isn't there


def pack(error: BaseException, *, keep_own_frames: bool = False) -> bytes:
    """What a worker sends of an exception. Never raises an `Exception`."""
    import traceback  # takes a millisecond that a worker whose calls succeed need not spend

    trace = error.__traceback__ if keep_own_frames else user_part(error.__traceback__)
    try:
        text = "".join(traceback.format_exception(type(error), error, trace))
    except Exception as broken:  # noqa: BLE001 - formatting runs the user's own __str__, __repr__ and __notes__
        text = f"{describe(error)}\n(its traceback can't be shown: {type(broken).__name__})\n"
    chain, links = _chain(error)
    pickled: list[bytes] = []
    problem = ""
    try:
        for link in chain:
            pickled.append(_pickle(link))  # noqa: PERF401 - what came before one that fails is kept
    except Exception as unpicklable:  # noqa: BLE001 - pickling runs the user's own code
        if not pickled:  # a cause that can't be pickled only ends the chain; it still shows in the text
            problem = f"{type(unpicklable).__name__}: {unpicklable}"
    summary = describe(error).partition("\n")[0][:1000].encode(errors="replace")
    body = {
        "type": f"{type(error).__module__}.{type(error).__qualname__}",
        "summary": describe(error)[:MAX_TEXT],
        "chain": pickled,
        "links": links[: max(len(pickled) - 1, 0)],
        "problem": problem,
    }
    trace_text = text[-MAX_TEXT:].encode(errors="replace")
    return _LENGTHS.pack(len(summary), len(trace_text)) + summary + trace_text + pickle.dumps(body, 5)


def _chain(error: BaseException) -> tuple[list[BaseException], list[str]]:
    """The exception and what led to it, nearest first, with how each hangs on the one before."""
    chain, links = [error], []
    while len(chain) < MAX_CHAIN:
        last = chain[-1]
        following, link = (last.__cause__, "cause") if last.__cause__ is not None else (last.__context__, "context")
        hidden = link == "context" and last.__suppress_context__
        if following is None or hidden or any(following is seen for seen in chain):
            break
        chain.append(following)
        links.append(link)
    return chain, links


def _pickle(error: BaseException) -> bytes:
    """Pickle one exception so that it can be made again: in its own way, or without calling its `__init__`."""
    try:
        data = payload.dump(error).bytes()
        again = payload.load(data)
        if type(again) is type(error) and again.args == error.args:
            return data
    except Exception:  # noqa: BLE001, S110 - its own way of pickling, or its __init__, does not work: the other way may
        pass
    return payload.dump((REMADE, (type(error), error.args, error.__dict__))).bytes()


def _remake(kind: type[BaseException], args: tuple[Any, ...], state: dict[str, Any]) -> BaseException:
    try:
        error = kind.__new__(kind, *args)
    except TypeError:
        error = kind.__new__(kind)
    error.args = args
    error.__dict__.update(state)
    return error


# --- in the engine ------------------------------------------------------------------------------------


def summary(data: bytes) -> str:
    """The one line that says what was raised, read without unpickling anything."""
    return _texts(data)[0]


def trace(data: bytes) -> str:
    """The traceback, read without unpickling anything."""
    return _texts(data)[1]


def _texts(data: bytes | memoryview) -> tuple[str, str, int]:
    """The two texts, and where the pickle begins."""
    first, second = _LENGTHS.unpack_from(data)
    middle = _LENGTHS.size + first
    end = middle + second
    return str(data[_LENGTHS.size : middle], "utf-8", "replace"), str(data[middle:end], "utf-8", "replace"), end


# --- in the caller's program --------------------------------------------------------------------------


def unpack(data: bytes | memoryview) -> BaseException:
    """The exception to raise: the user's own where it can be made here, with the remote traceback at its root."""
    view = memoryview(data)
    _, trace_text, start = _texts(view)
    body = pickle.loads(view[start:])  # noqa: S301 - from a worker that runs the user's own code
    remote = RemoteTraceback(trace_text)
    if body["problem"]:
        error: BaseException = SerializationError(
            f"the function raised an exception that can't be pickled: {body['summary']} ({body['problem']})",
            hint="The exception holds something that can't leave the worker; raise one that holds plain data.",
        )
        error.__cause__ = remote
        return error
    chain: list[BaseException] = []
    try:
        for item in body["chain"]:
            chain.append(_unpickle(item))  # noqa: PERF401 - what came before one that fails is kept
    except Exception as unknown:  # noqa: BLE001 - unpickling imports and runs the user's own code
        if not chain:
            error = ExecutionError(
                f"the function raised {body['type']}, which can't be made here: {unknown}\n\n{remote.text.rstrip()}",
                hint="The class exists only in the container: install or import its module here, or raise another.",
            )
            error.__cause__ = remote
            return error
    for before, after, link in zip(chain, chain[1:], body["links"], strict=False):  # links end where the chain does
        if link == "cause":
            before.__cause__ = after
        else:
            before.__context__ = after
    chain[-1].__cause__ = remote
    return chain[0]


def _unpickle(data: bytes) -> BaseException:
    value = payload.load(data)
    if isinstance(value, tuple) and value[0] == REMADE:
        value = _remake(*value[1])
    if not isinstance(value, BaseException):
        raise TypeError(f"it came as {type(value).__name__}")
    return value
